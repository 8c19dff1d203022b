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
from typing import Any, ClassVar

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
        self, scale: float, text: Tensor, keys: Tensor, labels: Tensor, alpha: float, beta: float, learn: bool = False
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
        return self.zero_shot(images) + self.alpha * self.cached(images)

    def zero_shot(self, images: Tensor) -> Tensor:
        """[B, C] = τ · f · tᵀ."""
        return self.scale * images @ self.text.T

    def cached(self, images: Tensor) -> Tensor:
        """[B, C] = exp(−β(1 − f · Zᵀ)) · Y."""
        return torch.exp(-self.beta * (1 - images @ self.keys.T)) @ self.values

    def put(self, values: Mapping[str, float]) -> None:
        """Set α, β, … by name."""
        for name, value in values.items():
            self.get_buffer(name).fill_(value)

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
    searched = frozenset({"alpha", "beta"})

    @dataclass(frozen=True)
    class Params(Searching):
        alpha: float = param(START[0], "weight of the cache", minimum=0, by_task=True)
        beta: float = param(START[1], "sharpness of the cache: how fast a key's weight falls", minimum=0, by_task=True)
        crop: float = param(0.5, "smallest share of the image in a training view", minimum=0.01, maximum=1)

    def head(self, task: TaskData, rng: torch.Generator) -> Cache:
        p = self.params_of(task)
        return Cache(self.clip.scale, self.text(task), self.keys(task), task.labels.clone(), p.alpha, p.beta)

    def keys(self, task: TaskData) -> Tensor:
        """[N, d], normalised, of all views, or of as many as a parameter says."""
        views = getattr(self.params, "key_views", len(task.views))
        mean = task.views[:views].mean(dim=0) if len(task.labels) else torch.zeros(0, self.clip.embed_dim)
        return F.normalize(mean, dim=-1)

    def grid(self) -> dict[str, Sequence[float]]:
        """What is searched, α first."""
        return {"alpha": GRID, "beta": GRID}

    def distance(self, setting: Mapping[str, float]) -> float:
        """How far from the start: which of equally accurate settings is taken."""
        return math.dist([math.log(setting[name]) for name in ("alpha", "beta")], [math.log(x) for x in START])

    def search(self, head: Any, task: TaskData) -> Choice:
        images, labels = self.validation(task)
        zero_shot, (alphas, *others) = head.zero_shot(images), self.grid().values()
        right: list[tuple[dict[str, float], int]] = []
        for values in product(*others):
            setting = dict(zip(list(self.grid())[1:], values, strict=True))
            head.put(setting)
            cached = head.cached(images)
            for alpha in alphas:
                hits = int(((zero_shot + alpha * cached).argmax(dim=1) == labels).sum())
                right.append(({"alpha": alpha, **setting}, hits))
        settings, hit = zip(*sorted(right, key=lambda pair: self.distance(pair[0])), strict=True)
        choice = choose(settings, hit, len(labels))
        head.put(choice.values)
        return choice

    def restore(self, clip: Clip, tasks: Sequence[TaskData], state: Mapping[str, Tensor]) -> None:
        super().restore(clip, tasks, state)
        for t, task in enumerate(tasks):
            check_labels(self.name, task.name, state[f"labels-{t}"], len(task.class_names))
