"""SoftCPT, and on top of it a few contexts that tasks mix in proportions made from their names.

context of task t = f_t · P + Σ_k π_tk C_k, π_t = softmax(f_t Q / (|f_t| κ)): SoftCPT's meta-network and `coop-mix`'s
mixture read the same feature f_t. C starts at 0, so that it starts as SoftCPT.
Learned: SoftCPT's d · L · w + M · w numbers, and K · (d + L · w).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bench.methods.base import TaskData
from bench.methods.coop_mix import Mixing, MixParams
from bench.methods.softcpt import SoftCPT


class SoftCPTMix(Mixing):
    """SoftCPT's contexts plus a mixture."""

    name = "softcpt-mix"
    order = 123
    source = "ours: SoftCPT-NATA, arXiv 2208.13474, with soft clusters of tasks"
    task_kernel = "F Fᵀ + Π Πᵀ, F the features of the tasks' names, Π their proportions"

    @dataclass(frozen=True)
    class Params(MixParams, SoftCPT.Params):
        pass

    def initialise(self, tasks: Sequence[TaskData], rng: torch.Generator) -> dict[str, Tensor]:
        p, tower = self.params, self.clip.tower
        start = super().initialise(tasks, rng)
        keys = self.noise(rng, self.clip.embed_dim, p.clusters)  # d, K
        return {**start, "keys": keys, "contexts": torch.zeros(p.clusters, p.context, tower.width)}  # K, L, w

    def context_rows(self, tasks: Sequence[int]) -> Tensor:
        f = self.task_input(tasks)
        return f @ self.learned["projection"] + self.mixed(f, tasks)
