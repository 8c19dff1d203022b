"""Performance profiles: how often a method gains more than so many points."""

from __future__ import annotations

import math

import numpy as np
from matplotlib.figure import Figure as Drawing
from matplotlib.lines import Line2D

from bench.progress import count
from bench.reports import stats
from bench.reports.figures.common import ZERO, families, grid, named, style
from bench.reports.figures.compared import Compared
from bench.reports.groups import Block
from bench.reports.looks import GREY


class Profile(Compared):
    """Agarwal et al., "Deep reinforcement learning at the edge of the statistical precipice", arXiv 2108.13264. Gains
    over zero-shot and not accuracies, because tasks differ in difficulty."""

    name = "profile"
    title = "performance profiles"
    order = 70
    fewest = 2

    def why_not(self, block: Block) -> str:
        values = self.values(block)
        if "zero-shot" not in values:
            return "no zero-shot to compare with"
        if len(values) < stats.pairs_needed():
            return f"{count(len(values), 'run')} (tasks × seeds), at least {stats.pairs_needed()} are needed"
        return super().why_not(block)

    def draw(self, block: Block) -> Drawing:
        values = self.values(block)
        gains = values.drop(columns="zero-shot").sub(values["zero-shot"], axis=0)
        found = np.unique(gains.to_numpy()).tolist()
        steps = [found[0] - 1, *found]
        lines = {str(name): stats.performance_profile(gains[name], steps) for name in gains}
        panels = families(block, list(lines))
        columns = math.ceil(math.sqrt(len(panels)))
        size = (6.4, 3.6) if columns == 1 else (0.6 + 2.6 * columns, 0.8 + 2.2 * math.ceil(len(panels) / columns))
        figure, axes = grid(len(panels), columns, size, sharex=True, sharey=True)
        for panel, (family, own) in zip(axes, panels.items(), strict=True):
            panel.axvline(0, **ZERO)
            for name in lines:
                if name not in own:
                    panel.step(steps, lines[name], where="post", color=GREY, linewidth=0.8, zorder=0.9)
            handles = []
            for name in own:
                look = {**style(block, name), "marker": ""}
                panel.step(steps, lines[name], where="post", **look)
                handles.append(Line2D([], [], label=named(block, name, 30), **look))
            panel.legend(handles=handles, loc="lower left", fontsize=7, handlelength=2.4, frameon=False)
            panel.set_title(family, loc="left")
            panel.set_ylim(-0.03, 1.03)
        n = f"{count(len(gains), 'run')}: tasks × seeds, mean of shot counts{self.left_out(block)}"
        figure.supxlabel(f"gain over zero-shot (points), τ\n{n}", fontsize=9)
        figure.supylabel("share of runs that gain more than τ", fontsize=9)
        return figure
