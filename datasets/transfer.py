"""One file from a server: whole and right, or an error in one line.

`requests` does the transfer. It does not resume, so that stands here: a download goes to a part, goes on there after a
cut, and gets the file's name when it is whole. A part's name says what it is a part of: the file of that checksum, or
the version that the server told. What to fetch, and what becomes of it, is `fetch.py`'s.
"""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import requests
import urllib3.exceptions

from bench.errors import UserError
from bench.files import offline, replace
from bench.progress import absolute, bar

PAUSES = (1.0, 3.0, 8.0)  # seconds before the second, third and fourth try
TIMEOUT = 60  # seconds without an answer or a byte
PROGRESS = 1_000_000  # bytes after which the tries are counted anew
CHUNK = 1 << 20
MAX_UNSAID = 10_000_000_000  # bytes of a download whose size neither the suite file nor the server says
BUSY = (408, 425, 429, 500, 502, 503, 504)  # HTTP: worth another try

Checksum = tuple[str, str]  # algorithm, hexadecimal digest


class _Interrupted(Exception):
    """The network failed; another try may go on."""


def download(
    url: str, file: Path, checksum: Checksum | None = None, limit: int | None = None, hide: bool | None = None
) -> None:
    """Download a file through a part beside it, which a later call goes on with.

    Parameters
    ----------
    checksum : without one the server's length is all that is checked.
    limit : bytes beyond which a file cannot be the right one.

    Raises UserError, in one line with the address, for everything that goes wrong.
    """
    tries = 0
    with byte_bar(file.name, 0, hide) as shown:
        while True:
            before = kept(file)
            try:
                part = _transfer(url, file, checksum, limit, absolute(shown))
                break
            except _Interrupted as error:
                tries = 0 if kept(file) > before + PROGRESS else tries
                if tries == len(PAUSES):
                    goes_on = f"; {human(kept(file))} are kept, the same command goes on" if kept(file) else ""
                    raise UserError(f"{url}: {error}{goes_on}") from None
                time.sleep(PAUSES[tries])
                tries += 1
    if checksum:
        verify(part, checksum, "", hide)
    replace(part, file)


def kept(file: Path) -> int:
    """Bytes of a download that the next call goes on with."""
    part = _kept_part(file)
    return size_of(part) if part else 0


def _kept_part(file: Path) -> Path | None:
    return next(file.parent.glob(f"{file.name}.*.part"), None)


def _part(file: Path, url: str, checksum: Checksum | None, response: requests.Response) -> Path:
    """The part that an answer belongs to. Without checksum and version it has a name that is never gone on with."""
    etag = response.headers.get("ETag", "")  # files with one weak ETag may differ
    version = etag if etag and not etag.startswith("W/") else response.headers.get("Last-Modified", "")
    told = checksum[1].lower() if checksum else f"{url} {version}" if version else ""
    known = hashlib.sha256(told.encode()).hexdigest()[:16]
    return file.with_name(f"{file.name}.{known}.part" if told else f"{file.name}.part")


def _transfer(
    url: str, file: Path, checksum: Checksum | None, limit: int | None, report: Callable[[int, int], None]
) -> Path:
    """One request; returns the part when it is whole."""
    old, done = _kept_part(file), kept(file)
    with _answer(url, done) as response:
        part, length = _part(file, url, checksum, response), response.headers.get("Content-Length", "")
        if response.status_code == 200:
            done = 0
        total = done + int(length) if length.isdecimal() and len(length) < 19 else None  # no file is longer
        told = response.headers.get("Content-Range")
        if done and checksum and part == old and told == f"bytes */{done}":
            return part  # nothing is left to send
        fits = part == old and total is not None and told == f"bytes {done}-{total - 1}/{total}"
        if old and not (done and fits):
            old.unlink()
        if done and not fits:
            raise _Interrupted("the server sent a part that was not asked for, or of another version")
        most = limit or total or MAX_UNSAID
        why = "twice the suite file's `size` and 10 MB" if limit else "no `size` in the suite file and no length said"
        too_much = f"at most {human(most)} are taken ({why})"
        if total is not None:
            if total > most:
                raise UserError(f"{url}: is {human(total)} long, {too_much}")
            free = shutil.disk_usage(part.parent).free
            if total - done > free:
                raise UserError(f"{url}: {human(total - done)} are to come, {human(free)} are free in {part.parent}")
        with part.open("ab" if done else "wb") as sink:
            while chunk := _chunk(response, done, total):
                sink.write(chunk)
                done += len(chunk)
                if done > most:
                    raise UserError(f"{url}: sends more, {too_much}")
                report(done, total or 0)
    return part


def _answer(url: str, start: int) -> requests.Response:
    """The answer to a request for a file from this byte on, its body not read yet: 200, or with `start` 206 or 416."""
    if offline():
        raise UserError(f"{url}: not fetched, because HF_HUB_OFFLINE is set; unset it to download")
    headers = {"User-Agent": "prompt-bench", "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
    try:
        response = requests.get(url, headers=headers, stream=True, timeout=TIMEOUT)
    except (requests.ConnectionError, requests.Timeout) as error:
        if "NameResolutionError" in str(error):  # no network, or a name that is wrong: waiting seldom helps
            raise UserError(f"{url}: the server is not found; is there a network?") from None
        raise _Interrupted(f"cannot be reached ({_words(error)})") from None
    except (requests.RequestException, ValueError) as error:  # an address that is none, of file://, or without end
        raise UserError(f"{url}: the address, or where it leads, is not followed ({_words(error)})") from None
    ways = [*response.history, response]
    if url.lower().startswith("https:") and any(not way.url.lower().startswith("https:") for way in ways):
        raise UserError(f"{url}: the server sends on to {response.url!r}, which is not followed")
    if response.status_code in ((200, 206, 416) if start else (200,)):
        return response
    said = f"the server says {response.status_code} {' '.join(str(response.reason).split())}"
    response.close()
    raise _Interrupted(said) if response.status_code in BUSY else UserError(f"{url}: {said}")


def _words(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _chunk(response: requests.Response, done: int, total: int | None) -> bytes:
    """The next bytes as they come over the wire: `iter_content` would unpack what a server calls gzip-encoded."""
    try:
        return bytes(response.raw.read1(CHUNK, decode_content=False))
    except urllib3.exceptions.HTTPError:  # the bytes that come are fewer than the length that was said
        raise _Interrupted(f"the connection ended after {done} of {total or 'unknown'} bytes") from None


def verify(file: Path, checksum: Checksum, advice: str, hide: bool | None) -> None:
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
