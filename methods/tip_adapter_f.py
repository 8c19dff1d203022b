"""Tip-Adapter-F: Tip-Adapter whose keys are trained.

Zhang et al., "Tip-Adapter", ECCV 2022, arXiv 2111.03930; code github.com/gaopengcuhk/Tip-Adapter. As `tip-adapter`,
from its keys on: only Z is learned, never normalised again. AdamW 1e-3 (ε 1e-4, weight decay 0.01), cosine by steps,
batch 256 with the last incomplete one kept, 20 epochs, a fresh view each, at fixed α and β. Keys are made of the first
10 of these views.

The last epoch counts. The authors' code keeps the epoch with the best *test* accuracy (main.py) and prints the larger
of it and of a search on the full validation split: their numbers must be above those of any honest protocol.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from bench.methods.base import TaskData, param
from bench.methods.heads import HeadRecipe, TrainedHead
from bench.methods.tip_adapter import Cache, TipAdapter


class TipAdapterF(TrainedHead, TipAdapter):
    """A cache of few-shot images beside the hand-written prompts, its keys trained."""

    name = "tip-adapter-f"
    own_views = None
    order = 26
    schedule = "step"
    drop_last = False
    no_new_classes = TipAdapter.no_new_classes
    source = TipAdapter.source
    searched = frozenset()  # its training reads what its search then replaces

    @dataclass(frozen=True)
    class Params(HeadRecipe, TipAdapter.Params):
        epochs: int = param(20, "passes over the few-shot set", minimum=1, by_task=True)
        weight_decay: float = param(0.01, "AdamW's, of the keys", minimum=0)
        key_views: int = param(10, "views of an image that its key is made of", minimum=1)

    def head(self, task: TaskData, rng: torch.Generator) -> Cache:
        p = self.params_of(task)
        keys, labels = self.keys(task), task.labels.clone()
        return Cache(self.clip.scale, self.text(task), keys, labels, p.alpha, p.beta, learn=True)

    def optimiser(self, parameters: list[nn.Parameter], recipe: Any) -> torch.optim.Optimizer:
        return torch.optim.AdamW(parameters, lr=1, weight_decay=recipe.weight_decay, eps=1e-4)
