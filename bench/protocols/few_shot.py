"""few-shot: train and test on all classes of every task."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from bench.datasets.splits import Task
from bench.datasets.types import Item
from bench.protocols.base import Part, Protocol


class FewShot(Protocol):
    """Train on a few images of each class, test on all test images among all classes of their task."""

    name = "few-shot"
    score = "Mean accuracy"

    def trained(self, task: Task) -> Task:
        return task

    def trained_items(self, task: Task, items: Sequence[Item]) -> tuple[Item, ...]:
        return tuple(items)

    def parts(self, task: Task) -> list[Part]:
        labels = torch.tensor([item.label for item in task.split.test], dtype=torch.long)
        return [Part("all", torch.arange(len(labels)), labels, len(task.class_names))]
