"""base2new: train on the first half of each task's classes, test both halves, each among its own classes.

Zhou et al., "Conditional Prompt Learning for Vision-Language Models", CVPR 2022, arXiv 2203.05557.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from bench.datasets.splits import Task
from bench.datasets.types import Item
from bench.errors import UserError
from bench.methods import Method
from bench.protocols.base import Part, Protocol


class Base2New(Protocol):
    """The first ⌈|C|/2⌉ classes are base, the others new; the score is the harmonic mean of the two accuracies."""

    name = "base2new"
    score = "Harmonic mean of base and new classes' accuracy,"

    tests = "classes that no method was trained on"

    def refusal(self, method: type[Method], params: Any) -> str:
        return method.no_new_classes

    def n_base(self, task: Task) -> int:
        return (len(task.class_names) + 1) // 2

    def trained(self, task: Task) -> Task:
        split, k = task.split, self.n_base(task)
        train, val, test = (self.trained_items(task, part) for part in (split.train, split.val, split.test))
        return replace(task, split=replace(split, class_names=split.class_names[:k], train=train, val=val, test=test))

    def trained_items(self, task: Task, items: Sequence[Item]) -> tuple[Item, ...]:
        k = self.n_base(task)
        return tuple(item for item in items if item.label < k)

    def parts(self, task: Task) -> list[Part]:
        k = self.n_base(task)
        labels = torch.tensor([item.label for item in task.split.test], dtype=torch.long)
        base, new = (labels < k).nonzero()[:, 0], (labels >= k).nonzero()[:, 0]
        if not len(new):
            raise UserError(f"task {task.name}: no test images of new classes; {self.name} needs at least two classes")
        return [
            Part("base", base, labels[base], k),
            Part("new", new, labels[new] - k, len(task.class_names) - k, task.class_names[k:]),
        ]

    def summary(self, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        base, new = rows
        both = harmonic_mean(base["accuracy"], new["accuracy"])
        total = {k: base[k] + new[k] for k in ("n_test", "n_classes")}
        return [{**base, **total, "part": "harmonic", "accuracy": both}]


def harmonic_mean(a: float, b: float) -> float:
    """Of two accuracies in percent; 0 where both are."""
    return 2 * a * b / (a + b) if a + b else 0.0
