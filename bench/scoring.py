"""A method's scores of a task's test images: the class each image is given, and the task's numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from bench.datasets.splits import Task
from bench.limits import in_halves
from bench.methods import Method, TaskData
from bench.methods.base import Names, check_scores
from bench.metrics import METRICS
from bench.protocols import Part, Protocol

OTHER_NAMES = 30  # that an unseen task is also scored under, at most: each is a pass through the text tower
SCORE_CHUNK = 1024  # test images scored at a time


class Scored(NamedTuple):
    """What a method says of n images, on the CPU.

    predicted : [n], the class with the highest score. margin : [n], by how much it is above the second highest (NaN
    where there is one class). confidence : [n], its share of the scores' softmax. Both float32.
    """

    predicted: Tensor
    margin: Tensor
    confidence: Tensor


def scored(
    method: Method, task: TaskData, blocks: Sequence[Tensor], part: Part, device: torch.device, unseen: bool = False
) -> Scored:
    """What a method says of a part's images, whose features are in consecutive blocks [m, d]; these may be mapped from
    disk, and are read a chunk at a time.

    unseen : the method was not trained on the task.
    """

    def chunk(block: Tensor, rows: Tensor) -> Scored:
        asked = task, block[rows].to(device)  # a copy: what a method does to it changes no features
        scores = method.predict_new(*asked) if unseen else method.predict(*asked, part.class_names)
        return said(check_scores(scores, method.name, task.name, len(rows), part.n_classes))

    found: list[Scored] = []
    ends = torch.tensor([0, *map(len, blocks)]).cumsum(0)
    inside = part.rows.split(torch.searchsorted(part.rows, ends).diff().tolist())  # a block's, since rows ascend
    for block, first, own in zip(blocks, ends, inside, strict=False):
        for rows in (own - first).split(SCORE_CHUNK) if len(own) else ():
            found += in_halves(partial(chunk, block), rows, "test images")
    return Scored(*(torch.cat(several) for several in zip(*found, strict=True)))


def said(scores: Tensor) -> Scored:
    """What scores [n, C] say of n images."""
    best, predicted = scores.max(dim=1)
    below = scores - best[:, None]  # used for all that follows, since a new tensor of this size costs as much as a sum
    column = predicted[:, None]
    margin = below.scatter_(1, column, float("-inf")).amax(dim=1).abs() if scores.shape[1] > 1 else best * float("nan")
    confidence = 1 / below.scatter_(1, column, 0).float().exp_().sum(dim=1)  # the largest term of the softmax
    return Scored(predicted.cpu(), margin.float().cpu(), confidence.cpu())


def score(
    protocol: Protocol,
    method: Method,
    task: Task,
    trained: TaskData,
    blocks: Sequence[Tensor],
    device: torch.device,
    unseen: bool = False,
) -> tuple[list[dict[str, Any]], list[tuple[Part, Scored]]]:
    """A row for each part of a task's test images (base-to-new adds the harmonic mean of its two), and what was said.

    task : the whole one. trained : what of it the method was trained on. unseen : nothing of it, as in `scored`.
    """
    rows: list[dict[str, Any]] = []
    parts = []
    for part in protocol.parts(task):
        found = scored(method, trained, blocks, part, device, unseen)
        parts.append((part, found))
        rows.append(
            {
                "task": task.name,
                "part": part.name,
                "metric": task.metric,
                "accuracy": METRICS[task.metric](found.predicted, part.labels),
                "n_test": len(part.labels),
                "n_train": len(trained.labels),
                "n_classes": part.n_classes,
            }
        )
    val = val_accuracy(method, task.metric, trained, device)
    for row, (part, _) in zip(rows, parts, strict=True):
        row["val_accuracy"] = val if part.class_names is None else None  # there are none of new classes
    return [*rows, *protocol.summary(rows)], parts


def under_names(
    protocol: Protocol,
    method: Method,
    task: Task,
    names: TaskData,
    others: Sequence[Names],
    blocks: Sequence[Tensor],
    device: torch.device,
) -> dict[str, float]:
    """Accuracy (percent) of an unseen task under other names than its own: under none (""), and under that of each task
    that was trained on (of many: `OTHER_NAMES` of them, spread evenly), by that task; one of the same name is no other.
    {} where a method reads no task names: its texts do not differ, and neither do its scores.

    What a method gains by a task's own name is what it loses under these.
    """
    (part,) = protocol.parts(task)

    def under(name: str) -> Scored:
        return scored(method, replace(names, task_name=name), blocks, part, device, unseen=True)

    nameless = under("")
    texts = [method.texts(method.params, named) for named in (names, replace(names, task_name=""))]
    if texts[0] == texts[1] and all(torch.equal(a, b) for a, b in zip(nameless, under(names.task_name), strict=True)):
        return {}
    others = [other for other in others if other.task_name.casefold() != names.task_name.casefold()]
    spread = others[:: -(-len(others) // OTHER_NAMES) or 1]
    found = {"": nameless, **{other.name: under(other.task_name) for other in spread}}
    return {name: METRICS[task.metric](one.predicted, part.labels) for name, one in found.items()}


def known_classes(task: Task, trained: Sequence[Names], parts: Sequence[tuple[Part, Scored]]) -> dict[str, Any]:
    """What of an unseen task is not new: `known`, how many of its class names (whatever their case) are class names of
    tasks that were trained on; and `accuracy` (percent, among all its classes) on the test images of its other
    classes, None where there are none.

    parts : as from `score`.
    """
    seen = {name.casefold() for other in trained for name in other.class_names}
    known = torch.tensor([name.casefold() in seen for name in task.class_names])
    ((part, found),) = parts
    new = ~known[part.labels]
    accuracy = METRICS[task.metric](found.predicted[new], part.labels[new]) if new.any() else None
    return {"known": int(known.sum()), "accuracy": accuracy}


def val_accuracy(method: Method, metric: str, trained: TaskData, device: torch.device) -> float | None:
    """By the task's metric, percent, on its few-shot validation images; None where there are none."""
    labels = trained.val_labels
    if not len(labels):
        return None
    part = Part("val", torch.arange(len(labels)), labels, len(trained.class_names))
    return METRICS[metric](scored(method, trained, [trained.val], part, device).predicted, labels)


def mean_over_tasks(rows: list[dict[str, Any]]) -> float:
    """The suite's score: unweighted mean over tasks (of the harmonic means, where there are two parts)."""
    last = {row["task"]: row["accuracy"] for row in rows}  # the last part of a task sums it up
    return sum(last.values()) / len(last)
