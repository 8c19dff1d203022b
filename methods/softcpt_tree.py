"""SoftCPT whose meta-network reads the names of the nodes above a task, too.

Context of task t = reshape((f_t + Σ s_depth(v) · f_v) · P, (L, w)) over the inner nodes v of t's path: f_v is the
feature of the node's name, made like the task's, E("u_1 … u_M <name>."). Each depth of the tree has one learned s; all
start at 0, where this is `softcpt`, and do not decay. So tasks below one node become more alike than their own names
say, to the degree that this helps.

A suite file says where tasks stand (`path`); inner nodes with one child are dropped: they would only make that child's
contexts learn faster. The root has no name, and is none. An unseen task uses those of its nodes that training knew.
Learned: d · L · w + M · w + the tree's depth numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bench.clip.text import Prompts
from bench.methods.base import Clip, Names, TaskData
from bench.methods.softcpt import MetaParams, SoftCPT
from bench.methods.span import SpanParams
from bench.methods.training import Batch
from bench.methods.tree import Node, TreeParams, above, branching, place_of_new, places


class SoftCPTTree(SoftCPT):
    """One task context u for all tasks and nodes, one meta-network P, one weight for each depth of the tree."""

    name = "softcpt-tree"
    controls = ("shuffle",)
    order = 125
    reads_path = True
    source = "ours: SoftCPT-NATA, arXiv 2208.13474, on a tree of tasks"
    task_kernel = "(F + S F_v)(F + S F_v)ᵀ, F_v the features of the nodes' names; at the start S = 0"

    host: SoftCPTTree | None
    paths: list[Node]  # where the tasks stand; shuffled, where they are put

    @dataclass(frozen=True)
    class Params(SpanParams, TreeParams, MetaParams):
        pass

    @classmethod
    def texts(cls, params: Any, task: Names) -> list[tuple[str, int]]:
        return [*super().texts(params, task), *((f"{node}.", params.task_context) for node in task.path)]

    def know(self, clip: Clip, tasks: Sequence[TaskData]) -> None:
        super().know(clip, tasks)
        if self.host is not None:  # an unseen task
            self.paths = [place_of_new(task, self.host.paths, self.params.shuffle) for task in tasks]
        else:
            self.paths = places(tasks, self.params.shuffle)
            self.inner = branching(self.paths)
        self.on_path = above(self.paths, self.inner)  # T, N

    def initialise(self, tasks: Sequence[TaskData], rng: torch.Generator) -> dict[str, Tensor]:
        scales = torch.zeros(max((len(node) for node in self.inner), default=0))  # by depth
        return {**super().initialise(tasks, rng), "scales": scales}

    def features(self, tasks: Sequence[int]) -> Tensor:
        """f_t + Σ s_depth(v) · f_v [T, d]."""
        on_path = self.on_path[list(tasks)]
        used = on_path.any(dim=0).nonzero().flatten().tolist()
        if not used:
            return super().features(tasks)
        names = [*(self.tasks[t].task_name for t in tasks), *(self.inner[v][-1] for v in used)]
        f = self.clip.tower.encode([Prompts(self.learned["task_context"], names)])[0].view(len(names), -1)
        weights = on_path[:, used].to(f.device, non_blocking=True)  # T, nodes
        weights = weights * self.rows(self.learned["scales"], [len(self.inner[v]) - 1 for v in used])
        return f[: len(tasks)] + weights @ f[len(tasks) :]

    def loss(self, batch: Batch, text: Sequence[Tensor]) -> Tensor:
        undo = 0.5 * self.params.weight_decay * self.learned["scales"].square().sum()  # the optimiser decays all alike
        return super().loss(batch, text) - undo
