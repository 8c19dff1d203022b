"""CLIP-Adapter: a small network on the image feature, blended with it.

Gao et al., "CLIP-Adapter: Better Vision-Language Models with Feature Adapters", arXiv 2110.04544; code
github.com/gaopengcuhk/CLIP-Adapter (a model without a training configuration). Of an image feature x

    x′ = r · ReLU(W₂ · ReLU(W₁ · x)) + (1 − r) · x,   score = τ · unit(x′) · tᵀ

with W₁ [d/4, d] and W₂ [d, d/4] of each task, without biases, from PyTorch's own start values; r = 0.2, as in the
code. Adam 1e-5, batch 32, 200 epochs, a fresh view each, the last epoch: what we use for lack of a published
configuration, with the cosine of the other methods. At 1e-5 it hardly moves where there are few images; over learning
rates its mean is said to vary by more than ten points, so `lr` is a parameter to look at. An r of each
data set's own, as the paper is said to search, is not rebuilt.

Without biases a positive factor on x cancels in unit(x′), so raw and normalised features are the same to it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.errors import UserError
from bench.methods.base import TaskData, param
from bench.methods.heads import Head, HeadRecipe, TrainedHead


class Adapter(Head):
    """first : W₁ [h, d]. second : W₂ [d, h]. Both learned."""

    def __init__(self, scale: float, text: Tensor, first: Tensor, second: Tensor, ratio: float) -> None:
        super().__init__()
        self.scale, self.ratio = scale, ratio
        self.text: Tensor
        self.register_buffer("text", text, persistent=False)
        self.first, self.second = nn.Parameter(first), nn.Parameter(second)

    def adapted(self, images: Tensor) -> Tensor:
        """x′ [B, d], not normalised."""
        return self.ratio * (images @ self.first.T).relu().matmul(self.second.T).relu() + (1 - self.ratio) * images

    def forward(self, images: Tensor, text: Tensor | None = None) -> Tensor:
        return self.scale * F.normalize(self.adapted(images), dim=-1) @ (self.text if text is None else text).T


class ClipAdapter(TrainedHead):
    """A two-layer network on the image feature, blended with it."""

    name = "clip-adapter"
    order = 27
    source = "CLIP-Adapter, arXiv 2110.04544; github.com/gaopengcuhk/CLIP-Adapter"

    @dataclass(frozen=True)
    class Params(HeadRecipe):
        epochs: int = param(200, "passes over the few-shot set", minimum=1, by_task=True)
        batch: int = param(32, "images per step; 0: all of the task's", minimum=0)
        lr: float = param(1e-5, "learning rate, before its cosine decay", minimum=0, by_task=True)
        ratio: float = param(
            0.2, "weight r of the adapter's output; the image feature has the rest", minimum=0, maximum=1, by_task=True
        )
        reduction: int = param(4, "the hidden layer is this many times narrower", minimum=1)

    def head(self, task: TaskData, rng: torch.Generator) -> Adapter:
        d, p = self.clip.embed_dim, self.params_of(task)
        if p.reduction > d:
            raise UserError(f"reduction={p.reduction}: at most {d}, the width of the image feature")
        hidden = d // p.reduction
        first, second = (
            torch.empty(rows, columns).uniform_(-1 / math.sqrt(columns), 1 / math.sqrt(columns), generator=rng)
            for rows, columns in ((hidden, d), (d, hidden))
        )
        return Adapter(self.clip.scale, self.text(task), first, second, p.ratio)

    def optimiser(self, parameters: list[nn.Parameter], recipe: Any) -> torch.optim.Optimizer:
        return torch.optim.Adam(parameters, lr=1)
