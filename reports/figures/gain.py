"""What each method adds to zero-shot on every task."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from matplotlib.figure import Figure as Drawing
from matplotlib.lines import Line2D

from bench.progress import count
from bench.reports.elements import Figure
from bench.reports.figures.common import ZERO, grid, leaders, legend, marked, short, style
from bench.reports.groups import Block
from bench.reports.looks import GREY


class Gain(Figure):
    """At the largest shot count, the task with the largest mean gain on top; of many methods the best of each family is
    in colour."""

    name = "gain"
    title = "gain over zero-shot"
    order = 30

    def each(self, block: Block) -> Sequence[Gain]:
        return [self] if marked(block) and not block.halves else []

    def heading(self, block: Block) -> str:
        return f"{self.title} at {count(max(block.shots), 'shot')}"

    def why_not(self, block: Block) -> str:
        return block.too_many or ("" if "zero-shot" in set(block.rows["method"]) else "no zero-shot to compare with")

    def draw(self, block: Block) -> Drawing:
        gains = over_zero_shot(block)
        names = leaders(block, [str(name) for name in gains])
        others = [name for name in gains if name not in names]
        figure, (axes,) = grid(1, 1, (6.4, 0.9 + 0.3 * len(gains)))
        axes.axvline(0, **ZERO)
        for name in others:
            axes.plot(gains[name], range(len(gains)), ".", color=GREY, markersize=4, zorder=1.5)
        for place, name in enumerate(names):
            apart = 0.5 * ((place + 0.5) / len(names) - 0.5)  # equal gains stay visible beside each other
            axes.plot(gains[name], [y - apart for y in range(len(gains))], **style(block, name, points=True))
        axes.set_yticks(range(len(gains)), [short(str(task), 32) for task in gains.index])
        axes.set(xlabel="gain over zero-shot (points)", ylim=(-0.6, len(gains) - 0.4))
        grey = [Line2D([], [], color=GREY, marker=".", linestyle="", label="the others")] if others else []
        legend(figure, block, names, points=True, more=grey, title="best of each family" if others else "")
        return figure


def over_zero_shot(block: Block) -> pd.DataFrame:
    """Gain in points at the largest shot count: a line a task, by mean gain, a column a label, family by family."""
    scores = block.at(max(block.shots), block.task_scores)
    means = scores.pivot(index="task", columns="label", values="mean")
    (zero, *_) = (name for name in block.main if block.of(name, "method") == "zero-shot")
    gains = means[[name for name in marked(block) if name in means]].sub(means[zero], axis=0)
    return gains.loc[gains.mean(axis=1).sort_values().index]
