"""Getting a suite's data: what is there, what may be downloaded, what must be fetched by hand.

A source with `fetch` in the suite file is one HTTP GET. It goes to `<file>.part`, goes on there after a cut, and gets
its name when its checksum is right; an archive is then unpacked (`archives.py`) and removed. Beside it stands
`.<file>.fetch` as long as the work is not done: it says which file is ours, remembers the server's version of it,
and is held by one process at a time. The transfer is the standard library's: nothing among the dependencies resumes.
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
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any
from urllib.parse import urlsplit

from bench.datasets import hub
from bench.datasets.archives import Damaged, draft_of, there, unpack
from bench.datasets.check import check_task, in_the_way, is_split, is_there, packed, printable
from bench.datasets.splits import select_tasks
from bench.datasets.suites import Suite, file_of, targets_of
from bench.errors import UserError
from bench.progress import absolute, bar

if TYPE_CHECKING:
    import pandas as pd

try:
    import fcntl
except ImportError:  # Windows: two fetches at a time are then the user's to avoid
    fcntl = None  # type: ignore[assignment]

HAVE, DOWNLOAD, UNPACK, BY_HAND = "have", "to download", "to unpack", "by hand"
FETCHED, FAILED = "fetched", "failed"
COLUMNS = ("task", "what", "size", "licence", "checksum", "state", "from", "to", "problem")

PAUSES = (1.0, 3.0, 8.0)  # seconds before the second, third and fourth try
TIMEOUT = 60  # seconds without an answer or a byte
PROGRESS = 1_000_000  # bytes after which the tries are counted anew
CHUNK = 1 << 20
MAX_UNSAID = 10_000_000_000  # bytes of a download whose size neither the suite file nor the server says
BUSY = (408, 425, 429, 500, 502, 503, 504)  # HTTP: worth another try
UNITS = {"kB": 1e3, "KB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12}


@dataclass(frozen=True)
class Step:
    """One source of one or more tasks that share a folder."""

    tasks: tuple[str, ...]
    folder: Path
    source: dict[str, Any]  # of the suite file; {} for what a library downloads by itself
    reader: dict[str, Any]
    state: str
    problem: str = ""

    @property
    def what(self) -> str:
        if not self.source:
            return f"{self.reader['kind']} {self.reader.get('hub') or self.reader.get('class')}"
        return str(self.source.get("what") or file_of(self.source) or self.source.get("url", self.tasks[0]))

    @property
    def task(self) -> str:
        return self.tasks[0] if len(self.tasks) == 1 else f"{self.tasks[0]} to {self.tasks[-1]}"

    @property
    def size(self) -> int | None:
        """Bytes of the download by the suite file's `size`, roughly."""
        found = re.search(r"(\d+(?:\.\d+)?)\s*([kKMGT]B)", self.source.get("size", ""))
        return int(float(found[1]) * UNITS[found[2]]) if found else None

    @property
    def checksum(self) -> tuple[str, str] | None:
        """(algorithm, hexadecimal digest)."""
        return next(((kind, self.source[kind]) for kind in ("sha256", "md5") if kind in self.source), None)


@dataclass(frozen=True)
class Plan:
    """What `data fetch` would do."""

    suite: Suite
    root: Path
    steps: tuple[Step, ...]
    notes: tuple[str, ...] = ()  # about tasks of which a part is there

    @property
    def open(self) -> list[Step]:
        return [step for step in self.steps if step.state in (DOWNLOAD, UNPACK)]

    @property
    def to_download(self) -> int:
        """Bytes, without what an earlier run left; sizes that are not stated count as nothing."""
        return sum(max(0, (step.size or 0) - _size(_part(step))) for step in self.open if step.state == DOWNLOAD)

    @property
    def needed(self) -> int:
        """Bytes on disk at most: all that is kept, images unpacked as large as packed, and one archive at a time."""
        kept = [step.size or 0 for step in self.open]
        archives = [step.size or 0 for step in self.open if "unpack" in step.source and step.state == DOWNLOAD]
        there_in_part = sum(_size(_part(step)) for step in self.open)
        return max(0, sum(kept) + max(archives, default=0) - there_in_part)

    @property
    def free(self) -> int:
        """Bytes free on the root's disk."""
        return shutil.disk_usage(_existing(self.root)).free

    def check_space(self) -> None:
        if self.needed > self.free:
            raise UserError(
                f"--data {self.root}: {human(self.needed)} are needed while downloading and unpacking, "
                f"{human(self.free)} are free; make room, or fetch fewer --tasks at a time"
            )

    def table(self) -> pd.DataFrame:
        """One row a source; all texts can be printed as they are."""
        import pandas as pd

        return pd.DataFrame([_row(step) for step in self.steps], columns=list(COLUMNS))


def _row(step: Step) -> tuple[str, ...]:
    fetched = "fetch" in step.source
    checksum = (step.checksum[0] if step.checksum else "none known") if fetched else ""
    origin = step.source.get("url", step.source.get("how", ""))
    texts = (step.source.get("size", ""), step.source.get("licence", ""), checksum, step.state)
    row = (step.task, step.what, *texts, url_of(step.source) or origin, str(step.folder), step.problem)
    return tuple(map(printable, row))


def plan(suite: Suite, root: Path, names: Sequence[str] | None = None) -> Plan:
    """What is there and what is not, for all tasks of a suite or those named; reads names and lists only."""
    steps: dict[tuple[Path, str], Step] = {}
    notes: list[str] = []
    for spec in select_tasks(suite, names):
        folder = root / spec.folder
        state = check_task(spec, root)[1]
        ready = state == "ready"
        if not ready and (old := in_the_way(spec, root)):
            paths = " and ".join(map(str, old))
            notes.append(f"{spec.name} is {state}, and what is there is left alone; move {paths} away to get the whole")
        sources: list[dict[str, Any]] = [{}] if hub.can_fetch(spec.reader) else []
        for source in [*sources, *spec.sources]:
            step = Step((spec.name,), folder, source, spec.reader, "")
            step = replace(step, state=_state(step, ready))
            if step.state == BY_HAND and packed(folder, source):
                step = replace(step, problem="it is there, but packed: unpack it")
            key = (folder, _key(step))
            earlier = steps.get(key)
            if earlier:  # tasks that share a folder share its sources; it is there when all have it
                _same(suite, earlier, step)
                state = earlier.state if step.state == HAVE else step.state
                problem = earlier.problem or step.problem
                step = replace(earlier, tasks=(*earlier.tasks, spec.name), state=state, problem=problem)
            steps[key] = step
    return Plan(suite, root, tuple(steps.values()), tuple(notes))


def _key(step: Step) -> str:
    """What makes two tasks' steps in one folder the same: what a library is asked for, a file's name, a text."""
    if not step.source:
        return json.dumps(step.reader, sort_keys=True)
    return file_of(step.source).casefold() or step.what


def _same(suite: Suite, one: Step, other: Step) -> None:
    """Two tasks that share a folder must mean the same by one file name."""
    for key, mine, theirs in (
        ("fetch", url_of(one.source), url_of(other.source)),
        ("unpack", one.source.get("unpack"), other.source.get("unpack")),
    ):
        if mine != theirs:
            raise UserError(
                f"{suite.path}: tasks {one.tasks[0]} and {other.tasks[0]} share {one.folder} and differ in what they "
                f"`{key}` as {file_of(one.source)}; give both the same source, or each its own `file`"
            )


def _state(step: Step, ready: bool) -> str:
    if not step.source:
        return HAVE if hub.is_fetched(step.folder, step.reader) else DOWNLOAD
    if "unpack" in step.source:
        file = step.folder / file_of(step.source)
        if _read_note(file).get("whole") == _stamp(file) is not None:  # a kill came before our archive was removed
            return UNPACK
    if is_there(step.folder, step.source) or (ready and not is_split(step.source)):
        return HAVE
    if "fetch" not in step.source:
        return BY_HAND
    return UNPACK if (step.folder / file_of(step.source)).is_file() else DOWNLOAD


def url_of(source: dict[str, Any]) -> str:
    """The address a source is downloaded from; "" where it is not."""
    fetched = source.get("fetch")
    return "" if not fetched else str(source["url"] if fetched is True else fetched)


def carry_out(what: Plan, hide: bool | None = None) -> Plan:
    """Download and unpack; the plan with new states. A failure stops its source only.

    `hide` hides the bars (None: where standard error is no terminal).
    """
    what.check_space()
    what.root.mkdir(parents=True, exist_ok=True)
    steps = []
    for step in what.steps:
        if step.state in (DOWNLOAD, UNPACK):
            try:
                _fetch(step, hide)
                step = replace(step, state=FETCHED)
            except Exception as error:  # whatever a server sent, or a bug: the other sources are still worth getting
                step = replace(step, state=FAILED, problem=_in_a_line(error, step.folder))
        steps.append(step)
    return replace(what, steps=tuple(steps))


def _fetch(step: Step, hide: bool | None) -> None:
    """One source; whatever an earlier run has done of it is not done again."""
    if not step.source:
        hub.fetch(step.folder, step.reader)
        return
    file = step.folder / file_of(step.source)
    step.folder.mkdir(parents=True, exist_ok=True)
    with _held(file) as note:
        targets = targets_of(step.source)
        wanted = {member: target for member, target in targets.items() if not there(step.folder / target)}
        if wanted:  # else another process was faster, or a kill left what is cleared away below
            _get(step, file, note, hide)
        if wanted and "unpack" in step.source:
            with _bar(f"unpacking {file.name}", file.stat().st_size, hide) as shown:
                _unpack(step, file, wanted, note, absolute(shown))
        if "unpack" in step.source and note.is_of(file):  # the user's own archive stays
            shutil.rmtree(draft_of(file, step.folder), ignore_errors=True)
            file.unlink(missing_ok=True)
        if note.content:  # what a cut left, where the user brought the file after that
            _part_of(file).unlink(missing_ok=True)


def _get(step: Step, file: Path, note: _Note, hide: bool | None) -> None:
    """The file of a source with the right checksum: as it is there, else downloaded."""
    if not file.is_file():
        limit = 2 * step.size + 10_000_000 if step.size else None
        download(url_of(step.source), file, step.checksum, limit, note, hide)
    elif step.checksum:
        _verify(file, step.checksum, "move it away", hide)


def _unpack(step: Step, file: Path, wanted: dict[str, str], note: _Note, report: Callable[[int, int], None]) -> None:
    try:
        unpack(file, step.folder, wanted, report)
    except Damaged as error:
        if step.checksum or not note.is_of(file):  # as it should be, or the user's
            raise
        file.unlink()  # a web page, or cut off at the server: the next call would find it again
        raise UserError(f"{error} (it is removed, the same command does that)") from None


# One process at a time ---------------------------------------------------------------------------------------


class _Note:
    """`.<file>.fetch`, while a file is being fetched: {"url", "version": the server's ETag or date, "whole": `_stamp`}.

    Each change is one more line, and the last whole one counts: a kill in the middle loses nothing.
    """

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        stream.seek(0)
        self.content = _last(stream.read())

    def is_of(self, file: Path) -> bool:
        """Whether a file is the one that was downloaded here: not one that the user has put in its place since."""
        return self.content.get("whole") == _stamp(file) is not None

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


def _read_note(file: Path) -> dict[str, Any]:
    """What the note of a file says; {} where there is none."""
    try:
        return _last(_note_path(file).read_text(encoding="utf-8", errors="replace"))
    except OSError:
        return {}


def _stamp(file: Path) -> list[int] | None:
    """What tells a file from another of its name, and stays when it is renamed: [size, time]."""
    try:
        known = file.stat()
    except OSError:
        return None
    return [known.st_size, known.st_mtime_ns]


def _note_path(file: Path) -> Path:
    return file.with_name(f".{file.name}.fetch")


def _part_of(file: Path) -> Path:
    return file.with_name(f"{file.name}.part")


@contextmanager
def _held(file: Path) -> Iterator[_Note]:
    """The note of a file, for this process alone; it is removed when all went well."""
    path = _note_path(file)
    stream = _locked(path, file)
    done = True
    try:
        note = _Note(stream)
        try:
            yield note
        except BaseException:
            done = not (note.is_of(file) or (note.content and _part_of(file).exists()))
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
    note: _Note | None = None,
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
    part = _part_of(file)
    if note and not note.content and _size(part):  # browsers use that name, too
        raise UserError(f"{part}: is no download of this command's and is not written over; move it away")
    tries = 0
    with _bar(file.name, 0, hide) as shown:
        while True:
            before = _size(part)
            try:
                _transfer(url, part, checksum, limit, note, absolute(shown))
                break
            except _Interrupted as error:
                tries = 0 if _size(part) > before + PROGRESS else tries
                if tries == len(PAUSES):
                    kept = f"; {human(_size(part))} are kept, the same command goes on" if _size(part) else ""
                    raise UserError(f"{url}: {error}{kept}") from None
                time.sleep(PAUSES[tries])
                tries += 1
    if checksum:
        _verify(part, checksum, "", hide)
    if note:
        note.write(url, note.version(url), _stamp(part))
    os.replace(part, file)


def _transfer(
    url: str,
    part: Path,
    checksum: tuple[str, str] | None,
    limit: int | None,
    note: _Note | None,
    report: Callable[[int, int], None],
) -> None:
    """One request; returns when the file is there as a whole."""
    version = note.version(url) if note else ""
    start = _size(part)
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
    if total != _size(part) or (version and _version(error) not in ("", version)):
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


def _verify(file: Path, checksum: tuple[str, str], advice: str, hide: bool | None) -> None:
    """Refuse a file whose checksum is another. Without advice it is ours, and removed: the next call starts anew."""
    kind, expected = checksum
    digest = hashlib.new(kind, usedforsecurity=False)
    with file.open("rb") as stream, _bar(f"checking {file.name}", _size(file), hide) as shown:
        while chunk := stream.read(CHUNK):
            digest.update(chunk)
            shown.update(len(chunk))
    if digest.hexdigest() != expected.lower():
        if not advice:
            file.unlink()
        end = advice or "it is removed; try again"
        raise UserError(f"{file}: its {kind} is {digest.hexdigest()}, expected is {expected.lower()}; {end}")


# Small things ------------------------------------------------------------------------------------------------


def _in_a_line(error: Exception, folder: Path) -> str:
    """What to tell of a failure."""
    if isinstance(error, UserError):
        return printable(str(error))
    if isinstance(error, OSError):
        return printable(f"{error.filename or folder}: {error.strerror or error}")
    return printable(f"{folder}: unexpected {type(error).__name__}: {error}")


def human(size: float) -> str:
    """Bytes as people say them: 600 MB, 4.7 GB."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if size >= 10 or unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def _bar(label: str, total: int, hide: bool | None) -> Any:
    shown = bar(label, total, "B", hide, position=0)
    shown.unit_scale = True
    return shown


def _part(step: Step) -> Path:
    return _part_of(step.folder / (file_of(step.source) or "none"))


def _size(file: Path) -> int:
    return file.stat().st_size if file.is_file() else 0


def _existing(path: Path) -> Path:
    """The nearest folder above (or at) a path that exists."""
    path = path.absolute()
    return path if path.exists() or path == path.parent else _existing(path.parent)
