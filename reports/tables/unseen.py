"""Tasks that were never trained on: what their own names bring over other names, over none, and over no training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import chain
from typing import Any

import numpy as np
import pandas as pd

from bench.progress import count
from bench.records import Record
from bench.reports import markup, stats
from bench.reports.elements import Table
from bench.reports.groups import NAMES, Block
from bench.reports.markup import Cell
from bench.reports.records import by_recipe, changes
from bench.reports.tables.common import about, names, number, of, probability, searched_said, signed, used

PROTOCOLS = ("unseen-task", "source-task", "suite-to-suite")
MATCHED = "shared-coop-matched"
OWN, OTHERS, NONE = "own name", "other tasks' names", "no name"
ZERO_SHOT, GENERIC, EXCHANGED = "zero-shot", "zero-shot-generic", "names shuffled"
KNOWN, NEW = "classes trained on", "new classes"
SEEN, RECOVERED, SIGNS = "trained on it", "recovered", "better / worse"
RUN = ("train_tasks", "draws", "val_shots")  # what rows of one run share, whatever their methods
LEAST = 1.0  # points a task that training on it must gain: a share of less says nothing

FEWER_SAID = "(n=…): the mean of n seeds, not of the table's {}."
NO_ZERO_SHOT = f"No cell here is of {ZERO_SHOT}, which the columns without values take: run it, too."
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
        tasks' names (mean over these) and under none; the method's where it was trained on the task, too; zero-shot's
        with its own template and with a generic one; and, of the same seeds, the method's when it was trained with
        names shuffled, and that of `shared-coop-matched`. How many of the task's classes have names of classes that
        were trained on, with the accuracy on the others. And, the same for all tasks of a row, the share that it
        recovers of what training on the tasks gains (`recovered`)."""
        if self.why_not(block):
            return {}
        return {"unseen": pd.concat([by_task(block, n).assign(block=block.slug, shots=n) for n in block.shots])}

    def _table(self, block: Block, shots: int, notes: dict[str, int]) -> markup.Table:
        values = by_task(block, shots).set_index("label")
        controls = controls_of(values)
        gains = chain(*((f"own − {name}", "p", *[SIGNS] * (name == ZERO_SHOT)) for name in controls))
        told_seen = [SEEN, RECOVERED] if values[SEEN].notna().any() else []
        told_new = [NEW] * bool((values[KNOWN] > 0).any())
        header = ["method", OWN, OTHERS, NONE, *gains, *told_seen, *told_new]
        rows = []
        labels = [name for name in block.main if name in values.index]
        held = block.scores[block.scores["shots"] == shots].set_index("label")["n_seeds"]
        fewer = {name: f" (n={held[name]})" for name in labels if held[name] < len(block.seeds)}
        for label, cell in zip(labels, names(block, labels, notes), strict=True):
            mine = values.loc[[label], OWN]
            told = [Cell(number(values.loc[[label], name].mean(skipna=False))) for name in (OWN, OTHERS, NONE)]
            told[0] = Cell(told[0].text + fewer.get(label, ""))
            for name, control in controls.items():
                gain = mine - control.loc[[label]]
                told += [Cell(signed(gain.mean(skipna=False))), Cell(probability(_p(gain)))]
                told += [Cell(_signs(gain))] * (name == ZERO_SHOT)
            if told_seen:
                seen, share = values.loc[[label], SEEN].mean(skipna=False), values.loc[[label], RECOVERED].iloc[0]
                told += [Cell(number(seen)), Cell(number(share).replace("-", "−"))]
            rows.append([cell, *told, *(Cell(number(values.loc[[label], name].mean())) for name in told_new)])
        n = len(block.tasks)
        least = f"no p is below {2.0 ** (1 - n):.3f}: too few for a claim"
        few = f" With {count(n, 'task')} {least}." if n < 6 else ""
        caption = [
            *about(block),
            f"Trained on {count(shots, 'image')} per class of {_source(block)}; each task scored under its own name, "
            "under those of the tasks that were trained on (mean over these) and under none. "
            f"{SHUFFLED_SAID if EXCHANGED in controls else ''}Accuracy in percent, "
            f"mean over tasks, of means over seeds. p: Wilcoxon's signed-rank test over tasks.{few} {ZERO_SHOT} has "
            "each task's own template, which somebody wrote who knew the task"
            f"{'; zero-shot-generic has the same for all' * (GENERIC in controls)}. A row that gains over it but not "
            "over other names has learned a good prompt, not what names mean; shared-coop-matched is the control that "
            f"shares one context at SoftCPT's rate. {SIGNS.capitalize()}: how many tasks are above and below "
            f"{ZERO_SHOT}.",
            *([NO_ZERO_SHOT] if values[ZERO_SHOT].isna().all() else []),
            *([FEWER_SAID.format(count(len(block.seeds), "seed"))] if fewer else []),
            *_uncontrolled_said(block, shots, values, labels),
            *_seen_said(block, values),
            *_overlap_said(values),
            *searched_said(block, labels),
        ]
        title = f"{block.title} · {self.title.lower()}, {count(shots, 'shot')}"
        cells = [Cell(text) for text in header]
        own = f"{block.slug}-{self.name}-{shots}"
        return markup.Table(title, caption, cells, rows, used(block, labels, notes), block.demo, own, about=of(labels))


def by_task(block: Block, shots: int) -> pd.DataFrame:
    """label, task, and a column for each name: means over seeds, percent; NaN where a method does not read names."""
    these = replace(block, rows=block.rows[block.rows["shots"] == shots])  # a recipe's values may depend on the shots
    rows = these.rows.reset_index(drop=True)
    records = (block.cells[key][0] for key in rows["key"])
    asked = zip(records, rows["key"], rows["task"], rows["method"], strict=True)
    found = [_found(record, block.seen.get(key), task, method) for record, key, task, method in asked]
    rows = rows.join(pd.DataFrame(found, columns=[OTHERS, NONE, NEW, KNOWN, SEEN], dtype=float))
    rows = rows.rename(columns={"accuracy": OWN})
    rows["classes"] = rows["n_classes"].astype(float)
    grouped = rows.groupby(["label", "task"], sort=False)
    means = grouped[[OWN, OTHERS, NONE, NEW, KNOWN, "classes"]].mean()
    for name in (OTHERS, NONE, SEEN):
        means[name] = grouped[name].agg(lambda seeds: seeds.mean(skipna=False))
    for name in (ZERO_SHOT, GENERIC):
        still = block.rows[block.rows["method"] == name].groupby("task")["accuracy"].mean()
        means = means.join(still.rename(name), on="task")
    labels = list(means.index.unique("label"))
    for name in (EXCHANGED, MATCHED):
        theirs = [_control(these.rows, mine, _twin(these, mine, name, labels)) for mine in labels]
        means[name] = pd.concat(theirs, keys=labels).reindex(means.index)
    means = means.loc[[label for label in labels if not _is_control(block, label)]]
    shares = {label: recovered(*(own[c] for c in (OWN, SEEN, ZERO_SHOT))) for label, own in means.groupby("label")}
    means[RECOVERED] = means.index.get_level_values("label").map(shares)
    return means.reset_index()


def _found(record: Record, twin: Record | None, task: str, method: str) -> tuple[float, ...]:
    """Of one cell's task: accuracy under others' names and under none, on new classes, how many classes are known, and
    accuracy where the task was trained on, too."""
    seen = {own["task"]: own["accuracy"] for own in twin.tasks} if twin else {}
    overlap, under = record.overlap.get(task, {}), dict(record.under_names.get(task, {}))
    none = others = float("nan")
    if under and method != MATCHED:  # which reads names for its rate alone
        none = under.pop("")
        others = float(np.mean(list(under.values()) or np.nan))  # all others may have its name
    new = np.nan if overlap.get("accuracy") is None else overlap["accuracy"]
    return others, none, new, overlap.get("known", np.nan), seen.get(task, np.nan)


def controls_of(values: pd.DataFrame) -> dict[str, pd.Series]:
    """By its name, what each row of `by_task` (indexed by label) is compared with; NaN where it has no such control."""
    always = OTHERS, ZERO_SHOT
    every = OTHERS, NONE, EXCHANGED, ZERO_SHOT, GENERIC, MATCHED
    return {name: values[name] for name in every if name in always or values[name].notna().any()}


def _control(rows: pd.DataFrame, label: str, control: str | None) -> pd.Series:
    """A control's accuracy by task, mean over the seeds of the row that it controls; NaN where it lacks one."""
    seeds = rows.loc[rows["label"] == label, "seed"].unique()
    theirs = rows[rows["label"] == control].pivot(index="task", columns="seed", values="accuracy")
    return theirs.reindex(columns=seeds).mean(axis=1, skipna=False)


def _twin(block: Block, label: str, name: str, labels: Sequence[str]) -> str | None:
    """Of `labels` the row that controls another in one way: trained with exchanged names, or at a matched rate; None
    where there is no one such row."""
    if name == EXCHANGED:
        fit = [one for one in labels if _is_control(block, one) and _but_names(block, one) == _but_names(block, label)]
        return None if not fit or _is_control(block, label) else fit[0]
    matched = [one for one in labels if block.of(one, "method") == MATCHED]
    fit = [one for one in matched if _alike(block, one, label)]
    return fit[0] if len(fit) == 1 and label not in matched else None  # no row is its own control


def _alike(block: Block, *labels: str) -> bool:
    """Whether two rows agree in how they were run, and in all that one of them has changed and both have: methods'
    defaults may differ. `unseen` does not count: a context that tasks share serves each in the same way."""
    one, other = ({**block.of(label, "parameters"), **changes(block.of(label, "setting"))} for label in labels)
    told = {name for label in labels for column in ("variant", "setting") for name in changes(block.of(label, column))}
    if any(by_recipe(str(block.of(label, "variant"))) for label in labels):
        told |= {*one}  # what it changes depends on the shots
    views = [[str(block.of(label, name)) for name in ("views", "epochs")] for label in labels]
    seen_alike = views[0][0] == views[1][0] or all(own == epochs for own, epochs in views)  # or each a view per epoch
    run_alike = all(str(block.of(labels[0], name)) == str(block.of(labels[1], name)) for name in RUN)
    changed = (told & {*one} & {*other}) - {"unseen", "views"}
    return run_alike and seen_alike and all(str(one[name]) == str(other[name]) for name in changed)


def recovered(own: pd.Series, seen: pd.Series, zero_shot: pd.Series) -> float:
    """The share that a method has, on tasks that it was not trained on, of what it gains over zero-shot where it was:
    Σ(own − zero-shot) / Σ(seen − zero-shot) over the tasks, a ratio of sums. NaN where one is missing, or where that
    gain is less than `LEAST` points a task."""
    gained = (seen - zero_shot).sum(skipna=False)
    return float((own - zero_shot).sum(skipna=False) / gained) if round(gained / len(own), 9) >= LEAST else float("nan")


def _seen_said(block: Block, values: pd.DataFrame) -> list[str]:
    """What the columns on tasks that were trained on are, or how to get them where a command can."""
    if values[SEEN].notna().any():
        return [
            f"{SEEN.capitalize()}: the same method (settings, seeds, images, code) trained on all tasks by the "
            f"few-shot protocol. {RECOVERED.capitalize()}: Σ ({OWN} − {ZERO_SHOT}) / Σ ({SEEN} − {ZERO_SHOT}) over the "
            f"tasks, left out where training on them gains less than {LEAST:.0f} point per task."
        ]
    configs = [record.config for record, _ in block.cells.values()]
    if _protocol(block)[0] != "unseen-task" or any({"train_tasks", "sample"} & set(config) for config in configs):
        return []
    return [
        f"Without the columns {SEEN} and {RECOVERED} (the share of what training on a task gains), which take few-shot "
        "cells of the same settings, seeds and code in this folder: run the same command without --protocol."
    ]


def _uncontrolled_said(block: Block, shots: int, values: pd.DataFrame, labels: Sequence[str]) -> list[str]:
    """A sentence for each control that was run, but not with all seeds, or not with the settings, of some rows."""
    every = list(block.rows.loc[block.rows["shots"] == shots, "label"].unique())
    matched = {one for one in every if block.of(one, "method") == MATCHED}
    wanting = {
        EXCHANGED: [one for one in labels if _twin(block, one, EXCHANGED, every)],
        MATCHED: [one for one in labels if matched and one not in matched],
    }
    said = []
    for name, rows in wanting.items():
        if lacking := [one for one in rows if values.loc[[one], name].isna().any()]:
            told = f"Not compared with {name}, of which there are not the same seeds and settings"
            said.append(f"{told}: {', '.join(lacking)}.")
    return said


def _signs(gains: pd.Series) -> str:
    """On how many tasks there is a gain and on how many a loss, ties left out: "11 / 4"."""
    rounded = gains.round(9)  # what rounding alone tells apart is a tie, as in the test
    return "—" if gains.isna().any() else f"{(rounded > 0).sum()} / {(rounded < 0).sum()}"


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
