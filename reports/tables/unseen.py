"""Tasks that were never trained on: what their own names bring over other names, over none, and over no training."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

import numpy as np
import pandas as pd

from bench.progress import count
from bench.reports import markup, stats
from bench.reports.elements import Table
from bench.reports.groups import Block
from bench.reports.markup import Cell
from bench.reports.tables.common import about, names, number, of, probability, searched_said, signed, used

MATCHED = "shared-coop-matched"
OWN, OTHERS, NONE, ZERO_SHOT = "own name", "other tasks' names", "no name", "zero-shot"


class UnseenTasks(Table):
    """Methods × what an unseen task is called, with the controls without which a gain says nothing.

    Tests are over tasks (means over seeds first), never over seeds: these draw other images, not other tasks.
    """

    name = "unseen"
    title = "Tasks never trained on"
    order = 25

    def each(self, block: Block) -> Sequence[UnseenTasks]:
        return [self] if str(block.rows["protocol"].iloc[0]).startswith("unseen-task") else []

    def why_not(self, block: Block) -> str:
        return "" if block.shots else "no method that trains"

    def build(self, block: Block, notes: dict[str, int]) -> list[markup.Table]:
        return [self._table(block, shots, notes) for shots in block.shots]

    def data(self, block: Block) -> dict[str, pd.DataFrame]:
        """unseen.csv: one row a method, shot count and task, means over seeds: accuracy under its own name, under other
        tasks' names (mean over these) and under none; zero-shot's with its own template."""
        if self.why_not(block):
            return {}
        return {"unseen": pd.concat([self._values(block, n).assign(block=block.slug, shots=n) for n in block.shots])}

    def _values(self, block: Block, shots: int) -> pd.DataFrame:
        """label, task, and a column for each name; NaN where a method does not read names."""
        rows = block.rows[block.rows["shots"] == shots].assign(**{OTHERS: np.nan, NONE: np.nan})
        for i, row in rows.iterrows():
            found = dict(block.cells[row["key"]][0].under_names.get(row["task"], {}))
            if found:
                rows.loc[i, NONE] = found.pop("")
                rows.loc[i, OTHERS] = np.mean(list(found.values()))
        rows = rows.rename(columns={"accuracy": OWN})
        means = rows.groupby(["label", "task"], sort=False)[[OWN, OTHERS, NONE]].mean()
        still = block.rows[block.rows["method"] == ZERO_SHOT].groupby("task")["accuracy"].mean()
        return means.join(still.rename(ZERO_SHOT), on="task").reset_index()

    def _table(self, block: Block, shots: int, notes: dict[str, int]) -> markup.Table:
        values = self._values(block, shots).set_index("label")
        matched = block.rows[(block.rows["method"] == MATCHED) & (block.rows["shots"] == shots)]
        controls = {OTHERS: values[OTHERS], ZERO_SHOT: values[ZERO_SHOT]}
        if not matched.empty:
            controls[MATCHED] = values["task"].map(matched.groupby("task")["accuracy"].mean())
        gains = chain(*((f"own − {name}", "p") for name in controls))
        header = ["method", OWN, OTHERS, NONE, *gains, "tasks that gain"]
        rows = []
        labels = [name for name in block.main if name in values.index]
        for label, cell in zip(labels, names(block, labels, notes), strict=True):
            mine = values.loc[[label], OWN]
            told = [Cell(number(values.loc[[label], name].mean(skipna=False))) for name in (OWN, OTHERS, NONE)]
            for name, control in controls.items():
                gain = mine - (np.nan if block.of(label, "method") == name else control.loc[[label]])
                told += [Cell(signed(gain.mean(skipna=False))), Cell(probability(_p(gain)))]
            better = (mine > values.loc[[label], ZERO_SHOT]).sum()
            has = not values[ZERO_SHOT].isna().any()
            rows.append([cell, *told, Cell(f"{better} of {len(mine)}" if has else "—")])
        n = len(block.tasks)
        few = f" With {count(n, 'task')} no p is below {2.0 ** (1 - n):.3f}." if n < 6 else ""
        caption = [
            *about(block),
            f"Trained on {count(shots, 'image')} per class of the other tasks; each task scored under its own name, "
            "under those of the tasks that were trained on (mean over these) and under none. Accuracy in percent, "
            f"mean over tasks, of means over seeds. p: Wilcoxon's signed-rank test over tasks.{few} {ZERO_SHOT} has "
            "each task's own template, which somebody wrote who knew the task. A row that gains over it but not over "
            "other names has learned a good prompt, not what names mean; shared-coop-matched is the control that "
            f"shares one context at SoftCPT's rate. Tasks that gain: over {ZERO_SHOT}.",
            *searched_said(block, labels),
        ]
        title = f"{block.title} · {self.title.lower()}, {count(shots, 'shot')}"
        cells = [Cell(text) for text in header]
        own = f"{block.slug}-{self.name}-{shots}"
        return markup.Table(title, caption, cells, rows, used(block, labels, notes), block.demo, own, about=of(labels))


def _p(gains: pd.Series) -> float:
    """Of the signed-rank test over tasks; NaN where some have no gain."""
    return float("nan") if gains.isna().any() else stats.signed_rank(gains)[0]
