"""SoftCPT*: a shared context plus what the meta-network makes of the bare task name. Our interpretation.

Not in public code. The parameter count in the table of arXiv 2208.13474 is exactly d·16·w + 16·w, which fits a
shared context of 16 vectors to which the meta-network adds its output for the fixed text "<task name>.".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bench.methods.base import Clip, Names, TaskData
from bench.methods.prompt import PromptMethod, PromptParams
from bench.methods.span import SpanParams, inside_span


class SoftCPTStar(PromptMethod):
    """context of task t = v + reshape(E("<task name>.") · P, (L, w)), v shared by all tasks."""

    name = "softcpt-star"
    order = 100
    unseen = ""
    source = "SoftCPT*, arXiv 2208.13474 (our interpretation)"
    task_kernel = "F Fᵀ + 1 1ᵀ, F the features of the tasks' names: as related as these, and all alike"
    footnote = (
        "SoftCPT* is not in public code; this row is our interpretation of it, chosen to fit its parameter count."
    )

    host: SoftCPTStar | None

    @dataclass(frozen=True)
    class Params(SpanParams, PromptParams):
        pass

    @classmethod
    def texts(cls, params: Any, task: Names) -> list[tuple[str, int]]:
        return [*super().texts(params, task), (f"{task.task_name}.", 0)]

    def initialise(self, tasks: Sequence[TaskData], rng: torch.Generator) -> dict[str, Tensor]:
        p, width, d = self.params, self.clip.tower.width, self.clip.embed_dim
        return {
            "context": self.start_context(1, rng),  # 1, L, w
            "projection": torch.randn(d, p.context * width, generator=rng) * p.init_std,  # d, L·w
        }

    def know(self, clip: Clip, tasks: Sequence[TaskData]) -> None:
        super().know(clip, tasks)
        self.task_features = clip.tower.encode_texts([f"{task.task_name}." for task in tasks])  # T, d, fixed
        if self.host is not None and self.params.span:
            self.task_features = inside_span(self.task_features, self.host.task_features)

    def contexts(self, tasks: Sequence[int], names: Sequence[Sequence[str]]) -> list[Tensor]:
        made = self.rows(self.task_features, tasks) @ self.learned["projection"]  # T, L·w
        return list((self.learned["context"] + made.view(len(tasks), -1, self.clip.tower.width)).split(1))
