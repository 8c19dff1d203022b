"""The training recipe that all prompt methods share (CoOp's, as the paper uses it): one loop for all."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import Any, Generic, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.errors import UserError
from bench.methods.base import Parameters, ProgressCallback, TaskData, param
from bench.methods.log import Log


@dataclass(frozen=True)
class Recipe(Parameters):
    """Optimiser settings; the paper's values are the defaults."""

    epochs: int = param(50, "passes over the few-shot set", minimum=1)
    batch: int = param(32, "images per step, drawn over all tasks trained together", minimum=1)
    lr: float = param(0.002, "SGD's learning rate from epoch 2 on, cosine decay", minimum=0)
    warmup_lr: float = param(1e-5, "learning rate of epoch 1", minimum=0)
    momentum: float = param(0.9, "SGD's momentum", minimum=0)
    weight_decay: float = param(5e-4, "SGD's weight decay, on all learned parameters", minimum=0)
    init_std: float = param(0.02, "standard deviation of random start values", minimum=0)
    repeats: int = param(1, "optimiser steps per batch, all with the batch's one gradient", minimum=1)
    schedule_steps: int = param(1, "steps of the cosine decay per epoch; with 2 or more it rises again", minimum=1)
    epoch_steps: int = param(0, "optimiser steps per epoch; 0: one for each whole batch", minimum=0, later=True)
    task_temperature: float = param(
        1.0,
        "τ: a task with n images is drawn in proportion to n^(1/τ); 1: by its images, inf: as often as any other",
        minimum=1,
        maximum=math.inf,
        later=True,
    )
    tasks_a_step: int = param(
        0, "tasks per step, drawn evenly, batch / tasks_a_step images of each; 0: no limit", minimum=0, later=True
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.tasks_a_step and self.batch % self.tasks_a_step:
            raise UserError(f"tasks_a_step={self.tasks_a_step}: batch={self.batch} is not a multiple of it")

    @property
    def draws_tasks(self) -> bool:
        """Whether it says how tasks are drawn, which makes a difference only where several are trained together."""
        return self.task_temperature != 1 or self.tasks_a_step > 0


# An epoch's features are sent to the device at once up to so many bytes; of more, those of one step at a time.
EPOCH_AT_ONCE = 1_000_000_000

Owner = TypeVar("Owner")


@dataclass(frozen=True)
class Batch:
    """Images of one step, on the device; and what the host asks of them, so that it never waits for the device.

    features : [B, d], L2-normalised. labels : [B], within each image's own task. tasks : [B], each image's task.
    cpu_labels, cpu_tasks : the same on the CPU. log : where its loss is noted. weights : [B], what each image's loss
    counts, mean 1 over all steps; None where all count alike.
    """

    features: Tensor
    labels: Tensor
    tasks: Tensor
    cpu_labels: Tensor
    cpu_tasks: Tensor
    log: Log | None = None
    weights: Tensor | None = None

    @classmethod
    def of(cls, features: Tensor, labels: Tensor, tasks: Tensor) -> Batch:
        """From labels and tasks on the CPU."""
        there = [x.to(features.device, non_blocking=True) for x in (labels, tasks)]
        return cls(features, there[0], there[1], labels, tasks)

    @cached_property
    def present(self) -> list[int]:
        """Tasks with an image here, ascending."""
        return self.cpu_tasks.unique().tolist()

    def part(self, rows: slice) -> Batch:
        tensors = (self.features, self.labels, self.tasks, self.cpu_labels, self.cpu_tasks)
        features, labels, own, cpu_labels, cpu_own = (x[rows] for x in tensors)
        weights = None if self.weights is None else self.weights[rows]
        return Batch(features, labels, own, cpu_labels, cpu_own, self.log, weights)

    def cross_entropy(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Mean softmax cross-entropy of logits [B, C], by the images' weights; noted in the log.

        Of a batch without weights, also of some of its images.
        """
        if self.weights is None:
            loss = F.cross_entropy(logits, labels)
        else:
            loss = (self.weights * F.cross_entropy(logits, labels, reduction="none")).mean()
        if self.log is not None:
            self.log.note(loss, logits, labels)
        return loss


def learning_rate(recipe: Recipe, epoch: int) -> float:
    """Learning rate of epoch 1, 2, …: constant warm-up, then 0.002 · ½(1 + cos(π (s · (e − 1) − 1)/E)).

    s is `schedule_steps`: 1 as the paper states it, which gives (e − 2)/E.
    """
    if epoch == 1:
        return recipe.warmup_lr
    return recipe.lr * 0.5 * (1 + math.cos(math.pi * (recipe.schedule_steps * (epoch - 1) - 1) / recipe.epochs))


def steps_per_epoch(n_images: int, batch: int) -> int:
    """The last incomplete batch is dropped when there is at least one whole batch."""
    return n_images // batch if n_images >= batch else min(n_images, 1)


def steps_of(n_images: int, recipe: Recipe) -> int:
    """Optimiser steps per epoch over so many images."""
    return recipe.epoch_steps if n_images and recipe.epoch_steps else steps_per_epoch(n_images, recipe.batch)


def task_shares(sizes: Tensor, temperature: float) -> Tensor:
    """p(t) = n_t^(1/τ) / Σ n^(1/τ) of tasks with n_t images, float64; 0 of one without any.

    τ = 1: every image is drawn alike. τ = inf: every task is.
    """
    powers = sizes.double().pow(1 / temperature) * (sizes > 0)
    return powers / powers.sum()


def drawn(sizes: Tensor, recipe: Recipe, rng: torch.Generator) -> Tensor:
    """The images of an epoch's steps [steps, B], as places in the joint few-shot set.

    By default every image comes once (but for the last incomplete batch). Where tasks are drawn, or an epoch has more
    steps, images come in a new random order whenever all (of a task) have come.

    Parameters
    ----------
    sizes : [T], images of each task, in the order in which they stand in the set.
    """
    n = int(sizes.sum())
    n_steps, size = steps_of(n, recipe), min(recipe.batch, n)
    if limited(sizes, recipe):
        there, m = sizes.nonzero()[:, 0], recipe.tasks_a_step
        size = recipe.batch
        chosen = [there[torch.randperm(len(there), generator=rng)[:m]] for _ in range(n_steps)]
        tasks = torch.cat(chosen).repeat_interleave(size // m)
    elif recipe.task_temperature != 1 and n:
        shares = task_shares(sizes, recipe.task_temperature)
        tasks = torch.multinomial(shares, n_steps * size, replacement=True, generator=rng)
    else:
        return _in_turn(n, n_steps * size, rng).view(n_steps, size)
    wanted = torch.bincount(tasks, minlength=len(sizes))
    first = sizes.cumsum(0) - sizes
    rows = torch.empty_like(tasks)
    rows[tasks.argsort(stable=True)] = torch.cat(
        [_in_turn(own, k, rng) for own, k in zip(sizes.tolist(), wanted.tolist(), strict=True)]
    )
    return (first[tasks] + rows).view(n_steps, size)


def limited(sizes: Tensor, recipe: Recipe) -> bool:
    """Whether a step has `tasks_a_step` tasks: where there are no more than these, a batch mixes all of them."""
    return 0 < recipe.tasks_a_step < int((sizes > 0).sum())


def task_weights(sizes: Tensor, recipe: Recipe) -> Tensor | None:
    """[T], what an image's loss counts where tasks are drawn evenly: T · p(t), at τ = 1 n_t · T / N. So the expected
    loss is Σ p(t) · (mean over the task's images), as without `tasks_a_step`. None where all count alike."""
    if not limited(sizes, recipe):
        return None
    return (task_shares(sizes, recipe.task_temperature) * (sizes > 0).sum()).float()


def _in_turn(n: int, k: int, rng: torch.Generator) -> Tensor:
    """k of the numbers below n: all in random order, then all in another, ..."""
    return torch.cat([torch.randperm(n, generator=rng) for _ in range(-(-k // n) if k else 0)] or [_NONE])[:k]


_NONE = torch.zeros(0, dtype=torch.long)


@dataclass(frozen=True)
class Training(Generic[Owner]):
    """One optimisation: whose it is, the parameters that are its own, and its steps' learning rates and batches."""

    owner: Owner
    parameters: list[Tensor]
    steps: Iterator[tuple[float, Batch]]


def batches(
    tasks: Sequence[TaskData],
    which: Sequence[int],
    recipe: Recipe,
    rng: torch.Generator,
    device: torch.device,
    log: Log | None = None,
    start: int = 0,
) -> Iterator[tuple[float, Batch]]:
    """Learning rate and batch of each step over the joint few-shot set of some tasks.

    Parameters
    ----------
    tasks : all tasks. which : indices of those trained together; batches mix them.
    rng : CPU generator of the batch order. log : told where steps begin and epochs end; batches carry it.
    start : leave out so many steps, those before a kill; of them only the order is drawn.
    """
    labels = torch.cat([tasks[t].labels for t in which])
    sizes = torch.tensor([len(tasks[t].labels) for t in which])
    owner = torch.tensor(which).repeat_interleave(sizes)  # on the CPU: read without a sync
    weights = task_weights(sizes, recipe)
    if weights is not None:
        weights = weights.repeat_interleave(sizes).to(device)
    labels_there, owner_there = labels.to(device), owner.to(device)
    n_steps = steps_of(len(labels), recipe)
    for epoch in range(recipe.epochs):
        order = drawn(sizes, recipe, rng)
        left_out = start - epoch * n_steps
        if left_out > n_steps:
            continue
        features = _features(tasks, which, epoch, device)
        order_there = order.to(device, non_blocking=True)
        for step in range(max(left_out, 0), n_steps):
            chosen, same = order_there[step], order[step]
            own = None if weights is None else weights[chosen]
            batch = Batch(
                features(same, chosen), labels_there[chosen], owner_there[chosen], labels[same], owner[same], log, own
            )
            if log is not None:
                log.start_step()
            yield learning_rate(recipe, epoch + 1), batch
        if log is not None:
            log.end_epoch()


def _features(
    tasks: Sequence[TaskData], which: Sequence[int], epoch: int, device: torch.device
) -> Callable[[Tensor, Tensor], Tensor]:
    """Looks up normalised features [B, d] on the device, by their places in the joint few-shot set [B], which are given
    on the CPU and on the device."""
    views = [tasks[t].views[epoch % len(tasks[t].views)] for t in which]
    if sum(view.numel() * view.element_size() for view in views) <= EPOCH_AT_ONCE:
        images = F.normalize(torch.cat(views).to(device, non_blocking=True), dim=-1)  # no upload in a step
        return lambda places, there: images[there]
    lengths = torch.tensor([len(view) for view in views])
    ends = lengths.cumsum(0)

    def gathered(places: Tensor, there: Tensor) -> Tensor:
        own = torch.searchsorted(ends, places, right=True)
        rows = places - (ends - lengths)[own]
        images = torch.stack([views[t][row] for t, row in zip(own.tolist(), rows.tolist(), strict=True)])
        return F.normalize(images.to(device, non_blocking=True), dim=-1)

    return gathered


def sgd(trainings: Sequence[Training[Any]], recipe: Recipe) -> torch.optim.SGD:
    """The recipe's optimiser: a group for each training."""
    return torch.optim.SGD(
        [{"params": training.parameters} for training in trainings],
        lr=recipe.lr,
        momentum=recipe.momentum,
        weight_decay=recipe.weight_decay,
    )


def train(
    trainings: Sequence[Training[Owner]],
    gradients: Callable[[Sequence[tuple[Owner, Batch]]], None],
    recipe: Recipe,
    optimiser: torch.optim.SGD,
    on_step: Callable[[], None],
) -> None:
    """Train from the parameters' present values. Trainings run side by side: a step takes one batch of each.

    They share no parameter, so each learns what it would learn alone; one that has finished stays as it is.

    Parameters
    ----------
    gradients : puts the gradients of the batches' losses, each of its own training, into the parameters' `.grad`.
        Given are the batches and whose they are.
    optimiser : from `sgd`, of the same trainings.
    """
    while True:
        at_hand = []
        for group, training in zip(optimiser.param_groups, trainings, strict=True):
            for group["lr"], batch in islice(training.steps, 1):
                at_hand.append((training.owner, batch))
        if not at_hand:
            return
        optimiser.zero_grad(set_to_none=True)  # SGD passes over parameters without a gradient
        gradients(at_hand)
        for _ in range(recipe.repeats):
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
        return batch.cross_entropy(logits, batch.labels)
    present = torch.tensor(batch.present)
    column_owner = present.repeat_interleave(torch.tensor(sizes))  # C
    first = torch.zeros(int(present.max()) + 1, dtype=torch.long)
    first[present] = torch.tensor([0, *sizes[:-1]]).cumsum(0)
    column_owner, first = (x.to(logits.device, non_blocking=True) for x in (column_owner, first))
    own = batch.tasks[:, None] == column_owner  # B, C
    return batch.cross_entropy(logits.masked_fill(~own, float("-inf")), batch.labels + first[batch.tasks])


class Progress:
    """Counts steps for a `ProgressCallback`."""

    def __init__(self, report: ProgressCallback, total: int) -> None:
        self.report, self.total, self.done = report, total, 0

    def __call__(self) -> None:
        self.done += 1
        self.report(self.done, self.total)
