"""The gain over zero-shot as a heat map: tasks × methods."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Drawing

from bench.progress import count
from bench.reports.elements import Figure
from bench.reports.figures.common import grid, marked, named, short, style
from bench.reports.figures.gain import over_zero_shot
from bench.reports.groups import Block


class Heat(Figure):
    """At the largest shot count; the task with the largest mean gain on top, the methods family by family, their means
    below. Red is a loss, blue a gain: told apart without red or green cones."""

    name = "heat"
    title = "gain over zero-shot"
    order = 35

    def each(self, block: Block) -> Sequence[Heat]:
        return [self] if marked(block) and not block.halves and len(block.tasks) > 1 else []

    def heading(self, block: Block) -> str:
        return f"{self.title} at {count(max(block.shots), 'shot')} (points)"

    def why_not(self, block: Block) -> str:
        return block.too_many or ("" if "zero-shot" in set(block.rows["method"]) else "no zero-shot to compare with")

    def draw(self, block: Block) -> Drawing:
        gains = over_zero_shot(block).iloc[::-1]
        mean = pd.DataFrame([gains.mean().rename("mean of the tasks")])
        names = [named(block, str(name)) for name in gains.columns]
        size = (1.9 + 0.38 * max(len(names), 8), 0.8 + 0.075 * max(map(len, names)) + 0.22 * (len(gains) + 1))
        figure, (top, below) = grid(2, 1, size, sharex=True, height_ratios=[len(gains), 1])
        furthest = float(gains.abs().max().max())
        for axes, table in ((top, gains), (below, mean)):
            _cells(axes, table, furthest)
            axes.set_yticks([y + 0.5 for y in range(len(table))], [short(str(t), 32) for t in table.index], rotation=0)
        top.tick_params(labelbottom=False)
        below.set_xticks([x + 0.5 for x in range(len(names))], names)
        below.tick_params(axis="x", rotation=90)
        for text, name in zip(below.get_xticklabels(), gains.columns, strict=True):
            text.set_color(style(block, name)["color"])
        return figure


def _cells(axes: Axes, table: pd.DataFrame, furthest: float) -> None:
    colours = {"cmap": "RdBu", "vmin": -furthest, "vmax": furthest, "cbar": False}
    written = {"annot": table.round() + 0, "fmt": ".0f", "annot_kws": {"fontsize": 6.5}}  # + 0: no "-0"
    sns.heatmap(table, ax=axes, linewidths=0.4, linecolor="white", xticklabels=False, yticklabels=False, **colours,
                **written)  # fmt: skip
    axes.set(xlabel="", ylabel="")
    axes.grid(False)
