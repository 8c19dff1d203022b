"""Accuracy over shots, a panel per task."""

from __future__ import annotations

import math
from collections.abc import Sequence

from matplotlib.figure import Figure as Drawing
from matplotlib.lines import Line2D

from bench.reports.elements import Figure
from bench.reports.figures.common import INTERVALS, grid, leaders, legend, marked, over_shots, short, trained
from bench.reports.groups import Block
from bench.reports.looks import GREY


class Tasks(Figure):
    """Every panel has its own range; of many methods the best of each family is in colour. One task alone is
    `Accuracy`."""

    name = "tasks"
    title = "accuracy over shots, every task"
    order = 20

    def each(self, block: Block) -> Sequence[Tasks]:
        return [self] if marked(block) and not block.halves and len(block.tasks) > 1 else []

    def why_not(self, block: Block) -> str:
        few = "" if len(block.shots) > 1 else "a single shot count; the gain of every task is another figure"
        return block.too_many or few

    def draw(self, block: Block) -> Drawing:
        names = leaders(block, trained(block))
        others = [name for name in trained(block) if name not in names]
        columns = min(len(block.tasks), 5 if len(block.tasks) > 9 else 3)
        rows = math.ceil(len(block.tasks) / columns)
        below = 0.2 * math.ceil(len(names) / 3)  # the legend, in three columns: it must not eat the panels' height
        size = (max(6.4, 0.6 + 1.9 * columns), 0.8 + below + 1.55 * rows)
        figure, panels = grid(len(block.tasks), columns, size, sharex=True)
        for panel, task in zip(panels, block.tasks, strict=True):
            scores = block.task_scores[block.task_scores["task"] == task]
            over_shots(panel, block, scores, names, others, scale=0.7)
            low, high = scores["mean"].min(), scores["mean"].max()
            panel.set_ylim(max(0, low - 0.15 * (high - low) - 1), min(101, high + 0.15 * (high - low) + 1))
            panel.set_title(short(task, 22))
        for panel in panels[-columns:]:
            panel.set_xlabel("shots per class")
        figure.supylabel("accuracy (%)", fontsize=9)
        grey = [Line2D([], [], color=GREY, linewidth=0.8, label="the others")] if others else []
        title = f"{INTERVALS}, cut at the panel's edge"
        title += "; in colour: of each family the method with the best mean" if others else ""
        legend(figure, block, names, below=True, more=grey, title=title)
        return figure
