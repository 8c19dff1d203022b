"""MVLPT's text part (MCoOp): one context for all tasks, then one context per task from it.

Shen et al., "Multitask Vision-Language Prompt Tuning", WACV 2024, arXiv 2211.11720; code sIncerass/MVLPT,
`trainers/mvlpt.py`. Stage 1 trains one context V₀ on all tasks together, as `shared-coop` does; in stage 2 each task's
context starts at V₀ and is trained on that task alone, as `coop` does. Both stages have the recipe's epochs.
Learned: T · L · w numbers (V₀'s L · w serve the training alone).

The paper's sources and targets are different data sets; here the sources are the few-shot sets of the run's own tasks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from itertools import accumulate
from types import MappingProxyType
from typing import Literal

import torch
from torch import Tensor

from bench.errors import UserError
from bench.methods.base import Clip, Fit, ProgressCallback, TaskData, param
from bench.methods.prompt import PromptMethod, PromptParams
from bench.methods.shared_coop import SharedCoOp
from bench.methods.training import Batch, steps_per_epoch


class MVLPT(PromptMethod):
    """One context of L vectors per task, each from one that all tasks have learned together."""

    name = "mvlpt"
    order = 55
    source = "MVLPT, arXiv 2211.11720; code sIncerass/MVLPT"
    footnote = (
        "MVLPT here shares among the tasks of the run, each with its few shots, so a target is among its own sources "
        "(not so with leave_one_out); the paper's are other data sets."
    )
    separate = True
    starts: Mapping[str, Tensor] = MappingProxyType({})  # stage 1's context [1, L, w] by the task's name

    @dataclass(frozen=True)
    class Params(PromptParams):
        stages: int = param(2, "1: all tasks keep the shared context, as in shared-coop", choices=(1, 2))
        softmax: Literal["task", "all"] = param(
            "task", "what stage 1's softmax runs over: the classes of an image's own task, or those of all tasks"
        )
        leave_one_out: bool = param(False, "a task starts from a context that was trained on the other tasks alone")

    class Shared(SharedCoOp):
        """Stage 1. Not a method by itself: its name is MVLPT's."""

        name = "mvlpt"
        every_class = False

        def scored(self, batch: Batch) -> tuple[Batch, list[Sequence[str]]]:
            if not self.every_class:
                return super().scored(batch)
            return batch, [task.class_names for task in self.tasks]

        def loss(self, batch: Batch, text: Sequence[Tensor]) -> Tensor:
            if not self.every_class:
                return super().loss(batch, text)
            logits = self.scores(batch.features, torch.cat(list(text)))  # B, ΣC
            first = torch.tensor([0, *accumulate(len(own) for own in text)]).to(logits.device, non_blocking=True)
            return batch.cross_entropy(logits, batch.labels + first[batch.tasks])

    @classmethod
    def _fit_side_by_side(cls, fits: Sequence[Fit], clip: Clip, report: ProgressCallback) -> None:
        p = fits[0][0].params
        second = p.epochs * max(steps_per_epoch(len(t.labels), p.batch) for t in fits[0][1]) if p.stages == 2 else 0
        first = 0

        def in_stage_1(done: int, total: int) -> None:
            nonlocal first
            first = total
            report(done, total + second)

        shared = [[(cls._shared(p), others, seed) for others in _sources(p, tasks)] for _, tasks, seed in fits]
        cls.Shared.fit_together([one for own in shared for one in own], clip, in_stage_1)
        for (method, tasks, seed), own in zip(fits, shared, strict=True):
            contexts = [one.learned["context"].detach() for one, *_ in own]  # of each task, or one for all
            names = [task.name for task in tasks]
            method.starts = dict(zip(names, contexts if p.leave_one_out else contexts * len(names), strict=True))
            method.setup(clip, tasks, seed)
        if p.stages == 2:
            super()._fit_side_by_side(fits, clip, lambda done, total: report(first + done, first + total))
        if not p.leave_one_out:
            for (method, *_), ((together, *_),) in zip(fits, shared, strict=True):
                method.logs = {**together.logs, **method.logs}

    @classmethod
    def _shared(cls, params: Params) -> Shared:
        names = [f.name for f in fields(SharedCoOp.Params)]
        method = cls.Shared(SharedCoOp.Params(**{name: getattr(params, name) for name in names}))
        method.every_class = params.softmax == "all"
        return method

    def initialise(self, tasks: Sequence[TaskData], rng: torch.Generator) -> dict[str, Tensor]:
        (task,) = tasks
        start = self.starts.get(task.name)
        return {"context": self.start_context(1, rng) if start is None else start.clone()}  # 1, L, w

    def contexts(self, tasks: Sequence[int], names: Sequence[Sequence[str]]) -> list[Tensor]:
        return [self.part("context", t) for t in tasks]

    @property
    def n_params(self) -> int:
        return super().n_params // (1 if self.params.stages == 2 or self.params.leave_one_out else len(self.tasks))


def _sources(params: MVLPT.Params, tasks: Sequence[TaskData]) -> list[Sequence[TaskData]]:
    """The tasks of each shared context."""
    if not params.leave_one_out:
        return [tasks]
    if len(tasks) < 2:
        raise UserError("mvlpt: leave_one_out needs a second task to learn from")
    return [[*tasks[:t], *tasks[t + 1 :]] for t in range(len(tasks))]
