"""Protocols: which classes a task is trained on, and which test images are scored among which classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from bench.datasets.items import Item
from bench.datasets.splits import Task
from bench.errors import UserError, nearest

FEW_SHOT = "few-shot"  # train and test on all classes
BASE2NEW = "base2new"  # train on the first half of the classes, test both halves, each among its own
PROTOCOLS = (FEW_SHOT, BASE2NEW)


@dataclass(frozen=True)
class Part:
    """Test images that are scored together.

    name : "all", "base" or "new". rows : their places in the task's test list, ascending. labels : among the part's
    classes. class_names : the classes to score; None: those the method was trained on.
    """

    name: str
    rows: Tensor
    labels: Tensor
    n_classes: int
    class_names: tuple[str, ...] | None = None


def check_protocol(name: str) -> str:
    if name not in PROTOCOLS:
        raise UserError(f"--protocol {name!r} is unknown; {nearest(name, PROTOCOLS)}")
    return name


def n_trained(task: Task, protocol: str) -> int:
    """How many of a task's classes, the first ones, a method is trained on: all, or the ⌈|C|/2⌉ base classes."""
    return len(task.class_names) if protocol == FEW_SHOT else (len(task.class_names) + 1) // 2


def trained_items(task: Task, protocol: str, items: Sequence[Item]) -> tuple[Item, ...]:
    """Those of the task's images that show a class it is trained on."""
    k = n_trained(task, protocol)
    return tuple(item for item in items if item.label < k)


def trained_part(task: Task, protocol: str) -> Task:
    """The task as the method sees it in training."""
    if protocol == FEW_SHOT:
        return task
    split = task.split
    split = replace(
        split,
        class_names=split.class_names[: n_trained(task, protocol)],
        train=trained_items(task, protocol, split.train),
        val=trained_items(task, protocol, split.val),
        test=trained_items(task, protocol, split.test),
    )
    return replace(task, split=split)


def test_parts(task: Task, protocol: str) -> list[Part]:
    """What is scored of a task (the whole one, not its trained part)."""
    labels = torch.tensor([item.label for item in task.split.test], dtype=torch.long)
    if protocol == FEW_SHOT:
        return [Part("all", torch.arange(len(labels)), labels, len(task.class_names))]
    k = n_trained(task, protocol)
    base, new = (labels < k).nonzero()[:, 0], (labels >= k).nonzero()[:, 0]
    if not len(new):
        raise UserError(f"task {task.name}: no test images of new classes; {BASE2NEW} needs at least two classes")
    return [
        Part("base", base, labels[base], k),
        Part("new", new, labels[new] - k, len(task.class_names) - k, task.class_names[k:]),
    ]


def harmonic_mean(a: float, b: float) -> float:
    """Of two accuracies in percent; 0 where both are."""
    return 2 * a * b / (a + b) if a + b else 0.0
