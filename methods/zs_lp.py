"""ZS-LP: class weights that start at the text features.

Silva-Rodríguez et al., "A Closer Look at the Few-Shot Adaptation of Large Vision-Language Models", CVPR 2024, arXiv
2312.12730; code github.com/jusiro/CLAP. Weights w [C, d] start at the *raw* text features of the hand-written prompts;
scores are τ · cosine with unit(w). SGD 0.1, momentum 0.9, batch 256, 300 epochs; epoch 1 at 1e-5, then cosine by
epochs; one recipe for all tasks and shots, the last epoch, nothing chosen.

As in their code, 20 views of each image are stored, and each epoch draws from all 20·n rows, but only as many batches
as n images give: with fewer than 256 images one step on 256 rows (or all there are), otherwise ⌊n/256⌋ steps.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.methods.base import TaskData, param
from bench.methods.heads import Head, HeadRecipe, TrainedHead


class Weights(Head):
    """weights : [C, d], learned. pull : λ [C] or None. start : U [C, d]."""

    def __init__(self, scale: float, start: Tensor, pull: Tensor | None = None) -> None:
        super().__init__()
        self.scale = scale
        self.start: Tensor
        self.pull: Tensor | None
        self.register_buffer("start", start, persistent=False)
        self.register_buffer("pull", pull, persistent=False)
        self.weights = nn.Parameter(start.clone())

    def forward(self, images: Tensor, text: Tensor | None = None) -> Tensor:
        return self.scale * images @ F.normalize(self.weights, dim=-1).T

    def penalty(self) -> Tensor | None:
        """Mean over classes of λ_c · ‖w_c − U_c‖²."""
        return None if self.pull is None else (self.pull * (self.weights - self.start).square().sum(dim=1)).mean()


class ZsLp(TrainedHead):
    """Class weights, trained from the text features on."""

    name = "zs-lp"
    own_views = 20
    order = 21
    stacked = True
    no_new_classes = "it learns a weight vector for each class"
    source = "CLAP, arXiv 2312.12730; github.com/jusiro/CLAP"

    @dataclass(frozen=True)
    class Params(HeadRecipe):
        epochs: int = param(300, "epochs of as many steps as the few-shot set has batches", minimum=1, by_task=True)
        lr: float = param(0.1, "learning rate, before its cosine decay", minimum=0, by_task=True)
        momentum: float = param(0.9, "SGD's", minimum=0)

    def head(self, task: TaskData, rng: torch.Generator) -> Weights:
        return Weights(self.clip.scale, self.raw_text(task))

    def optimiser(self, parameters: list[nn.Parameter], recipe: Any) -> torch.optim.Optimizer:
        return torch.optim.SGD(parameters, lr=1, momentum=recipe.momentum)
