"""One file from a server: whole and right, or an error in one line.

`requests` does the transfer. It does not resume, so that stands here: a download goes to `<file>.part`, goes on there
after a cut, and gets its name when its checksum is right. `<file>.version` remembers which version of the file the
part is of. What to fetch, and what becomes of it, is `fetch.py`'s.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import requests
import urllib3.exceptions

from bench.errors import UserError
from bench.files import from_json, offline, replace
from bench.progress import absolute, bar

PAUSES = (1.0, 3.0, 8.0)  # seconds before the second, third and fourth try
TIMEOUT = 60  # seconds without an answer or a byte
PROGRESS = 1_000_000  # bytes after which the tries are counted anew
CHUNK = 1 << 20
MAX_UNSAID = 10_000_000_000  # bytes of a download whose size neither the suite file nor the server says
BUSY = (408, 425, 429, 500, 502, 503, 504)  # HTTP: worth another try


class _Interrupted(Exception):
    """The network failed; another try may go on."""


def part_of(file: Path) -> Path:
    return file.with_name(f"{file.name}.part")


def download(
    url: str, file: Path, checksum: tuple[str, str] | None = None, limit: int | None = None, hide: bool | None = None
) -> None:
    """Download a file through `<file>.part`, which a later call goes on with.

    Parameters
    ----------
    checksum : (algorithm, hexadecimal digest); without one the server's length is all that is checked.
    limit : bytes beyond which a file cannot be the right one.

    Raises UserError, in one line with the address, for everything that goes wrong.
    """
    part = part_of(file)
    tries = 0
    with byte_bar(file.name, 0, hide) as shown:
        while True:
            before = size_of(part)
            try:
                _transfer(url, part, bool(checksum), limit, absolute(shown))
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
    replace(part, file)
    _version_file(part).unlink(missing_ok=True)


def _transfer(url: str, part: Path, checked: bool, limit: int | None, report: Callable[[int, int], None]) -> None:
    """One request; returns when the file is there as a whole."""
    known = _known_version(part, url)
    start = size_of(part) if known or checked else 0  # else nothing tells whether the rest belongs to what is there
    headers = {"User-Agent": "prompt-bench", "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
        headers.update({"If-Range": known} if known else {})
    with _answer(url, headers) as response:
        version = _version(response)
        other = bool(known) and version not in ("", known)  # some servers overlook If-Range
        total = _number(response.headers.get("Content-Length", ""))
        if response.status_code in (206, 416):
            first, last, total = _content_range(response)
            if response.status_code == 416 and total == start and not other:
                return  # nothing is left to send
            if other or not start or first != start or last is None or total is None:
                part.unlink(missing_ok=True)  # from the beginning
                raise _Interrupted("the server sent a part that was not asked for, or of another version")
        else:
            start = 0
        most = limit or (MAX_UNSAID if total is None else None)
        why = "twice the suite file's `size` and 10 MB" if limit else "no `size` in the suite file and no length said"
        too_much = f"at most {human(most or 0)} are taken ({why})"
        if total is not None:
            if most and total > most:
                raise UserError(f"{url}: is {human(total)} long, {too_much}")
            free = shutil.disk_usage(part.parent).free
            if total - start > free:
                raise UserError(f"{url}: {human(total - start)} are to come, {human(free)} are free in {part.parent}")
        # The answer with the rest may leave the version out.
        _version_file(part).write_text(json.dumps([url, version or (known if start else "")]), encoding="utf-8")
        done = start
        with part.open("ab" if start else "wb") as sink:
            while chunk := _chunk(response, done, total):
                sink.write(chunk)
                done += len(chunk)
                if most and done > most:
                    raise UserError(f"{url}: sends more, {too_much}")
                report(done, total or 0)
    if total is not None and done != total:
        raise _Interrupted(f"the connection ended after {done} of {total} bytes")


def _answer(url: str, headers: dict[str, str]) -> requests.Response:
    """The answer to a request, its body not read yet: 200, 206 or 416; redirects never lead from https to http."""
    if offline():
        raise UserError(f"{url}: not fetched, because HF_HUB_OFFLINE is set; unset it to download")
    try:
        response = requests.get(url, headers=headers, stream=True, timeout=TIMEOUT)
    except requests.exceptions.SSLError as error:
        raise UserError(f"{url}: the server's certificate is not valid ({_words(error)})") from None
    except requests.TooManyRedirects:
        raise UserError(f"{url}: the server sends from address to address without end") from None
    except (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError) as error:
        if "NameResolutionError" in str(error):  # no network, or a name that is wrong: waiting seldom helps
            raise UserError(f"{url}: the server is not found; is there a network?") from None
        raise _Interrupted(f"cannot be reached ({_words(error)})") from None
    except (requests.RequestException, ValueError) as error:  # an address that is none, or of file://
        raise UserError(f"{url}: the address, or where it leads, is not followed ({_words(error)})") from None
    ways = [*response.history, response]
    if url.lower().startswith("https:") and any(not way.url.lower().startswith("https:") for way in ways):
        raise UserError(f"{url}: the server sends on to {response.url!r}, which is not followed")
    if response.status_code in (200, 206, 416):
        return response
    said = f"the server says {response.status_code} {' '.join(str(response.reason).split())}"
    response.close()
    if response.status_code in BUSY:
        raise _Interrupted(said)
    raise UserError(f"{url}: {said}")


def _words(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _chunk(response: requests.Response, done: int, total: int | None) -> bytes:
    """The next bytes as they come over the wire: `iter_content` would unpack what a server calls gzip-encoded."""
    try:
        return bytes(response.raw.read1(CHUNK, decode_content=False))
    except (OSError, urllib3.exceptions.HTTPError):
        of = f" of {total}" if total is not None else ""
        raise _Interrupted(f"the connection ended after {done}{of} bytes") from None


def _content_range(response: requests.Response) -> tuple[int | None, int | None, int | None]:
    """First and last byte of an answer, and the length of the file; None for what it does not say."""
    given = response.headers.get("Content-Range", "").strip()
    found = re.fullmatch(r"bytes (?:(\d{1,18})-(\d{1,18})|\*)/(\d{1,18})", given)
    first, last, total = found.groups() if found else (None, None, None)
    return _number(first), _number(last), _number(total)


def _number(text: str | None) -> int | None:
    """A length that a server says; None where it says none, or one that no file has."""
    return int(text) if text and re.fullmatch(r"[0-9]{1,18}", text) else None


def _version(response: requests.Response) -> str:
    """What tells versions of a file apart: a strong ETag (files with one weak ETag may differ), else the date."""
    etag = response.headers.get("ETag", "")
    return etag if etag and not etag.startswith("W/") else response.headers.get("Last-Modified", "")


def _version_file(part: Path) -> Path:
    return part.with_suffix(".version")


def _known_version(part: Path, url: str) -> str:
    """The version that a part is of; "" where that is not known."""
    try:
        of, version = from_json(_version_file(part).read_text(encoding="utf-8"))
    except (OSError, ValueError, TypeError):
        return ""
    return str(version) if of == url else ""


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
