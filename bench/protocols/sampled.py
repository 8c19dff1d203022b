"""Where tasks are many: train on some of them, score some of them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from copy import copy
from dataclasses import replace
from functools import partial

from bench.datasets.splits import Task
from bench.errors import UserError
from bench.progress import count
from bench.protocols.base import Fold, Protocol


def sampled(protocol: Protocol, train_tasks: Sequence[int] = (), score_tasks: int | None = None) -> Protocol:
    """A protocol with fewer tasks. They are drawn by their names, whatever the seed: seeds redraw images, not tasks.
    The fewer are always among the more.

    Parameters
    ----------
    train_tasks : each fold is trained on so many of its tasks, once for each of these numbers. All score the same.
    score_tasks : so many of the tasks that are scored in all folds together; folds without one of them are left out.
    """
    fewer = copy(protocol)
    fewer.folds = partial(_folds, protocol, train_tasks, score_tasks)  # type: ignore[method-assign]
    return fewer


def _folds(
    whole: Protocol, train_tasks: Sequence[int], score_tasks: int | None, tasks: Sequence[Task]
) -> list[Fold]:
    """The folds of the whole protocol with fewer tasks.

    Raises
    ------
    UserError : there are not so many, or some would be scored as if they had not been trained on.
    """
    folds = whole.folds(tasks)
    if score_tasks is not None:
        scored = {name for fold in folds for name in fold.scored}
        if score_tasks > len(scored):
            raise UserError(f"--score-tasks {score_tasks}: {count(len(scored), 'task')} can be scored")
        sample = _first([task.name for task in tasks if task.name in scored], score_tasks, "score")
        kept = [replace(f, scored=tuple(n for n in f.scored if n in sample), sample=sample) for f in folds]
        folds = [fold for fold in kept if fold.scored]
    if not train_tasks:
        return folds
    if any({*fold.trained} & {*fold.scored} for fold in folds):
        raise UserError(f"--train-tasks: {whole.name} scores what it trains on; use --protocol unseen-task:4, say")
    fewest, most = min(len(fold.trained) for fold in folds), max(train_tasks)
    if most > fewest:
        raise UserError(f"--train-tasks {most}: a fold of {whole.name} has {count(fewest, 'task')} to train on")
    each = [(n, fold) for n in train_tasks for fold in folds]
    return [replace(fold, trained=_first(fold.trained, n, "train"), train_tasks=n) for n, fold in each]


def _first(names: Sequence[str], n: int, what: str) -> tuple[str, ...]:
    """n of the names in their own order: the first of a fixed random order, so that fewer are among more."""
    order = sorted(names, key=lambda name: hashlib.blake2b(f"{what}/{name}".encode(), digest_size=8).digest())
    first = {*order[:n]}
    return tuple(name for name in names if name in first)
