"""The cache of features: what is damaged is made again, what two write is whole, what is listed is what is there."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import bench
from bench.cli import main
from bench.clip.backbone import Backbone
from bench.datasets.demo import GENERATOR
from bench.errors import UserError
from bench.features import ImageFeatures, View
from bench.features import cache as cache_module
from bench.features.cache import cache_contents, clear_cache

sys.path.append(str(Path(__file__).parent))
from test_features import backbone, blocks

__all__ = ["backbone"]

pytestmark = pytest.mark.usefixtures("one_thread")


# ---- files ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("damage", ["truncated", "empty", "garbage", "other shape", "other content"])
def test_damaged_block_is_made_again(tiny: Any, backbone: Backbone, tmp_path: Path, damage: str) -> None:
    features, paths = ImageFeatures(backbone, tmp_path), tiny.images()[:6]
    expected = features.get(paths, View(1, 0, 2)).clone()
    (file,) = tmp_path.rglob("*.safetensors")
    content = file.read_bytes()
    file.unlink()  # what is mapped stays as it was
    if damage == "other shape":
        save_file({"features": torch.zeros(2, 5, 16)}, str(file))
    elif damage == "other content":
        save_file({"something": torch.zeros(2, 6, 16)}, str(file))
    else:
        file.write_bytes({"truncated": content[:-40], "empty": b"", "garbage": b"\xff" * 300}[damage])
    assert torch.equal(features.get(paths, View(1, 0, 2)), expected)
    assert torch.equal(load_file(str(file))["features"], expected)


def test_a_block_with_a_flipped_bit_is_made_again(tiny: Any, backbone: Backbone, tmp_path: Path) -> None:
    """Wherever it is: each eighth byte of the file, another bit of each."""
    paths = tiny.images()[:2]
    expected = ImageFeatures(backbone, tmp_path).get(paths, View()).clone()
    (file,) = tmp_path.rglob("*.safetensors")
    content = file.read_bytes()
    numbers = content.index(b"}", content.index(b'"features"')) + 1
    for place in range(numbers, len(content), 8):
        damaged = bytearray(content)
        damaged[place] ^= 1 << place // 8 % 8
        file.unlink()
        file.write_bytes(damaged)
        got = ImageFeatures(backbone, tmp_path).get(paths, View())
        assert torch.equal(got, expected), f"byte {place}"


def test_a_block_without_a_checksum_is_read(
    tiny: Any, backbone: Backbone, tmp_path: Path, encoded: list[int]
) -> None:
    """Older versions wrote such blocks."""
    paths = tiny.images()[:2]
    ImageFeatures(backbone, tmp_path).get(paths, View())
    (file,) = tmp_path.rglob("*.safetensors")
    file.unlink()
    save_file({"features": torch.full((1, 2, 16), 3.0)}, str(file), metadata={"what": "pooled, test view"})
    assert torch.equal(ImageFeatures(backbone, tmp_path).get(paths, View()), torch.full((1, 2, 16), 3.0))
    assert sum(encoded) == 2


def test_a_block_is_checked_once_by_each_process_and_again_when_its_file_changes(
    tiny: Any, backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked = []
    original = cache_module._content
    monkeypatch.setattr(cache_module, "_content", lambda path: (checked.append(path), original(path))[1])
    features, paths = ImageFeatures(backbone, tmp_path), tiny.images()[:2]
    for _ in range(3):
        features.get(paths, View())
    assert len(checked) == 1
    (file,) = tmp_path.rglob("*.safetensors")
    os.utime(file)
    features.get(paths, View())
    assert len(checked) == 2


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_checking_a_block_does_not_fill_memory(tmp_path: Path) -> None:
    block = torch.zeros(10, 2048, 512)  # 42 MB
    cache_module.write_block(tmp_path / "block.safetensors", block, "zeros")
    del block
    Path("/proc/self/clear_refs").write_text("5")

    def peak() -> int:
        return int(re.findall(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[0])

    before = peak()
    assert cache_module.read_block(tmp_path / "block.safetensors") is not None
    assert peak() - before < 16_000  # kB


def test_features_of_an_image_that_changed_after_its_hashing_are_not_kept(
    tiny: Any, backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even where its size and all its times are as before."""
    paths = [Path(shutil.copy(path, tmp_path)) for path in tiny.images()[:3]]
    features = ImageFeatures(backbone, tmp_path / "cache")
    before = features.hashes.of(paths)
    content = bytearray(paths[1].read_bytes())
    content[-1] ^= 1  # behind the image's own end
    stats = {path: path.stat() for path in paths}
    paths[1].write_bytes(content)
    original = Path.stat
    monkeypatch.setattr(Path, "stat", lambda self, **how: stats.get(self) or original(self, **how))
    with pytest.raises(UserError, match=r"changed since this run first read it; run again") as caught:
        features.get(paths, View())
    assert str(paths[1]) in str(caught.value)
    assert not blocks(tmp_path)
    after = features.hashes.of(paths)  # the next run reads it again
    assert after[0] == before[0] and after[2] == before[2]
    assert after[1] == hashlib.blake2b(content, digest_size=16).hexdigest()
    assert features.get(paths, View()).shape == (1, 3, 16)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_blocks_are_mapped_not_read(tiny: Any, backbone: Backbone, tmp_path: Path) -> None:
    features, paths = ImageFeatures(backbone, tmp_path), tiny.images()[:6]
    features.get(paths, View())
    (file,) = tmp_path.rglob("*.safetensors")
    held = features.get(paths, View())
    assert str(file) in Path("/proc/self/maps").read_text()
    del held
    assert str(file) not in Path("/proc/self/maps").read_text()


def test_threads_writing_the_same_block_do_not_disturb_each_other(
    tiny: Any, backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a disk that keeps no claims: there several encode the same."""
    paths, all_written, got, errors = tiny.images(), threading.Barrier(4, timeout=60), [], []
    monkeypatch.setattr(cache_module.CLAIMS, "waiting", lambda path: contextlib.nullcontext())
    save = cache_module.save_file

    def save_and_wait(*args: Any, **kwargs: Any) -> None:
        save(*args, **kwargs)
        all_written.wait()  # nobody gives the block its name before all have written it

    monkeypatch.setattr(cache_module, "save_file", save_and_wait)

    def work() -> None:
        try:
            features = ImageFeatures(backbone, tmp_path)
            got.append(features.get(paths, View(1, 0, 3)))
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert len(got) == 4
    assert all(torch.equal(g, got[0]) for g in got)
    assert len(blocks(tmp_path)) == 1
    assert not list(tmp_path.rglob("*.part"))


def test_failed_write_leaves_nothing_behind(
    tiny: Any, backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space left"):
        ImageFeatures(backbone, tmp_path).get(tiny.images()[:2], View())
    assert not list(tmp_path.rglob("*.part"))


# ---- several blocks in one go --------------------------------------------------------------------------------


def wanted(tiny: Any) -> list[tuple[list[Path], View]]:
    """Three blocks of unlike sizes and views."""
    images = tiny.images()
    return [(images[:7], View()), (images[3:9], View(1, 0, 3)), (images[20:], View(2, 0, 2))]


def test_blocks_made_in_one_go_are_those_made_one_by_one(tiny: Any, backbone: Backbone, tmp_path: Path) -> None:
    alone, together = (ImageFeatures(backbone, tmp_path / name) for name in ("alone", "together"))
    expected = [alone.get(*pair) for pair in wanted(tiny)]
    assert [len(block) for block in together.missing(wanted(tiny))] == [7, 18, 32]
    together.make(together.missing(wanted(tiny)))
    assert together.missing(wanted(tiny)) == []
    assert all(torch.equal(together.get(*p), e) for p, e in zip(wanted(tiny), expected, strict=True))
    assert blocks(tmp_path / "together") == blocks(tmp_path / "alone")


def test_blocks_of_each_kind_made_in_one_go(tiny: Any, backbone: Backbone, tmp_path: Path) -> None:
    features = ImageFeatures(backbone, tmp_path)
    features.make(features.missing(wanted(tiny), "preproj"), "preproj")
    assert features.missing(wanted(tiny), "preproj") == features.missing(wanted(tiny)) == []


def test_a_block_is_kept_as_soon_as_it_is_made_and_claims_end_with_a_failure(
    tiny: Any, backbone: Backbone, tmp_path: Path
) -> None:
    """An image of the last of three blocks is gone when it is its turn."""
    features, lost = ImageFeatures(backbone, tmp_path / "cache"), tmp_path / "lost.png"
    shutil.copy(tiny.images()[0], lost)
    last = ([lost], View())
    missing = features.missing([*wanted(tiny)[:2], last])
    lost.unlink()
    with pytest.raises(UserError, match=r"lost\.png"):
        features.make(missing)
    assert len(features.missing([*wanted(tiny)[:2]])) == 0
    assert not list(tmp_path.rglob("*.claim"))


def test_a_block_that_another_process_makes_is_left_to_it(
    tiny: Any, backbone: Backbone, tmp_path: Path, encoded: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    features = ImageFeatures(backbone, tmp_path)
    first, second, third = features.missing(wanted(tiny))
    claim = features._path(second, "pooled").with_suffix(".claim")
    claim.parent.mkdir(parents=True, exist_ok=True)
    claim.write_text(json.dumps({"host": "another", "pid": 1, "started": "1", "claim": "x"}), encoding="utf-8")
    features.make([first, second, third])
    assert sum(encoded) == len(first) + len(third)
    assert features.missing(wanted(tiny)) == [second]
    claim.unlink()
    assert features.get(*wanted(tiny)[1]).shape == (3, 6, 16)
    assert sum(encoded) == len(first) + len(second) + len(third)


# ---- `python -m bench cache` ---------------------------------------------------------------------------------


def own_and_foreign(tiny: Any, backbone: Backbone, root: Path) -> tuple[dict[Path, int], list[Path]]:
    """Files of the bench with their sizes, and files of somebody else, all below one folder."""
    features = ImageFeatures(backbone, root)
    features.get(tiny.images()[:6], View(1, 0, 2))
    features.get(tiny.images(), View())
    block = next(root.rglob("*.safetensors"))
    (block.parent / f".{block.stem}.0.part").write_bytes(b"1" * 100)
    data = f"splits/aid-{'0a' * 8}"  # as `cache_place` names it
    for name in (f"demo/{GENERATOR}/colour/images/red/0.png", f"demo/.{GENERATOR}-k1lled/shape/0.png",
                 f"{data}/split_bench_AID.json", f"{data}/files-huggingface-01234567/train/0/0.png",
                 f"{data}/.files-huggingface-01234567.draft/train/0/0.png", f"{data}/.fetch.lock"):  # fmt: skip
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"2" * 200)
    own = {path: path.stat().st_size for path in root.rglob("*") if path.is_file()}
    foreign = []
    for name in ("notes.txt", "features/notes.txt", f"features/{block.parent.name}/notes.md", "demo/holiday/000.png",
                 "demo/readme.md", "splits/aid/split_bench_AID.json", f"{data}/mine.json",
                 "features.safetensors"):  # fmt: skip
        foreign.append(root / name)
        foreign[-1].parent.mkdir(parents=True, exist_ok=True)
        foreign[-1].write_text("mine")
    return own, foreign


def test_clear_deletes_what_is_its_own_and_nothing_else(tiny: Any, backbone: Backbone, tmp_path: Path) -> None:
    own, foreign = own_and_foreign(tiny, backbone, tmp_path)
    assert clear_cache(tmp_path) == sum(own.values())
    assert not any(path.exists() for path in own)
    assert all(path.read_text() == "mine" for path in foreign)
    assert clear_cache(tmp_path) == 0
    for path in foreign:
        path.unlink()


def test_clear_leaves_no_empty_folders_of_its_own(tiny: Any, backbone: Backbone, tmp_path: Path) -> None:
    ImageFeatures(backbone, tmp_path).get(tiny.images()[:2], View())
    clear_cache(tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert clear_cache(tmp_path / "never made") == 0


def test_cache_report_counts_every_byte_once_by_kind(
    tiny: Any, backbone: Backbone, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own, foreign = own_and_foreign(tiny, backbone, cache)
    assert sum(row["MB"] for row in cache_contents()) == pytest.approx(sum(own.values()) / 1e6)
    table = bench.cache()
    kinds = dict(zip(table["what"], table["files"], strict=True))
    assert kinds == {
        "pooled, test view": 1, "pooled, training views 0-1 of seed 1": 1, "hashes of image files": 1,
        "left by a stopped run": 1, "rendered demo images": 2, "divisions of images": 1, "fetched images": 3,
    }  # fmt: skip
    assert main(["cache"]) == 0
    shown = capsys.readouterr().out
    assert "pooled, training views 0-1 of seed 1" in shown
    assert f"MB below {cache}" in shown
    assert all(path.exists() for path in own)
    assert main(["cache", "--clear"]) == 0
    assert "Deleted: " in capsys.readouterr().out
    assert not any(path.exists() for path in own)
    assert all(path.exists() for path in foreign)
    assert main(["cache"]) == 0
    assert f"Kept: 0.0 MB below {cache}" in capsys.readouterr().out


def test_cache_report_names_damaged_blocks(tiny: Any, backbone: Backbone, cache: Path) -> None:
    ImageFeatures(backbone).get(tiny.images()[:2], View())
    next(cache.rglob("*.safetensors")).write_bytes(b"")
    assert "damaged; will be made again" in set(bench.cache()["what"])


def test_features_are_encoded_again_after_clear(
    tiny: Any, cache: Path, tmp_path: Path, encoded: list[int]
) -> None:
    tiny.run(tmp_path / "runs", methods=["zero-shot"])
    before = tiny.numbers(tmp_path / "runs")
    bench.cache(clear=True)
    tiny.run(tmp_path / "again", methods=["zero-shot"])
    assert sum(encoded) == 2 * 36
    assert tiny.numbers(tmp_path / "again") == before
