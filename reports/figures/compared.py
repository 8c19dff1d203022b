"""What figures that compare all methods with one another share: the accuracies that all of them have."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from bench.reports.elements import Figure
from bench.reports.figures.common import marked, short
from bench.reports.groups import Block


class Compared(Figure):
    """Of the methods that have every cell: accuracies averaged over shot counts, a line a task and seed."""

    fewest = 3  # methods

    def each(self, block: Block) -> Sequence[Compared]:
        return [self] if len(marked(block)) > 1 and not block.halves else []

    def values(self, block: Block) -> pd.DataFrame:
        """Columns: labels in the tables' order; index: task and seed."""
        return block.values("all", block.shots, block.main).dropna(axis=1)

    def left_out(self, block: Block) -> str:
        """ "; without coop, plot (cells are missing)"."""
        missing = [name for name in block.main if name not in self.values(block)]
        return f"; without {short(', '.join(missing), 80)} (cells are missing)" if missing else ""

    def why_not(self, block: Block) -> str:
        n = len(self.values(block).columns)
        return "" if n >= self.fewest else f"{n} of {len(block.main)} methods have every cell, {self.fewest} are needed"
