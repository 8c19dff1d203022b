"""Mean ranks of the methods, and which of them are not told apart."""

from __future__ import annotations

import math

from matplotlib.axes import Axes
from matplotlib.figure import Figure as Drawing

from bench.reports import stats
from bench.reports.figures.common import grid, named, style
from bench.reports.figures.compared import Compared
from bench.reports.groups import Block

LINE = 0.2  # inches


class CriticalDifference(Compared):
    """Demšar, "Statistical comparisons of classifiers over multiple data sets", Journal of Machine Learning Research 7,
    2006: a task counts once, with the mean of its seeds and shot counts. Thick lines join methods that Nemenyi's test
    does not tell apart."""

    name = "critical-difference"
    title = "mean ranks over tasks"
    order = 60

    def why_not(self, block: Block) -> str:
        if len(block.tasks) < stats.pairs_needed():
            return f"{block.n_tasks}, and ranks take at least {stats.pairs_needed()} for a claim"
        return super().why_not(block)

    def draw(self, block: Block) -> Drawing:
        means = self.values(block).groupby("task").mean()
        found = stats.ranks(means, [str(name) for name in means])
        names = sorted(found.mean, key=lambda name: found.mean[name])
        groups = stats.cliques(found)
        half = math.ceil(len(names) / 2)
        depth = 1.2 + 0.45 * len(groups)  # of the thick lines, in lines of text
        figure, (axes,) = grid(1, 1, (7.2, LINE * (half + depth + 5)))
        axes.set(xlim=(1, len(names)), ylim=(half + depth + 0.5, -2.2))
        axes.axis("off")
        axes.plot([1, len(names)], [0, 0], color="black", linewidth=0.8)
        for tick in range(1, len(names) + 1):
            axes.plot([tick, tick], [0, -0.25], color="black", linewidth=0.8)
            if len(names) < 16 or tick % 5 == 0 or tick == 1:
                axes.text(tick, -0.4, str(tick), ha="center", va="bottom", fontsize=8)
        _bar(axes, found.critical)
        for place, group in enumerate(groups):
            ends = found.mean[group[0]], found.mean[group[-1]]
            axes.plot(ends, [0.6 + 0.45 * place] * 2, color="0.35", linewidth=2.5, solid_capstyle="round")
        for place, name in enumerate(names):
            left = place < half
            y = depth + (place if left else len(names) - 1 - place)
            _name(axes, block, name, found.mean[name], y, left)
        p = "p < 0.001" if found.p < 0.001 else f"p = {found.p:.3f}"
        axes.text(
            0.5, 0, f"Friedman's test: {p}; {found.n} tasks, mean of seeds and shot counts{self.left_out(block)}",
            transform=axes.transAxes, ha="center", va="top", fontsize=8,
        )  # fmt: skip
        return figure


def _bar(axes: Axes, critical: float) -> None:
    axes.plot([1, 1 + critical], [-1.6, -1.6], color="black", linewidth=1.2, marker="|")
    axes.text(1 + critical / 2, -1.75, f"critical difference {critical:.2f}", ha="center", va="bottom", fontsize=8)


def _name(axes: Axes, block: Block, name: str, rank: float, y: float, left: bool) -> None:
    """A line from the rank down to the height of the name, and out to the side where it stands."""
    low, high = axes.get_xlim()
    edge, away = (low, -1) if left else (high, 1)
    edge += 0.02 * away * (high - low)
    look = {} if block.of(name, "method") == "zero-shot" else style(block, name)
    colour = look.get("color", "black")
    axes.plot([rank, rank, edge], [0, y, y], color=colour, linewidth=0.8, clip_on=False)
    axes.plot([rank], [0], color=colour, marker=look.get("marker", "|"), markersize=5, clip_on=False, zorder=3)
    text = f"{named(block, name, 34)}  {rank:.2f}"
    axes.text(edge + 0.01 * away * (high - low), y, text, ha="right" if left else "left", va="center", fontsize=8,
              color=colour)  # fmt: skip
