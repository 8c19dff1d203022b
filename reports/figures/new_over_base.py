"""Accuracy on new classes over that on base classes."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Drawing
from matplotlib.lines import Line2D

from bench.reports.elements import Figure
from bench.reports.figures.common import ZERO_SHOT, grid, legend, marked, style
from bench.reports.groups import Block


class NewOverBase(Figure):
    """A panel per shot count, with lines of equal harmonic mean."""

    name = "new-over-base"
    title = "accuracy on new classes over that on base classes"
    order = 10

    def each(self, block: Block) -> Sequence[NewOverBase]:
        return [self] if marked(block) and block.halves else []

    def heading(self, block: Block) -> str:
        return f"means of {block.n_tasks}"

    def draw(self, block: Block) -> Drawing:
        count = len(block.shots)
        columns = math.ceil(math.sqrt(count))
        size = (6.4, 4.6) if count == 1 else (1 + 3.2 * columns, 1.6 + 3 * math.ceil(count / columns))
        figure, panels = grid(count, columns, size)
        for panel, shots in zip(panels, block.shots, strict=True):
            scores = block.at(shots, block.scores[block.scores["label"].isin(block.main)])
            found = scores.pivot(index="label", columns="part", values=["mean", "std"])
            for name in found.index:
                x, y, wide, high = (found.at[name, (v, part)] for v in ("mean", "std") for part in ("base", "new"))
                if block.of(name, "method") == "zero-shot":
                    panel.axvline(x, **ZERO_SHOT)
                    panel.axhline(y, **ZERO_SHOT)
                else:
                    look = style(block, name, points=True)
                    panel.errorbar(x, y, xerr=wide, yerr=high, elinewidth=0.7, **look)
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
        legend(figure, block, below=count > 1, points=True, more=[equal])
        return figure
