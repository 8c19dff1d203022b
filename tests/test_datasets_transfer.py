"""One file from a server: resuming, versions, checksums, limits and what is said when it fails."""

import io
import shutil
import sys
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest
import requests

from bench.datasets import transfer
from bench.datasets.sources import Source
from bench.datasets.transfer import download, human
from bench.errors import UserError

sys.path.append(str(Path(__file__).parent))
from fileserver import CONTENT, MD5, Handler, Server, names, server

__all__ = ["server"]


OLD, NEW = "Wed, 21 Oct 2015 07:28:00 GMT", "Thu, 22 Oct 2015 07:28:00 GMT"


def cut_off(url: str, folder: Path, *more: Any) -> Path:
    """A download that stops for good at the server's first cut; the part that is left."""
    with pytest.MonkeyPatch.context() as patch, pytest.raises(UserError, match="the connection ended after"):
        patch.setattr(transfer, "PAUSES", ())
        download(url, folder / "x.bin", *more)
    (part,) = folder.glob("x.bin*.part")
    return part


def test_a_cut_connection_goes_on_where_it_was(server: Server, tmp_path: Path) -> None:
    url = server.put("x.bin", cuts=[50_000, 20_000])
    download(url, tmp_path / "x.bin", ("md5", MD5))
    assert (tmp_path / "x.bin").read_bytes() == CONTENT and names(tmp_path) == ["x.bin"]
    assert server.ranges == [None, "bytes=50000-", "bytes=70000-"]


@pytest.mark.parametrize("how", [{"etag": '"1"'}, {"etag": "", "headers": {"Last-Modified": OLD}}])
def test_a_version_that_the_server_tells_is_gone_on_with(server: Server, tmp_path: Path, how: dict[str, Any]) -> None:
    url = server.put("x.bin", cuts=[30_000], **how)
    assert cut_off(url, tmp_path).read_bytes() == CONTENT[:30_000]
    download(url, tmp_path / "x.bin")
    assert (tmp_path / "x.bin").read_bytes() == CONTENT and names(tmp_path) == ["x.bin"]
    assert server.ranges == [None, "bytes=30000-"]


@pytest.mark.parametrize("size", [100_000, 200_000])  # as long as the new version, and longer (416)
@pytest.mark.parametrize("kind", ["ETag", "Last-Modified"])
def test_versions_are_not_mixed(server: Server, tmp_path: Path, kind: str, size: int) -> None:
    old, new = ({"etag": '"1"'}, {"etag": '"2"'}) if kind == "ETag" else (
        {"etag": "", "headers": {kind: OLD}}, {"etag": "", "headers": {kind: NEW}})  # fmt: skip
    part = cut_off(server.put("x.bin", bytes(size), cuts=[30_000], **old), tmp_path)
    part.write_bytes(bytes(size - 1))
    download(server.put("x.bin", **new), tmp_path / "x.bin")
    assert (tmp_path / "x.bin").read_bytes() == CONTENT and names(tmp_path) == ["x.bin"]
    assert server.ranges == [None, f"bytes={size - 1}-", None]


def test_a_part_from_another_address_is_another_file_s(server: Server, tmp_path: Path) -> None:
    cut_off(server.put("other.bin", bytes(50_000), cuts=[30_000]), tmp_path)
    download(server.put("x.bin"), tmp_path / "x.bin")  # which has the ETag "1", too
    assert (tmp_path / "x.bin").read_bytes() == CONTENT and server.ranges[-1] is None


@pytest.mark.parametrize("etag", ["", 'W/"1"'])  # two files with one weak ETag may differ
def test_a_part_nobody_can_vouch_for_is_not_gone_on_with(server: Server, tmp_path: Path, etag: str) -> None:
    url = server.put("x.bin", etag=etag, cuts=[30_000])
    cut_off(url, tmp_path)
    download(url, tmp_path / "x.bin")
    assert (tmp_path / "x.bin").read_bytes() == CONTENT and server.ranges == [None, None]
    server.pages["/x.bin"].cuts = [30_000]
    cut_off(url, tmp_path, ("md5", MD5))  # a checksum vouches
    download(url, tmp_path / "x.bin", ("md5", MD5))
    assert (tmp_path / "x.bin").read_bytes() == CONTENT and server.ranges[2:] == [None, "bytes=30000-"]


def test_nothing_left_to_send(server: Server, tmp_path: Path) -> None:
    """416: all of it is there, or the part is longer than the file."""
    part = cut_off(server.put("x.bin", cuts=[30_000]), tmp_path, ("md5", MD5))
    part.write_bytes(CONTENT)
    download(server.put("x.bin"), tmp_path / "x.bin", ("md5", MD5))
    assert (tmp_path / "x.bin").read_bytes() == CONTENT and server.ranges == [None, "bytes=100000-"]
    (tmp_path / "x.bin").rename(part)
    part.write_bytes(CONTENT + b"more")
    download(server.put("x.bin"), tmp_path / "x.bin", ("md5", MD5))
    assert (tmp_path / "x.bin").read_bytes() == CONTENT and server.ranges[2:] == ["bytes=100004-", None]


@pytest.mark.parametrize(
    "told", ["bytes 30000-39999/100000", "bytes 0-99999/100000", "bytes 30000-99999/*", f"bytes {'9' * 5000}-1/2", ""]
)
def test_an_answer_that_is_not_the_rest_is_not_taken_for_it(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: str
) -> None:
    cut_off(server.put("x.bin", cuts=[30_000]), tmp_path)
    server.put("x.bin")
    original = Handler.send_header

    def send(handler: Handler, name: str, value: str) -> None:
        original(handler, name, told if name == "Content-Range" else value)

    monkeypatch.setattr(Handler, "send_header", send)
    download(server.put("x.bin"), tmp_path / "x.bin")
    assert (tmp_path / "x.bin").read_bytes() == CONTENT and server.ranges == [None, "bytes=30000-", None]


def test_a_server_without_ranges_starts_anew(server: Server, tmp_path: Path) -> None:
    url = server.put("x.bin", ranges=False, cuts=[50_000])
    download(url, tmp_path / "x.bin", ("md5", MD5))
    assert (tmp_path / "x.bin").read_bytes() == CONTENT and server.ranges == [None, "bytes=50000-"]


def test_a_length_the_server_does_not_keep_is_an_error(server: Server, tmp_path: Path) -> None:
    url = server.put("x.bin", says=100_001, etag="")
    with pytest.raises(UserError, match="the connection ended after 100000 of 100001 bytes"):
        download(url, tmp_path / "x.bin")
    assert not (tmp_path / "x.bin").exists()


def test_a_busy_server_is_asked_again_a_few_times(server: Server, tmp_path: Path) -> None:
    url = server.put("x.bin", failures=[503, 429, 500])
    download(url, tmp_path / "x.bin")
    assert (tmp_path / "x.bin").read_bytes() == CONTENT and len(server.requests) == 4
    server.pages["/x.bin"].failures = [503] * 9
    with pytest.raises(UserError, match="the server says 503"):
        download(url, tmp_path / "y.bin")
    assert len(server.requests) == 8


@pytest.mark.parametrize("status", [403, 404, 410])
def test_what_is_not_there_is_not_asked_again(server: Server, tmp_path: Path, status: int) -> None:
    with pytest.raises(UserError, match=rf"x\.bin: the server says {status}"):
        download(server.put("x.bin", status=status), tmp_path / "x.bin")
    assert len(server.requests) == 1 and names(tmp_path) == []


def test_redirects_are_followed_to_http_only(server: Server, tmp_path: Path) -> None:
    final = server.put("final.bin", cuts=[50_000])
    url = server.put("x.bin", b"", status=302, headers={"Location": final}, etag="")
    download(url, tmp_path / "x.bin", ("md5", MD5))
    assert (tmp_path / "x.bin").read_bytes() == CONTENT
    assert server.ranges == [None, None, "bytes=50000-", "bytes=50000-"]
    for target in ("file:///etc/passwd", "ftp://127.0.0.1/x", "data:text/plain,x"):
        server.pages["/x.bin"].headers["Location"] = target
        with pytest.raises(UserError, match="not followed"):
            download(url, tmp_path / "y.bin")
    server.pages["/x.bin"].headers["Location"] = url  # for ever
    with pytest.raises(UserError, match=r"is not followed \(Exceeded 30 redirects") as caught:
        download(url, tmp_path / "y.bin")
    assert "\n" not in str(caught.value) and names(tmp_path) == ["x.bin"]


def test_never_from_https_back_to_http(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = requests.Response()
    answer.status_code, answer.url, answer.raw = 200, "http://example.org/x", io.BytesIO(b"x")
    monkeypatch.setattr(requests, "get", lambda *_, **__: answer)
    with pytest.raises(UserError, match="which is not followed"):
        download("https://example.org/x", tmp_path / "x")
    assert names(tmp_path) == []


def test_files_of_this_machine_are_no_downloads(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    with pytest.MonkeyPatch.context() as patch, pytest.raises(UserError):
        patch.setattr(transfer, "PAUSES", ())
        download((tmp_path / "secret").as_uri(), tmp_path / "x")
    assert names(tmp_path) == ["secret"]


def test_without_a_network_each_failure_is_one_line_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "PAUSES", ())
    with pytest.raises(UserError, match=r"no\.invalid/x\.zip: the server is not found; is there a network\?") as caught:
        download("http://no.invalid/x.zip", tmp_path / "x.zip")
    assert "\n" not in str(caught.value) and names(tmp_path) == []


def test_a_file_larger_than_said_or_than_what_is_free(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = server.put("x.zip", says=50_000_000)
    with pytest.raises(UserError, match=r"is 50 MB long, at most 10 MB are taken \(twice the suite file's `size`"):
        download(url, tmp_path / "x.zip", limit=10_000_000)
    endless = server.put("y.zip", says=-1)
    with pytest.raises(UserError, match="sends more, at most 10 kB are taken"):
        download(endless, tmp_path / "y.zip", limit=10_000)
    monkeypatch.setattr(transfer, "MAX_UNSAID", 50_000)
    with pytest.raises(UserError, match=r"at most 50 kB are taken \(no `size` in the suite file and no length said"):
        download(endless, tmp_path / "z.zip")
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10**9, 0, 1_000_000))
    with pytest.raises(UserError, match=r"50 MB are to come, 1.0 MB are free in"):
        download(url, tmp_path / "x.zip")
    assert len(server.requests) == 4  # none of these is tried again


def test_sizes_as_people_say_them() -> None:
    sizes = {"600 MB": 600_000_000, "4.7 GB": 4_700_000_000, "under 1 MB": 1_000_000, "large": 0}
    for text, size in sizes.items():
        assert Source(size=text).n_bytes == size
    assert [human(size) for size in (0, 999, 1200, 4.7e9, 37e9, 2.5e12)] == [
        "0 bytes", "999 bytes", "1.2 kB", "4.7 GB", "37 GB", "2.5 TB"]  # fmt: skip
