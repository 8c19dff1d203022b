"""Images by content: broken ones are found before anything is encoded, and copies are found at all."""

from __future__ import annotations

import hashlib
import io
import json
import os
import sqlite3
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bench.datasets.images import looks_whole
from bench.errors import UserError
from bench.features import hashes as hashes_module
from bench.features.hashes import HASHES, ImageHashes, copies, describe_copies, named


def encoded(form: str, seed: int = 0) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, form)
    return stream.getvalue()


def damaged_within() -> bytes:
    """A JPEG whose header and end are there and whose Huffman table makes no sense: only decoding it tells."""
    data = bytearray(encoded("JPEG"))
    table = data.index(b"\xff\xc4") + 5  # behind marker, length and class: how many codes there are of each length
    data[table : table + 16] = b"\xff" * 16
    return bytes(data)


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that were decoded."""
    names: list[str] = []
    original = hashes_module.open_image

    def counted(path: Path, data: bytes | None) -> Image.Image:
        names.append(path.name)
        return original(path, data)

    monkeypatch.setattr(hashes_module, "open_image", counted)
    return names


@pytest.mark.parametrize("form", ["JPEG", "PNG"])
def test_a_file_that_was_cut_off_does_not_look_whole(form: str) -> None:
    data = encoded(form)
    assert looks_whole(data)
    for end in (0, 1, 100, len(data) // 2, len(data) - 70, len(data) - 20):
        assert not looks_whole(data[:end]), end
    assert not looks_whole(b"no image at all")


def test_a_png_whose_bytes_were_changed_does_not_look_whole() -> None:
    data = bytearray(encoded("PNG"))
    data[len(data) // 2] ^= 0xFF
    assert not looks_whole(bytes(data))


def test_all_broken_images_are_named_at_once_without_decoding_the_sound_ones(
    tmp_path: Path, opened: list[str]
) -> None:
    (tmp_path / "good.jpg").write_bytes(encoded("JPEG"))
    (tmp_path / "good.png").write_bytes(encoded("PNG"))
    (tmp_path / "cut.jpg").write_bytes(encoded("JPEG")[:-100])
    (tmp_path / "text.png").write_bytes(b"<html>404</html>")
    (tmp_path / "folder.png").mkdir()
    files = [tmp_path / name for name in ("good.jpg", "cut.jpg", "good.png", "text.png", "folder.png", "gone.png")]
    faults = ImageHashes(tmp_path / "cache").broken(files)
    assert [fault.partition(":")[0] for fault in faults] == [str(files[i]) for i in (1, 3, 4, 5)]
    assert "truncated" in faults[0] and "not an image" in faults[1]
    assert {"good.jpg", "good.png"}.isdisjoint(opened)


def test_sound_images_are_decoded_once_for_ever_and_broken_ones_each_time(tmp_path: Path, opened: list[str]) -> None:
    (tmp_path / "good.jpg").write_bytes(encoded("JPEG"))
    (tmp_path / "bad.jpg").write_bytes(damaged_within())
    files = [tmp_path / "good.jpg", tmp_path / "bad.jpg"]
    assert ImageHashes(tmp_path / "cache").broken(files) == []  # from its header alone nobody can say
    assert opened == []
    told: list[int] = []
    (fault,) = ImageHashes(tmp_path / "cache").broken(files, told.append, decode=True)
    assert "bad.jpg" in fault and sorted(opened) == ["bad.jpg", "good.jpg"] and told == [2]
    opened.clear()
    (fault,) = ImageHashes(tmp_path / "cache").broken(files)  # the next run knows it before it encodes
    assert "bad.jpg" in fault and opened == ["bad.jpg"]
    (tmp_path / "bad.jpg").write_bytes(encoded("JPEG", seed=1))
    assert ImageHashes(tmp_path / "cache").broken(files) == []


def test_copies_are_those_of_an_earlier_part_whatever_their_names(tmp_path: Path) -> None:
    contents = {"a": 0, "b": 1, "c": 0, "d": 1, "e": 2, "f": 0}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(encoded("PNG", content))
    train, val, test = ([tmp_path / name for name in names] for names in (["a", "b"], ["c"], ["d", "e", "f"]))
    pairs = copies(*map(ImageHashes(tmp_path / "cache").by_content, (train, val, test, [tmp_path / "gone"])))
    assert [(one.name, other.name) for one, other in pairs] == [("a", "c"), ("b", "d"), ("a", "f")]
    assert describe_copies(tmp_path, pairs[:1], "x") == "1 image has the same bytes as x: c = a"
    assert describe_copies(tmp_path, pairs[:2], "x") == "2 images have the same bytes as x: c = a; d = b"
    assert describe_copies(tmp_path, [], "x") == ""


def test_a_message_names_twenty_and_counts_the_rest() -> None:
    assert named(["a", "b"]) == "a; b"
    assert named([str(n) for n in range(23)]).endswith("; 18; 19; and 3 more")


def test_the_cache_may_stand_in_the_user_s_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from bench.datasets.cache_paths import cache_folder, cache_place

    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    monkeypatch.setenv("BENCH_CACHE", "~/kept")
    assert cache_folder() == tmp_path / "kept"
    assert cache_place(tmp_path / "data").parent == tmp_path / "kept" / "splits"


def test_a_file_of_hashes_whose_texts_are_none_is_refused_in_a_line(tmp_path: Path) -> None:
    """Found by fuzzing: a table's name that is no UTF-8, which sqlite puts into its message."""
    hashes = ImageHashes(tmp_path)
    hashes._db.close()
    file = tmp_path / HASHES
    file.write_bytes(file.read_bytes().replace(b"tablefilefile", b"tablefi\x1f\x8b\x08lefile"))
    with pytest.raises(UserError, match="delete it, or name another folder with BENCH_CACHE"):
        ImageHashes(tmp_path)


# ---- what is remembered ---------------------------------------------------------------------------------------


def test_hashes_are_remembered_and_changed_files_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [tmp_path / f"{n}.png" for n in range(3)]
    for n, path in enumerate(paths):
        path.write_bytes(bytes([n]) * 10)
    read = []
    original = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda self: (read.append(self.name), original(self))[1])
    first = ImageHashes(tmp_path / "cache").of(paths)
    assert first == [hashlib.blake2b(bytes([n]) * 10, digest_size=16).hexdigest() for n in range(3)]
    assert ImageHashes(tmp_path / "cache").of(paths) == first  # another process, later
    assert len(read) == 3
    paths[0].write_bytes(b"x" * 11)  # another size
    stat = paths[1].stat()
    paths[1].write_bytes(b"y" * 10)  # the same size, another time
    os.utime(paths[1], ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    os.utime(paths[2], (1, 1))  # the same bytes
    second = ImageHashes(tmp_path / "cache").of(paths)
    assert second[0] != first[0] and second[1] != first[1] and second[2] == first[2]
    assert len(read) == 6


def test_hashing_tells_its_progress_and_keeps_what_it_has_when_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hashes_module, "HASHES_PER_COMMIT", 2)
    paths = [tmp_path / f"{n}.png" for n in range(5)]
    for path in paths[:4]:
        path.write_bytes(path.name.encode())
    told: list[int] = []
    with pytest.raises(OSError):
        ImageHashes(tmp_path).of(paths, told.append)  # the last is not there
    assert told == [2, 2]
    rows = sqlite3.connect(tmp_path / "hashes.sqlite").execute("SELECT count(*) FROM file").fetchone()
    assert rows == (4,)


@pytest.mark.skipif(sys.platform == "win32", reason="its ctime is the time of making")
def test_a_file_changed_in_place_with_its_size_and_time_as_before_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"x" * 10)
    os.utime(path, ns=(1, 1))
    (first,) = ImageHashes(tmp_path / "cache").of([path])
    time.sleep(0.02)  # more than a tick of the clock that the file system reads
    path.write_bytes(b"y" * 10)
    os.utime(path, ns=(1, 1))
    (second,) = ImageHashes(tmp_path / "cache").of([path])
    assert first == hashlib.blake2b(b"x" * 10, digest_size=16).hexdigest()
    assert second == hashlib.blake2b(b"y" * 10, digest_size=16).hexdigest()


@pytest.mark.parametrize("digest", [b"\x00\x01", "no hash", 7, None, "A" * 32])
@pytest.mark.parametrize("state", [1, 9, "sound"])
def test_remembered_hashes_that_no_bench_wrote_are_made_anew(tmp_path: Path, digest: Any, state: Any) -> None:
    path, content = tmp_path / "a.png", b"1"
    path.write_bytes(content)
    expected = ImageHashes(tmp_path).of([path])
    with sqlite3.connect(tmp_path / "hashes.sqlite") as db:
        db.execute("UPDATE file SET digest = ?", (digest,))
        db.execute("DELETE FROM image")
        db.execute("INSERT INTO image VALUES (?, ?)", (digest, state))
    assert ImageHashes(tmp_path).of([path]) == expected
    assert json.dumps(ImageHashes(tmp_path).of([path]))


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_file_names_that_are_no_text_are_hashed(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"caf\xe9.png")
    path.write_bytes(b"1")
    hashes = ImageHashes(tmp_path / "cache")
    assert hashes.of([path]) == hashes.of([path])


def test_damaged_hash_file_is_named_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "hashes.sqlite").write_bytes(b"this is no database" * 100)
    with pytest.raises(UserError, match=r"hashes\.sqlite: .*delete it") as caught:
        ImageHashes(tmp_path)
    assert "\n" not in str(caught.value)
