"""The main table: methods × shots (and parts), the paper's values beside ours where they may be compared."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from bench.progress import count
from bench.records import PARTS
from bench.reports import markup, reference, stats
from bench.reports.elements import Table
from bench.reports.groups import Block
from bench.reports.markup import Cell
from bench.reports.tables.common import (
    FEWER,
    about,
    marks_said,
    names,
    number,
    of,
    ranked,
    searched_said,
    signed,
    spread_said,
    used,
    whole,
)

AVERAGING = "Avg.: the mean over the shot counts, with the deviation of that average over seeds."
QUOTED = "The paper's ± divides by n = 3; times √(3/2) = 1.22 it is a sample deviation as ours."
AVERAGE = -1  # the shot count that stands for the average over all
NONE = (float("nan"), float("nan"))  # no mean, no standard deviation
TIDY = [
    "suite", "backbone", "weights", "data", "protocol", "part", "n_tasks", "method", "variant", "setting", "shots",
    "mean", "std", "half", "n_seeds", "seeds", "params", "train_seconds", "paper_mean", "paper_std", "delta", "demo",
    "searched",
]  # fmt: skip


class Main(Table):
    """Every method without what only some of its variants change."""

    name = "main"
    order = 10
    on_page = False

    def why_not(self, block: Block) -> str:
        return "" if block.main else "every method was run in several settings, none of which is its default"

    def build(self, block: Block, notes: dict[str, int]) -> list[markup.Table]:
        compared, sentence = reference.comparison(block.rows)
        table = over_shots(block, block.main, block.title, notes, compared)
        left = [method for method in block.ablations if method not in {block.of(n, "method") for n in block.main}]
        more = [sentence, QUOTED if compared else ""]
        more += [f"Only in the table of settings: {', '.join(left)}."] if left else []
        table.caption.extend(filter(None, more))
        return [table]

    def data(self, block: Block) -> dict[str, pd.DataFrame]:
        """table.csv: one row per block, method, variant, setting, shots and part.

        mean, std, half: percent, over n_seeds seeds of the mean over n_tasks tasks; half is half the width of the
        mean's 95 % interval (t); paper_mean, paper_std (as printed there: divided by n), delta (mean − paper_mean):
        filled only where the block may be compared with the paper; searched: whether labels of few-shot validation
        images were used.
        """
        first = block.rows.iloc[0]
        known = {name: first[name] for name in ("suite", "backbone", "weights", "data", "protocol", "demo")}
        frame = block.scores.assign(**known, n_tasks=len(block.tasks))
        frame["searched"] = frame["label"].isin(block.searched)
        compared, _ = reference.comparison(block.rows)
        cells = zip(frame["label"], frame["shots"], strict=True)
        found = [quoted(block, name, shots) if compared else NONE for name, shots in cells]
        frame[["paper_mean", "paper_std"]] = pd.DataFrame(found, index=frame.index, dtype=float)
        frame["delta"] = (frame["mean"] - frame["paper_mean"]).mask(frame["method"].isin(reference.NO_DIFFERENCE))
        frame["seeds"] = frame["seeds"].map(lambda seeds: " ".join(map(str, seeds)))
        return {"table": frame[TIDY]}


def over_shots(
    block: Block, labels: Sequence[str], title: str, notes: dict[str, int], compared: bool = False
) -> markup.Table:
    """A row a label, a column a shot count and part, and their average; beside it the paper's where `compared`."""
    scores = block.scores[block.scores["label"].isin(labels)]
    if block.halves:  # as the field prints them: zero-shot in the columns of the trained methods
        scores = pd.concat([block.at(n, scores).assign(shots=n) for n in block.shots or [0]])
    shots = sorted(int(n) for n in scores["shots"].unique())
    trained = [n for n in shots if n]
    found = scores.set_index(["label", "shots", "part"])
    columns: list[tuple[list[int], str]] = [([n], part) for n in shots for part in block.parts]
    averages = block.averages(trained)
    if len(trained) > 1:
        columns += [(trained, part) for part in block.parts]

    header, groups = [Cell("method"), Cell("params")], ["", ""]
    across: list[dict[str, Any]] = [{}, {}]
    body = [names(block, labels, notes)]
    body.append([Cell(whole(scores.loc[scores["label"] == name, "params"].max())) for name in labels])
    tested = []
    for at, part in columns:
        average = len(at) > 1
        means, stds = [], []
        for name in labels:
            if average:
                value = averages.get((name, part), stats.spread([]))
                means.append(value.mean if block.halves or block.of(name, "shots") else float("nan"))
                stds.append(value.sd)
            else:
                there = (name, at[0], part) in found.index
                means.append(found.at[(name, at[0], part), "mean"] if there else float("nan"))
                stds.append(found.at[(name, at[0], part), "std"] if there else float("nan"))
        n_seeds = len(block.seeds) if at[0] else 0
        cells, could = ranked(block.values(part, at, labels), means, stds, n_seeds, stats.OVER_TASKS)
        tested.append(could)
        head = "Avg." if average else f"{at[0]}-shot"
        one = PARTS[part] if block.halves else "measured" if compared else ""
        single = block.halves and len(shots) == 1
        groups += ["" if single or not one else head] * (3 if compared else 1)
        across += [{"shots": AVERAGE if average else at[0]}] * (3 if compared else 1)
        header.append(Cell(one if one else head))
        body.append(cells)
        if compared:
            header += [Cell("paper"), Cell("Δ")]
            paper = [_average([quoted(block, name, n) for n in at]) for name in labels]
            deltas = zip(labels, means, paper, strict=True)
            body.append([Cell(number(*value)) for value in paper])
            body.append(
                [
                    Cell("—" if block.of(name, "method") in reference.NO_DIFFERENCE else signed(mean - value))
                    for name, mean, (value, _) in deltas
                ]
            )
    caption = [*about(block), spread_said(block), *marks_said(tested, "column", stats.OVER_TASKS)]
    caption += [*searched_said(block, labels), *([AVERAGING] if len(trained) > 1 else [])]
    if any("(n=" in cell.text for column in body[2:] for cell in column):
        caption.append(FEWER.format(count(len(block.seeds), "seed")))
    rows = [list(row) for row in zip(*body, strict=True)]
    own = f"{block.slug}-main"
    return markup.Table(
        title, caption, header, rows, used(block, labels, notes), block.demo, own, tuple(groups), of(labels),
        tuple(across),
    )  # fmt: skip


def _average(pairs: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """The paper's average; the deviation of an average cannot be had from the deviations."""
    if len(pairs) == 1:
        return pairs[0]
    return sum(mean for mean, _ in pairs) / len(pairs), float("nan")


def quoted(block: Block, name: str, shots: int) -> tuple[float, float]:
    """The paper's mean and standard deviation for a method as the paper has it, else NaN."""
    if block.of(name, "variant"):
        return NONE
    return reference.quoted(block.of(name, "suite"), block.of(name, "method"), shots)
