"""suite-to-suite: train on the tasks of one suite, score those of another (`--target`) by their names alone."""

from __future__ import annotations

from collections.abc import Sequence

from bench.datasets.spec import Suite, TaskSpec
from bench.datasets.splits import Task
from bench.errors import UserError
from bench.protocols.base import Fold
from bench.protocols.unseen_task import Unseen


class SuiteToSuite(Unseen):
    """One training, on the run's own suite; every task of the target is scored among all its classes.

    A task that stands in both, by its name or by its images, is trained on and not scored.

    target : that suite's name. scored : its tasks' names, without those of the run's own suite.
    """

    name = "suite-to-suite"

    @classmethod
    def called(cls, argument: str | None) -> SuiteToSuite:
        if argument is not None:
            raise UserError(f"--protocol {f'{cls.name}:{argument}'!r}: write --protocol {cls.name} --target {argument}")
        return cls()

    def __init__(self, target: str = "", scored: Sequence[str] = ()) -> None:
        self.scored = frozenset(scored)
        if target:
            self.name = f"{SuiteToSuite.name}:{target}"  # type: ignore[misc]

    def towards(self, target: Suite, source: Sequence[TaskSpec]) -> tuple[SuiteToSuite, list[str]]:
        """The protocol that scores another suite's tasks, and those that are left out since the source has them, too.

        Raises
        ------
        UserError : none is left.
        """
        names = {spec.name.lower() for spec in source}
        images = [(spec.folder, spec.reader) for spec in source]
        twice = [s.name for s in target.tasks if s.name.lower() in names or (s.folder, s.reader) in images]
        scored = [spec.name for spec in target.tasks if spec.name not in twice]
        if not scored:
            raise UserError(f"--target {target.name}: all of its tasks are trained on; name another suite")
        return SuiteToSuite(target.name, scored), twice

    def folds(self, tasks: Sequence[Task]) -> list[Fold]:
        names = [task.name for task in tasks]
        scored = tuple(name for name in names if name in self.scored)
        return [Fold(tuple(name for name in names if name not in self.scored), scored)]
