"""Accuracy against what a method costs: training time, learned parameters."""

from __future__ import annotations

import math
import re
import textwrap
from abc import abstractmethod
from collections.abc import Sequence

import pandas as pd
from matplotlib.figure import Figure as Drawing

from bench.progress import count
from bench.reports.elements import Figure
from bench.reports.figures.common import INTERVALS, bars, escaped, grid, legend, marked, style, zero_line
from bench.reports.groups import Block

DEVICES = 3  # that an axis names


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
        for name in marked(block):
            at = scores[scores["label"] == name]
            look = {**style(block, name, points=True), "elinewidth": 1}
            axes.errorbar(at[column].astype(float).replace(0, nothing), at["mean"], yerr=bars(at), **look)
        zero_line(axes, block)
        axes.set_xscale("log")
        steps = (1,) if costs.max() / costs.min() > 100 else (1, 2, 5)
        decades = range(math.floor(math.log10(costs.min())) - 1, math.ceil(math.log10(costs.max())) + 1)
        ticks = [step * 10.0**decade for decade in decades for step in steps]
        ticks = [tick for tick in ticks if costs.min() / 2 < tick < costs.max() * 2]
        free = [nothing] if (scores[column] == 0).any() else []
        axes.set_xticks([*free, *ticks], [*("0" for _ in free), *map(_amount, ticks)])
        axes.minorticks_off()
        axes.set(xlabel=textwrap.fill(escaped(self.axis(block)), 80), ylabel=f"accuracy (%)\n({INTERVALS})")
        legend(figure, block, marked(block), points=True)
        return figure


class Time(Cost):
    """The devices are named, because times on different ones do not compare."""

    name = "time"
    title = "accuracy against training time"
    order = 40
    column = "train_seconds"

    def axis(self, block: Block) -> str:
        rows = block.rows[(block.rows["shots"] == max(block.shots)) & (block.rows["device"] != "")]
        devices = sorted(set(rows["device"].map(device)))
        where = ", ".join(devices[:DEVICES]) + (f" and {len(devices) - DEVICES} more" if devices[DEVICES:] else "")
        return f"training time, seconds{f', on {where}' if where else ''}"


class Params(Cost):
    """Parameters that gradient descent trained."""

    name = "params"
    title = "accuracy against learned parameters"
    order = 50
    column = "params"

    def axis(self, block: Block) -> str:
        return "learned parameters"


def device(name: str) -> str:
    """A processor or card as people call it: "Intel Xeon Platinum 8481C", "NVIDIA H100 80GB HBM3"."""
    found = re.sub(r"\((?:R|TM)\)|@.*|(?<=\S)\s+(?:CPU|Processor|\d+-Core)\b", " ", name)
    return " ".join(found.split()) or name


def _amount(value: float) -> str:
    """20000 as "20k"."""
    unit, name = next(((u, n) for u, n in ((1e9, "G"), (1e6, "M"), (1e3, "k")) if value >= u), (1, ""))
    return f"{value / unit:g}{name}"
