"""CoOp with one context per class (class-specific context; CoOp-CS in the SoftCPT paper's tables).

Zhou et al., "Learning to Prompt for Vision-Language Models", IJCV 2022, arXiv 2109.01134.
Learned: Σ|C_t| · L · w numbers.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from bench.methods.base import TaskData
from bench.methods.coop import CoOp


class CoOpCS(CoOp):
    """One context of L vectors for each class; it cannot score a class it has not seen."""

    name = "coop-cs"
    order = 40
    paired = True
    task_kernel = ""
    no_new_classes = "it learns one context for each class"

    def initialise(self, tasks: Sequence[TaskData], rng: torch.Generator) -> dict[str, Tensor]:
        return {"context": self.start_context(sum(len(t.class_names) for t in tasks), rng)}  # ΣC, L, w

    def contexts(self, tasks: Sequence[int], names: Sequence[Sequence[str]]) -> list[Tensor]:
        found = []
        for t, own in zip(tasks, names, strict=True):
            if tuple(own) != tuple(self.tasks[t].class_names):
                self.refuse_new_classes()
            first = 0 if self.separate else sum(len(task.class_names) for task in self.tasks[:t])
            found.append(self.part("context", t)[first : first + len(own)])  # C, L, w
        return found
