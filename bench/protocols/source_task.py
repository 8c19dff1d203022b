"""source-task:NAME: train on one task, score all others by their names alone.

With ImageNet as the source, this is the cross-dataset protocol of Zhou et al., "Conditional Prompt Learning for
Vision-Language Models", CVPR 2022, arXiv 2203.05557, without the source's own test.
"""

from __future__ import annotations

from collections.abc import Sequence

from bench.datasets.splits import Task
from bench.errors import UserError, nearest
from bench.protocols.base import Fold
from bench.protocols.unseen_task import Unseen


class SourceTask(Unseen):
    """One training, on the source; every other task of the run is scored among all its classes."""

    name = "source-task"

    @classmethod
    def called(cls, argument: str | None) -> SourceTask:
        if not argument:
            raise UserError(f"--protocol {cls.name}: write {cls.name}:NAME, with the task to train on")
        return cls(argument)

    def __init__(self, source: str) -> None:
        self.source = source
        self.name = f"{SourceTask.name}:{source}"  # type: ignore[misc]

    def of(self, tasks: Sequence[Task]) -> SourceTask:
        known = {task.name.lower(): task.name for task in tasks}
        if self.source.lower() not in known:
            right = nearest(self.source, known.values())
            raise UserError(f"--protocol {self.name}: no task of this run (--tasks names the source, too); {right}")
        if len(known) < 2:
            raise UserError(f"--protocol {self.name}: needs another task, to score")
        return SourceTask(known[self.source.lower()])

    def folds(self, tasks: Sequence[Task]) -> list[Fold]:
        return [Fold((self.source,), tuple(task.name for task in tasks if task.name != self.source))]
