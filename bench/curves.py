"""Training curves: what of them a record keeps, and what they say against its score."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

if TYPE_CHECKING:
    from bench.methods import TaskData

POINTS = 50  # of longer trainings, this many epochs are kept, evenly spread, with the first and the last
NAMED = 5  # tasks that a mark names

Curves = Mapping[str, tuple[Sequence[float], Sequence[float]]]
"""Loss and accuracy (percent) of each epoch, by training: a task's name, or "all" (`Method.curves`)."""


def kept(curves: Curves) -> dict[str, Any]:
    """What a record keeps: {"epochs": [1, …], "loss": {training: […]}, "accuracy": {training: […]}}; {} of none.

    At most `POINTS` epochs, numbers with four digits.
    """
    if not curves:
        return {}
    n = max(len(loss) for loss, _ in curves.values())
    points = min(n, POINTS)
    places = [round(i * (n - 1) / max(1, points - 1)) for i in range(points)]
    found: dict[str, Any] = {"epochs": [i + 1 for i in places], "loss": {}, "accuracy": {}}
    for name, both in curves.items():
        for what, values in zip(("loss", "accuracy"), both, strict=True):
            found[what][name] = [float(f"{values[i]:.4g}") for i in places]
    return found


def check(curves: Mapping[str, Any]) -> None:
    """Raise ValueError unless it is what `kept` returns."""
    if not curves:
        return
    epochs: Any = curves.get("epochs")
    if set(curves) != {"epochs", "loss", "accuracy"} or not _whole(epochs, 1):
        raise ValueError("its curves have no epochs, loss and accuracy")
    if not all(isinstance(curves[what], dict) for what in ("loss", "accuracy")):
        raise ValueError("its curves are no maps by training")
    if set(curves["loss"]) != set(curves["accuracy"]):
        raise ValueError("its curves have not the loss and accuracy of the same trainings")
    for what, most in (("loss", float("inf")), ("accuracy", 100)):
        for name, values in curves[what].items():
            sound = isinstance(values, list) and len(values) == len(epochs)
            if not sound or not all(_number(x) and 0 <= x <= most for x in values):
                raise ValueError(f"its curve of {name!r} is not {len(epochs)} numbers")


def _whole(values: Any, least: int) -> bool:
    return isinstance(values, list) and all(_number(x) and isinstance(x, int) and x >= least for x in values)


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def table(curves: Mapping[str, Any]) -> pd.DataFrame:
    """A record's `curves` as one row a training and epoch: training, epoch, loss, accuracy."""
    rows = [
        (name, *values)
        for name, losses in curves.get("loss", {}).items()
        for values in zip(curves["epochs"], losses, curves["accuracy"][name], strict=True)
    ]
    return pd.DataFrame(rows, columns=["training", "epoch", "loss", "accuracy"])


def chance(tasks: Sequence[TaskData]) -> float:
    """Accuracy of guessing the few-shot images' classes, percent: the mean over images of 1 / classes of its task."""
    images = sum(len(task.labels) for task in tasks)
    return 100 * sum(len(task.labels) / len(task.class_names) for task in tasks) / images


def marks(curves: Curves, tasks: Sequence[TaskData]) -> list[str]:
    """What is wrong with a training, in sentences; [] where nothing is.

    Its end is the mean of its last tenth of epochs (at least one). Marked are an end whose accuracy is less than a
    tenth of the way from chance to 100 %, and one whose loss is above the first epoch's by a quarter of it and by 0.1,
    if every epoch of the last half is above the first: the loss of few images depends on their views, and where
    training changes nothing, the first of 26 epochs is the lowest by chance once in 26 times, however they scatter.
    """
    near, grew = [], []
    for name, (losses, accuracies) in curves.items():
        last = max(1, len(losses) // 10)
        loss, accuracy = (sum(values[-last:]) / last for values in (losses, accuracies))
        guessed = chance([task for task in tasks if task.name == name] or tasks)
        told = "" if name == "all" else f"{name} "
        if accuracy < guessed + (100 - guessed) / 10:
            near.append(f"{told}{accuracy:.1f} % (chance {guessed:.1f} %)")
        half = losses[len(losses) // 2 :]
        if loss > max(1.25 * losses[0], losses[0] + 0.1) and min(half) > losses[0]:
            grew.append(f"{told}from {losses[0]:.3g} to {loss:.3g}")
    said = (("training accuracy is near chance: ", near), ("training loss grew: ", grew))
    return [start + _some(found) for start, found in said if found]


def _some(found: Sequence[str]) -> str:
    more = f" and {len(found) - NAMED} more" if len(found) > NAMED else ""
    return ", ".join(found[:NAMED]) + more
