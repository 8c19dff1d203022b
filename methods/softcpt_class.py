"""SoftCPT's class-conditional variants: each class has its own context (authors' code of arXiv 2208.13474).

A class feature g_c = E("z_1 … z_K <class name>.") is joined to the task feature f_t: context of class c of task
t = reshape([g_c ; f_t] · P, (L, w)), P ∈ R^{2d × L·w}. The name says what is shared: "ca" one z for all classes,
"cs" one z per class; "ta" one task context u for all tasks, "ts" one per task.
Two classes of one name, in different tasks or in one (ImageNet's list has such), have a z each, as in the authors'.
On General-10 the authors score a batch's own classes and a tenth of the others, rounded up and drawn again at each
step, task by task (`absent`; trainers/mtcoop.py of github.com/kding1225/softcpt).
Learned: 2d · L · w + (1 or Σ|C_t|) · K · w + (1 or T) · M · w numbers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from bench.clip.text import Prompts
from bench.methods.base import Clip, Names, TaskData, generator, param
from bench.methods.softcpt import MetaParams, SoftCPT
from bench.methods.softcpt_nats import SoftCPTNATS
from bench.methods.span import SpanParams
from bench.methods.training import Batch

OWN_CONTEXT = "it learns a context for each class's feature"


@dataclass(frozen=True)
class ClassParams(MetaParams):
    """What the four variants have."""

    class_context: int = param(4, "length K of the context that class features are read from", minimum=1)
    absent: float = param(
        1.0,
        "share of the classes without an image in the batch that a step scores, rounded up (General-10: 0.1)",
        minimum=0,
    )


class SoftCPTCATA(SoftCPT):
    """Class context shared by all classes, task context shared by all tasks."""

    name = "softcpt-cata"
    order = 130
    source = "SoftCPT-CATA, arXiv 2208.13474"
    task_kernel = ""
    paired = True
    own_class_context = False

    @dataclass(frozen=True)
    class Params(SpanParams, ClassParams):
        pass

    @classmethod
    def texts(cls, params: Any, task: Names) -> list[tuple[str, int]]:
        return [*super().texts(params, task), *((f"{name}.", params.class_context) for name in task.class_names)]

    def initialise(self, tasks: Sequence[TaskData], rng: torch.Generator) -> dict[str, Tensor]:
        p, width = self.params, self.clip.tower.width
        n = sum(len(task.class_names) for task in tasks) if self.own_class_context else 1
        return {
            "task_context": self.start_task_context(tasks, rng),
            "class_context": self.noise(rng, n, p.class_context, width),  # 1 or ΣC, K, w
            "projection": self.noise(rng, 2 * self.clip.embed_dim, p.context * width),  # 2d, L·w
        }

    def _class_prompts(self, tasks: Sequence[int], names: Sequence[Sequence[str]]) -> Prompts:
        """What g_c is read from."""
        z = self.learned["class_context"]
        if not self.own_class_context:
            return Prompts(z, list(chain(*names)))
        rows = []
        for t, own in zip(tasks, names, strict=True):
            chosen, known = set(own), self.tasks[t].class_names
            places = [i for i, name in enumerate(known) if name in chosen]
            if [known[i] for i in places] != list(own):
                self.refuse_new_classes()
            first = sum(len(task.class_names) for task in self.tasks[:t])
            rows += [first + i for i in places]
        return Prompts(self.rows(z, rows), list(chain(*names)), paired=True)

    def setup(self, clip: Clip, tasks: Sequence[TaskData], seed: int) -> None:
        super().setup(clip, tasks, seed)
        self._draw = generator(seed, "absent classes")

    def scored(self, batch: Batch) -> tuple[Batch, list[Sequence[str]]]:
        if self.params.absent >= 1:
            return super().scored(batch)
        labels, tasks = batch.cpu_labels, batch.cpu_tasks
        names: list[Sequence[str]] = []
        among = labels.clone()
        for t in batch.present:
            mine = tasks == t
            known = self.tasks[t].class_names
            chosen = self._some_classes(known, labels[mine])
            among[mine] = torch.searchsorted(chosen, labels[mine])
            names.append([known[c] for c in chosen])
        return Batch.of(batch.features, among, tasks), names

    def _some_classes(self, names: Sequence[str], present: Tensor) -> Tensor:
        """Classes a step scores, ascending: those of its images, a random share of the task's others, and all that have
        the name of one of these."""
        absent = torch.ones(len(names), dtype=torch.bool).index_fill_(0, present, False).nonzero()[:, 0]
        n_taken = math.ceil(len(absent) * self.params.absent)
        taken = absent[torch.randperm(len(absent), generator=self._draw)[:n_taken]]
        chosen = {names[c] for c in (*present.tolist(), *taken.tolist())}
        return torch.tensor([c for c, name in enumerate(names) if name in chosen])

    def contexts(self, tasks: Sequence[int], names: Sequence[Sequence[str]]) -> list[Tensor]:
        tower, sizes = self.clip.tower, [len(own) for own in names]
        f = self.task_input(tasks)  # T, d
        f = self.rows(f, [i for i, n in enumerate(sizes) for _ in range(n)])  # ΣC, d
        g = tower.encode([self._class_prompts(tasks, names)])[0].view(len(f), -1)  # ΣC, d
        made = torch.cat([g, f], dim=-1) @ self.learned["projection"]
        return list(made.view(len(f), self.params.context, tower.width).split(sizes))  # C, L, w each


class SoftCPTCATS(SoftCPTCATA):
    """Class context shared by all classes, one task context per task."""

    name = "softcpt-cats"
    order = 131
    unseen = SoftCPTNATS.unseen
    Params = ClassParams  # type: ignore[assignment]
    source = "SoftCPT-CATS, arXiv 2208.13474"
    start_task_context = SoftCPTNATS.start_task_context
    task_prompts = SoftCPTNATS.task_prompts


class SoftCPTCSTA(SoftCPTCATA):
    """One class context per class, task context shared by all tasks."""

    name = "softcpt-csta"
    order = 132
    source = "SoftCPT-CSTA, arXiv 2208.13474"
    Params = ClassParams  # type: ignore[assignment]
    own_class_context = True
    no_new_classes = OWN_CONTEXT
    unseen = OWN_CONTEXT


class SoftCPTCSTS(SoftCPTCATS):
    """One class context per class, one task context per task."""

    name = "softcpt-csts"
    order = 133
    source = "SoftCPT-CSTS, arXiv 2208.13474"
    own_class_context = True
    no_new_classes = OWN_CONTEXT
    unseen = OWN_CONTEXT
