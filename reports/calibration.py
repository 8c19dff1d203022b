"""Whether methods are as often right as they are confident: from what is kept of every test image."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
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
    bins, errors = [], []
    for label, cells in block.kept.items():
        for seed, frame in cells.items():
            frames = [frame[(frame["task"] == task) & (frame["part"] == "all")] for task in block.tasks]
            bins += [reliability(own).assign(label=label) for own in frames]
            errors.append((label, seed, sum(map(ece, frames)) / len(frames)))
    there = set(block.at(max(block.shots), block.rows)["label"])
    lacking = [label for label in block.main if label in there and label not in block.kept]
    return Calibration(_pooled(bins), _over_seeds(errors), lacking)


def kept(block: Block) -> dict[str, dict[int, pd.DataFrame]]:
    """By label and seed, the predictions of the main table's methods at the block's largest shot count, those of a
    seed's folds as one; without methods that lack those of any of the block's tasks. A damaged file is named in a
    warning."""
    rows = block.at(max(block.shots, default=0), block.rows)
    found = {}
    for label in block.main:
        cells = rows[rows["label"] == label].drop_duplicates("key")
        read = {int(seed): _joined(block, keys) for seed, keys in cells.groupby("seed")["key"]}
        frames = {seed: frame for seed, frame in read.items() if frame is not None and _whole(frame, block)}
        if frames and len(frames) == len(read):
            found[label] = frames
    return found


def _joined(block: Block, keys: Sequence[str]) -> pd.DataFrame | None:
    """The predictions of cells that score different tasks, as if of one cell; None where there are none."""
    frames = [frame for key in keys if (frame := predictions_of(block.cells, key)) is not None]
    if not frames:
        return None
    joined = pd.concat(frames, ignore_index=True)
    by_part = ("classes", "images", "metrics")
    joined.attrs = {name: {k: v for frame in frames for k, v in frame.attrs[name].items()} for name in by_part}
    return joined


def _whole(frame: pd.DataFrame, block: Block) -> bool:
    """Whether it has test images of all of the block's tasks and of their parts but the harmonic mean."""
    there = set(zip(frame["task"].astype(str), frame["part"].astype(str), strict=True))
    return all((task, part) in there for task in block.tasks for part in block.parts if part != "harmonic")


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
