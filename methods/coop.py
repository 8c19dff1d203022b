"""CoOp with one context per task (CoOp-CA in the SoftCPT paper's tables).

Zhou et al., "Learning to Prompt for Vision-Language Models", IJCV 2022, arXiv 2109.01134: the words around
the class name become L learned vectors, shared by the task's classes: ``[SOT] v_1 … v_L <name> . [EOT]``.
Learned: T · L · w numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bench.methods.base import TaskData, param
from bench.methods.prompt import PromptMethod, PromptParams


class CoOp(PromptMethod):
    """One context of L vectors for each task."""

    name = "coop"
    order = 30
    source = "CoOp, arXiv 2109.01134"
    task_kernel = "I: tasks are unrelated"

    @dataclass(frozen=True)
    class Params(PromptParams):
        joint: bool = param(
            False, "train all tasks in mixed batches (the SoftCPT authors' command) instead of each task alone"
        )

    @property
    def separate(self) -> bool:  # type: ignore[override]
        return not self.params.joint

    def initialise(self, tasks: Sequence[TaskData], rng: torch.Generator) -> dict[str, Tensor]:
        start = self.start_context(len(tasks), rng)  # T, L, w
        for own, task in zip(start, tasks, strict=True):
            if task.name in self.by_task and (words := self.params_of(task).words):
                own.copy_(self.word_context(words))
        return {"context": start}

    def contexts(self, tasks: Sequence[int], names: Sequence[Sequence[str]]) -> list[Tensor]:
        # 1, L, w each
        return [self.part("context", t) if self.separate else self.part("context", t)[t : t + 1] for t in tasks]
