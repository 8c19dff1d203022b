"""Heads: what learns on frozen image features alone, task by task, without a gradient through the text tower.

A method says what its head for a task is (`HeadMethod.head`): a module whose parameters are learned and whose buffers
are kept with them. `TrainedHead` trains heads in one loop, on torch's own optimisers; a method says which
(`optimiser`), and whether the cosine of its learning rate goes by epochs or by steps.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.errors import UserError
from bench.methods.base import (
    Choice,
    Clip,
    Method,
    Parameters,
    ProgressCallback,
    TaskData,
    check_shapes,
    generator,
    param,
)
from bench.methods.log import Log
from bench.methods.training import Progress, steps_per_epoch
from bench.methods.zero_shot import template_features
from bench.wording import sentences


class Head(nn.Module):
    """Scores of one task's classes from its images' features.

    Its parameters are learned. Persistent buffers are kept with them; others follow from the task's names.
    """

    def forward(self, images: Tensor, text: Tensor | None = None) -> Tensor:
        """[B, C] of `HeadMethod.prepared` features [B, d].

        text : [C', d], normalised, of other classes to score; only of methods that can.
        """
        raise NotImplementedError

    def penalty(self) -> Tensor | None:
        """What is added to the cross-entropy in training."""
        return None


class HeadMethod(Method):
    """A head for each task.

    Attributes
    ----------
    heads : by the task's place. logs : of the trainings, by the task's name.
    at_once : images that `predict` scores at a time.
    """

    common_recipe = False  # "all" in recipes means learned prompts: nothing of it fits here
    at_once: ClassVar[int] = 1024

    @abstractmethod
    def head(self, task: TaskData, rng: torch.Generator) -> Head:
        """A task's head before its training. Tensors with a row an image have it in front; a restored task has none."""

    def search(self, head: Any, task: TaskData) -> Choice | None:
        """Set what the head's method chooses on `task.val`; called after the training, with `search=val`."""
        return None

    def prepared(self, images: Tensor) -> Tensor:
        """Raw features as heads take them: normalised."""
        return F.normalize(images, dim=-1)

    def text(self, task: TaskData) -> Tensor:
        """[C, d], normalised, float32: the hand-written prompts."""
        return template_features(self.clip, task).float()

    def raw_text(self, task: TaskData) -> Tensor:
        """[C, d], float32: the mean of a class's hand-written prompts, neither normalised before nor after it."""
        written = [sentences(task, name) for name in task.class_names]
        encoded = self.clip.tower.encode_texts([text for own in written for text in own]).float()
        return torch.stack([own.mean(dim=0) for own in encoded.split([len(own) for own in written])])

    def setup(self, clip: Clip, tasks: Sequence[TaskData], seed: int) -> None:
        """Make the heads; alone, a task gets the start values that it would get among others."""
        self.clip, self.tasks = clip, list(tasks)
        self.choices: dict[str, Choice] = {}
        self.logs: dict[str, Log] = {}
        self.heads: list[Any] = [self.head(task, generator(seed, task.name, "start")).to(clip.device) for task in tasks]

    def fit(self, clip: Clip, tasks: Sequence[TaskData], seed: int, report: ProgressCallback) -> None:
        """As of `Method`.

        Raises
        ------
        UserError : it is to search, and a task has no validation images.
        """
        searches = getattr(self.params, "search", "none") == "val"
        if searches and (without := [task.name for task in tasks if not len(task.val_labels)]):
            raise UserError(f"{self.name}: search=val needs validation images; task {without[0]} has none")
        self.setup(clip, tasks, seed)
        self.train(seed, report)
        if searches:
            for head, task in zip(self.heads, self.tasks, strict=True):
                with torch.no_grad():
                    choice = self.search(head, task)
                if choice is not None:
                    self.choices[task.name] = choice

    def validation(self, task: TaskData) -> tuple[Tensor, Tensor]:
        """Prepared few-shot validation images [m, d] and their labels [m], on the device."""
        return self.prepared(task.val.to(self.clip.device)), task.val_labels.to(self.clip.device)

    def train(self, seed: int, report: ProgressCallback) -> None:
        """Train the heads, where there is anything to train."""
        report(len(self.tasks), len(self.tasks))

    @torch.no_grad()
    def predict(self, task: TaskData, features: Tensor, class_names: Sequence[str] | None = None) -> Tensor:
        t, text = self.place(task), None
        if class_names is not None and tuple(class_names) != tuple(self.tasks[t].class_names):
            if self.no_new_classes:
                self.refuse_new_classes()
            text = template_features(self.clip, task, class_names).float()
        chunks = features.split(self.at_once)
        return torch.cat([self.heads[t](self.prepared(x.to(self.clip.device)), text) for x in chunks])

    @property
    def learned(self) -> dict[str, Tensor]:
        """The parameters, named "<name>-<place of the task>"."""
        return {f"{name}-{t}": p for t, head in enumerate(self.heads) for name, p in head.named_parameters()}

    @property
    def n_params(self) -> int:
        return sum(p.numel() for p in self.learned.values())

    def curves(self) -> dict[str, tuple[list[float], list[float]]]:
        return {name: (log.loss, log.accuracy) for name, log in self.logs.items() if log.loss}

    def chosen(self) -> dict[str, Choice]:
        return self.choices

    def state(self) -> dict[str, Tensor]:
        return {
            f"{name}-{t}": value.detach().cpu()
            for t, head in enumerate(self.heads)
            for name, value in head.state_dict().items()
        }

    def restore(self, clip: Clip, tasks: Sequence[TaskData], state: Mapping[str, Tensor]) -> None:
        self.setup(clip, tasks, seed=0)  # the names and shapes; the values are replaced
        wanted: dict[str, tuple[int, ...]] = {}
        for t, head in enumerate(self.heads):
            own = {f"{name}-{t}": tuple(value.shape) for name, value in head.state_dict().items()}
            lengths = (n for name, shape in own.items() if 0 in shape and name in state for n in state[name].shape[:1])
            images = next(lengths, 0)  # what has no length without images has it in front
            wanted |= {name: tuple(size or images for size in shape) for name, shape in own.items()}
        check_shapes(self.name, wanted, state)
        for t, head in enumerate(self.heads):
            for name, value in head.state_dict(keep_vars=True).items():
                value.data = state[f"{name}-{t}"].to(clip.device, value.dtype)


@dataclass(frozen=True)
class HeadRecipe(Parameters):
    """What every trained head has; its method says the values."""

    epochs: int = param(100, "passes over the few-shot set", minimum=1, by_task=True)
    batch: int = param(256, "images per step; 0: all of the task's", minimum=0)
    lr: float = param(1e-3, "learning rate, before its cosine decay", minimum=0, by_task=True)


def cosine(done: float, total: float) -> float:
    """½(1 + cos(π · done / total)): the share of a learning rate that is left."""
    return 0.5 * (1 + math.cos(math.pi * done / total))


class TrainedHead(HeadMethod):
    """Heads trained one after another by gradient descent, in float32, with the cross-entropy of their task's classes.

    Class attributes
    ----------------
    schedule : of the learning rate, in epochs e = 1 … E or steps k = 0 … S − 1.
        "epoch": warmup_lr in epoch 1, then lr · ½(1 + cos(π(e − 2)/E)). "step": lr · ½(1 + cos(πk/S)).
    drop_last : an epoch leaves out its last, incomplete batch, where it has a whole one.
    stacked : steps draw from the rows of all V stored views (as many steps an epoch as n images give), not from the
        epoch's one view.
    """

    Params = HeadRecipe
    schedule: ClassVar[Literal["epoch", "step"]] = "epoch"
    drop_last: ClassVar[bool] = True
    stacked: ClassVar[bool] = False
    warmup_lr: ClassVar[float] = 1e-5

    @abstractmethod
    def optimiser(self, parameters: list[nn.Parameter], recipe: Any) -> torch.optim.Optimizer:
        """Over one head's parameters, with learning rate 1: the loop sets it at each step."""

    def train(self, seed: int, report: ProgressCallback) -> None:
        progress = Progress(report, sum(self.steps(task) * self.params_of(task).epochs for task in self.tasks))
        for head, task in zip(self.heads, self.tasks, strict=True):
            self._train(head, task, generator(seed, task.name, "batches"), progress)

    def steps(self, task: TaskData) -> int:
        """Of an epoch."""
        n = len(task.labels)
        size = self.params_of(task).batch or max(1, n)
        return steps_per_epoch(n, size) if self.drop_last else -(-n // size)

    def rate(self, recipe: Any, step: int, steps: int) -> float:
        """Learning rate of step 0, 1, … of a training with so many an epoch."""
        if self.schedule == "step":
            return recipe.lr * cosine(step, recipe.epochs * steps)
        epoch = step // steps + 1
        return self.warmup_lr if epoch == 1 else recipe.lr * cosine(epoch - 2, recipe.epochs)

    def batches(self, task: TaskData, rng: torch.Generator, log: Log) -> Iterator[tuple[Tensor, Tensor]]:
        """Prepared features [B, d] and labels [B] of each step, on the device."""
        n, device, recipe = len(task.labels), self.clip.device, self.params_of(task)
        size, labels = recipe.batch or n, task.labels.to(device)
        rows = len(task.views) * n if self.stacked else n
        for epoch in range(recipe.epochs):
            if not self.stacked:
                images = self.prepared(task.views[epoch % len(task.views)].to(device, non_blocking=True))
            order = torch.randperm(rows, generator=rng)
            for step in range(self.steps(task)):
                chosen = order[step * size : (step + 1) * size]
                log.start_step()
                if self.stacked:
                    own = task.views[chosen // n, chosen % n].to(device, non_blocking=True)
                    yield self.prepared(own), labels[(chosen % n).to(device)]
                else:
                    there = chosen.to(device, non_blocking=True)
                    yield images[there], labels[there]
            log.end_epoch()

    def _train(
        self, head: Head, task: TaskData, rng: torch.Generator, progress: Progress, recipe: Any = None
    ) -> None:
        """recipe : the task's own parameters where none is given; epochs and batch are these in any case."""
        recipe, steps = recipe or self.params_of(task), max(1, self.steps(task))
        log = self.logs[task.name] = Log(f"{self.name}, {task.name}", recipe.epochs)
        optimiser = self.optimiser(list(head.parameters()), recipe)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: self.rate(recipe, step, steps))
        for images, labels in self.batches(task, rng, log):
            logits = head(images)
            loss = F.cross_entropy(logits, labels)
            log.note(loss, logits, labels)
            penalty = head.penalty()
            optimiser.zero_grad()
            (loss if penalty is None else loss + penalty).backward()
            optimiser.step()
            schedule.step()
            progress()
        log.close()


def choose(settings: Sequence[Mapping[str, float]], right: Sequence[int], images: int) -> Choice:
    """The first of the settings with the most validation images right; callers put those first that win ties."""
    best = max(right)
    chosen = settings[list(right).index(best)]
    return Choice(dict(chosen), 100 * best / images, images, len(right), list(right).count(best) - 1)
