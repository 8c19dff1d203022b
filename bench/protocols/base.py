"""What a protocol is: what methods are trained on, and which test images are scored among which classes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from bench.datasets.splits import Task
from bench.datasets.types import Item
from bench.errors import UserError
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


@dataclass(frozen=True)
class Fold:
    """One training of a protocol, by tasks' names: which are trained on, and which are scored then.

    name : "2 of 4"; "" of the only one.
    train_tasks : how many tasks were asked for (`--train-tasks`). sample : the tasks that all folds together score,
        where these were drawn (`--score-tasks`).
    """

    trained: tuple[str, ...]
    scored: tuple[str, ...]
    name: str = ""
    train_tasks: int = 0
    sample: tuple[str, ...] = ()


class Protocol(ABC):
    """One way to train and score. A new protocol is one file in this folder.

    Class attributes
    ----------------
    name : what `--protocol` takes. score : what a task's final number is, in words. tests : what is scored, where a
        method may be refused for it. draws_itself : its few-shot draw is its own, so that `--draws` says nothing.
    """

    name: ClassVar[str]
    score: ClassVar[str]
    tests: ClassVar[str] = ""
    draws_itself: ClassVar[bool] = False

    @classmethod
    def called(cls, argument: str | None) -> Protocol:
        """The protocol that `--protocol NAME` stands for, or NAME:ARGUMENT.

        Raises
        ------
        UserError : it takes no such argument, or needs one.
        """
        if argument is not None:
            raise UserError(f"--protocol {f'{cls.name}:{argument}'!r}: write {cls.name}, without a colon")
        return cls()

    def refusal(self, method: type[Method], params: Any) -> str:
        """Why a method with these parameters cannot take part; "" where it can."""
        return ""

    def of(self, tasks: Sequence[Task]) -> Protocol:
        """The protocol for these tasks; itself, but where another name says the same of them."""
        return self

    def judged(self, task: Task) -> Task:
        """A task with the metric that it is scored by."""
        return task

    def sizes(self, task: Task, items: Sequence[Item], seed: int, shots: int) -> list[int]:
        """How many of a task's training or validation images the few-shot draw takes of each class, if there are."""
        return [shots] * len(task.class_names)

    def folds(self, tasks: Sequence[Task]) -> list[Fold]:
        """The trainings: each is a cell. No task is scored in two of them."""
        names = tuple(task.name for task in tasks)
        return [Fold(names, names)]

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
