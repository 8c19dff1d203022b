"""Where cells are computed: in this process, one after another.

Whoever computes a cell claims it first and writes its record: runs that know nothing of each other can share a grid.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager

from bench.cells import Cell
from bench.claims import CLAIMS
from bench.evaluate import evaluate
from bench.guard import telling_interrupts
from bench.plan import Plan
from bench.records import Record

Around = Callable[[], AbstractContextManager[None]]
Groups = Iterable[Sequence[Cell]]


def compute(plan: Plan, cells: Sequence[Cell], before: Mapping[str, str]) -> Iterator[Record]:
    """Compute cells that are trained together and write their records; without those that others have or have done.

    before : when cells failed, by key, of those that failed before this run.
    """
    with CLAIMS.taking([plan.claim(cell) for cell in cells]) as taken:
        mine = [cell for cell, own in zip(cells, taken, strict=True) if own and plan.is_open(cell, before)]
        for record in evaluate(plan, mine) if mine else ():
            there = plan.store.read(record.cell, record.key)
            if there is None or not there.done:  # of a paused process's cell somebody else may have made one
                plan.store.write(record)
            yield record


class Serial:
    """This process, one group of cells after another."""

    def __init__(self, plan: Plan, around: Around) -> None:
        self.plan, self.around = plan, around

    def run(self, groups: Groups, before: Mapping[str, str]) -> Iterator[Record]:
        """The records of cells, as they end; of none that somebody else has claimed or computed."""
        for group in groups:
            with telling_interrupts(), self.around():
                yield from compute(self.plan, group, before)
