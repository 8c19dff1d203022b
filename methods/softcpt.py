"""SoftCPT: prompts of all tasks from one meta-network that reads the tasks' names (SoftCPT-NATA).

Ding et al., "Prompt Tuning with Soft Context Sharing for Vision-Language Models", arXiv 2208.13474.
Task feature f_t = E("u_1 … u_M <task name>.") with learned u; class context of task t =
reshape(f_t · P, (L, w)) with learned P; these vectors stand before every class name of the task. Tasks with
like names get like contexts, so what one task learns serves the others. Learned: d · L · w + M · w numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bench.methods.base import TaskData, param
from bench.methods.prompt import PromptMethod, PromptParams
from bench.text import Prompts


class SoftCPT(PromptMethod):
    """One task context u for all tasks, one linear meta-network P."""

    name = "softcpt"
    order = 120
    source = "SoftCPT-NATA, arXiv 2208.13474"

    @dataclass(frozen=True)
    class Params(PromptParams):
        task_context: int = param(4, "task-context length M; the authors' commands use 4")

    def initialise(self, tasks: Sequence[TaskData], rng: torch.Generator) -> dict[str, Tensor]:
        p, width, d = self.params, self.clip.tower.width, self.clip.embed_dim
        return {
            "task_context": torch.randn(1, p.task_context, width, generator=rng) * p.init_std,  # 1, M, w
            "projection": torch.randn(d, p.context * width, generator=rng) * p.init_std,  # d, L·w
        }

    def text_features(self, tasks: Sequence[int], names: Sequence[Sequence[str]]) -> list[Tensor]:
        tower = self.clip.tower
        task_names = [self.tasks[t].task_name for t in tasks]
        f = tower.encode([Prompts(self.learned["task_context"], task_names)])[0][0]  # T, d
        contexts = (f @ self.learned["projection"]).view(len(tasks), self.params.context, tower.width)  # T, L, w
        prompts = [Prompts(contexts[i : i + 1], own) for i, own in enumerate(names)]
        return [g[0] for g in tower.encode(prompts, self.params.position)]
