"""One context for all tasks, scaled by each task along its vectors and along their dimensions (rank one, element-wise).

context of task t = C ∘ (α_t β_tᵀ): C [L, w] shared, α_t [L] and β_t [w] the task's own, 1 at the start. After MPT's
decomposition (Wang et al., ICLR 2023, arXiv 2303.02861), here for CLIP's contexts and without its distillation.
Learned: L · w + T · (L + w) numbers.

`conditioned`: β_t = 1 + f_t · Q is made from the task's name, f_t = E("<task name>."), Q [d, w] learned, 0 at the
start; α_t stays 1, so that its name is all that an unseen task's context needs. Learned: L · w + d · w numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bench.methods.base import Clip, Names, TaskData, param
from bench.methods.prompt import PromptMethod, PromptParams


class CoOpMPT(PromptMethod):
    """A shared context, and two scaling vectors per task."""

    name = "coop-mpt"
    order = 56
    source = "MPT, arXiv 2303.02861, for CLIP's contexts (ours)"
    footnote = "coop-mpt is MPT's decomposition of prompts for CLIP's contexts, without MPT's distillation."
    unseen = "each task scales the shared context by vectors of its own (conditioned=true makes them from its name)"

    @dataclass(frozen=True)
    class Params(PromptParams):
        conditioned: bool = param(False, "make the scaling from the task's name: then unseen tasks have one, too")

    @classmethod
    def texts(cls, params: Any, task: Names) -> list[tuple[str, int]]:
        read = [(f"{task.task_name}.", 0)] if params.conditioned else []
        return [*super().texts(params, task), *read]

    @classmethod
    def unseen_of(cls, params: Any) -> str:
        return "" if params.conditioned else cls.unseen

    def know(self, clip: Clip, tasks: Sequence[TaskData]) -> None:
        super().know(clip, tasks)
        if self.params.conditioned:
            self.task_features = clip.tower.encode_texts([f"{task.task_name}." for task in tasks])  # T, d, fixed

    def initialise(self, tasks: Sequence[TaskData], rng: torch.Generator) -> dict[str, Tensor]:
        length, width = self.params.context, self.clip.tower.width
        start = {"context": self.start_context(1, rng)}  # 1, L, w
        if self.params.conditioned:
            return {**start, "dimensions": torch.zeros(self.clip.embed_dim, width)}  # Q
        return {**start, "vectors": torch.ones(len(tasks), length), "dimensions": torch.ones(len(tasks), width)}

    def contexts(self, tasks: Sequence[int], names: Sequence[Sequence[str]]) -> list[Tensor]:
        shared, by = self.learned["context"], self.learned["dimensions"]
        if self.params.conditioned:
            made = shared * (1 + self.rows(self.task_features, tasks) @ by)[:, None]  # T, L, w
        else:
            made = shared * self.rows(self.learned["vectors"], tasks)[..., None] * self.rows(by, tasks)[:, None]
        return list(made.split(1))
