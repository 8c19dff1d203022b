"""Whether methods are as often right as they are confident: from what is kept of every test image."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from bench.errors import UserError
from bench.predictions import SUFFIX, ece, read, reliability
from bench.reports.stats import spread

if TYPE_CHECKING:
    from bench.records import Record
    from bench.reports.groups import Block


@dataclass(frozen=True)
class Calibration:
    """bins : one line a label and bin that has images: label, upto (the bin's upper bound), n, confidence, accuracy
    (percent, over the images of all tasks and seeds). errors : one line a label: the expected calibration error in
    points, the mean of its tasks, with mean and half (of its 95 % interval) over seeds. lacking : labels of which some
    cell's predictions are missing: they are in neither.
    """

    bins: pd.DataFrame
    errors: pd.DataFrame
    lacking: list[str]


def calibration(block: Block) -> Calibration:
    """Of the main table's methods at the block's largest shot count. A damaged file is named in a warning."""
    rows = block.at(max(block.shots), block.rows)
    bins, errors, lacking = [], [], []
    for label in block.main:
        cells = rows[rows["label"] == label].drop_duplicates("key")
        found = {int(seed): _tasks(block, key) for seed, key in zip(cells["seed"], cells["key"], strict=True)}
        if not all(found.values()):
            lacking += [label] if found else []
            continue
        for seed, frames in found.items():
            bins += [reliability(frame).assign(label=label) for frame in frames]
            errors.append((label, seed, sum(map(ece, frames)) / len(frames)))
    return Calibration(_pooled(bins), _over_seeds(errors), lacking)


def _tasks(block: Block, key: str) -> list[pd.DataFrame]:
    """A cell's predictions, a frame for each task of the block; [] where they are missing."""
    frame = predictions_of(block.cells, key)
    if frame is None:
        return []
    frames = [frame[(frame["task"] == task) & (frame["part"] == "all")] for task in block.tasks]
    return frames if all(map(len, frames)) else []


def predictions_of(cells: Mapping[str, tuple[Record, Path]], key: str) -> pd.DataFrame | None:
    """What a cell kept of its test images; None where there is nothing. A damaged file is named in a warning.

    cells : records and their files, by key.
    """
    _, path = cells.get(key, (None, None))
    path = path and path.with_suffix(SUFFIX)
    if path is None or not path.is_file():
        return None
    try:
        frame = read(path)
        if frame.attrs["key"] != key:
            raise UserError(f"{path}: the predictions of another cell ({frame.attrs['key']})")
    except UserError as error:
        warnings.warn(f"{error}; left out", stacklevel=2)
        return None
    return frame


def _pooled(bins: list[pd.DataFrame]) -> pd.DataFrame:
    """Bins of several cells and tasks as one, every image counted alike."""
    if not bins:
        return pd.DataFrame(columns=["label", "upto", "n", "confidence", "accuracy"])
    table = pd.concat(bins, ignore_index=True)
    table[["confidence", "accuracy"]] = table[["confidence", "accuracy"]].mul(table["n"], axis=0)
    sums = table.groupby(["label", "upto"], as_index=False)[["n", "confidence", "accuracy"]].sum()
    sums = sums[sums["n"] > 0]
    means = sums[["confidence", "accuracy"]].div(sums["n"], axis=0)
    return sums.assign(confidence=means["confidence"], accuracy=means["accuracy"])


def _over_seeds(errors: list[tuple[str, int, float]]) -> pd.DataFrame:
    by_label: dict[str, list[float]] = {}
    for label, _, error in errors:
        by_label.setdefault(label, []).append(error)
    found = [(label, (own := spread(values)).mean, own.half) for label, values in by_label.items()]
    return pd.DataFrame(found, columns=["label", "mean", "half"])
