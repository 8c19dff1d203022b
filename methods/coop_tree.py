"""CoOp on a tree of tasks: a task's context is the sum of what the nodes above it and the task itself have learned.

Context of task t = Σ R_v over the root, the inner nodes of t's path and t's own leaf; the R_v [L, w] are learned on the
joint set. So tasks are related as a given tree says: a step changes contexts by K = B Bᵀ times their gradients, where
K_st is the number of nodes that tasks s and t have in common. The root starts as shared CoOp's context, all others at
0. With `nodes=root` this is `shared-coop`, with `nodes=leaves` it is `coop` with `joint`.

Nodes are no free lunch. If all of R starts at 0, each R_v is the sum of its children's after every step of SGD, with
momentum and weight decay: the tree changes how fast contexts learn from each other, not what they can become.
`leaf_decay` pulls a task's context towards that of the nodes above it.

A suite file says where tasks stand (`path`); inner nodes with one child, and those above all tasks, are dropped. An
unseen task has no leaf: its context is what the nodes above it have learned.
Learned: (1 + inner nodes + T) · L · w numbers. Ours; the tree is given here, HiPro (CVPR 2023) makes one by training.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from bench.errors import UserError
from bench.methods.base import Clip, TaskData, param
from bench.methods.prompt import PromptMethod, PromptParams
from bench.methods.training import Batch
from bench.methods.tree import ROOT, Node, TreeParams, above, inner_nodes, place_of_new, places


@dataclass(frozen=True)
class NodeParams(TreeParams):
    """What methods have that learn a context for each node."""

    nodes: Literal["all", "root", "leaves"] = param(
        "all", "what is learned: every node, the root alone, or tasks' own alone", choices=("all", "root", "leaves")
    )
    leaf_decay: float = param(0.0, "weight decay of the tasks' own nodes, on top of `weight_decay`", minimum=0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.leaf_decay and self.nodes == "root":
            raise UserError(f"leaf_decay={self.leaf_decay:g}: with nodes=root tasks have no nodes of their own")
        if self.shuffle and self.nodes != "all":
            raise UserError(f"shuffle={self.shuffle}: with nodes={self.nodes} a task's place makes no difference")


class CoOpTree(PromptMethod):
    """One context of L vectors for each node of a tree of tasks."""

    name = "coop-tree"
    controls = ("shuffle",)
    order = 53
    unseen = ""
    reads_path = True
    source = "ours: CoOp, arXiv 2109.01134, on a tree of tasks"
    task_kernel = "B Bᵀ: the number of nodes that two tasks have in common"

    host: CoOpTree | None
    paths: list[Node]  # where the tasks stand; shuffled, where they are put

    @dataclass(frozen=True)
    class Params(PromptParams, NodeParams):
        pass

    @classmethod
    def unseen_of(cls, params: Any) -> str:
        return "with nodes=leaves it learns nothing but tasks' own contexts" if params.nodes == "leaves" else cls.unseen

    def know(self, clip: Clip, tasks: Sequence[TaskData]) -> None:
        super().know(clip, tasks)
        kept, leaves = self.params.nodes, torch.eye(len(tasks))
        if self.host is not None:  # an unseen task: what the nodes above it have learned, and no leaf
            self.paths = [place_of_new(task, self.host.paths, self.params.shuffle) for task in tasks]
            leaves = torch.zeros(len(tasks), len(self.host.paths))
        else:
            self.paths = places(tasks, self.params.shuffle)
            self.inner = {"all": inner_nodes(self.paths), "root": [ROOT], "leaves": []}[kept]
        own = leaves[:, :0] if kept == "root" else leaves
        self.on_path = torch.cat([above(self.paths, self.inner), own], dim=1).to(clip.device)  # T, N

    def initialise(self, tasks: Sequence[TaskData], rng: torch.Generator) -> dict[str, Tensor]:
        nodes = self.no_nodes()
        started = 1 if self.inner else len(tasks)  # the root, or where there is none every leaf
        nodes[:started] = self.start_context(started, rng)
        return {"nodes": nodes}

    def no_nodes(self) -> Tensor:
        """[N, L, w] of zeros: the inner nodes, then the tasks' own."""
        return torch.zeros(self.on_path.shape[1], self.params.context, self.clip.tower.width)

    def context_rows(self, tasks: Sequence[int]) -> Tensor:
        """The tasks' contexts as rows [T, L·w]."""
        return self.rows(self.on_path, tasks) @ self.learned["nodes"].flatten(1)

    def contexts(self, tasks: Sequence[int], names: Sequence[Sequence[str]]) -> list[Tensor]:
        return list(self.context_rows(tasks).view(len(tasks), self.params.context, -1).split(1))  # 1, L, w each

    def loss(self, batch: Batch, text: Sequence[Tensor]) -> Tensor:
        loss, decay = super().loss(batch, text), self.params.leaf_decay
        return loss + 0.5 * decay * self.learned["nodes"][len(self.inner) :].square().sum() if decay else loss
