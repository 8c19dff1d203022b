"""TaskRes: a learned residual on each class's text feature.

Yu et al., "Task Residual for Tuning Vision-Language Models", CVPR 2023, arXiv 2211.10277; code
github.com/geekyutao/TaskRes. A class's weight is unit(U_c + α·x_c), scores are τ · cosine. U_c is the *raw* text
feature of the hand-written prompts, and x [C, d] starts at 0: on normalised text it would be another method. Adam
2e-3, weight decay 5e-4 as L2 in the gradient, batch 256, 100 epochs, a fresh view each; epoch 1 at 1e-5, then cosine
by epochs; the last epoch counts. From 8 shots on the authors train 200 epochs, and for Flowers they set α = 1:
`--recipe authors`.

This is regular TaskRes. The enhanced one, which papers often quote, starts from a classifier tuned on each data set
and shot count, which the authors give as downloads: never put it beside this row.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.methods.base import TaskData, param
from bench.methods.heads import Head, HeadRecipe, TrainedHead


class Residual(Head):
    """text : U [C, d], raw. x : [C, d], learned."""

    def __init__(self, scale: float, text: Tensor, alpha: float) -> None:
        super().__init__()
        self.scale, self.alpha = scale, alpha
        self.text: Tensor
        self.register_buffer("text", text, persistent=False)
        self.x = nn.Parameter(torch.zeros_like(text))

    def forward(self, images: Tensor, text: Tensor | None = None) -> Tensor:
        return self.scale * images @ F.normalize(self.text + self.alpha * self.x, dim=-1).T


class TaskRes(TrainedHead):
    """A residual for each class's text feature."""

    name = "taskres"
    order = 28
    no_new_classes = "it learns a residual for each class"
    source = "TaskRes, arXiv 2211.10277; github.com/geekyutao/TaskRes"

    @dataclass(frozen=True)
    class Params(HeadRecipe):
        lr: float = param(2e-3, "learning rate, before its cosine decay", minimum=0, by_task=True)
        weight_decay: float = param(5e-4, "Adam's, as L2 in the gradient", minimum=0)
        alpha: float = param(0.5, "weight of the residual", minimum=0, by_task=True)

    def head(self, task: TaskData, rng: torch.Generator) -> Residual:
        return Residual(self.clip.scale, self.raw_text(task), self.params_of(task).alpha)

    def optimiser(self, parameters: list[nn.Parameter], recipe: Any) -> torch.optim.Optimizer:
        return torch.optim.Adam(parameters, lr=1, weight_decay=recipe.weight_decay)
