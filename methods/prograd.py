"""ProGrad: CoOp that takes no step against what zero-shot CLIP knows.

Zhu et al., "Prompt-aligned Gradient for Prompt Tuning", ICCV 2023, arXiv 2205.14865. Two losses: cross-entropy,
and KL to the zero-shot logits (temperature 1, the task's template). Where the two gradients point against each
other, the part of the cross-entropy gradient along the KL gradient is taken out. Learned: T · L · w numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from bench.methods.base import Clip, TaskData, param
from bench.methods.coop import CoOp
from bench.methods.training import Batch
from bench.methods.zero_shot import template_features


class ProGrad(CoOp):
    """CoOp whose gradient is projected where it would unlearn the zero-shot prediction."""

    name = "prograd"
    order = 70
    source = "ProGrad, arXiv 2205.14865"

    @dataclass(frozen=True)
    class Params(CoOp.Params):
        projection: float = param(1.0, "share λ of the opposing component that is taken out", least=0)
        temperature: float = param(1.0, "of the two distributions in the KL loss", least=0.01)

    def setup(self, clip: Clip, tasks: Sequence[TaskData], seed: int) -> None:
        super().setup(clip, tasks, seed)
        self.teacher = [template_features(clip, task) for task in tasks]  # C, d each

    def gradients(self, together: Sequence[Batch]) -> None:
        cross_entropy = knowledge = torch.zeros((), device=self.clip.device)
        weight = self.params.temperature
        for batch, text in self.encoded(together):
            for t, own_text in zip(batch.present, text, strict=True):
                # Alone, a task's batch is all its own: no selection, and no wait for what it would select.
                mine = slice(None) if len(batch.present) == 1 else batch.tasks == t
                images, labels = batch.features[mine], batch.labels[mine]
                logits = self.scores(images, own_text)
                taught = self.scores(images, self.teacher[t])
                share = len(labels) / len(batch.labels)
                cross_entropy = cross_entropy + share * F.cross_entropy(logits, labels)
                knowledge = knowledge + share * weight**2 * F.kl_div(
                    F.log_softmax(logits / weight, dim=-1), F.softmax(taught / weight, dim=-1), reduction="batchmean"
                )
        parameters = [self.part("context", t) for t in dict.fromkeys(t for b in together for t in b.present)]
        if not self.separate:
            parameters = parameters[:1]  # one tensor for all tasks
        own = torch.autograd.grad(cross_entropy, parameters, retain_graph=True)
        known = torch.autograd.grad(knowledge, parameters)
        for parameter, g, k in zip(parameters, own, known, strict=True):
            direction = F.normalize(k.flatten(), dim=0).view_as(k)
            parameter.grad = g - self.params.projection * (g * direction).sum().clamp(max=0) * direction
