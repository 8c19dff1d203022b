"""What the right name of a task that was never trained on brings, beside each of its controls."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure as Drawing

from bench.reports.elements import Figure
from bench.reports.figures.common import ZERO, grid, marked, named, style
from bench.reports.groups import Block
from bench.reports.stats import spread
from bench.reports.tables.unseen import OWN, UnseenTasks, by_task, controls_of


class OwnName(Figure):
    """A panel for each control of the table "Tasks never trained on", a line for each method, a point for each shot
    count: accuracy under the task's own name less the control's, with the 95 % interval over tasks (t)."""

    name = "own-name"
    title = "unseen tasks under their own names, less each control"
    order = 13

    def each(self, block: Block) -> Sequence[OwnName]:
        return [self] if UnseenTasks().each(block) else []

    def why_not(self, block: Block) -> str:
        if len(block.tasks) < 2:
            return "one task: no interval over tasks"
        return UnseenTasks().why_not(block) or ("no control of these rows was run" if gains(block).empty else "")

    def draw(self, block: Block) -> Drawing:
        found = gains(block)
        rows = [name for name in reversed(marked(block)) if name in set(found["label"])]
        found = found[found["label"].isin(rows)]  # a variant of a method's is in the tables of settings
        panels = list(found["control"].unique())
        figure, axes = grid(len(panels), len(panels), (2.2 + 1.7 * len(panels), 1.1 + 0.26 * len(rows)), sharey=True)
        for panel, control in zip(axes, panels, strict=True):
            panel.axvline(0, **ZERO)
            for (label, shots), point in found[found["control"] == control].groupby(["label", "shots"]):
                place = block.shots.index(shots)
                height = rows.index(label) + 0.5 * ((place + 0.5) / len(block.shots) - 0.5)
                look = style(block, label, 0.5 + 0.5 * (place + 1) / len(block.shots), points=True)
                panel.errorbar(point["mean"], [height], xerr=point["half"], elinewidth=0.8, **look)
            panel.set_title(f"less {control}", fontsize=8)
        axes[0].set_yticks(range(len(rows)), [named(block, name, 40) for name in rows])
        axes[0].set_ylim(-0.6, len(rows) - 0.4)
        counts = ", ".join(f"{n} shot{'s' * (n > 1)}" for n in block.shots)
        below = f"from below: {counts}" if len(block.shots) > 1 else counts
        figure.supxlabel(f"points, mean of {block.n_tasks} (bars: 95 % intervals over tasks)\n{below}", fontsize=9)
        return figure


def gains(block: Block) -> pd.DataFrame:
    """label, shots, control, mean and half (of the 95 % interval over tasks, t): accuracy under the tasks' own names
    less the control's, points. Without rows that lack the control for a task."""
    points = []
    for shots in block.shots:
        values = by_task(block, shots).set_index("label")
        for control, theirs in controls_of(values).items():
            for label, gain in (values[OWN] - theirs).groupby(level="label"):
                if gain.notna().all():
                    over = spread(np.asarray(gain))
                    points.append([label, shots, control, over.mean, over.half])
    return pd.DataFrame(points, columns=["label", "shots", "control", "mean", "half"])
