"""What each method adds to zero-shot on every task."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure as Drawing

from bench.progress import count
from bench.reports.elements import Figure
from bench.reports.figures.common import ZERO_SHOT, grid, legend, marked, short, style
from bench.reports.groups import Block


class Gain(Figure):
    """At the largest shot count."""

    name = "gain"
    title = "gain over zero-shot"
    order = 30

    def each(self, block: Block) -> Sequence[Gain]:
        return [self] if marked(block) and not block.halves else []

    def heading(self, block: Block) -> str:
        return f"{self.title} at {count(max(block.shots), 'shot')}"

    def why_not(self, block: Block) -> str:
        return "" if "zero-shot" in set(block.rows["method"]) else "no zero-shot to compare with"

    def draw(self, block: Block) -> Drawing:
        scores = block.at(max(block.shots), block.task_scores)
        means = scores.pivot(index="task", columns="label", values="mean")
        names = [name for name in marked(block) if name in means]
        zero = [name for name in means if block.of(name, "method") == "zero-shot"]
        gains = means[names].sub(means[zero[0]], axis=0)
        gains = gains.loc[gains.mean(axis=1).sort_values().index]
        figure, (axes,) = grid(1, 1, (7.2, 1.3 + 0.37 * len(gains)))
        axes.axvline(0, **ZERO_SHOT)
        for place, name in enumerate(names):
            apart = 0.5 * ((place + 0.5) / len(names) - 0.5)  # equal gains stay visible beside each other
            heights = [y - apart for y in range(len(gains))]
            axes.plot(gains[name], heights, **style(block, name, points=True))
        axes.set_yticks(range(len(gains)), [short(str(task), 32) for task in gains.index])
        axes.set(xlabel="gain over zero-shot (points)", ylim=(-0.6, len(gains) - 0.4))
        legend(figure, block, points=True)
        return figure
