"""Shared CoOp at SoftCPT's rate: the control that tells what tasks' names bring.

With the task features F [T, d] held, SoftCPT is CoOp with a context for each task whose gradients are mixed by
K = F Fᵀ. K is not of the size of 1: raw features of CLIP's text tower have norms of about ten, so at one learning rate
SoftCPT's contexts move, and start, many times as far as shared CoOp's. This row is shared CoOp whose learning rates are
κ̄ times, whose start values √κ̄ times and whose weight decay 1/κ̄ times the recipe's, κ̄ = mean of F Fᵀ,
F = E("<task name>."): were all names the same, it would learn what SoftCPT learns (u held). What SoftCPT gains over it
is what names bring. Learned: L · w numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from bench.methods.base import Clip, Fit, Names, ProgressCallback, TaskData
from bench.methods.shared_coop import SharedCoOp


class SharedCoOpMatched(SharedCoOp):
    """Shared CoOp whose rate and start are scaled to SoftCPT's."""

    name = "shared-coop-matched"
    order = 51
    source = "ours: a control for SoftCPT, arXiv 2208.13474"
    footnote = "shared-coop-matched is a control of ours: shared CoOp at the rate at which SoftCPT's contexts move."
    unseen = ""

    @classmethod
    def texts(cls, params: Any, task: Names) -> list[tuple[str, int]]:
        return [*super().texts(params, task), (f"{task.task_name}.", 0)]

    def __init__(self, params: Any = None) -> None:
        super().__init__(params)
        self.given = self.params

    @classmethod
    def _fit_side_by_side(cls, fits: Sequence[Fit], clip: Clip, report: ProgressCallback) -> None:
        for method, tasks, _ in fits:
            method.match(clip, tasks)
        super()._fit_side_by_side(fits, clip, report)

    @torch.no_grad()
    def match(self, clip: Clip, tasks: Sequence[TaskData]) -> None:
        """Scale the recipe to the names of the tasks that are trained on."""
        f = clip.tower.encode_texts([f"{task.task_name}." for task in tasks])  # T, d
        size, p = float((f @ f.T).mean()), self.given
        rates = {"lr": p.lr * size, "warmup_lr": p.warmup_lr * size, "weight_decay": p.weight_decay / size}
        self.params = replace(p, init_std=p.init_std * size**0.5, **rates)
