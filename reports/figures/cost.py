"""Accuracy against what a method costs: training time, learned parameters."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence

import pandas as pd
from matplotlib.figure import Figure as Drawing

from bench.progress import count
from bench.reports.elements import Figure
from bench.reports.figures.common import escaped, grid, legend, marked, style, zero_line
from bench.reports.groups import Block


class Cost(Figure):
    """At the largest shot count, on a log axis with a place for a cost of 0."""

    column = ""

    def each(self, block: Block) -> Sequence[Cost]:
        return [self] if marked(block) and not block.halves else []

    def heading(self, block: Block) -> str:
        return f"{self.title} at {count(max(block.shots), 'shot')}"

    def why_not(self, block: Block) -> str:
        return "" if (self.scores(block)[self.column] > 0).any() else "no record has it"

    def scores(self, block: Block) -> pd.DataFrame:
        scores = block.at(max(block.shots), block.scores)
        return scores[scores["label"].isin(marked(block)) & scores[self.column].notna()]

    @abstractmethod
    def axis(self, block: Block) -> str:
        """What the cost is."""

    def draw(self, block: Block) -> Drawing:
        scores, column = self.scores(block), self.column
        costs = scores.loc[scores[column] > 0, column].astype(float)
        nothing = costs.min() / 10
        figure, (axes,) = grid(1, 1, (6.4, 3.8))
        for name, cost, mean, std in scores[["label", column, "mean", "std"]].itertuples(index=False):
            look = style(block, name, points=True)
            axes.errorbar(float(cost) or nothing, mean, yerr=std, capsize=2, elinewidth=1, **look)
        zero_line(axes, block)
        axes.set_xscale("log")
        steps = (1,) if costs.max() / costs.min() > 100 else (1, 2, 5)
        decades = range(math.floor(math.log10(costs.min())) - 1, math.ceil(math.log10(costs.max())) + 1)
        ticks = [step * 10.0**decade for decade in decades for step in steps]
        ticks = [tick for tick in ticks if costs.min() / 2 < tick < costs.max() * 2]
        free = [nothing] if (scores[column] == 0).any() else []
        axes.set_xticks([*free, *ticks], [*("0" for _ in free), *map(_amount, ticks)])
        axes.minorticks_off()
        axes.set(xlabel=escaped(self.axis(block)), ylabel="accuracy (%)")
        legend(figure, block, points=True)
        return figure


class Time(Cost):
    """The devices are named, because times on different ones do not compare."""

    name = "time"
    title = "accuracy against training time"
    order = 40
    column = "train_seconds"

    def axis(self, block: Block) -> str:
        devices = ", ".join(sorted(filter(None, block.rows["device"].unique())))
        return f"training time, seconds{f' ({devices})' if devices else ''}"


class Params(Cost):
    """Parameters that gradient descent trained."""

    name = "params"
    title = "accuracy against learned parameters"
    order = 50
    column = "params"

    def axis(self, block: Block) -> str:
        return "learned parameters"


def _amount(value: float) -> str:
    """20000 as "20k"."""
    unit, name = next(((u, n) for u, n in ((1e9, "G"), (1e6, "M"), (1e3, "k")) if value >= u), (1, ""))
    return f"{value / unit:g}{name}"
