"""imbalanced: K · C images of a task whose classes have different numbers of them, some perhaps none.

As in the code of Silva-Rodríguez et al., arXiv 2506.17500 (github.com/jusiro/SS-Text, data/utils.py, its "realistic"
scenario): class c gets round(K · C · p_c) images, where p_c is its share of the split's training images, and the
largest classes give up images, one by one, while there are more than K · C. Their tables have 20 draws and the mean of
the classes' accuracies.

`imbalanced:R` is our own, for tasks whose classes are of one size: p_c falls geometrically from the largest class to
the smallest, by the factor R in all; the seed says which class is large.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from tqdm.auto import tqdm

from bench.datasets.fewshot import seeded_order
from bench.datasets.splits import Task
from bench.datasets.types import Item
from bench.errors import UserError
from bench.protocols.few_shot import FewShot


class Imbalanced(FewShot):
    """Train on classes of different sizes, score all test images by the mean of the classes' accuracies.

    A class's images are the first of it in the seeded order, those that the few-shot draw takes first; validation
    images are drawn in the same way, from the validation images, with min(K, 4) for K.
    """

    name = "imbalanced"
    score = "Mean per-class accuracy after training on classes of different sizes"
    draws_itself = True

    @classmethod
    def called(cls, argument: str | None) -> Imbalanced:
        if argument is not None and (not re.fullmatch("[1-9][0-9]{0,2}", argument) or argument == "1"):
            ways = f"write {cls.name}:10 for classes of 10 : 1 images, or another ratio up to 999"
            raise UserError(f"--protocol {f'{cls.name}:{argument}'!r}: {ways}")
        return cls() if argument is None else cls(int(argument))

    def __init__(self, ratio: int | None = None) -> None:
        self.ratio = ratio
        if ratio is not None:
            self.name = f"{Imbalanced.name}:{ratio}"  # type: ignore[misc]

    def of(self, tasks: Sequence[Task]) -> Imbalanced:
        """Itself.

        Raises
        ------
        UserError : the classes of every task are of one size, so that all draws would be few-shot's.
        """
        even = [task.name for task in tasks if self.ratio is None and len(set(_held(task, task.split.train))) == 1]
        told = f"{', '.join(even)}: every class has as many training images as the others"
        if even and len(even) == len(tasks):
            raise UserError(
                f"--protocol {self.name}: {told}, so their draws are few-shot's; {self.name}:10 draws ten times as "
                "many images of one class as of another"
            )
        if even:
            tqdm.write(f"warning: {told}; their draws are few-shot's", file=sys.stderr)
        return self

    def judged(self, task: Task) -> Task:
        return replace(task, spec=replace(task.spec, metric="mean_acc"))

    def sizes(self, task: Task, items: Sequence[Item], seed: int, shots: int) -> list[int]:
        shares = _held(task, items) if self.ratio is None else _falling(task.class_names, self.ratio, seed)
        return rounded(shares, shots * len(task.class_names))


def rounded(shares: Sequence[float], total: int) -> list[int]:
    """How many images each class gets: `total` by their shares, rounded (a half to the even number); of more than
    `total` the largest class, of equals the first, gives one up at a time. So some may have none."""
    found = [round(total * share / sum(shares)) for share in shares] if any(shares) else [0] * len(shares)
    for _ in range(sum(found) - total):
        found[found.index(max(found))] -= 1
    return found


def _falling(names: Sequence[str], ratio: int, seed: int) -> list[float]:
    """Shares that fall from 1 to 1/ratio, geometrically, in the seed's order of the class names."""
    order = sorted(range(len(names)), key=lambda label: seeded_order(names[label], seed))
    place = {label: i for i, label in enumerate(order)}
    return [ratio ** (-place[label] / max(1, len(names) - 1)) for label in range(len(names))]


def _held(task: Task, items: Sequence[Item]) -> list[int]:
    """How many of the images are of each class."""
    there = Counter(item.label for item in items)
    return [there[label] for label in range(len(task.class_names))]
