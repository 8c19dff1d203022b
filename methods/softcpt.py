"""SoftCPT: prompts of all tasks from one meta-network that reads the tasks' names (SoftCPT-NATA).

Ding et al., "Prompt Tuning with Soft Context Sharing for Vision-Language Models", arXiv 2208.13474.
Task feature f_t = E("u_1 … u_M <task name>.") with learned u; class context of task t =
reshape(f_t · P, (L, w)) with learned P; these vectors precede every class name of the task. Tasks with
like names get like contexts, so what one task learns serves the others. Learned: d · L · w + M · w numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bench.clip.text import Prompts
from bench.errors import UserError
from bench.methods.base import Names, TaskData, param
from bench.methods.prompt import PromptMethod, PromptParams
from bench.methods.span import SpanParams, inside_span


@dataclass(frozen=True)
class MetaParams(PromptParams):
    """What methods have that make contexts from tasks' names with a learned context u before them."""

    words: str = param("", "none here: the context is made from the task's name")
    task_context: int = param(4, "task-context length M; the authors' commands use 4", minimum=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.words:
            raise UserError(f"words={self.words!r}: SoftCPT makes its context from the task's name; leave it out")


class SoftCPT(PromptMethod):
    """One task context u for all tasks, one linear meta-network P.

    A method of the family that makes contexts otherwise overrides `task_input` (what P reads) or `context_rows` (the
    contexts); training, `predict` and `predict_new` have them from there.
    """

    name = "softcpt"
    order = 120
    unseen = ""
    source = "SoftCPT-NATA, arXiv 2208.13474"
    task_kernel = "F Fᵀ, F the features of the tasks' names: tasks are as related as their names"
    host: SoftCPT | None

    @dataclass(frozen=True)
    class Params(SpanParams, MetaParams):
        pass

    @classmethod
    def texts(cls, params: Any, task: Names) -> list[tuple[str, int]]:
        return [*super().texts(params, task), (f"{task.task_name}.", params.task_context)]

    def initialise(self, tasks: Sequence[TaskData], rng: torch.Generator) -> dict[str, Tensor]:
        return {
            "task_context": self.start_task_context(tasks, rng),
            "projection": self.noise(rng, self.clip.embed_dim, self.params.context * self.clip.tower.width),  # d, L·w
        }

    def noise(self, rng: torch.Generator, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=rng) * self.params.init_std

    def start_task_context(self, tasks: Sequence[TaskData], rng: torch.Generator) -> Tensor:
        return self.noise(rng, 1, self.params.task_context, self.clip.tower.width)  # 1, M, w

    def task_prompts(self, tasks: Sequence[int]) -> Prompts:
        """What f_t is read from: the task context before each task's name."""
        return Prompts(self.learned["task_context"], [self.tasks[t].task_name for t in tasks])

    def features(self, tasks: Sequence[int]) -> Tensor:
        """f [T, d] of the tasks' names."""
        return self.clip.tower.encode([self.task_prompts(tasks)])[0].view(len(tasks), -1)

    def task_input(self, tasks: Sequence[int]) -> Tensor:
        """What the meta-network reads for each task [T, d]: f; with `span`, what trained tasks say of it."""
        f = self.features(tasks)
        if self.host is not None and self.params.span:
            return inside_span(f, self.host.features(range(len(self.host.tasks))))
        return f

    def context_rows(self, tasks: Sequence[int]) -> Tensor:
        """The tasks' contexts as rows [T, L·w]."""
        return self.task_input(tasks) @ self.learned["projection"]

    def contexts(self, tasks: Sequence[int], names: Sequence[Sequence[str]]) -> list[Tensor]:
        return list(self.context_rows(tasks).view(len(tasks), self.params.context, -1).split(1))  # 1, L, w each
