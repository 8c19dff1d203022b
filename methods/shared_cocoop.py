"""CoCoOp with one context and one meta-network for all tasks.

Zhou et al., "Conditional Prompt Learning for Vision-Language Models", CVPR 2022, arXiv 2203.05557, train CoCoOp on one
data set and test it on others. This trains it on several tasks together, each image scored among its own task's
classes; on a single task it is `cocoop`. An unseen task needs nothing of its own: its images make its prompts.
Learned: L·w + d·h + h + h·w + w numbers, h = d/16.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from bench.methods.cocoop import CoCoOp
from bench.methods.prompt import Step
from bench.methods.training import Batch


class SharedCoCoOp(CoCoOp):
    """One context and one meta-network for everything."""

    name = "shared-cocoop"
    order = 61
    source = "CoCoOp, arXiv 2203.05557, trained on several tasks together (ours)"
    footnote = "shared-cocoop is CoCoOp trained on all tasks together (ours); trained on one task, it is CoCoOp."
    separate = False
    weighs_images = True
    unseen = ""

    @classmethod
    def not_lent(cls, how: str) -> str:
        return ""  # tasks share all of it: the mean, and what the nearest task has, are what a new task has anyway

    @classmethod
    def losses(cls, together: Sequence[Step]) -> list[Tensor]:
        """The joint cross-entropy: the mean over a batch's tasks, each by its share of the images."""
        split = [(method, batch, by_task(batch)) for method, batch in together]
        own = iter(super().losses([(method, part) for method, _, parts in split for part in parts]))
        return [
            torch.stack([next(own) * (len(part.labels) / len(batch.labels)) for part in parts]).sum()
            for _, batch, parts in split
        ]

    @classmethod
    def _within_bound(cls, together: Sequence[Step]) -> Iterator[tuple[list[Step], list[float]]]:
        """As CoCoOp's, of batches that mix tasks: a part is of one task, and its share is of the whole batch."""
        sizes = {method: len(batch.labels) for method, batch in together}  # a method has one training
        split = [(method, part) for method, batch in together for part in by_task(batch)]
        for parts, _ in super()._within_bound(split):
            yield parts, [len(part.labels) / sizes[method] for method, part in parts]


def by_task(batch: Batch) -> list[Batch]:
    """A batch's images of each of its tasks, in the order of `batch.present`."""
    if len(batch.present) == 1:
        return [batch]
    order = batch.cpu_tasks.argsort(stable=True)
    there = order.to(batch.features.device, non_blocking=True)
    features, labels, tasks = (x[there] for x in (batch.features, batch.labels, batch.tasks))
    weights = None if batch.weights is None else batch.weights[there]
    cpu = (batch.cpu_labels[order], batch.cpu_tasks[order])
    ordered = Batch(features, labels, tasks, *cpu, batch.log, weights)
    ends = batch.cpu_tasks.unique(return_counts=True)[1].cumsum(0).tolist()
    return [ordered.part(slice(first, end)) for first, end in pairwise([0, *ends])]
