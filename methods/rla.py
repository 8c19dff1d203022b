"""RLA: a linear map of the image feature, held near the identity.

Fahes et al., "CLIP's Visual Embedding Projector is a Few-shot Cornucopia" (ProLIP), arXiv 2410.05270; code
astra-vision/ProLIP, `methods/RegLinearAdapter.py`. Of an image feature f the score is τ · cos(A·f, text), the loss adds
λ · ‖A − I‖² (sum of squares) with λ = 1/shots. A [d, d] starts at I. Full batch, 300 steps, each on the next of the
stored views (crops of at least half of the image), Adam with ε = 1e-4, learning rate 1e-5, cosine by steps to 0; the
last step counts. `search=val` trains the authors' 7 × 7 settings of learning rate and λ task by task and takes the best
on the few-shot validation images alone; of equals the largest learning rate, then the largest λ, as their code does.
Both change the training, so a search costs 49 of them.
Learned: T · d² numbers.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import product
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.methods.base import ProgressCallback, Searching, TaskData, generator, param
from bench.methods.heads import Head, HeadRecipe, TrainedHead, choose
from bench.methods.training import Progress

RATES = (1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8)
PULLS = (10.0, 1.0, 0.1, 0.01, 1e-3, 1e-4, 0.0)


class Linear(Head):
    """weight : [c, d], learned, from `start`. bias : [d], frozen. pull : λ."""

    def __init__(self, scale: float, text: Tensor, start: Tensor, bias: Tensor, pull: float) -> None:
        super().__init__()
        self.scale, self.pull = scale, pull
        self.text: Tensor
        self.start: Tensor
        self.bias: Tensor
        for name, value in (("text", text), ("start", start), ("bias", bias)):
            self.register_buffer(name, value, persistent=False)
        self.weight = nn.Parameter(start.clone())

    def forward(self, images: Tensor, text: Tensor | None = None) -> Tensor:
        mapped = F.normalize(images @ self.weight + self.bias, dim=-1)
        return self.scale * mapped @ (self.text if text is None else text).T

    def penalty(self) -> Tensor:
        return self.pull * (self.weight - self.start).square().sum()


class RLA(TrainedHead):
    """score = τ · cos(A · image, text), A held near the identity."""

    name = "rla"
    order = 29
    own_views: ClassVar[int | None] = 50
    schedule: ClassVar[Literal["epoch", "step"]] = "step"
    source = "ProLIP, arXiv 2410.05270; code astra-vision/ProLIP"
    searched = frozenset({"lr", "pull", "power"})

    @dataclass(frozen=True)
    class Params(Searching, HeadRecipe):
        epochs: int = param(300, "passes over the few-shot set, in turn over its stored views", minimum=1, by_task=True)
        batch: int = param(0, "images per step; 0: all of the task's", minimum=0)
        lr: float = param(1e-5, "learning rate, before its cosine decay", minimum=0, by_task=True)
        pull: float = param(1.0, "λ = pull / shots^power holds the map where it starts", minimum=0, by_task=True)
        power: float = param(1.0, "of the shots in λ; the authors' other rule is 2", minimum=0)
        crop: float = param(0.5, "smallest share of the image in a training view", minimum=0.01, maximum=1)

    @classmethod
    def trainings_of(cls, params: Any) -> int:
        return 1 if params.search == "none" else len(RATES) * len(PULLS)

    def start(self) -> tuple[Tensor, Tensor]:
        """Weight [c, d] and bias [d] before the training."""
        d = self.clip.embed_dim
        return torch.eye(d), torch.zeros(d)

    def head(self, task: TaskData, rng: torch.Generator) -> Linear:
        p = self.params_of(task)
        return Linear(self.clip.scale, self.text(task), *self.start(), p.pull / task.shots**p.power)

    def optimiser(self, parameters: list[nn.Parameter], recipe: Any) -> torch.optim.Optimizer:
        return torch.optim.Adam(parameters, lr=1, eps=1e-4)

    def train(self, seed: int, report: ProgressCallback) -> None:
        if self.params.search == "none":
            return super().train(seed, report)
        settings = [{"lr": lr, "lambda": pull} for lr, pull in product(RATES, PULLS)]
        steps = sum(self.steps(task) * self.params_of(task).epochs for task in self.tasks)
        progress = Progress(report, steps * len(settings))
        for head, task in zip(self.heads, self.tasks, strict=True):
            images, labels = self.validation(task)
            right: list[int] = []
            for setting in settings:
                head.pull, recipe = setting["lambda"], replace(self.params_of(task), lr=setting["lr"])
                with torch.no_grad():
                    head.weight.copy_(head.start)
                self._train(head, task, generator(seed, task.name, "batches"), progress, recipe)
                with torch.no_grad():
                    right.append(int((head(images).argmax(dim=1) == labels).sum()))
                if right[-1] > max(right[:-1], default=-1):
                    best, log = head.weight.detach().clone(), self.logs[task.name]
            with torch.no_grad():
                head.weight.copy_(best)
            self.logs[task.name] = log
            self.choices[task.name] = choose(settings, right, len(labels))
