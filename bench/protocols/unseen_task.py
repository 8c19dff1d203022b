"""unseen-task: train on the other tasks, score a task of which nothing but names is known.

The question that the SoftCPT paper (arXiv 2208.13474) leaves open: its contexts are made from tasks' names, so they
should serve tasks that were never trained on. Of an unseen task a method is given its name, its class names and its
template; no image, also none to validate on.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bench.datasets.splits import Task
from bench.errors import UserError
from bench.methods import Method
from bench.progress import count
from bench.protocols.base import Fold
from bench.protocols.few_shot import FewShot


class Unseen(FewShot):
    """Base of the protocols that score tasks which were not trained on."""

    score = "Mean accuracy on tasks never trained on"
    tests = "tasks that no method was trained on"

    def refusal(self, method: type[Method], params: Any) -> str:
        return method.refuses_unseen(params)


class UnseenTask(Unseen):
    """Each task is left out of one training and scored in it, among all its classes.

    With k folds, task number t is left out in fold t mod k, together with the others of that fold; by default each
    task has a fold of its own.
    """

    name = "unseen-task"

    @classmethod
    def called(cls, argument: str | None) -> UnseenTask:
        if argument is not None and not argument.isdecimal():
            raise UserError(f"--protocol {f'{cls.name}:{argument}'!r}: write {cls.name}:4 for four folds of tasks")
        return cls() if argument is None else cls(int(argument))

    def __init__(self, k: int | None = None) -> None:
        self.k = k
        if k is not None:
            self.name = f"{UnseenTask.name}:{k}"  # type: ignore[misc]

    def of(self, tasks: Sequence[Task]) -> UnseenTask:
        n = len(tasks)
        if n < 2:
            raise UserError(f"--protocol {self.name}: needs two tasks or more, to train on some and score others")
        if self.k is not None and not 2 <= self.k <= n:
            raise UserError(f"--protocol {self.name}: {count(n, 'task')} make 2 to {n} folds")
        return UnseenTask() if self.k == n else self

    def folds(self, tasks: Sequence[Task]) -> list[Fold]:
        k = self.k or len(tasks)
        names = [task.name for task in tasks]
        folds = []
        for fold in range(k):
            scored = tuple(name for t, name in enumerate(names) if t % k == fold)
            folds.append(Fold(tuple(name for name in names if name not in scored), scored, f"{fold + 1} of {k}"))
        return folds
