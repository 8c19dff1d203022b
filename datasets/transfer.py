"""One file from a server: whole and right, or an error in one line.

A download goes to `<file>.part`, goes on there after a cut, and gets its name when its checksum is right. Beside it
stands `.<file>.fetch` as long as the work is not done: it says which file is ours, remembers the server's version of
it, and is held by one process at a time. The standard library does the transfer: nothing among the dependencies
resumes. What to fetch, and what becomes of it, is `fetch.py`'s.
"""

from __future__ import annotations

import errno
import hashlib
import http.client
import json
import os
import re
import shutil
import socket
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from bench.errors import UserError
from bench.files import replace
from bench.progress import absolute, bar

try:
    import fcntl
except ImportError:  # Windows: two fetches at a time are then the user's to avoid
    fcntl = None  # type: ignore[assignment]

PAUSES = (1.0, 3.0, 8.0)  # seconds before the second, third and fourth try
TIMEOUT = 60  # seconds without an answer or a byte
PROGRESS = 1_000_000  # bytes after which the tries are counted anew
CHUNK = 1 << 20
MAX_UNSAID = 10_000_000_000  # bytes of a download whose size neither the suite file nor the server says
BUSY = (408, 425, 429, 500, 502, 503, 504)  # HTTP: worth another try


# One process at a time ---------------------------------------------------------------------------------------


class Note:
    """`.<file>.fetch`, while a file is being fetched: {"url", "version": the server's ETag or date, "whole": `stamp`}.

    Each change is one more line, and the last whole one counts: a kill in the middle loses nothing.
    """

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        stream.seek(0)
        self.content = _last(stream.read())

    def is_of(self, file: Path) -> bool:
        """Whether a file is the one that was downloaded here: not one that the user has put in its place since."""
        return self.content.get("whole") == stamp(file) is not None

    def version(self, url: str) -> str:
        return str(self.content.get("version", "")) if self.content.get("url") == url else ""

    def write(self, url: str, version: str, whole: list[int] | None = None) -> None:
        self.content = {"url": url, "version": version, **({"whole": whole} if whole else {})}
        self._stream.write(json.dumps(self.content) + "\n")
        self._stream.flush()


def _last(text: str) -> dict[str, Any]:
    """The last line that is an object."""
    for line in reversed(text.splitlines()):
        try:
            content = json.loads(line)
        except (ValueError, RecursionError):  # cut off by a kill
            continue
        if isinstance(content, dict):
            return content
    return {}


def read_note(file: Path) -> dict[str, Any]:
    """What the note of a file says; {} where there is none."""
    try:
        return _last(_note_path(file).read_text(encoding="utf-8", errors="replace"))
    except OSError:
        return {}


def stamp(file: Path) -> list[int] | None:
    """What tells a file from another of its name, and stays when it is renamed: [size, time]."""
    try:
        known = file.stat()
    except OSError:
        return None
    return [known.st_size, known.st_mtime_ns]


def _note_path(file: Path) -> Path:
    return file.with_name(f".{file.name}.fetch")


def part_of(file: Path) -> Path:
    return file.with_name(f"{file.name}.part")


@contextmanager
def held(file: Path) -> Iterator[Note]:
    """The note of a file, for this process alone; it is removed when all went well."""
    path = _note_path(file)
    stream = _locked(path, file)
    done = True
    try:
        note = Note(stream)
        try:
            yield note
        except BaseException:
            done = not (note.is_of(file) or (note.content and part_of(file).exists()))
            raise
    finally:
        if not fcntl:
            stream.close()  # Windows removes no file that is open
        if done:  # with a lock: before it is let go, else the note of the next process would be removed
            path.unlink(missing_ok=True)
        stream.close()


def _locked(path: Path, file: Path) -> IO[str]:
    """A note's file, open and locked; an error where another process has it."""
    while True:
        stream = path.open("a+", encoding="utf-8", errors="replace")
        try:
            if not fcntl or (_lock(stream) and _is_at(stream, path)):
                return stream
        except BlockingIOError:
            stream.close()
            raise UserError(f"{file}: another `data fetch` is at it; wait for it") from None
        except BaseException:
            stream.close()
            raise
        stream.close()  # another process was done with it, and removed it, between the two: there is a new one


def _lock(stream: IO[str]) -> bool:
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError as error:  # a disk without locks
        if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
            raise
    return True


def _is_at(stream: IO[str], path: Path) -> bool:
    """Whether an open file still has its name."""
    try:
        return os.path.samestat(os.fstat(stream.fileno()), path.stat())
    except FileNotFoundError:
        return False


# Downloads ---------------------------------------------------------------------------------------------------


class _Interrupted(Exception):
    """The network failed; another try may go on."""


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Followed to http and https only, and never from https back to http."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        scheme = urlsplit(newurl).scheme.lower()
        if scheme not in ("http", "https") or (scheme == "http" and req.type == "https"):
            raise UserError(f"{req.full_url}: the server sends on to {newurl!r}, which is not followed")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _opener() -> urllib.request.OpenerDirector:
    """HTTP and HTTPS alone: urllib's usual opener would read file:// and ftp://, too."""
    opener = urllib.request.OpenerDirector()
    handlers = (
        *(urllib.request.ProxyHandler, urllib.request.UnknownHandler, urllib.request.HTTPHandler),
        *(urllib.request.HTTPSHandler, urllib.request.HTTPDefaultErrorHandler, _Redirects),
        urllib.request.HTTPErrorProcessor,
    )
    for handler in handlers:
        opener.add_handler(handler())
    opener.addheaders = []
    return opener


def download(
    url: str,
    file: Path,
    checksum: tuple[str, str] | None = None,
    limit: int | None = None,
    note: Note | None = None,
    hide: bool | None = None,
) -> None:
    """Download a file through `<file>.part`, which a later call goes on with.

    Parameters
    ----------
    checksum : (algorithm, hexadecimal digest); without one the server's length is all that is checked.
    limit : bytes beyond which a file cannot be the right one.
    note : remembers the server's version of the file between calls; without one a `.part` counts as ours.

    Raises UserError, in one line with the address, for everything that goes wrong.
    """
    part = part_of(file)
    if note and not note.content and size_of(part):  # browsers use that name, too
        raise UserError(f"{part}: is no download of this command's and is not written over; move it away")
    tries = 0
    with byte_bar(file.name, 0, hide) as shown:
        while True:
            before = size_of(part)
            try:
                _transfer(url, part, checksum, limit, note, absolute(shown))
                break
            except _Interrupted as error:
                tries = 0 if size_of(part) > before + PROGRESS else tries
                if tries == len(PAUSES):
                    kept = f"; {human(size_of(part))} are kept, the same command goes on" if size_of(part) else ""
                    raise UserError(f"{url}: {error}{kept}") from None
                time.sleep(PAUSES[tries])
                tries += 1
    if checksum:
        verify(part, checksum, "", hide)
    if note:
        note.write(url, note.version(url), stamp(part))
    replace(part, file)


def _transfer(
    url: str,
    part: Path,
    checksum: tuple[str, str] | None,
    limit: int | None,
    note: Note | None,
    report: Callable[[int, int], None],
) -> None:
    """One request; returns when the file is there as a whole."""
    version = note.version(url) if note else ""
    start = size_of(part)
    if start and not version and not checksum:
        start = 0  # nothing would tell whether the rest belongs to what is there
    headers = {"User-Agent": "prompt-bench", "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
    if start and version:
        headers["If-Range"] = version
    try:
        response = _opener().open(urllib.request.Request(url, headers=headers), timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        with error:
            if error.code == 416:
                _not_satisfied(part, version, error)
                return
            if error.code in BUSY:
                raise _Interrupted(f"the server says {error.code} {error.reason}") from None
            raise UserError(f"{url}: the server says {error.code} {' '.join(str(error.reason).split())}") from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        _unreachable(url, error)
    with response:
        start, total = _position(response, part, start, version)
        most = limit or (MAX_UNSAID if total is None else None)
        if total is not None:
            if most and total > most:
                raise UserError(f"{url}: is {human(total)} long, {_too_much(most, limit)}")
            free = shutil.disk_usage(part.parent).free
            if total - start > free:
                raise UserError(f"{url}: {human(total - start)} are to come, {human(free)} are free in {part.parent}")
        if note:
            note.write(url, _version(response) or (version if start else ""))  # a part's answer may leave it out
        done = start
        with part.open("ab" if start else "wb") as sink:
            while chunk := _chunk(response):
                sink.write(chunk)
                done += len(chunk)
                if most and done > most:
                    raise UserError(f"{url}: sends more, {_too_much(most, limit)}")
                report(done, total or 0)
    if total is not None and done != total:
        raise _Interrupted(f"the connection ended after {done} of {total} bytes")


def _too_much(most: int, limit: int | None) -> str:
    why = "twice the suite file's `size` and 10 MB" if limit else "no `size` in the suite file and no length said"
    return f"at most {human(most)} are taken ({why})"


def _position(response: Any, part: Path, start: int, version: str) -> tuple[int, int | None]:
    """(where the answer begins in the file, the file's length if the server says)."""
    if response.status != 206:
        return 0, _number(response.headers.get("Content-Length", ""))
    given = re.fullmatch(r"bytes (\d{1,18})-\d+/(\d{1,18})", response.headers.get("Content-Range", "").strip())
    other = version and _version(response) not in ("", version)  # some servers overlook If-Range
    if not given or not start or int(given[1]) != start or other:
        part.unlink(missing_ok=True)  # not what was asked for, or of another version: from the beginning
        raise _Interrupted("the server sent a part that was not asked for")
    return start, int(given[2])


def _version(response: Any) -> str:
    """What tells versions of a file apart: a strong ETag (files with one weak ETag may differ), else the date."""
    etag = str(response.headers.get("ETag", ""))
    return etag if etag and not etag.startswith("W/") else str(response.headers.get("Last-Modified", ""))


def _number(text: str) -> int | None:
    """A length that a server says; None where it says none, or one that no file has."""
    return int(text) if re.fullmatch(r"[0-9]{1,18}", text) else None


def _not_satisfied(part: Path, version: str, error: urllib.error.HTTPError) -> None:
    """416: there is nothing behind what we have. Either that is all of the file, or it is none of it."""
    total = _number((error.headers.get("Content-Range") or "").rpartition("/")[2])
    if total != size_of(part) or (version and _version(error) not in ("", version)):
        part.unlink(missing_ok=True)
        raise _Interrupted("the file on the server is another one now")


def _unreachable(url: str, error: Exception) -> None:
    reason = getattr(error, "reason", error)
    text = " ".join(str(reason).split()) or type(reason).__name__
    if isinstance(reason, ssl.SSLCertVerificationError):
        raise UserError(f"{url}: the server's certificate is not valid ({text})") from None
    if isinstance(reason, socket.gaierror):  # no network, or a name that is wrong: waiting seldom helps
        raise UserError(f"{url}: {urlsplit(url).hostname} is not found ({text}); is there a network?") from None
    raise _Interrupted(f"cannot be reached ({text})") from None


def _chunk(response: Any) -> bytes:
    try:
        return bytes(response.read(CHUNK))
    except (OSError, http.client.HTTPException) as error:
        raise _Interrupted(f"the connection was lost ({error or type(error).__name__})") from None


def verify(file: Path, checksum: tuple[str, str], advice: str, hide: bool | None) -> None:
    """Refuse a file whose checksum is another. Without advice it is ours, and removed: the next call starts anew."""
    kind, expected = checksum
    digest = hashlib.new(kind, usedforsecurity=False)
    with file.open("rb") as stream, byte_bar(f"checking {file.name}", size_of(file), hide) as shown:
        while chunk := stream.read(CHUNK):
            digest.update(chunk)
            shown.update(len(chunk))
    if digest.hexdigest() != expected.lower():
        if not advice:
            file.unlink()
        end = advice or "it is removed; try again"
        raise UserError(f"{file}: its {kind} is {digest.hexdigest()}, expected is {expected.lower()}; {end}")


# Small things ------------------------------------------------------------------------------------------------


def human(size: float) -> str:
    """Bytes as people say them: 600 MB, 4.7 GB."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if size >= 10 or unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def byte_bar(label: str, total: int, hide: bool | None) -> Any:
    shown = bar(label, total, "B", hide, position=0)
    shown.unit_scale = True
    return shown


def size_of(file: Path) -> int:
    return file.stat().st_size if file.is_file() else 0
