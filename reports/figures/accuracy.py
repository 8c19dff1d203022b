"""Accuracy over shots."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure as Drawing

from bench.reports.elements import Figure
from bench.reports.figures.common import grid, legend, marked, over_shots
from bench.reports.groups import Block


class Accuracy(Figure):
    """Suite accuracy, mean and standard deviation over seeds."""

    name = "accuracy"
    title = "accuracy over shots"
    order = 10

    def each(self, block: Block) -> Sequence[Accuracy]:
        return [self] if marked(block) and not block.halves else []

    def draw(self, block: Block) -> Drawing:
        figure, (axes,) = grid(1, 1, (6.4, 4.0))
        over_shots(axes, block, block.scores)
        axes.set(xlabel="shots per class", ylabel=f"accuracy (%), mean of {block.n_tasks}")
        legend(figure, block)
        return figure
