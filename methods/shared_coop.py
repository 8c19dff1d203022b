"""CoOp with one context for all tasks (CoOp-MT in the SoftCPT paper's tables).

The context of CoOp (arXiv 2109.01134), shared by all classes of all tasks and trained on the joint set: the
plainest way to let tasks help each other. Learned: L · w numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

import torch
from torch import Tensor

from bench.clip.text import Prompts
from bench.methods.base import TaskData
from bench.methods.prompt import PromptMethod


class SharedCoOp(PromptMethod):
    """One context of L vectors for everything."""

    name = "shared-coop"
    order = 50
    unseen = ""
    source = "SoftCPT, arXiv 2208.13474 (baseline CoOp-MT)"
    task_kernel = "1 1ᵀ: tasks are the same"

    def initialise(self, tasks: Sequence[TaskData], rng: torch.Generator) -> dict[str, Tensor]:
        return {"context": self.start_context(1, rng)}  # 1, L, w

    def contexts(self, tasks: Sequence[int], names: Sequence[Sequence[str]]) -> list[Tensor]:
        return [self.learned["context"]] * len(tasks)

    def prompts(self, tasks: Sequence[int], names: Sequence[Sequence[str]]) -> list[Prompts]:
        # All names at once: the prefix is computed once, not once a task.
        return [Prompts(self.learned["context"], list(chain(*names)))]

    def normalised(self, encoded: Sequence[Tensor], names: Sequence[Sequence[str]]) -> list[Tensor]:
        (features,) = super().normalised(encoded, names)
        return list(features.split([len(own) for own in names]))
