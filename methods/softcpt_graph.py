"""SoftCPT whose task features are smoothed over a graph of tasks, which is made from names and needs no training.

context of task t = row t of S · F · P, S = (1 − a) I + a A, F the task features [T, d], P SoftCPT's meta-network.
A_ij = softmax over j ≠ i of (ρ ⟨e_i, e_j⟩ + (1 − ρ) ⟨m_i, m_j⟩) / κ: e is the frozen tower's unit feature of
"<task name>.", m the unit mean of those of "<class name>.", both centred over the tasks. P is linear without bias, so
smoothing features smooths contexts; with a symmetric A it is a step of Laplacian smoothing, as in APPNP (arXiv
1810.05997). A negative `a` pushes tasks apart. An unseen task has a row of its own over the trained ones, whose rows
stay as they were. Learned: SoftCPT's d · L · w + M · w numbers; a = 0 is SoftCPT.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.errors import UserError
from bench.methods.base import Clip, TaskData, generator, param
from bench.methods.softcpt import SoftCPT

GRAPHS = ("names", "uniform", "permuted")


class SoftCPTGraph(SoftCPT):
    """What P reads is a mean of a task's feature and its neighbours'."""

    name = "softcpt-graph"
    controls = ("graph",)
    order = 121
    source = "ours: SoftCPT-NATA, arXiv 2208.13474, smoothed over a graph of tasks (APPNP, arXiv 1810.05997)"
    task_kernel = "S F Fᵀ Sᵀ, F the features of the tasks' names, S the graph's smoothing"

    @dataclass(frozen=True)
    class Params(SoftCPT.Params):
        a: float = param(
            0.25, "share of what P reads that comes from other tasks; below 0: pushed apart", minimum=-0.5, maximum=0.99
        )
        name_weight: float = param(
            0.5, "weight ρ of tasks' names; the rest is that of their classes' names", minimum=0, maximum=1
        )
        temperature: float = param(0.05, "κ: the smaller, the fewer tasks are neighbours", minimum=1e-3)
        nearest: int = param(0, "keep so many neighbours per task; 0: all other tasks", minimum=0)
        graph: Literal["names", "uniform", "permuted"] = param(
            "names", "A: from names; controls: every other task alike, or the tasks' places in A exchanged",
            choices=GRAPHS,
        )  # fmt: skip
        draw: int = param(1, "which random exchange graph=permuted takes", minimum=1)

        def __post_init__(self) -> None:
            super().__post_init__()
            if self.nearest and self.graph == "uniform":
                raise UserError(f"nearest={self.nearest}: with graph=uniform no task is nearer than another")
            if self.draw > 1 and self.graph != "permuted":
                raise UserError(f"draw={self.draw}: graph={self.graph} draws nothing; leave it out")

    host: SoftCPTGraph | None

    def know(self, clip: Clip, tasks: Sequence[TaskData]) -> None:
        super().know(clip, tasks)
        self.about = self._about(tasks)  # 2, T, d
        self.graph = self._graph() if self.host is None else self._row(self.host)  # n, T
        self.neighbours = [row.nonzero()[:, 0].tolist() for row in self.graph] if self.params.nearest else None

    def task_input(self, tasks: Sequence[int]) -> Tensor:
        own = super().task_input(tasks)
        if self.params.a == 0:
            return own
        known = self.host or self
        which: Sequence[int] = range(len(known.tasks))
        if self.neighbours is not None:  # the names of many tasks need not be encoded at each step
            which = sorted({j for t in tasks for j in self.neighbours[t]})
        weights = self.rows(self.rows(self.graph, tasks).T, which).T  # n, as many
        return own + self.params.a * (weights @ known.features(which) - own)

    def _about(self, tasks: Sequence[TaskData]) -> Tensor:
        """Unit features of the tasks' names, and the unit means of their class names': [2, n, d]."""
        tower = self.clip.tower
        e = tower.encode_texts([f"{task.task_name}." for task in tasks])
        m = [
            F.normalize(tower.encode_texts([f"{name}." for name in task.class_names]), dim=-1).mean(dim=0)
            for task in tasks
        ]
        return F.normalize(torch.stack([e, torch.stack(m)]), dim=-1)

    def _weights(self, about: Tensor, known: Tensor, itself: bool) -> Tensor:
        """Rows of A [n, T] for tasks among known ones; `itself`: they are the same, and none is its own neighbour."""
        p, middle = self.params, known.mean(dim=1, keepdim=True)  # of the known: their rows know no unseen task
        e, m = (about - middle) @ (known - middle).mT  # n, T each
        near = (p.name_weight * e + (1 - p.name_weight) * m) / p.temperature
        if p.graph == "uniform":
            near = torch.zeros_like(near)
        if itself:
            near = near.masked_fill(torch.eye(len(near), dtype=torch.bool, device=near.device), float("-inf"))
        n_others = near.shape[1] - itself
        if n_others == 0:  # a single task: its own feature is all there is
            return torch.ones_like(near)
        if 0 < p.nearest < n_others:
            near = near.masked_fill(near < near.topk(p.nearest).values[:, -1:], float("-inf"))
        return near.softmax(dim=1)

    def _graph(self) -> Tensor:
        """A [T, T] of the trained tasks."""
        made = self._weights(self.about, self.about, itself=True)
        return made if self.params.graph != "permuted" else made[self._exchanged()][:, self._exchanged()]

    def _row(self, host: SoftCPTGraph) -> Tensor:
        """A's row [1, T] of a task that the host was not trained on; under a trained task's names it is that task's."""
        (task,) = self.tasks
        names = [(known.task_name, known.class_names) for known in host.tasks]
        if (task.task_name, task.class_names) in names:
            t = names.index((task.task_name, task.class_names))
            return host.graph[t : t + 1]
        made = self._weights(self.about, host.about, itself=False)
        return made if self.params.graph != "permuted" else made[:, host._exchanged()]

    def _exchanged(self) -> Tensor:
        """Whose place in A each task takes: random, nobody's own; the same for every seed."""
        order = torch.randperm(len(self.tasks), generator=generator("places", self.params.draw, len(self.tasks)))
        return torch.empty_like(order).index_copy_(0, order, order.roll(1)).to(self.about.device)
