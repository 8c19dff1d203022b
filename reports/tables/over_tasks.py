"""Suites of many tasks: the mean with its standard error over tasks, and above chance, which differs between tasks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from bench.progress import count
from bench.reports import markup
from bench.reports.elements import Table
from bench.reports.groups import Block
from bench.reports.markup import Cell
from bench.reports.tables.common import about, names, of, searched_said, used

FEWEST = 31  # tasks: of fewer every one is looked at, and a standard error over them says little
SHOWN = {"accuracy": 2, "above_chance": 3}  # with so many digits


class OverTasks(Table):
    """Tasks are a sample of those that might have been asked: what a mean over them is worth is told by their number,
    not by seeds, which draw other images of the same tasks."""

    name = "over-tasks"
    title = "Over tasks"
    order = 15

    def each(self, block: Block) -> Sequence[OverTasks]:
        return [self] if len(block.tasks) >= FEWEST and not block.halves else []

    def build(self, block: Block, notes: dict[str, int]) -> list[markup.Table]:
        return [self._table(block, shots, notes) for shots in block.shots or [0]]

    def data(self, block: Block) -> dict[str, pd.DataFrame]:
        """over_tasks.csv: one row a method and shot count: mean accuracy and mean of what is above chance, each with
        its standard error over tasks."""
        return {"over_tasks": pd.concat([over_tasks(block, n).assign(shots=n) for n in [0, *block.shots]])
                .drop_duplicates(["label", "shots"]).assign(block=block.slug)}  # fmt: skip

    def _table(self, block: Block, shots: int, notes: dict[str, int]) -> markup.Table:
        found = over_tasks(block, shots).set_index("label")
        labels = [name for name in block.main if name in found.index]
        rows = []
        for label, cell in zip(labels, names(block, labels, notes), strict=True):
            both = [(found.at[label, name], found.at[label, f"{name}_se"], n) for name, n in SHOWN.items()]
            rows.append([cell, *(Cell(f"{mean:.{n}f} ± {error:.{n}f}") for mean, error, n in both)])
        caption = [
            *about(block),
            f"Mean over {block.n_tasks}, of means over seeds, ± its standard error: the tasks' sample standard "
            "deviation / √(number of tasks). Two rows of one table are scored on the same tasks, so that "
            "their difference may be surer than either. Above chance: (A − 100/C) / (100 − 100/C) of a task with C "
            "classes: 0 is chance, 1 is without error.",
            *searched_said(block, labels),
        ]
        title = f"{block.title} · over tasks" + (f", {count(shots, 'shot')}" if shots else "")
        header = [Cell("method"), Cell("accuracy (%)"), Cell("above chance")]
        own = f"{block.slug}-{self.name}-{shots}"
        return markup.Table(title, caption, header, rows, used(block, labels, notes), block.demo, own, about=of(labels))


def over_tasks(block: Block, shots: int) -> pd.DataFrame:
    """label, tasks, accuracy, accuracy_se (percent), above_chance, above_chance_se, at a shot count and without any."""
    rows = block.rows[block.rows["shots"].isin([0, shots])]
    rows = rows.assign(above_chance=above_chance(rows["accuracy"], rows["n_classes"]))
    means = rows.groupby(["label", "task"], sort=False)[[*SHOWN]].mean()
    found = means.groupby("label", sort=False).agg(["mean", "sem", "count"])
    table = pd.DataFrame({"tasks": found["accuracy", "count"]})
    for name in SHOWN:
        table[name], table[f"{name}_se"] = found[name, "mean"], found[name, "sem"]
    return table.reset_index()


def above_chance(accuracy: pd.Series, n_classes: pd.Series) -> pd.Series:
    """(A − 100/C) / (100 − 100/C) of accuracies A in percent among C classes; NaN where C is 1."""
    chance = 100 / n_classes.astype(float)
    return (accuracy - chance) / (100 - chance).replace(0, np.nan)
