"""How probable it is that one method beats another."""

from __future__ import annotations

import textwrap

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure as Drawing

from bench.progress import count
from bench.reports import stats
from bench.reports.figures.common import grid, named, style
from bench.reports.figures.compared import Compared
from bench.reports.groups import Block


class Improvement(Compared):
    """Probability of improvement (arXiv 2108.13264): the mean over tasks of the share of pairs of runs in which a row's
    method beats a column's, ties counted half. The methods with the best mean stand first."""

    name = "improvement"
    title = "probability that a row's method beats a column's"
    order = 80

    def draw(self, block: Block) -> Drawing:
        values = self.values(block)
        names = [str(name) for name in values.mean().sort_values(ascending=False, kind="stable").index]
        better = pd.DataFrame(np.nan, names, names)
        told = pd.DataFrame("", names, names)
        for found in stats.all_pairs(values, names):
            better.loc[found.a, found.b], better.loc[found.b, found.a] = found.better, 1 - found.better
            star = "*" if found.p < 1 - stats.LEVEL else ""
            for a, b in ((found.a, found.b), (found.b, found.a)):
                told.loc[a, b] = f"{100 * better.loc[a, b]:.0f}{star}"
        told_names = [named(block, name, 32) for name in names]
        longest = 0.07 * max(map(len, told_names))  # inches
        width = max(4.2, 0.4 + longest + 0.34 * len(names))  # what stands above and below takes as much
        figure, (axes,) = grid(1, 1, (width, 1.3 + longest + 0.24 * len(names)))
        sns.heatmap(better, ax=axes, cmap="RdBu", vmin=0, vmax=1, cbar=False, linewidths=0.4, linecolor="white",
                    annot=told, fmt="", annot_kws={"fontsize": 6.5})  # fmt: skip
        axes.grid(False)
        for which, rotation in (("x", 90), ("y", 0)):
            ticks = [place + 0.5 for place in range(len(names))]
            getattr(axes, f"set_{which}ticks")(ticks, told_names, rotation=rotation)
            for text, name in zip(getattr(axes, f"get_{which}ticklabels")(), names, strict=True):
                zero = block.of(name, "method") == "zero-shot"
                text.set_color("black" if zero else style(block, name)["color"])
        runs = f"{block.n_tasks}, {count(len(values) // len(block.tasks), 'seed')}, mean of shot counts"
        stars = f"* p < 0.05, Wilcoxon's signed-rank test over tasks and seeds, Holm{self.left_out(block)}"
        said = [textwrap.fill(line, int(13 * width)) for line in (f"in percent; {runs}", stars)]
        figure.supxlabel("\n".join(said), x=0.02, ha="left", fontsize=9)
        return figure
