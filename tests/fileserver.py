"""What the tests of downloads share: a real HTTP server that misbehaves as told, and small archives for it to hold."""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from bench.datasets import transfer

CONTENT = os.urandom(100_000)
MD5 = hashlib.md5(CONTENT).hexdigest()  # noqa: S324 - MD5 as data sets publish it


@dataclass
class Page:
    """One file of the server, and how it misbehaves."""

    content: bytes = CONTENT
    etag: str = '"1"'
    headers: dict[str, str] = field(default_factory=dict)
    status: int = 200
    ranges: bool = True
    cuts: list[int] = field(default_factory=list)  # bytes after which each of the next answers breaks off
    says: int | None = None  # a Content-Length that is wrong; -1 for none
    failures: list[int] = field(default_factory=list)  # status codes of the next answers


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        pages, requests = self.server.pages, self.server.requests  # type: ignore[attr-defined]
        requests.append((self.path, dict(self.headers)))
        page = pages.get(self.path, Page(status=404))
        status, start, total = page.status, 0, len(page.content)
        if page.failures:
            status = page.failures.pop(0)
        wanted = self.headers.get("Range")
        if status == 200 and wanted and page.ranges:
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            status = 206 if start < total else 416
        self.send_response(status)
        for name, value in page.headers.items():
            self.send_header(name, value)
        if page.etag:
            self.send_header("ETag", page.etag)
        body = page.content[start:] if status in (200, 206) else b"no"
        if status in (206, 416):
            self.send_header(
                "Content-Range", f"bytes {start}-{total - 1}/{total}" if status == 206 else f"bytes */{total}"
            )
        if page.says != -1:
            self.send_header("Content-Length", str(len(body) if page.says is None else page.says))
        self.end_headers()
        self.wfile.write(body[: page.cuts.pop(0)] if page.cuts and status in (200, 206) else body)

    def log_message(self, *_: object) -> None:
        pass


class Server:
    def __init__(self) -> None:
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.pages, self.http.requests = {}, []  # type: ignore[attr-defined]
        self.pages: dict[str, Page] = self.http.pages  # type: ignore[attr-defined]
        self.requests: list[tuple[str, dict[str, str]]] = self.http.requests  # type: ignore[attr-defined]
        threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True).start()

    def put(self, name: str, content: bytes = CONTENT, **how: Any) -> str:
        self.pages[f"/{name}"] = Page(content, **how)
        return f"http://127.0.0.1:{self.http.server_port}/{name}"

    @property
    def ranges(self) -> list[str | None]:
        return [headers.get("Range") for _, headers in self.requests]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(transfer, "PAUSES", (0.0, 0.0, 0.0))
    running = Server()
    yield running
    running.http.shutdown()
    running.http.server_close()


def targz(files: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return stream.getvalue()


def zipped(files: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return stream.getvalue()


def classes(prefix: str, names: tuple[str, ...] = ("crow", "wren"), images: int = 5) -> dict[str, bytes]:
    return {f"{prefix}/{name}/{number}.jpg": f"{name}{number}".encode() for name in names for number in range(images)}


def names(folder: Path) -> list[str]:
    """What stands in a folder, but for the lock file, which stays."""
    return sorted(path.name for path in folder.iterdir() if path.name != ".fetch.lock")
