"""General-10's real sizes with made-up names and random features: what benchmarks of training work on."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from bench.datasets.suites import load_suite
from bench.methods import TaskData

sys.path.append(str(Path(__file__).parents[1]))

ADJECTIVES = ("red", "golden", "wild", "small", "american", "common", "spotted", "northern", "great", "black", "river")
NOUNS = ("cat", "retriever", "sparrow", "tulip", "airplane", "maple", "car", "church", "pizza", "desk", "fern")


def general10() -> list[int]:
    """Classes of each of its ten tasks; 1191 together."""
    return [task.n_classes or 0 for task in load_suite("general10").tasks]


def names(n: int) -> tuple[str, ...]:
    """n different class names, most of two to five tokens, as the suites' are."""
    k = len(NOUNS)
    made = []
    for i in range(n):
        before = [ADJECTIVES[i // k % k]] * (i % 3 > 0) + [ADJECTIVES[i // k // k % k]] * (i % 2)
        made.append(" ".join([*before, NOUNS[i % k], *([str(i // k)] if i >= k else [])]))
    return tuple(made)


def tasks(sizes: list[int], embed: int, shots: int) -> list[TaskData]:
    """Few-shot sets of random features [2 views, classes · shots, embed]."""
    rng = torch.Generator().manual_seed(0)
    made = []
    for t, n in enumerate(sizes):
        labels = torch.arange(n).repeat(shots)
        views = torch.randn(2, len(labels), embed, generator=rng)
        task_name = f"recognition of things of kind {t}"
        made.append(TaskData(f"task {t}", task_name, names(n), "a photo of a {}.", views, labels))
    return made
