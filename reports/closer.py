"""A closer look at a method on a task, for the page: what became of each class, confidence against accuracy, and the
course of its training. Compact and bounded: seeds are summed, and of wrong answers the most frequent pairs are kept."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from bench import predictions
from bench.records import PARTS, Record
from bench.reports.calibration import predictions_of
from bench.reports.groups import Block
from bench.reports.records import Loaded

PAIRS = 100  # of a task's wrong answers, this many pairs of classes are kept
POINTS = 20  # of a training curve
_KEPT_BY = "Predictions of single images were kept by {} of its cells (there are {})."
MOST = 2_000_000  # characters of all looks of a page


class Closer:
    """Makes the looks of a page's blocks, within `MOST` characters together."""

    def __init__(self, loaded: Loaded) -> None:
        self.cells, self.left = loaded.cells, MOST

    def looks(self, block: Block, place: Mapping[str, int], shared: Any) -> tuple[list[dict[str, Any]], int]:
        """One look a row, shots, task and part, and how many rows at a shot count found no room.

        Of looks without predictions `missing` says why; `curve` is [epochs, losses, accuracies], or None. The largest
        shot counts come first, so that they find room first.
        """
        found: list[dict[str, Any]] = []
        full = 0
        groups = {
            (str(rows["label"].iloc[0]), int(rows["shots"].iloc[0])): list(rows["key"].unique())
            for _, rows in block.rows.groupby(["label", "shots"])
        }
        for label, shots in sorted(groups, key=lambda key: (-key[1], place[key[0]])):
            if self.left <= 0:
                full += 1
                continue
            keys = groups[label, shots]
            read = [predictions_of(self.cells, key) for key in keys]
            frames = [frame for frame in read if frame is not None]
            records = [self.cells[key][0] for key in keys]
            own = [
                {"row": place[label], "shots": shots, "task": i, **look}
                for i, task in enumerate(block.tasks)
                for look in _of_task(records, frames, task, block.parts, shared)
            ]
            self.left -= len(json.dumps(own, separators=(",", ":")))
            if self.left > 0:
                found += own
            else:
                full += 1
        return found, full


def _of_task(
    records: list[Record], frames: list[pd.DataFrame], task: str, parts: Sequence[str], shared: Any
) -> list[dict[str, Any]]:
    base = {"curve": _curve(records, task), "cells": len(records)}
    if len(frames) < len(records):
        return [{**base, "part": "", "missing": _KEPT_BY.format(len(frames) or "none", len(records))}]
    there = [part for part in parts if all((task, part) in frame.attrs["classes"] for frame in frames)]
    if not there:
        return [{**base, "part": "", "missing": "Its kept predictions do not have this task."}]
    return [{**base, "part": PARTS[part], **_answers(frames, task, part, shared)} for part in there]


def _answers(frames: list[pd.DataFrame], task: str, part: str, shared: Any) -> dict[str, Any]:
    """Of all seeds together: each class's images and right answers, pairs of classes, bins; the mean seed's ECE."""
    own = [frame[(frame["task"] == task) & (frame["part"] == part)] for frame in frames]
    names = own[0].attrs["classes"][task, part]
    if any(frame.attrs["classes"][task, part] != names for frame in own):
        return {"missing": "Its cells were tested among different classes."}
    if any(frame.empty for frame in own):
        return {"missing": "A cell's kept predictions have no image of this task."}
    pooled = pd.concat([frame.assign(task=task, part=part) for frame in own], ignore_index=True)
    pooled.attrs = own[0].attrs
    classes, bins = predictions.per_class(pooled), predictions.reliability(pooled)
    wrong = pooled[pooled["label"] != pooled["predicted"]].groupby(["label", "predicted"]).size()  # by place, not name
    pairs = wrong.sort_values(ascending=False, kind="stable").head(PAIRS)
    right = np.rint((classes["accuracy"].fillna(0) * classes["n"] / 100).to_numpy()).astype(int)
    bins = bins[bins["n"] > 0]
    return {
        "classes": shared.place(names),
        "n": classes["n"].tolist(),
        "right": right.tolist(),
        "pairs": [[int(a), int(b), int(n)] for (a, b), n in pairs.items()],
        "wrong": [len(wrong), int(wrong.sum())],  # pairs, and images in them
        "bins": [
            [round(float(row.upto), 4), int(row.n), round(float(row.confidence), 2), round(float(row.accuracy), 2)]
            for row in bins.itertuples()
        ],
        "ece": round(float(np.mean([predictions.ece(frame) for frame in own])), 4),
    }


def _curve(records: list[Record], task: str) -> list[list[float]] | None:
    """Epochs, losses and accuracies, the mean of the seeds; None where a cell has none or epochs differ."""
    found = []
    for record in records:
        losses = record.curves.get("loss", {})
        name = task if task in losses else "all"
        if name not in losses:
            return None
        found.append([record.curves["epochs"], losses[name], record.curves["accuracy"][name]])
    if any(curve[0] != found[0][0] for curve in found):
        return None
    n = len(found[0][0])
    points = np.unique(np.linspace(0, n - 1, min(n, POINTS)).round().astype(int))
    means = np.mean(found, axis=0)[:, points]
    return [means[0].astype(int).tolist(), *([float(f"{x:.4g}") for x in values] for values in means[1:])]
