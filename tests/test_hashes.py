"""Images by content: broken ones are found before anything is encoded, and copies are found at all."""

from __future__ import annotations

import io
from pathlib import Path

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
