"""How alike tasks are to a SoftCPT, which reads their names, beside what training on all of them at once gained."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Drawing

from bench.likeness import OF, table
from bench.progress import count
from bench.reports.elements import Figure
from bench.reports.figures.common import grid, legend, style, trained
from bench.reports.figures.matrices import CELL, branches, grown, heat, name_rows
from bench.reports.groups import Block
from bench.reports.stats import Spread, spread

SINGLE, JOINT = "coop", "shared-coop"  # a context for each task, trained on it alone; one context, trained on all tasks
GAIN = 2.0  # inches: the gains' panel's width


class Similarity(Figure):
    """Cosines of task features and of the contexts made from them, of the first SoftCPT in the tables at its largest
    shot count, mean over seeds. Tasks stand in the order of a dendrogram of their features (average linkage of
    1 - cosine). Gains are those of methods trained on all tasks over `SINGLE`, trained on each task alone, at the same
    shot count, over the seeds that both have."""

    name = "similarity"
    title = "similarity of tasks"
    order = 95

    def each(self, block: Block) -> Sequence[Similarity]:
        return [self] if _learners(block) and len(block.tasks) > 1 and not block.halves else []

    def heading(self, block: Block) -> str:
        name, shots, _ = found(block)
        return f"{self.title} ({name}, {count(shots, 'shot')}) and gain of joint training" if name else self.title

    def why_not(self, block: Block) -> str:
        why = "no record has similarities of all these tasks (folds have their own tasks', earlier versions none)"
        return block.too_many or ("" if found(block)[0] else why)

    def draw(self, block: Block) -> Drawing:
        name, shots, matrices = found(block)
        more = gains(block, name, shots)
        tree = grown(matrices["features"])
        tasks = [block.tasks[leaf] for leaf in tree["leaves"]]
        n = len(tasks)
        side = max(1.7, CELL * n)
        widths = [0.25 * side, side, side, *([GAIN] if more else [])]
        size = (1.9 + sum(widths), 1.7 + side)
        figure, (left, *maps) = grid(len(widths), len(widths), size, sharey=True, width_ratios=widths)
        branches(left, tree)
        for axes, of in zip(maps, OF, strict=False):
            heat(axes, matrices[of].loc[tasks, tasks])
            axes.set_title(f"task {of}" if of == "features" else of)
            axes.set_xlabel("cosine × 100")
        name_rows(maps[0], tasks)
        if more:
            _bars(maps[-1], block, more, tasks)
            legend(figure, block, list(more), below=True, points=True, zero=False)
        else:
            figure.supxlabel(missing(block, name, shots), fontsize=8)
        left.set_ylim(n, 0)
        return figure


def _learners(block: Block) -> list[str]:
    """Labels of methods that make contexts from tasks' names."""
    return [name for name in trained(block) if block.of(name, "method").startswith("softcpt")]


def found(block: Block) -> tuple[str, int, dict[str, pd.DataFrame]]:
    """The label, its largest shot count with similarities, and their means over seeds by `OF`, tasks × tasks; where
    there are none "", 0, {}."""
    for name in _learners(block):
        cells = block.rows[(block.rows["label"] == name) & (block.rows["shots"] > 0)].drop_duplicates("key")
        for shots, keys in sorted(cells.groupby("shots")["key"], reverse=True):
            kept = [block.cells[key][0].similarity for key in keys if key in block.cells]
            kept = [own for own in kept if set(block.tasks) <= set(own.get("tasks", []))]
            if kept:
                order = block.tasks
                means = {of: sum(table(own, of).loc[order, order] for own in kept) / len(kept) for of in OF}
                return name, int(shots), means
    return "", 0, {}


def gains(block: Block, name: str, shots: int) -> dict[str, dict[str, Spread]]:
    """Points over `SINGLE`, by label and task, over the seeds that both have; {} where no pair has a seed in common."""
    joint = [label for label in dict.fromkeys([JOINT, name]) if label in block.main]
    values = block.values("all", [shots], [SINGLE, *joint])
    more = {label: (values[label] - values[SINGLE]).dropna() for label in joint}
    return {
        label: {str(task): spread(own.to_numpy()) for task, own in points.groupby("task")}
        for label, points in more.items()
        if len(points)
    }


def missing(block: Block, name: str, shots: int) -> str:
    """Why there are no gains, as a reader is told."""
    if SINGLE not in block.main:
        return f"no gain of joint training: the records have no {SINGLE}, which trains on each task alone"
    return f"no gain of joint training: {SINGLE} and {name} have no seed in common at {count(shots, 'shot')}"


def _bars(axes: Axes, block: Block, more: dict[str, dict[str, Spread]], tasks: Sequence[str]) -> None:
    """A point a task and label, with 95 % intervals over seeds."""
    axes.axvline(0, color="0.4", linewidth=0.8)
    for place, (name, by_task) in enumerate(more.items()):
        at = [tasks.index(task) + (place + 1) / (len(more) + 1) for task in by_task]
        own = list(by_task.values())
        axes.errorbar([s.mean for s in own], at, xerr=[s.half for s in own], elinewidth=0.8, capsize=0,
                      **style(block, name, points=True))  # fmt: skip
    axes.grid(visible=False, axis="y")
    axes.set_title(f"gain over {SINGLE},\ntrained on each task alone")
    several = any(s.n > 1 for by_task in more.values() for s in by_task.values())
    axes.set_xlabel("points; bars: 95 %\nintervals over seeds" if several else "points; one seed")
