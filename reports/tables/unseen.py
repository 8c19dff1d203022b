"""Tasks that were never trained on: what their own names bring over other names, over none, and over no training."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np
import pandas as pd

from bench.progress import count
from bench.reports import markup, stats
from bench.reports.elements import Table
from bench.reports.groups import NAMES, Block
from bench.reports.markup import Cell
from bench.reports.records import changes
from bench.reports.tables.common import about, names, number, of, probability, searched_said, signed, used

PROTOCOLS = ("unseen-task", "source-task", "suite-to-suite")
MATCHED = "shared-coop-matched"
OWN, OTHERS, NONE = "own name", "other tasks' names", "no name"
ZERO_SHOT, GENERIC, EXCHANGED = "zero-shot", "zero-shot-generic", "names shuffled"
KNOWN, NEW = "classes trained on", "new classes"

SHUFFLED_SAID = "Names shuffled: trained with the names exchanged among the tasks, scored under each task's own. "


class UnseenTasks(Table):
    """Methods × what an unseen task is called, with the controls without which a gain says nothing.

    Tests are over tasks (means over seeds first), never over seeds: these draw other images, not other tasks.
    """

    name = "unseen"
    title = "Tasks never trained on"
    order = 25

    def each(self, block: Block) -> Sequence[UnseenTasks]:
        return [self] if _protocol(block)[0] in PROTOCOLS else []

    def why_not(self, block: Block) -> str:
        return "" if block.shots else "no method that trains"

    def build(self, block: Block, notes: dict[str, int]) -> list[markup.Table]:
        return [self._table(block, shots, notes) for shots in block.shots]

    def data(self, block: Block) -> dict[str, pd.DataFrame]:
        """unseen.csv: one row a method, shot count and task, means over seeds: accuracy under its own name, under other
        tasks' names (mean over these) and under none; zero-shot's with its own template and with a generic one; and the
        method's when it was trained with names shuffled. And how many of the task's classes have names of classes that
        were trained on, with the accuracy on the others."""
        if self.why_not(block):
            return {}
        return {"unseen": pd.concat([self._values(block, n).assign(block=block.slug, shots=n) for n in block.shots])}

    def _values(self, block: Block, shots: int) -> pd.DataFrame:
        """label, task, and a column for each name; NaN where a method does not read names."""
        rows = block.rows[block.rows["shots"] == shots].assign(**dict.fromkeys((OTHERS, NONE, NEW, KNOWN), np.nan))
        for i, row in rows.iterrows():
            record = block.cells[row["key"]][0]
            if overlap := record.overlap.get(row["task"]):
                accuracy = overlap.get("accuracy")
                rows.loc[i, [KNOWN, NEW]] = overlap["known"], np.nan if accuracy is None else accuracy
            found = dict(record.under_names.get(row["task"], {}))
            if found:
                rows.loc[i, NONE] = found.pop("")
                rows.loc[i, OTHERS] = np.mean(list(found.values()))
        rows = rows.rename(columns={"accuracy": OWN})
        rows["classes"] = rows["n_classes"].astype(float)
        means = rows.groupby(["label", "task"], sort=False)[[OWN, OTHERS, NONE, NEW, KNOWN, "classes"]].mean()
        for name in (ZERO_SHOT, GENERIC):
            still = block.rows[block.rows["method"] == name].groupby("task")["accuracy"].mean()
            means = means.join(still.rename(name), on="task")
        labels = list(means.index.unique("label"))
        twins = {_but_names(block, label): means[OWN].loc[label] for label in labels if _is_control(block, label)}
        plain = [label for label in labels if not _is_control(block, label)]
        means = means.loc[plain]
        none = pd.Series(dtype=float)
        other = [twins.get(_but_names(block, label), none).get(task, np.nan) for label, task in means.index]
        return means.assign(**{EXCHANGED: other}).reset_index()

    def _table(self, block: Block, shots: int, notes: dict[str, int]) -> markup.Table:
        values = self._values(block, shots).set_index("label")
        matched = block.rows[(block.rows["method"] == MATCHED) & (block.rows["shots"] == shots)]
        controls = {OTHERS: values[OTHERS]}
        if values[EXCHANGED].notna().any():
            controls[EXCHANGED] = values[EXCHANGED]
        controls[ZERO_SHOT] = values[ZERO_SHOT]
        if values[GENERIC].notna().any():
            controls[GENERIC] = values[GENERIC]
        if not matched.empty:
            trained_on = matched["train_tasks"].fillna(0)  # as many tasks as the row that it controls
            means = matched.groupby([trained_on, "task"])["accuracy"].mean().to_dict()
            places = [(_n_trained(block, label), task) for label, task in values["task"].items()]
            controls[MATCHED] = pd.Series([means.get(place, np.nan) for place in places], values.index)
        gains = chain(*((f"own − {name}", "p") for name in controls))
        told_new = [NEW] * bool((values[KNOWN] > 0).any())
        header = ["method", OWN, OTHERS, NONE, *gains, "tasks that gain", *told_new]
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
            told += [Cell(f"{better} of {len(mine)}" if has else "—")]
            rows.append([cell, *told, *(Cell(number(values.loc[[label], name].mean())) for name in told_new)])
        n = len(block.tasks)
        few = f" With {count(n, 'task')} no p is below {2.0 ** (1 - n):.3f}." if n < 6 else ""
        caption = [
            *about(block),
            f"Trained on {count(shots, 'image')} per class of {_source(block)}; each task scored under its own name, "
            "under those of the tasks that were trained on (mean over these) and under none. "
            f"{SHUFFLED_SAID if EXCHANGED in controls else ''}Accuracy in percent, "
            f"mean over tasks, of means over seeds. p: Wilcoxon's signed-rank test over tasks.{few} {ZERO_SHOT} has "
            "each task's own template, which somebody wrote who knew the task"
            f"{'; zero-shot-generic has the same for all' * (GENERIC in controls)}. A row that gains over it but not "
            "over other names has learned a good prompt, not what names mean; shared-coop-matched is the control that "
            f"shares one context at SoftCPT's rate. Tasks that gain: over {ZERO_SHOT}.",
            *_overlap_said(values),
            *searched_said(block, labels),
        ]
        title = f"{block.title} · {self.title.lower()}, {count(shots, 'shot')}"
        cells = [Cell(text) for text in header]
        own = f"{block.slug}-{self.name}-{shots}"
        return markup.Table(title, caption, cells, rows, used(block, labels, notes), block.demo, own, about=of(labels))


def _n_trained(block: Block, label: str) -> int:
    """How many tasks a row was trained on where it was asked for some (--train-tasks), else 0."""
    n = block.of(label, "train_tasks")
    return 0 if pd.isna(n) else int(n)


def _overlap_said(values: pd.DataFrame) -> list[str]:
    """A sentence on class names that are not new to what was trained; none where older records do not say."""
    known = values.dropna(subset=[KNOWN]).drop_duplicates("task")
    if known.empty:
        return []
    told = [f"{row['task']} {row[KNOWN]:.0f} of {row['classes']:.0f}" for _, row in known.iterrows() if row[KNOWN] > 0]
    if not told:
        return ["None of the tasks has the name of a class that was trained on."]
    return [
        f"Class names that were trained on, too: {', '.join(told)}. {NEW.capitalize()}: accuracy on images of all "
        "others, mean over tasks that have any."
    ]


def _is_control(block: Block, label: str) -> bool:
    """Whether a row is that of a method trained with exchanged names."""
    return NAMES in changes(block.of(label, "variant"))


def _but_names(block: Block, label: str) -> tuple[Any, ...]:
    """What a row shares with its control: all but the names."""
    told = changes(block.of(label, "variant"))
    return block.of(label, "method"), block.of(label, "setting"), *sorted((k, v) for k, v in told.items() if k != NAMES)


def _protocol(block: Block) -> tuple[str, str]:
    """The kind of protocol, and what stands after its colon."""
    kind, _, argument = str(block.rows["protocol"].iloc[0]).partition(":")
    return kind, argument


def _source(block: Block) -> str:
    """What a task's methods were trained on."""
    kind, argument = _protocol(block)
    if kind == "suite-to-suite":
        trained = {len(record.config.get("trained", ())) for record, _ in block.cells.values()} - {0}
        return f"{' or '.join(count(n, 'task') for n in sorted(trained))} of {block.rows['suite'].iloc[0]}"
    return argument if kind == "source-task" else "the other tasks"


def _p(gains: pd.Series) -> float:
    """Of the signed-rank test over tasks; NaN where some have no gain."""
    return float("nan") if gains.isna().any() else stats.signed_rank(gains)[0]
