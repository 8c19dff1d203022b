"""What a protocol is: what methods are trained on, and which test images are scored among which classes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from bench.datasets.splits import Task
from bench.datasets.types import Item
from bench.methods import Method


@dataclass(frozen=True)
class Part:
    """Test images of a task that are scored together.

    name : "all", or what the protocol calls this part. rows : places in the task's test list, ascending.
    labels : among the part's classes. class_names : the classes to score among; None: those that were trained on.
    """

    name: str
    rows: Tensor
    labels: Tensor
    n_classes: int
    class_names: tuple[str, ...] | None = None


class Protocol(ABC):
    """One way to train and score. A new protocol is one file in this folder.

    Class attributes
    ----------------
    name : what `--protocol` takes. score : what a task's final number is, in words.
    """

    name: ClassVar[str]
    score: ClassVar[str]

    def refusal(self, method: type[Method]) -> str:
        """Why a method cannot take part; "" where it can."""
        return ""

    def trained_tasks(self, tasks: Sequence[Task]) -> list[Task]:
        """The tasks as methods see them in training. Tasks that are scored only are left out."""
        return [self.trained(task) for task in tasks]

    @abstractmethod
    def trained(self, task: Task) -> Task:
        """A task with the classes and images that may be trained on."""

    @abstractmethod
    def trained_items(self, task: Task, items: Sequence[Item]) -> tuple[Item, ...]:
        """Those of the task's images that may be trained on."""

    @abstractmethod
    def parts(self, task: Task) -> list[Part]:
        """What is scored of a task (complete, not as trained)."""

    def summary(self, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Rows of a record that sum up a task's parts; the last row of a task is its score."""
        return []
