"""Memory: what is done in chunks goes on in halves of them, what is not fails its cell alone; estimates and limits."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from bench import limits
from bench.clip.backbone import load_backbone
from bench.features import View
from bench.features.encode import Block, Encoder
from bench.features.hashes import ImageHashes
from bench.limits import in_halves, out_of_memory
from bench.methods.cocoop import CoCoOp
from bench.methods.coop import CoOp

pytestmark = pytest.mark.usefixtures("one_thread")

CPU = (
    "[enforce fail at alloc_cpu.cpp:118] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9"
)
WINDOWS = (
    "[enforce fail at alloc_cpu.cpp:114] DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes."
)
ERRORS = [MemoryError(), RuntimeError(CPU), RuntimeError(WINDOWS), torch.OutOfMemoryError("CUDA out of memory.")]


@pytest.fixture(autouse=True)
def told_anew() -> None:
    limits._tell.cache_clear()


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: f"{type(error).__name__} {error}"[:40])
def test_rows_that_do_not_fit_are_worked_on_in_halves(error: Exception, capsys: pytest.CaptureFixture[str]) -> None:
    tried: list[int] = []

    def work(rows: Tensor) -> Tensor:
        tried.append(len(rows))
        if len(rows) > 3:
            raise error
        return 2 * rows

    found = in_halves(work, torch.arange(10), "numbers")
    assert torch.cat(found).tolist() == [0, 2, 4, 6, 8, 10, 12, 14, 16, 18]
    assert tried == [10, 5, 3, 2, 5, 3, 2]
    told = "warning: not enough memory for {} numbers at a time: going on in halves\n"
    assert capsys.readouterr().err == told.format(10) + told.format(5)  # each number once


def test_a_single_row_that_does_not_fit_fails_and_so_does_any_other_error() -> None:
    def no_memory(rows: Tensor) -> Tensor:
        raise MemoryError

    def broken(rows: Tensor) -> Tensor:
        raise RuntimeError("shapes do not fit")

    with pytest.raises(MemoryError):
        in_halves(no_memory, torch.arange(5), "numbers")
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        in_halves(broken, torch.arange(5), "numbers")
    assert not out_of_memory(ValueError("not enough memory")) and not out_of_memory(RuntimeError("shapes do not fit"))


def test_images_are_encoded_in_halves_with_the_same_features(tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    backbone, paths = load_backbone(tiny.backbone), tiny.images()[:7]
    block = Block(paths, ImageHashes().of(paths), View(1, 0, 2))
    ((_, whole),) = Encoder(backbone).features([block], "pooled")
    encode, sizes = backbone.model.encode_image, []

    def small_machine(images: Tensor) -> Tensor:
        if len(images) > 4:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        sizes.append(len(images))
        return encode(images)

    monkeypatch.setattr(backbone.model, "encode_image", small_machine)
    ((_, halves),) = Encoder(backbone).features([block], "pooled")
    assert sorted(sizes) == [3, 3, 4, 4]  # 14 views, of which 7, of which 4 and 3
    torch.testing.assert_close(halves, whole, rtol=1e-5, atol=1e-6)


def the_same_results(tiny: Any, tmp_path: Path, prepare: Any, **grid: Any) -> None:
    """A run on a small machine has the keys and the numbers of one on a large machine."""
    tiny.run(tmp_path / "large", shots=[1], seeds=[1], **grid)
    prepare()
    table = tiny.run(tmp_path / "small", shots=[1], seeds=[1], **grid)
    assert not table.attrs["failed"]
    large, small = tiny.records(tmp_path / "large"), tiny.records(tmp_path / "small")
    assert list(large) == list(small)  # the paths, which have the keys
    for path, record in large.items():
        assert [row["accuracy"] for row in small[path]["tasks"]] == [row["accuracy"] for row in record["tasks"]]
        assert small[path]["config"] == record["config"]
        for name, losses in record["curves"]["loss"].items():
            assert small[path]["curves"]["loss"][name] == pytest.approx(losses, rel=1e-3)  # of four digits


def test_images_are_scored_in_halves_with_the_same_result(
    tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    predict, sizes = CoOp.predict, []

    def small_machine(self: CoOp, task: Any, features: Tensor, class_names: Any = None) -> Tensor:
        if len(features) > 4:
            raise MemoryError
        sizes.append(len(features))
        return predict(self, task, features, class_names)

    the_same_results(tiny, tmp_path, lambda: monkeypatch.setattr(CoOp, "predict", small_machine), methods=["coop"])
    assert max(sizes) <= 4 and sum(sizes) == 3 * 3 * (4 + 1)  # tasks, classes, test and validation images


def test_cocoop_goes_on_with_half_of_its_tokens_and_the_same_result(
    tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    gradients = CoCoOp.gradients.__func__

    def small_machine(cls: type[CoCoOp], together: Any) -> None:
        if together[0][0].params.max_tokens > 60:
            raise RuntimeError(CPU)
        gradients(cls, together)

    grid = {"methods": ["cocoop"], "options": ["cocoop.context=2", "cocoop.words=", "cocoop.max_tokens=200"]}
    the_same_results(
        tiny, tmp_path, lambda: monkeypatch.setattr(CoCoOp, "gradients", classmethod(small_machine)), **grid
    )


def test_where_there_is_no_chunk_the_cell_fails_and_the_grid_goes_on(
    tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def small_machine(cls: type[CoOp], together: Any) -> None:
        raise MemoryError("no room for 3 prompts")

    monkeypatch.setattr(CoOp, "gradients", classmethod(small_machine))
    with pytest.warns(UserWarning, match="1 of 2 cells failed"):
        table = tiny.run(tmp_path / "runs", methods=["coop", "zero-shot"], shots=[1], seeds=[1])
    (failed,) = table.attrs["failed"]
    assert (failed["method"], failed["error"]) == ("coop", "MemoryError: no room for 3 prompts")
    assert set(table["method"]) == {"zero-shot"}
    assert re.search(r"in small_machine", failed["traceback"])
