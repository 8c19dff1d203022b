"""SoftCPT, and on top of it a context for each node of a tree of tasks.

Context of task t = reshape(f_t · P, (L, w)) + Σ R_v over the root, the inner nodes of t's path and t's own leaf: what
its name says (`softcpt`), and what it has in common with others by a given tree (`coop-tree`), which starts at 0. A
step changes contexts by K = F Fᵀ + B Bᵀ times their gradients (u held), B the tasks' nodes. F Fᵀ is much the larger:
`node_scale=c` multiplies the sum by c, so that K = F Fᵀ + c² B Bᵀ. With `nodes=leaves` each task adds a context of its
own. An unseen task has no leaf.
Learned: d · L · w + M · w + (1 + inner nodes + T) · L · w numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bench.methods.base import TaskData, param
from bench.methods.coop_tree import CoOpTree, NodeParams
from bench.methods.softcpt import MetaParams, SoftCPT
from bench.methods.span import SpanParams


class SoftCPTResidual(CoOpTree, SoftCPT):
    """A context from the task's name, and one for each node of a tree of tasks."""

    name = "softcpt-residual"
    order = 124
    source = "ours: SoftCPT-NATA, arXiv 2208.13474, on a tree of tasks"
    task_kernel = "F Fᵀ + c² B Bᵀ, F the features of the tasks' names, B the tasks' nodes"

    host: SoftCPTResidual | None

    @dataclass(frozen=True)
    class Params(SpanParams, NodeParams, MetaParams):
        node_scale: float = param(1.0, "c, which multiplies the nodes' sum: it learns c² times as fast", minimum=0)

    @classmethod
    def unseen_of(cls, params: Any) -> str:
        return cls.unseen

    def initialise(self, tasks: Sequence[TaskData], rng: torch.Generator) -> dict[str, Tensor]:
        return {**SoftCPT.initialise(self, tasks, rng), "nodes": self.no_nodes()}

    def context_rows(self, tasks: Sequence[int]) -> Tensor:
        return SoftCPT.context_rows(self, tasks) + self.params.node_scale * CoOpTree.context_rows(self, tasks)
