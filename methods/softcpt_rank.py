"""SoftCPT with a meta-network of low rank: the paper's own question asked back, whether millions of numbers are needed.

context of task t = reshape(f_t · U · C, (L, w)), U [d, K], C [K, L·w] learned in place of SoftCPT's P [d, L·w]. The
contexts of T tasks have rank T at most, so K ≥ T takes nothing from them. Learned: K · (d + L · w) + M · w numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bench.methods.base import TaskData, param
from bench.methods.softcpt import SoftCPT


class SoftCPTRank(SoftCPT):
    """P of rank K."""

    name = "softcpt-rank"
    order = 122
    source = "ours: SoftCPT-NATA, arXiv 2208.13474, with a meta-network of low rank"
    task_kernel = "F U Uᵀ Fᵀ, F the features of the tasks' names, U as it starts"

    @dataclass(frozen=True)
    class Params(SoftCPT.Params):
        rank: int = param(8, "rank K of the meta-network", minimum=1)

    def initialise(self, tasks: Sequence[TaskData], rng: torch.Generator) -> dict[str, Tensor]:
        p, tower = self.params, self.clip.tower
        start = {
            "task_context": self.start_task_context(tasks, rng),
            "reduction": self.noise(rng, self.clip.embed_dim, p.rank),  # d, K
        }
        # Of variance 1/K: contexts start with the standard deviation of SoftCPT's.
        return {**start, "projection": torch.randn(p.rank, p.context * tower.width, generator=rng) / p.rank**0.5}

    def context_rows(self, tasks: Sequence[int]) -> Tensor:
        return self.task_input(tasks) @ self.learned["reduction"] @ self.learned["projection"]
