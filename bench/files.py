"""Paths as users give them, names that every system takes, and files that are either whole or not there."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from bench.errors import WINDOWS, UserError

# Windows keeps these for devices, whatever their case and whatever follows a dot: "aux", "NUL.txt".
DEVICES = frozenset({"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(1, 10))})
PAUSES = (0.05, 0.2, 1.0)  # seconds


def user_path(path: str | Path) -> Path:
    """A path that a user gave, on the command line or in Python: "~" is the home folder.

    A shell replaces it in `--out ~/x`, but not in `--out=~/x`, and nobody does in `bench.report("~/runs", …)`.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError:  # no such user, or no home
        raise UserError(f"{path}: has no home folder; write the path in full (./{path} for a name like this)") from None


def file_name(name: str) -> str:
    """A name as that of one file or folder on every system: no separators, no way up, nothing Windows forbids."""
    safe = re.sub(r"[^\w.-]+", "_", name).strip(".") or "_"
    return f"_{safe}" if is_device(safe) else safe


def is_device(name: str) -> bool:
    """Whether Windows takes a file's name for a device's."""
    return name.partition(".")[0].rstrip().lower() in DEVICES


NO_TEXT = "half a surrogate pair or bytes that are not UTF-8, which is no text"


def is_text(value: object) -> bool:
    """Whether a value is a text that can be written as UTF-8.

    Python's strings, and so names of files and JSON, may hold half a surrogate pair ("\\ud800"), which pandas and
    Parquet refuse.
    """
    try:
        return isinstance(value, str) and value.encode() is not None
    except UnicodeEncodeError:
        return False


def from_json(text: str | bytes) -> Any:
    """The value in a JSON text that somebody else may have written.

    Raises
    ------
    ValueError : it is none, nested deeper than Python reads, or one of its texts is none (`is_text`).
    """
    try:
        written = text if isinstance(text, str) else text.decode(json.detect_encoding(text))
        value = json.loads(written)
        halves = "\\ud" in written.lower() and not is_text(json.dumps(value, ensure_ascii=False))
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if halves:
        raise ValueError(f"holds {NO_TEXT}")
    return value


def offline() -> bool:
    """Whether the user forbids downloads: HF_HUB_OFFLINE, as Hugging Face's libraries read it."""
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}


def write_whole(path: Path, content: str | bytes | Callable[[Path], object]) -> None:
    """Write through a temporary file and rename: a kill leaves the old file or the new one, never half of one.

    Parameters
    ----------
    content : a text (UTF-8), bytes, or a function that writes the file it is given.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")  # its own for each thread, process and machine
    try:
        if callable(content):
            content(part)
        else:
            part.write_bytes(content.encode() if isinstance(content, str) else content)
        with part.open("r+b") as file:  # Windows flushes no file that is open only for reading
            os.fsync(file.fileno())
        replace(part, path)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def locked(folder: Path, work: str, timeout: float = -1) -> Iterator[None]:
    """A folder's files of one kind for this process alone, by the lock file `.<work>.lock`, made with the folder.

    The lock file stays: were it removed, two processes could hold two files of that name. A kill lets go of the lock.
    Another process is waited for, or for `timeout` seconds: then it is a UserError.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / f".{work}.lock", timeout)
    try:
        lock.acquire()
    except Timeout:
        raise UserError(f"{folder}: another process is at it; wait for it") from None
    except OSError as error:  # some network disks know no locks: two at a time are then the user's to avoid
        if error.errno not in (errno.ENOLCK, errno.ENOTSUP):
            raise
    try:
        yield
    finally:
        lock.release()


def make_folder(place: Path, fill: Callable[[Path], object], draft: Path | None = None) -> None:
    """A folder that is there as a whole or not at all; where it is there, nothing is done.

    `fill` is given a draft to fill, beside `place`, which then gets its name. The draft always has the same name, so
    that what a kill left is cleared away by the next call. Of two processes the second waits for the first.
    """
    if place.is_dir():  # nothing is locked: the disk may be read-only
        return
    draft = draft or place.with_name(f".{place.name}.draft")
    with locked(place.parent, "fetch"):
        if place.is_dir():  # another process was faster
            return
        if draft.is_symlink():
            draft.unlink()  # it came with the data; what it points to must not be cleared
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir()
        try:
            fill(draft)
            os.rename(draft, place)
        finally:
            shutil.rmtree(draft, ignore_errors=True)


def replace(part: Path, path: Path) -> None:
    """`os.replace`, with patience on Windows: it refuses while a virus scanner or a reader has the old file open."""
    for pause in PAUSES if WINDOWS else ():
        try:
            os.replace(part, path)
            return
        except PermissionError:
            time.sleep(pause)
    os.replace(part, path)
