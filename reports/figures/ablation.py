"""Accuracy over the values of one parameter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import seaborn as sns
from matplotlib.figure import Figure as Drawing

from bench.records import PARTS
from bench.reports.elements import Figure
from bench.reports.figures.common import bars, escaped, grid, zero_line
from bench.reports.groups import NAMES, Block


@dataclass(frozen=True)
class Ablation(Figure):
    """A line per shot count, a panel per part; one figure for each parameter that the variants of a method change."""

    method: str = ""
    parameter: str = ""

    name = "ablation"
    order = 90

    @property
    def slug(self) -> str:
        return f"{self.name}-{self.method}-{self.parameter}"

    def each(self, block: Block) -> Sequence[Ablation]:
        return [
            Ablation(method, parameter)
            for method, names in block.ablations.items()
            for parameter in dict.fromkeys(parameter for name in names for parameter in block.changed(name))
            if parameter != NAMES
        ]

    def heading(self, block: Block) -> str:
        return f"{self.method}, {self.parameter} varied"

    def why_not(self, block: Block) -> str:
        values = [block.of(name, "parameters").get(self.parameter) for name in self.labels(block)]
        numbers = [v for v in values if isinstance(v, (int, float)) and not isinstance(v, bool)]
        drawn = len(values) > 1 and len(numbers) == len(values)
        return "" if drawn else "it takes two or more numbers, with every other parameter as it is by default"

    def labels(self, block: Block) -> list[str]:
        """The labels in which only this parameter was changed, or none."""
        names = block.ablations[self.method]
        return [n for n in names if not block.of(n, "setting") and block.changed(n) in ([], [self.parameter])]

    def draw(self, block: Block) -> Drawing:
        values = {name: float(block.of(name, "parameters")[self.parameter]) for name in self.labels(block)}
        scores = block.scores[block.scores["label"].isin(values)]
        scores = scores.assign(value=scores["label"].map(values)).sort_values("value")
        figure, panels = grid(len(block.parts), len(block.parts), (4.2 + 2.2 * len(block.parts), 3.8))
        for axes, part in zip(panels, block.parts, strict=True):
            for shots, colour in zip(block.shots, sns.color_palette("viridis", len(block.shots)), strict=True):
                line = scores[(scores["shots"] == shots) & (scores["part"] == part)]
                look = {"marker": "o", "capsize": 2, "elinewidth": 1, "color": colour, "label": f"{shots}-shot"}
                axes.errorbar(line["value"], line["mean"], yerr=bars(line), **look)
            ticks = sorted(set(values.values()))
            if ticks[0] > 0 and ticks[-1] / ticks[0] >= 8:
                axes.set_xscale("log", base=2)
            axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
            axes.minorticks_off()
            zero_line(axes, block, block.scores[block.scores["part"] == part], label="zero-shot")
            axes.set(xlabel=escaped(self.parameter), ylabel=f"accuracy (%){f', {PARTS[part]}' * block.halves}")
        figure.legend(*axes.get_legend_handles_labels(), loc="outside right upper", frameon=False)
        return figure
