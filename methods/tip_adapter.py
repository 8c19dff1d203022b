"""Tip-Adapter: a cache of the few-shot images beside the hand-written prompts; nothing is trained.

Zhang et al., "Tip-Adapter: Training-free Adaption of CLIP for Few-shot Classification", ECCV 2022, arXiv 2111.03930;
code github.com/gaopengcuhk/Tip-Adapter. An image's key is the normalised mean of its V views' raw features; with keys
Z [N, d] and one-hot labels Y [N, C] an image's scores are

    τ · f · tᵀ + α · exp(−β(1 − f · Zᵀ)) · Y

α = 1 and β = 5.5 for every task. `search=val` chooses both, task by task, from 20 × 20 values evenly spread in their
logarithms from 0.1 to 50, on the few-shot validation images alone; ties go to the values nearest to (1, 5.5) in
logarithms. The published rows were searched over 200 × 20 values, in ranges of each data set's own, on its full
validation split (for ImageNet on the test set): they are no rows of the same protocol.

A class with fewer images than the others has fewer keys, and so less weight in Y; the authors repeat images instead.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bench.methods.base import Choice, Clip, Searching, TaskData, check_labels, param
from bench.methods.heads import Head, HeadMethod, choose

GRID = [0.1 * 500 ** (i / 19) for i in range(20)]  # 0.1 … 50, of α and of β
START = (1.0, 5.5)  # α and β, the paper's


class Cache(Head):
    """keys : [N, d], learned or not. labels : [N]. alpha, beta : as 0-dimensional tensors, kept."""

    def __init__(
        self, scale: float, text: Tensor, keys: Tensor, labels: Tensor, alpha: float, beta: float, learn: bool
    ) -> None:
        super().__init__()
        self.scale = scale
        self.text: Tensor
        self.labels: Tensor
        self.alpha: Tensor
        self.beta: Tensor
        self.register_buffer("text", text, persistent=False)
        if learn:
            self.keys = nn.Parameter(keys)
        else:
            self.register_buffer("keys", keys)
        self.register_buffer("labels", labels)
        self.register_buffer("alpha", torch.tensor(alpha))
        self.register_buffer("beta", torch.tensor(beta))
        self._values = torch.zeros(0)

    def forward(self, images: Tensor, text: Tensor | None = None) -> Tensor:
        return self.scale * images @ self.text.T + self.alpha * self.cached(images, self.beta)

    def cached(self, images: Tensor, beta: Tensor | float) -> Tensor:
        """[B, C] = exp(−β(1 − f · Zᵀ)) · Y."""
        return torch.exp(-beta * (1 - images @ self.keys.T)) @ self.values

    @property
    def values(self) -> Tensor:
        """Y [N, C]."""
        if len(self._values) != len(self.labels):
            self._values = F.one_hot(self.labels, len(self.text)).to(self.text.dtype)
        return self._values


class TipAdapter(HeadMethod):
    """A cache of few-shot images beside the hand-written prompts; nothing is trained."""

    name = "tip-adapter"
    own_views: ClassVar[int | None] = 10
    order = 25
    no_new_classes = "its cache has no image of them"
    source = "Tip-Adapter, arXiv 2111.03930; github.com/gaopengcuhk/Tip-Adapter"

    @dataclass(frozen=True)
    class Params(Searching):
        alpha: float = param(START[0], "weight of the cache", minimum=0, by_task=True)
        beta: float = param(START[1], "sharpness of the cache: how fast a key's weight falls", minimum=0, by_task=True)
        crop: float = param(0.5, "smallest share of the image in a training view", minimum=0.01, maximum=1)

    def head(self, task: TaskData, rng: torch.Generator, learn: bool = False) -> Cache:
        views = getattr(self.params, "key_views", len(task.views))
        n, p = len(task.labels), self.params_of(task)
        mean = task.views[:views].mean(dim=0) if n else torch.zeros(0, self.clip.embed_dim)
        keys = F.normalize(mean, dim=-1)
        return Cache(self.clip.scale, self.text(task), keys, task.labels.clone(), p.alpha, p.beta, learn)

    def search(self, head: Cache, task: TaskData) -> Choice:
        images = self.prepared(task.val.to(self.clip.device))
        labels = task.val_labels.to(self.clip.device)
        zero_shot = head.scale * images @ head.text.T
        right = {}
        for beta in GRID:
            cached = head.cached(images, beta)
            for alpha in GRID:
                right[alpha, beta] = int(((zero_shot + alpha * cached).argmax(dim=1) == labels).sum())
        nearest = sorted(product(GRID, GRID), key=lambda pair: math.dist(*(map(math.log, x) for x in (pair, START))))
        settings = [{"alpha": alpha, "beta": beta} for alpha, beta in nearest]
        place, choice = choose(settings, [right[pair] for pair in nearest], len(labels))
        head.alpha.fill_(settings[place]["alpha"])
        head.beta.fill_(settings[place]["beta"])
        return choice

    def restore(self, clip: Clip, tasks: Sequence[TaskData], state: Mapping[str, Tensor]) -> None:
        super().restore(clip, tasks, state)
        for t, task in enumerate(tasks):
            check_labels(self.name, task.name, state[f"labels-{t}"], len(task.class_names))
