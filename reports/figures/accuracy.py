"""Accuracy over shots."""

from __future__ import annotations

import math
from collections.abc import Sequence

from matplotlib.figure import Figure as Drawing

from bench.progress import count
from bench.reports.elements import Figure
from bench.reports.figures.common import (
    INTERVALS,
    bars,
    families,
    grid,
    label_ends,
    marked,
    named,
    over_shots,
    style,
    trained,
    zero_line,
)
from bench.reports.groups import Block


class Accuracy(Figure):
    """The suite's mean and its 95 % interval over seeds: lines, in a panel per family where the methods are many; dots,
    the best on top, at a single shot count."""

    name = "accuracy"
    title = "accuracy over shots"
    order = 10

    def each(self, block: Block) -> Sequence[Accuracy]:
        return [self] if marked(block) and not block.halves else []

    def heading(self, block: Block) -> str:
        return self.title if len(block.shots) > 1 else f"accuracy at {count(block.shots[0], 'shot')}"

    def draw(self, block: Block) -> Drawing:
        return lines(block) if len(block.shots) > 1 else dots(block)


def lines(block: Block) -> Drawing:
    names = marked(block)
    panels = families(block, trained(block))
    columns = math.ceil(math.sqrt(len(panels)))
    size = (6.4, 3.6) if columns == 1 else (1.8 + 2.7 * columns, 0.6 + 2.3 * math.ceil(len(panels) / columns))
    figure, axes = grid(len(panels), columns, size, sharex=True, sharey=True)
    ends = {}
    for panel, (family, own) in zip(axes, panels.items(), strict=True):
        others = [name for name in names if name not in own]
        ends[panel] = over_shots(panel, block, block.scores, own, others)
        panel.set_title(family, loc="left")
    figure.supxlabel(f"shots per class ({INTERVALS}{'; grey: the other methods' if columns > 1 else ''})", fontsize=9)
    figure.supylabel(f"accuracy (%), mean of {block.n_tasks}", fontsize=9)
    for panel, own_ends in ends.items():
        label_ends(figure, panel, block, own_ends)
    return figure


def dots(block: Block) -> Drawing:
    scores = block.scores[block.scores["label"].isin(marked(block))].sort_values("mean")
    figure, (axes,) = grid(1, 1, (6.4, 0.9 + 0.2 * len(scores)))
    for place, name in enumerate(scores["label"]):
        line = scores[scores["label"] == name]
        axes.errorbar(line["mean"], [place], xerr=bars(line), elinewidth=1, **style(block, name, points=True))
    for name, mean in zero_line(axes, block, upright=True).items():
        axes.annotate(name, (mean, 1), xycoords=("data", "axes fraction"), ha="center", va="bottom", fontsize=8)
    axes.set_yticks(range(len(scores)), [named(block, name) for name in scores["label"]])
    axes.set(xlabel=f"accuracy (%), mean of {block.n_tasks} ({INTERVALS})", ylim=(-0.6, len(scores) - 0.4))
    return figure
