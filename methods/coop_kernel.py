"""CoOp whose tasks learn from each other as a fixed matrix says: the reference for all methods that share.

V = A · Z: the contexts of T tasks, rows of V [T, L·w], are made of learned Z [r, L·w] by a fixed A [T, r]. A step of
gradient descent on Z changes V by −η · A Aᵀ · G, G the loss's gradient by V: tasks share as the kernel A Aᵀ says.
A = I is CoOp trained jointly, A = 1 (one column) shared CoOp, and A = F, the features of the tasks' names, SoftCPT
whose task context is held. A subclass brings another A with `matrix`. Multi-task kernels: Evgeniou, Micchelli and
Pontil, JMLR 2005. Learned: r · L · w numbers; r is d, T or 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from bench.errors import UserError
from bench.methods.base import Clip, Names, TaskData, param
from bench.methods.prompt import PromptMethod, PromptParams

KERNELS = ("features", "identity", "ones")


class CoOpKernel(PromptMethod):
    """contexts = A · Z, A fixed."""

    name = "coop-kernel"
    order = 52
    unseen = ""
    source = "ours: multi-task kernels (Evgeniou, Micchelli and Pontil, JMLR 2005) for CoOp's contexts"
    task_kernel = "A Aᵀ"

    @dataclass(frozen=True)
    class Params(PromptParams):
        kernel: Literal["features", "identity", "ones"] = param(
            "features", "A: features of the tasks' names, identity (tasks share nothing), ones (all)", choices=KERNELS
        )

        def __post_init__(self) -> None:
            super().__post_init__()
            if self.words and self.kernel == "features":
                raise UserError(f"words={self.words!r}: with kernel=features Z holds no contexts; leave it out")

    @classmethod
    def texts(cls, params: Any, task: Names) -> list[tuple[str, int]]:
        read = [(f"{task.task_name}.", 0)] if params.kernel == "features" else []
        return [*super().texts(params, task), *read]

    @classmethod
    def unseen_of(cls, params: Any) -> str:
        return "with kernel=identity a context belongs to a task" if params.kernel == "identity" else ""

    def matrix(self, tasks: Sequence[TaskData]) -> Tensor:
        """Rows of A [n, r] for these tasks, from their names alone."""
        if self.params.kernel == "features":
            return self.clip.tower.encode_texts([f"{task.task_name}." for task in tasks])
        return torch.eye(len(tasks)) if self.params.kernel == "identity" else torch.ones(len(tasks), 1)

    def know(self, clip: Clip, tasks: Sequence[TaskData]) -> None:
        super().know(clip, tasks)
        self.fixed = self.matrix(tasks).to(clip.device)  # T, r

    def initialise(self, tasks: Sequence[TaskData], rng: torch.Generator) -> dict[str, Tensor]:
        return {"context": self.start_context(self.fixed.shape[1], rng)}  # r, L, w

    def contexts(self, tasks: Sequence[int], names: Sequence[Sequence[str]]) -> list[Tensor]:
        z = self.learned["context"]
        made = self.rows(self.fixed, tasks) @ z.flatten(1)  # T, L·w
        return list(made.view(len(tasks), *z.shape[1:]).split(1))
