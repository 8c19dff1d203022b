"""APE-T: APE with a learned residual of each class on the kept channels, and a learned weight of each image.

Zhu et al., "Not All Features Matter", ICCV 2023, arXiv 2304.01195; code github.com/yangyangyang127/APE. ρ [C, Q]
starts at 0 and is added to each class's text on the kept channels, and to the class's keys; v [N] starts at 1 and
stands in place of exp(γD):

    τ · f · (t + ρ)ᵀ + α · exp(−β(1 − f′ · (Z′ + ρ_y)ᵀ)) · (Y ∘ v)

So it starts as APE with γ = 0. AdamW 1e-3 (ε 1e-3, weight decay 0.1), cosine by steps, batch 256, 20 epochs, a fresh
view each, the last epoch; the authors set learning rate, ε, epochs and Q for each data set by hand, and choose the
epoch on the full validation split. In the released code, whose call of APE-T is commented out, affinities are taken on
all channels, unlike in the paper: we follow the paper. `search=val` chooses α and β as `ape` does.
`gamma` is of `ape` alone: here it changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from bench.methods.ape import LOGS, Ape, Refined
from bench.methods.base import TaskData, param
from bench.methods.heads import HeadRecipe, TrainedHead


class Tuned(Refined):
    """residual : ρ [C, Q]. weights : v [N]. Both learned."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.residual = nn.Parameter(torch.zeros(len(self.text), len(self.channels)))
        self.weights = nn.Parameter(torch.ones(len(self.labels)))

    def zero_shot(self, images: Tensor) -> Tensor:
        return super().zero_shot(images) + self.scale * images[:, self.channels] @ self.residual.T

    def cached(self, images: Tensor) -> Tensor:
        keys = self.narrow(self.keys) + self.residual[self.labels]
        return torch.exp(-self.beta * (1 - self.narrow(images) @ keys.T)) @ (self.values * self.weights[:, None])


class ApeT(TrainedHead, Ape):
    """APE with a learned residual of each class and a learned weight of each image."""

    name = "ape-t"
    searched = frozenset()  # its training reads what its search then replaces
    own_views = None
    order = 30
    schedule = "step"
    drop_last = False

    @dataclass(frozen=True)
    class Params(HeadRecipe, Ape.Params):
        epochs: int = param(20, "passes over the few-shot set", minimum=1, by_task=True)
        weight_decay: float = param(0.1, "AdamW's", minimum=0)
        key_views: int = param(10, "views of an image that its key is made of", minimum=1)

    def head(self, task: TaskData, rng: torch.Generator) -> Tuned:
        p, text, keys = self.params_of(task), self.text(task), self.keys(task)
        channels = self.channels(task, text.cpu(), keys)
        return Tuned(self.clip.scale, text, keys, task.labels.clone(), p.alpha, p.beta, p.gamma, channels)

    def optimiser(self, parameters: list[nn.Parameter], recipe: Any) -> torch.optim.Optimizer:
        return torch.optim.AdamW(parameters, lr=1, weight_decay=recipe.weight_decay, eps=1e-3)

    def grid(self) -> dict[str, Sequence[float]]:
        return {"alpha": LOGS, "beta": LOGS}
