"""A few contexts for all tasks; each task's name says in which proportions it mixes them.

context of task t = Σ_k π_tk C_k, π_t = softmax(f_t Q / (|f_t| κ)): K contexts C_k [L, w] and keys Q [d, K] learned,
f_t the text tower's feature of "<task name>.", with `task_context` M > 0 that of "u_1 … u_M <task name>.", u learned.
Soft clusters of tasks, after ATTEMPT (arXiv 2205.11961), whose source prompts are fixed and which adds a prompt of the
task's own. Learned: K · (d + L · w) + M · w numbers; K = 1 is shared CoOp.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.clip.text import Prompts
from bench.errors import UserError
from bench.methods.base import Parameters, TaskData, generator, param
from bench.methods.softcpt import SoftCPT


@dataclass(frozen=True)
class MixParams(Parameters):
    """What methods have that mix contexts."""

    clusters: int = param(8, "number K of contexts that are mixed", minimum=1)
    temperature: float = param(0.1, "κ: the smaller, the more a task keeps to one context", minimum=1e-3)
    mixture: Literal["names", "random"] = param(
        "names", "what proportions are made from: tasks' names; control: a random vector per name",
        choices=("names", "random"),
    )  # fmt: skip
    draw: int = param(1, "which random vectors mixture=random takes", minimum=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.draw > 1 and self.mixture != "random":
            raise UserError(f"draw={self.draw}: mixture={self.mixture} draws nothing; leave it out")


def proportions(f: Tensor, keys: Tensor, temperature: float) -> Tensor:
    """π [T, K] of features f [T, d], whose lengths do not count, and keys [d, K]."""
    return (F.normalize(f, dim=-1) @ keys / temperature).softmax(dim=-1)


class Mixing(SoftCPT):
    """What `coop-mix` and `softcpt-mix` share. No method: it has no name."""

    name = ""
    controls = ("mixture",)

    def mixed(self, f: Tensor, tasks: Sequence[int]) -> Tensor:
        """Σ_k π_tk C_k as rows [T, L·w]; f [T, d] are the tasks' features."""
        return self.proportions(f, tasks) @ self.learned["contexts"].flatten(1)

    def proportions(self, f: Tensor, tasks: Sequence[int]) -> Tensor:
        """π [T, K]."""
        p = self.params
        if p.mixture == "random":
            rows = [
                torch.randn(f.shape[1], generator=generator("mixture", p.draw, self.tasks[t].task_name)) for t in tasks
            ]
            f = torch.stack(rows).to(f.device, non_blocking=True)
        return proportions(f, self.learned["keys"], p.temperature)

    @torch.no_grad()
    def facts(self) -> dict[str, float]:
        """Entropy of π in nats, mean over the tasks, and ln K: where the two are equal, nothing was clustered."""
        every = range(len(self.tasks))
        pi = self.proportions(self.task_input(every), every)
        return {
            "entropy of the mixture": float(torch.special.entr(pi).sum(dim=1).mean()),
            "largest possible entropy": math.log(self.params.clusters),
        }


class CoOpMix(Mixing):
    """K contexts, mixed by name."""

    name = "coop-mix"
    order = 57
    source = "ours: soft clusters of tasks by name, after ATTEMPT, arXiv 2205.11961"
    task_kernel = "Π Πᵀ, Π the tasks' proportions"

    @dataclass(frozen=True)
    class Params(MixParams, SoftCPT.Params):
        task_context: int = param(0, "length M of a learned context before the task's name; 0: none", minimum=0)

    def initialise(self, tasks: Sequence[TaskData], rng: torch.Generator) -> dict[str, Tensor]:
        p = self.params
        contexts = self.start_context(p.clusters, rng)  # K, L, w; first, so that one is shared CoOp's
        start = {"task_context": self.start_task_context(tasks, rng)} if p.task_context else {}
        return {**start, "keys": self.noise(rng, self.clip.embed_dim, p.clusters), "contexts": contexts}

    def task_prompts(self, tasks: Sequence[int]) -> Prompts:
        if self.params.task_context:
            return super().task_prompts(tasks)
        tower = self.clip.tower
        nothing = torch.zeros(1, 0, tower.width, device=tower.device)
        return Prompts(nothing, [self.tasks[t].task_name for t in tasks])

    def context_rows(self, tasks: Sequence[int]) -> Tensor:
        return self.mixed(self.task_input(tasks), tasks)
