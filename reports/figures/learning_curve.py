"""Accuracy on tasks that were never trained on, over the number of tasks that were."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
from matplotlib.figure import Figure as Drawing

from bench.progress import count
from bench.reports.elements import Figure
from bench.reports.figures.common import INTERVALS, NAME, bars, grid, marked, short, style, zero_line
from bench.reports.groups import Block, label_of
from bench.reports.records import ROW
from bench.reports.stats import spread


class LearningCurve(Figure):
    """A line per method at the largest shot count, from cells of `--train-tasks`: does an unseen task profit from more
    tasks? All points are means over the same scored tasks."""

    name = "learning-curve"
    title = "accuracy on unseen tasks over training tasks"
    order = 12

    def each(self, block: Block) -> Sequence[LearningCurve]:
        return [self] if block.rows["train_tasks"].notna().any() else []

    def heading(self, block: Block) -> str:
        return f"{self.title}, {count(max(block.shots), 'shot')}"

    def why_not(self, block: Block) -> str:
        return "" if curve(block)["train_tasks"].nunique() > 1 else "one number of training tasks (--train-tasks)"

    def draw(self, block: Block) -> Drawing:
        points = curve(block)
        sizes = sorted(points["train_tasks"].unique())
        figure, (axes,) = grid(1, 1, (6.4, 3.6))
        lines = points.groupby("line", sort=False)
        for place, (name, line) in enumerate(lines):
            apart = 2 ** (0.03 * (place - (len(lines) - 1) / 2))  # so that no bar hides another
            look = {**style(block, line["label"].iloc[0]), "label": short(str(name), NAME)}
            axes.errorbar(line["train_tasks"] * apart, line["mean"], yerr=bars(line), elinewidth=0.8, **look)
        zero_line(axes, block, label="zero-shot")
        axes.set_xscale("log", base=2)
        axes.set_xticks(sizes, [str(n) for n in sizes])
        axes.minorticks_off()
        low, high = axes.dataLim.y0, axes.dataLim.y1
        shown = [*points["mean"], *block.scores.loc[block.scores["method"] == "zero-shot", "mean"]]
        edge = 2 + 0.3 * (max(shown) - min(shown))
        axes.set_ylim(max(low - 1, min(shown) - edge), min(high + 1, max(shown) + edge))
        axes.set_xlabel(f"training tasks ({INTERVALS}, cut at the panel's edge)")
        axes.set_ylabel(f"accuracy (%), mean of {count(len(block.tasks), 'unseen task')}")
        figure.legend(*axes.get_legend_handles_labels(), loc="outside right center", frameon=False)
        return figure


def curve(block: Block) -> pd.DataFrame:
    """line (a row's label without the number of training tasks), label, train_tasks (ascending), and mean and half (of
    the 95 % interval over seeds) of the mean over tasks, percent."""
    rows = block.rows[(block.rows["shots"] == max(block.shots)) & block.rows["train_tasks"].notna()]
    rows = rows[rows["label"].isin(marked(block))]
    lines = [_line(block, *row) for row in rows[ROW].itertuples(index=False)]
    seeds = rows.assign(line=lines).groupby(["line", "label", "train_tasks", "seed"], sort=False)["accuracy"].mean()
    points = []
    for (line, label, n), own in seeds.groupby(level=[0, 1, 2], sort=False):
        found = spread(own.to_numpy())
        points.append({"line": line, "label": label, "train_tasks": int(n), "mean": found.mean, "half": found.half})
    columns = ["line", "label", "train_tasks", "mean", "half"]
    return pd.DataFrame(points, columns=columns).sort_values("train_tasks", kind="stable")


def _line(block: Block, method: str, variant: str, setting: str) -> str:
    """A row's label without what the axis says."""
    told = ", ".join(text for text in setting.split(", ") if not text.startswith("train_tasks="))
    return label_of(method, variant, told, block.shared)
