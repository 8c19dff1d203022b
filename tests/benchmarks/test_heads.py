"""Heads at General-10's real sizes: ten tasks, 1191 classes, 16 shots, RN50's width, random features.

The floor is the time of the matrix products that a method's formula needs, forward and backward, at the rate that this
machine multiplies a batch of 256 by SUN397's classes. The target is three times the floor, or two minutes where that is
more; a run that takes twice the target fails. A tenth of each training is timed and multiplied by ten.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from bench.clip.projection import Projection
from bench.methods import TaskData, find_method

sys.path.append(str(Path(__file__).parent))
import sizes
from store import store

EMBED, SHOTS, PART, OVER_FLOOR, ENOUGH = 1024, 16, 10, 3.0, 120.0

# Floating-point operations of a whole training on a task: n images, c classes; d = 1024.
Work = Callable[[int, int], float]
D, BEFORE = EMBED, 2048  # before the projection of RN50's image tower
WORK: dict[str, Work] = {
    # f·Zᵀ and Z's gradient; the affinities times Y, forward and backward; f·t
    "tip-adapter-f": lambda n, c: 20 * n * (4 * D * n + 4 * n * c + 2 * D * c),
    # two layers of d × d/4 forward, three products backward; τ·f·t both ways
    "clip-adapter": lambda n, c: 200 * n * (10 * D * D / 4 + 4 * D * c),
    "taskres": lambda n, c: 100 * n * 4 * D * c,
    "zs-lp": lambda n, c: 300 * max(n - n % 256, min(256, 2 * n)) * 4 * D * c,
    "clap": lambda n, c: 300 * max(n - n % 256, min(256, 2 * n)) * 4 * D * c,
    "lp++": lambda n, c: 300 * n * 4 * D * c,
    "cross-modal-lp": lambda n, c: 12800 * 8 * 4 * D * c,
    "ape-t": lambda n, c: 20 * n * (4 * 717 * n + 4 * n * c + 4 * D * c),
    # the map forward and its gradient; τ·f·t both ways
    "rla": lambda n, c: 300 * n * (4 * D * D + 4 * D * c),
    "prolip": lambda n, c: 300 * n * (4 * BEFORE * D + 4 * D * c),
}


class Tower:
    def encode_texts(self, texts: list[str]) -> torch.Tensor:
        return 8 * torch.nn.functional.normalize(torch.randn(len(texts), EMBED), dim=-1)


def rate() -> float:
    """Floating-point operations a second."""
    images, weights = torch.randn(256, EMBED), torch.randn(397, EMBED)
    best = float("inf")
    for _ in range(20):
        start = time.perf_counter()
        images @ weights.T
        best = min(best, time.perf_counter() - start)
    return 2 * 256 * 397 * EMBED / best


@pytest.fixture(scope="module")
def tasks() -> list[TaskData]:
    return [replace(task, test_view=task.views[0], flip_view=task.views[1])
            for task in sizes.tasks(sizes.general10(), EMBED, SHOTS)]  # fmt: skip


@pytest.mark.parametrize("name", WORK)
def test_ten_tasks_train_in_minutes(benchmark: Any, tasks: list[TaskData], name: str) -> None:
    if benchmark.disabled:
        pytest.skip("timed by make benchmark only")
    found = find_method(name)
    length = "epochs" if "epochs" in {f.name for f in fields(found.Params)} else "steps"
    whole = getattr(found.Params(), length)
    method = found(replace(found.Params(), **{length: whole // PART}))
    projection = Projection(torch.randn(BEFORE, EMBED) / BEFORE**0.5, torch.zeros(EMBED))
    clip: Any = SimpleNamespace(
        tower=Tower(), scale=100.0, embed_dim=EMBED, device=torch.device("cpu"), projection=projection
    )
    if found.image == "preproj":
        tasks = [replace(task, views=task.views.repeat(1, 1, BEFORE // EMBED)) for task in tasks]
    flops = sum(WORK[name](len(task.labels), len(task.class_names)) for task in tasks)
    before = rate()
    benchmark.pedantic(lambda: method.fit(clip, tasks, 1, lambda done, total: None), rounds=1)
    seconds = benchmark.stats.stats.min * whole / (whole // PART)
    floor = flops / max(before, rate())
    target = max(OVER_FLOOR * floor, ENOUGH)
    print(f"\n{name}: {seconds:.0f} s; floor {floor:.0f} s ({seconds / floor:.1f} times), target {target:.0f} s")
    figures = {"seconds": seconds, "floor_seconds": floor, "target_seconds": target, "over_floor": seconds / floor}
    store(f"heads-{name.replace('+', 'p')}", {"params": method.n_params, "part": 1 / PART, **figures})
    assert seconds < 2 * target
