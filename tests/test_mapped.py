"""Training views that are too many for memory: the same numbers from a mapped file."""

from __future__ import annotations

import tempfile
import weakref
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from bench import estimates
from bench.errors import UserError
from bench.features import mapped
from bench.features.mapped import mapped as placed


def some(*lengths: int) -> list[torch.Tensor]:
    rng = torch.Generator().manual_seed(0)
    return [torch.randn(2, n, 5, generator=rng) for n in lengths]


def test_up_to_the_limit_tensors_stay_as_they_are(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """2 views of 3 + 4 images of 5 numbers of 4 bytes: 280 bytes."""
    tensors = some(3, 4)
    monkeypatch.setattr(mapped, "IN_MEMORY", 280)
    assert all(a is b for a, b in zip(placed(tensors, tmp_path), tensors, strict=True))
    monkeypatch.setattr(mapped, "IN_MEMORY", 279)
    assert not any(a is b for a, b in zip(placed(tensors, tmp_path), tensors, strict=True))


@pytest.mark.parametrize("limit", [0, 120, 300])
def test_a_mapped_file_holds_the_same_numbers_and_leaves_nothing_behind(
    limit: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(mapped, "IN_MEMORY", limit)
    tensors = some(3, 0, 4, 1)
    found = placed(tensors, tmp_path)
    assert [t.shape for t in found] == [t.shape for t in tensors]
    assert all(torch.equal(a, b) for a, b in zip(found, tensors, strict=True))
    assert len({t.untyped_storage().data_ptr() for t in found}) == 1  # one file
    assert not list(tmp_path.iterdir())


def test_no_more_than_the_limit_and_one_more_are_held_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Ten tensors of 40 bytes, of which 100 bytes may be held: three are when the file begins, and one comes after the
    other from then on."""
    monkeypatch.setattr(mapped, "IN_MEMORY", 100)
    alive: list[weakref.ref[Any]] = []
    most = 0

    def made() -> Iterator[torch.Tensor]:
        nonlocal most
        for _ in range(10):
            tensor = torch.zeros(2, 1, 5)
            alive.append(weakref.ref(tensor))
            most = max(most, sum(ref() is not None for ref in alive))
            yield tensor
            del tensor

    placed(made(), tmp_path)
    assert most == 3


def test_a_full_disk_says_which_and_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Full:
        def __enter__(self) -> Full:
            return self

        def __exit__(self, *error: object) -> None: ...

        def write(self, data: object) -> None:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(mapped, "IN_MEMORY", 0)
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda dir: Full())
    with pytest.raises(UserError, match=r"no room for the training views.*No space left.*BENCH_CACHE.*--views"):
        placed(some(3), tmp_path)


@pytest.mark.usefixtures("one_thread")
def test_a_cell_learns_the_same_from_mapped_views(tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {"shots": [2], "seeds": [1], "methods": ["softcpt", "linear-probe"]}
    tiny.run(tmp_path / "held", **asked)
    monkeypatch.setattr(mapped, "IN_MEMORY", 0)
    tiny.run(tmp_path / "mapped", **asked)
    held, found = (sorted((tmp_path / name).rglob("*.safetensors")) for name in ("held", "mapped"))
    assert len(held) == 2 and [path.name for path in held] == [path.name for path in found]
    for a, b in zip(held, found, strict=True):
        one, other = load_file(a), load_file(b)
        assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_mapped_views_are_no_memory_of_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two cells of 10 images, 4 views and 5 numbers, 800 bytes each: 3200 bytes (mapped, and put together), or with at
    most 100 each, 400."""
    where: Any = SimpleNamespace(
        backbone=SimpleNamespace(embed_dim=5, device=torch.device("cpu"), image_size=(1, 1)),
        few=lambda cell: [([0] * 10, [0] * 4)], tests=lambda cell: [],
        features=SimpleNamespace(is_cached=lambda images, view, kind: True),
    )  # fmt: skip
    cell: Any = SimpleNamespace(variant=SimpleNamespace(method=SimpleNamespace(image="pooled")))
    monkeypatch.setattr(estimates, "_now", lambda: 0.0)
    monkeypatch.setattr(estimates, "_places", lambda plan, image: 1)
    monkeypatch.setattr(estimates, "_step", lambda plan, cells: 0.0)
    without = estimates.memory(where, [cell, cell])
    monkeypatch.setattr(estimates, "IN_MEMORY", 100)
    assert without - estimates.memory(where, [cell, cell]) == 3200 - 400
