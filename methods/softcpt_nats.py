"""SoftCPT with one task context per task (SoftCPT-NATS). arXiv 2208.13474. Learned: d · L · w + T · M · w numbers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from bench.clip.text import Prompts
from bench.methods.base import TaskData
from bench.methods.softcpt import MetaParams, SoftCPT


class SoftCPTNATS(SoftCPT):
    """SoftCPT whose task context u_t is each task's own."""

    name = "softcpt-nats"
    order = 110
    unseen = "each task has a learned context of its own before its name"
    source = "SoftCPT-NATS, arXiv 2208.13474"
    Params = MetaParams  # type: ignore[assignment]

    def start_task_context(self, tasks: Sequence[TaskData], rng: torch.Generator) -> Tensor:
        return self.noise(rng, len(tasks), self.params.task_context, self.clip.tower.width)  # T, M, w

    def task_prompts(self, tasks: Sequence[int]) -> Prompts:
        names = [self.tasks[t].task_name for t in tasks]
        return Prompts(self.rows(self.learned["task_context"], tasks), names, paired=True)
