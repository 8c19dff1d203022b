"""The training recipe that all prompt methods share (CoOp's, as the paper uses it): one loop for all."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.methods.base import Parameters, Report, TaskData, param


@dataclass(frozen=True)
class Recipe(Parameters):
    """Optimiser settings; the paper's values are the defaults."""

    epochs: int = param(50, "passes over the few-shot set", least=1)
    batch: int = param(32, "images a step, drawn over all tasks trained together", least=1)
    lr: float = param(0.002, "SGD's learning rate from epoch 2 on, cosine decay", least=0)
    warmup_lr: float = param(1e-5, "learning rate of epoch 1", least=0)
    momentum: float = param(0.9, "SGD's momentum", least=0)
    weight_decay: float = param(5e-4, "SGD's weight decay, on all learned parameters", least=0)
    init_std: float = param(0.02, "standard deviation of random start values", least=0)


@dataclass(frozen=True)
class Batch:
    """Images of one step.

    features : [B, d], L2-normalised. labels : [B], within each image's own task.
    tasks : [B], index of each image's task. present : tasks with an image here, ascending.
    """

    features: Tensor
    labels: Tensor
    tasks: Tensor
    present: list[int]


def learning_rate(recipe: Recipe, epoch: int) -> float:
    """Learning rate of epoch 1, 2, …: constant warm-up, then 0.002 · ½(1 + cos(π (e − 2)/E))."""
    if epoch == 1:
        return recipe.warmup_lr
    return recipe.lr * 0.5 * (1 + math.cos(math.pi * (epoch - 2) / recipe.epochs))


def steps_an_epoch(n_images: int, batch: int) -> int:
    """The last incomplete batch is dropped when there is at least one whole batch."""
    return n_images // batch if n_images >= batch else min(n_images, 1)


def train(
    parameters: Iterable[Tensor],
    gradients: Callable[[Batch], None],
    tasks: Sequence[TaskData],
    which: Sequence[int],
    recipe: Recipe,
    rng: torch.Generator,
    on_step: Callable[[], None],
) -> None:
    """Train on the joint few-shot set of some tasks, from the parameters' present values.

    Parameters
    ----------
    gradients : puts a step's gradients into the parameters' `.grad`.
    tasks : all tasks. which : indices of those trained here; batches mix them.
    rng : CPU generator of the batch order.
    """
    parameters = list(parameters)
    device = parameters[0].device
    optimiser = torch.optim.SGD(
        parameters, lr=recipe.lr, momentum=recipe.momentum, weight_decay=recipe.weight_decay
    )
    labels = torch.cat([tasks[t].labels for t in which])
    owner = torch.cat([torch.full((len(tasks[t].labels),), t) for t in which])  # on the CPU: read without a sync
    n, size = len(labels), recipe.batch
    for epoch in range(recipe.epochs):
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(recipe, epoch + 1)
        images = torch.cat([tasks[t].views[epoch % len(tasks[t].views)] for t in which])  # n, d
        images = F.normalize(images, dim=-1)
        order = torch.randperm(n, generator=rng)
        for step in range(steps_an_epoch(n, size)):
            chosen = order[step * size : (step + 1) * size]
            batch = Batch(
                features=images[chosen].to(device),
                labels=labels[chosen].to(device),
                tasks=owner[chosen].to(device),
                present=owner[chosen].unique().tolist(),
            )
            optimiser.zero_grad()
            gradients(batch)
            optimiser.step()
            on_step()


def joint_cross_entropy(logits: Tensor, batch: Batch, sizes: Sequence[int]) -> Tensor:
    """Mean over the batch of softmax cross-entropy over each image's own task's classes.

    Parameters
    ----------
    logits : [B, C], columns of the present tasks side by side.
    sizes : number of classes of each present task, in the order of `batch.present`.
    """
    if len(sizes) == 1:
        return F.cross_entropy(logits, batch.labels)
    device = logits.device
    present = torch.tensor(batch.present)
    column_owner = present.repeat_interleave(torch.tensor(sizes)).to(device)  # C
    first = torch.zeros(int(present.max()) + 1, dtype=torch.long)
    first[present] = torch.tensor([0, *sizes[:-1]]).cumsum(0)
    own = batch.tasks[:, None] == column_owner  # B, C
    return F.cross_entropy(logits.masked_fill(~own, float("-inf")), batch.labels + first.to(device)[batch.tasks])


class Progress:
    """Counts steps for a `Report`."""

    def __init__(self, report: Report, total: int) -> None:
        self.report, self.total, self.done = report, total, 0

    def __call__(self) -> None:
        self.done += 1
        self.report(self.done, self.total)
