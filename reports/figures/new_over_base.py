"""Accuracy on new classes over that on base classes."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Drawing
from matplotlib.lines import Line2D

from bench.reports.elements import Figure
from bench.reports.figures.common import INTERVALS, ZERO, bars, grid, legend, marked, style
from bench.reports.groups import Block


class NewOverBase(Figure):
    """A panel per shot count, with lines of equal harmonic mean."""

    name = "new-over-base"
    title = "new over base classes"
    order = 10

    def each(self, block: Block) -> Sequence[NewOverBase]:
        return [self] if marked(block) and block.halves else []

    def heading(self, block: Block) -> str:
        return f"{self.title}, means of {block.n_tasks}"

    def draw(self, block: Block) -> Drawing:
        count = len(block.shots)
        columns = math.ceil(math.sqrt(count))
        size = (6.4, 4.6) if count == 1 else (1 + 3.2 * columns, 1.6 + 3 * math.ceil(count / columns))
        figure, panels = grid(count, columns, size)
        for panel, shots in zip(panels, block.shots, strict=True):
            scores = block.at(shots, block.scores[block.scores["label"].isin(block.main)])
            for name in scores["label"].unique():
                halves = scores[scores["label"] == name]
                base, new = (halves[halves["part"] == part] for part in ("base", "new"))
                if block.of(name, "method") == "zero-shot":
                    panel.axvline(base["mean"].item(), **ZERO)
                    panel.axhline(new["mean"].item(), **ZERO)
                else:
                    look = {**style(block, name, points=True), "elinewidth": 0.7}
                    panel.errorbar(base["mean"], new["mean"], xerr=bars(base), yerr=bars(new), **look)
            if count > 1:
                panel.set_title(f"{shots}-shot")
        x, y = (np.array([limits(panel) for panel in panels]) for limits in (Axes.get_xlim, Axes.get_ylim))
        x, y = (np.linspace(max(1, ends.min()), min(100.5, ends.max()), 200) for ends in (x, y))
        for panel in panels:  # the same range in all, and the lines of equal H instead of a grid
            panel.grid(False)
            lines = panel.contour(x, y, 2 * x * y[:, None] / (x + y[:, None]), colors="0.85", linewidths=0.8, zorder=0)
            panel.clabel(lines, fmt="%g", fontsize=8, colors="0.6")
        for panel in panels[-columns:]:
            panel.set_xlabel("accuracy on base classes (%)")
        for panel in panels[::columns]:
            panel.set_ylabel("accuracy on new classes (%)")
        equal = Line2D([], [], color="0.85", linewidth=0.8, label="equal harmonic mean")
        legend(figure, block, marked(block), below=count > 1, points=True, more=[equal], title=INTERVALS)
        return figure
