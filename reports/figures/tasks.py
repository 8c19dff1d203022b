"""Accuracy over shots, a panel per task."""

from __future__ import annotations

import math
from collections.abc import Sequence

from matplotlib.figure import Figure as Drawing

from bench.reports.elements import Figure
from bench.reports.figures.common import grid, legend, marked, over_shots, short
from bench.reports.groups import Block


class Tasks(Figure):
    """Every panel has its own range. One task alone is `Accuracy`."""

    name = "tasks"
    title = "accuracy over shots, every task"
    order = 20

    def each(self, block: Block) -> Sequence[Tasks]:
        return [self] if marked(block) and not block.halves and len(block.tasks) > 1 else []

    def draw(self, block: Block) -> Drawing:
        names = block.tasks
        columns = min(len(names), 5 if len(names) > 9 else 3)
        rows = math.ceil(len(names) / columns)
        below = 0.2 * math.ceil(len(block.main) / 3)  # the legend, in three columns: it must not eat the panels' height
        figure, panels = grid(len(names), columns, (max(6.4, 1.0 + 2.1 * columns), 0.9 + below + 1.75 * rows))
        for panel, task in zip(panels, names, strict=True):
            over_shots(panel, block, block.task_scores[block.task_scores["task"] == task], small=True)
            panel.set_title(short(task, 26))
        for panel in panels[-columns:]:
            panel.set_xlabel("shots per class")
        figure.supylabel("accuracy (%)", fontsize=10)
        legend(figure, block, below=True)
        return figure
