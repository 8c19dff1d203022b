"""Blocks: the records that may share a table, and their statistics over seeds."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING, Any

import pandas as pd

from bench.records import PARTS, SHUFFLED, Record
from bench.reports import reference
from bench.reports.records import BLOCK, ROW, changes, seen_twins
from bench.reports.stats import Comparison, Spread, all_pairs, half_width, over_shots, spread

if TYPE_CHECKING:
    from bench.reports.calibration import Calibration
    from bench.reports.images import OverImages

EACH_TASK = 100  # tasks that tables and figures show one by one, at most
DAGGER = "†"  # behind the name of a row in `Block.searched`
SHOWN = 8  # characters of a fingerprint in a title
NAMES = SHUFFLED.partition("=")[0]  # a control's, in place of a parameter; all others have their "own"
MAX_NAME = 60  # characters of a suite's or backbone's name in a file's, which may have 255


@dataclass(frozen=True)
class Block:
    """Records that agree in everything but method, settings, shots and seed.

    A row of its tables is named by its label: the method, and in brackets how it differs from the
    method's default ("softcpt (task_context=8)"), but for what all methods share.
    """

    rows: pd.DataFrame  # one line per cell, task and part, with the column `label`
    slug: str  # names its figures
    differs: tuple[str, ...]  # columns in which the blocks of this suite and backbone differ from one another
    methods: tuple[str, ...]  # the order of rows and looks in all blocks: the paper's methods, then others by name
    shared: Mapping[str, str] = field(default_factory=dict)  # parameters that all methods have alike, not their default
    cells: Mapping[str, tuple[Record, Path]] = field(default_factory=dict)  # its records and their files, by key
    seen: Mapping[str, Record] = field(default_factory=dict)  # by key, what a cell is on tasks that were trained on
    told: str = ""  # in titles: what tells it from blocks of the same suite's title, backbone and protocol

    @property
    def title(self) -> str:
        first = self.rows.iloc[0]
        return " · ".join([first["title"], first["backbone"], *_protocol(first), *filter(None, [self.told])])

    @property
    def demo(self) -> bool:
        return bool(self.rows["demo"].iloc[0])

    @cached_property
    def tasks(self) -> list[str]:
        return list(json.loads(self.rows["tasks"].iloc[0]))

    @property
    def n_tasks(self) -> str:
        return f"{len(self.tasks)} task{'s' * (len(self.tasks) > 1)}"

    @property
    def too_many(self) -> str:
        """Why the tasks are not shown one by one; "" where they are."""
        n = len(self.tasks)
        return f"{n} tasks, more than {EACH_TASK}: records.csv has every one" if n > EACH_TASK else ""

    @cached_property
    def parts(self) -> list[str]:
        """What is scored of every task: ["all"], or the halves of base2new and what sums them up."""
        return [part for part in PARTS if part in set(self.rows["part"])]

    @property
    def halves(self) -> bool:
        """Whether each task is scored in two halves: of base and of new classes."""
        return len(self.parts) > 1

    @cached_property
    def shots(self) -> list[int]:
        """The shot counts with training."""
        return sorted(int(n) for n in self.rows["shots"].unique() if n > 0)

    @cached_property
    def seeds(self) -> tuple[int, ...]:
        """All seeds of the trained cells (of all cells where nothing is trained)."""
        rows = self.rows[self.rows["shots"] > 0] if self.shots else self.rows
        return tuple(sorted(int(seed) for seed in rows["seed"].unique()))

    @cached_property
    def pairs(self) -> pd.DataFrame:
        """Columns label, part, task, shots, seed, accuracy. What trains on no shots also stands at every shot count and
        seed of the trained cells, so that it can be compared with them."""
        rows = self.rows[["label", "part", "task", "shots", "seed", "accuracy"]]
        trained = rows["shots"] > 0
        if not trained.any():
            return rows
        cells = rows.loc[trained, ["shots", "seed"]].drop_duplicates()
        once = rows[~trained].drop_duplicates(["label", "part", "task"]).drop(columns=["shots", "seed"])
        return pd.concat([rows, once.merge(cells, how="cross")], ignore_index=True)

    def values(self, part: str, shots: Sequence[int], labels: Sequence[str]) -> pd.DataFrame:
        """Accuracy by task and seed, a column a label, averaged over shot counts; NaN where a label lacks one."""
        rows = self.pairs[(self.pairs["part"] == part) & self.pairs["shots"].isin(shots)]
        table = rows.pivot_table(index=["task", "seed"], columns=["label", "shots"], values="accuracy")
        table = table.reindex(columns=pd.MultiIndex.from_product([labels, shots]))
        return pd.DataFrame({name: table[name].mean(axis=1, skipna=False) for name in labels}, index=table.index)

    def averages(self, shots: Sequence[int]) -> dict[tuple[str, str], Spread]:
        """By label and part: the average over shot counts, with the spread over seeds of that average. Without those
        that lack one of the shot counts; what trains on no shots is its own average."""
        found = {}
        for (name, part), rows in self.rows.groupby(["label", "part"]):
            name, part = str(name), str(part)
            trained = rows[rows["shots"].isin(shots)]
            if set(trained["shots"]) == set(shots):
                found[name, part] = over_shots(trained)
            elif (rows["shots"] == 0).all():
                found[name, part] = spread([rows["accuracy"].mean()])
        return found

    @cached_property
    def scores(self) -> pd.DataFrame:
        """One line a label, shots and part: statistics over seeds of the suite score, the mean over tasks."""
        cells = self.rows.groupby(["label", *ROW, "shots", "part", "seed"], as_index=False)
        columns = {"accuracy": "mean", "params": "max", "train_seconds": "max"}
        return _over_seeds(cells.agg(columns), [])

    @cached_property
    def task_scores(self) -> pd.DataFrame:
        """As `scores`, for every task alone."""
        return _over_seeds(self.rows, ["task"])

    def at(self, shots: int, scores: pd.DataFrame) -> pd.DataFrame:
        """The lines of `scores` at a shot count, and of methods that train on none."""
        return scores[scores["shots"].isin([0, shots])]

    @cached_property
    def labels(self) -> list[str]:
        """The rows' labels in order, a method's default before its variants."""
        rows = self.rows[["label", *ROW]].drop_duplicates().itertuples(index=False)
        keys = [
            (self.methods.index(method), bool(self.changed(name)), natural(variant), natural(setting), name)
            for name, method, variant, setting in rows
        ]
        return [key[-1] for key in sorted(keys)]

    @cached_property
    def main(self) -> list[str]:
        """The labels of the main table: every method without what only some of its variants change."""
        return [name for name in self.labels if not self.changed(name)]

    @cached_property
    def ablations(self) -> dict[str, list[str]]:
        """The labels of every method that was run in several variants, its default among them."""
        methods = dict.fromkeys(self.of(name, "method") for name in self.labels if self.changed(name))
        return {method: [n for n in self.labels if self.of(n, "method") == method] for method in methods}

    def of(self, name: str, column: str) -> Any:
        """The value of a column in the (first) record of a label."""
        return self._first.at[name, column]

    def changed(self, name: str) -> list[str]:
        """The parameters that a label's variant ("context=8,epochs=5") changes, but for those that all variants of
        its method change alike: beside "context=4,epochs=5" it is the context. A recipe is a row of its own."""
        texts = self._first.loc[self._first["method"] == self.of(name, "method"), "variant"]
        alike = set.intersection(*(set(changes(text).items()) for text in texts))
        own = changes(self.of(name, "variant")).items()
        return [change[0] for change in own if change not in alike and change[0] != "recipe"]

    @cached_property
    def calibration(self) -> Calibration:
        """Of the main table's methods at the largest shot count."""
        from bench.reports.calibration import calibration  # reads Parquet files

        return calibration(self)

    @cached_property
    def kept(self) -> dict[str, dict[int, pd.DataFrame]]:
        """Of the main table's methods at the largest shot count, by label and seed, their answers to test images."""
        from bench.reports.calibration import kept  # reads Parquet files

        return kept(self)

    @cached_property
    def over_images(self) -> dict[str, tuple[str, list[OverImages]]]:
        """By part, the best of `kept` and every other one against it, image by image."""
        from bench.reports.images import against_best

        return against_best(self)

    @cached_property
    def compared(self) -> tuple[list[str], list[int]]:
        """What statistics compare: the labels of the main table, at the shot counts that all trained ones have."""
        of = {name: set(rows["shots"]) - {0} for name, rows in self.rows.groupby("label")}
        trained = [of[name] for name in self.main if of[name]]
        return self.main, sorted(set.intersection(*trained)) if trained else [0]

    @cached_property
    def comparisons(self) -> dict[str, list[Comparison]]:
        """By part, every pair of `compared`, p values adjusted for their number."""
        labels, shots = self.compared
        return {part: all_pairs(self.values(part, shots, labels), labels) if shots else [] for part in self.parts}

    @cached_property
    def searched(self) -> frozenset[str]:
        """The rows that used the labels of few-shot validation images, for values that a method's search chose or
        for settings that --best-on chose."""
        used = self.rows["searched"] | (self.rows["selected"] != "")
        return frozenset(self.rows.loc[used, "label"])

    @cached_property
    def _first(self) -> pd.DataFrame:
        return self.rows.drop_duplicates("label").set_index("label")


def split(rows: pd.DataFrame, cells: Mapping[str, tuple[Record, Path]] | None = None) -> list[Block]:
    """The blocks of all records, by suite and backbone, those with the most tasks first. cells : see `Block`."""
    groups = [group for _, group in rows.groupby(BLOCK)]
    groups.sort(key=lambda group: (*group[["suite", "backbone"]].iloc[0], -group["task"].nunique()))
    known = reference.methods()
    methods = (*known, *sorted(set(rows["method"]) - set(known)))
    taken: set[str] = set()
    seen = seen_twins(cells or {})
    blocks = []
    for group in groups:
        first = group.iloc[0]
        others = rows[(rows["suite"] == first["suite"]) & (rows["backbone"] == first["backbone"])]
        differs = tuple(name for name in BLOCK if others[name].nunique() > 1)
        slug = _slug([first["suite"], first["backbone"], *_protocol(first)], taken)
        shared = _shared(group)
        names = group[ROW].itertuples(index=False)
        labels = [label_of(method, variant, setting, shared) for method, variant, setting in names]
        own = {key: cells[key] for key in dict.fromkeys(group["key"]) if cells and key in cells}
        blocks.append(Block(group.assign(label=labels), slug, differs, methods, shared, own, seen))
    return _told_apart(blocks)


def _told_apart(blocks: list[Block]) -> list[Block]:
    """Blocks of one title with what it takes to tell them apart: the suite's name, tasks, test data, weights."""
    alike: dict[str, list[Block]] = {}
    for block in blocks:
        alike.setdefault(block.title, []).append(block)
    return [replace(block, told=_told(block, alike[block.title])) for block in blocks]


def _told(block: Block, alike: Sequence[Block]) -> str:
    own = block.rows.iloc[0]
    counts = {other.rows["tasks"].iloc[0]: len(other.tasks) for other in alike}
    listed = f"tasks {shorten(', '.join(block.tasks), MAX_NAME, placeholder=' …')}"
    texts = {
        "suite": f"suite {own['suite']}",
        "tasks": block.n_tasks if len(set(counts.values())) == len(counts) else listed,
        "data": f"test data {own['data'][:SHOWN] or 'unknown'}",
        "weights": f"weights {own['weights'][:SHOWN] or 'unknown'}",
        "demo": "demo" if block.demo else "no demo",
    }
    told = []
    for name, text in texts.items():
        agreeing = [other for other in alike if other.rows[name].iloc[0] == own[name]]
        if len(agreeing) < len(alike):
            told.append(text)
        alike = agreeing
    return ", ".join(told)


def _shared(rows: pd.DataFrame) -> dict[str, str]:
    """What every method that has a parameter sets it to, where that is no default and several methods have it."""
    trained = rows[rows["shots"] > 0]
    kinds = [
        (method, {**values, "recipe": "", NAMES: ""}, changes(variant))
        for method, values, variant in trained[["method", "parameters", "variant"]].itertuples(index=False)
    ]
    shared = {}
    for name in dict.fromkeys(name for _, _, changed in kinds for name in changed):
        having = [(method, changed.get(name)) for method, values, changed in kinds if name in values or name in changed]
        (value, *others) = {value for _, value in having}
        if value is not None and not others and len({method for method, _ in having}) > 1:
            shared[name] = value
    return shared


def label_of(method: str, variant: str, setting: str, shared: Mapping[str, str]) -> str:
    """What a row is called: see `Block`."""
    own = ",".join(f"{name}={value}" for name, value in changes(variant).items() if name not in shared)
    told = ", ".join(filter(None, [own, setting]))
    return f"{method} ({told})" if told else method


def _protocol(first: pd.Series) -> list[str]:
    """What a block's names add to suite and backbone: nothing for the usual protocol."""
    return [] if first["protocol"] == "few-shot" else [first["protocol"]]


def _over_seeds(cells: pd.DataFrame, more: list[str]) -> pd.DataFrame:
    """Columns mean, std (sample, n − 1: the seeds are a sample) and half (half the width of the mean's 95 % interval;
    both NaN for one seed), n_seeds and seeds."""
    found = cells.groupby(["label", *ROW, "shots", "part", *more], as_index=False).agg(
        mean=("accuracy", "mean"),
        std=("accuracy", "std"),
        n_seeds=("seed", "nunique"),
        seeds=("seed", lambda seeds: tuple(sorted(int(seed) for seed in seeds))),
        params=("params", "max"),
        train_seconds=("train_seconds", "mean"),
    )
    return found.assign(half=half_width(found["std"].to_numpy(), found["n_seeds"].to_numpy()))


def natural(text: str) -> list[tuple[int, float, str]]:
    """Sorts "context=8" before "context=16"."""
    pieces = re.split(r"(\d+(?:\.\d+)?)", text)
    return [(0, float(piece), "") if piece[:1].isdigit() else (1, 0.0, piece) for piece in pieces if piece]


def _slug(names: list[str], taken: set[str]) -> str:
    """A file name, not yet taken, from what may be any text; "demo" on "demo-clip" is "demo-clip"."""
    parts = [re.sub(r"[^a-z0-9]+", "-", name.lower())[:MAX_NAME].strip("-") or "x" for name in names]
    base = "-".join(parts[1:] if parts[1].startswith(f"{parts[0]}-") else parts)
    slug = next(s for s in (base, *(f"{base}-{n}" for n in range(2, len(taken) + 3))) if s not in taken)
    taken.add(slug)
    return slug
