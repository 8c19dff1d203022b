"""ProGrad: CoOp that takes no step against what zero-shot CLIP knows.

Zhu et al., "Prompt-aligned Gradient for Prompt Tuning", ICCV 2023, arXiv 2205.14865. Two losses: cross-entropy,
and KL to the zero-shot logits (temperature 1, the task's template). Where the two gradients point against each
other, the part of the cross-entropy gradient along the KL gradient is taken out. Learned: T · L · w numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.errors import UserError
from bench.methods.base import Clip, Names, TaskData, param
from bench.methods.coop import CoOp
from bench.methods.prompt import Step
from bench.methods.training import Batch
from bench.methods.zero_shot import Teacher, template_features


class ProGrad(CoOp):
    """CoOp whose gradient is projected where it would unlearn the zero-shot prediction."""

    name = "prograd"
    order = 70
    source = "ProGrad, arXiv 2205.14865"

    @dataclass(frozen=True)
    class Params(CoOp.Params, Teacher):
        words: str = param("", "start from these words' embeddings, noise where there are none", by_task=True)
        zeros: bool = param(False, "words may be fewer than `context`: zeros stand before them (the public code)")
        projection: float = param(
            1.0, "share λ of the opposing component that is taken out", minimum=0, by_task=True
        )
        temperature: float = param(1.0, "of the two distributions in the KL loss", minimum=0.01)

    @classmethod
    def texts(cls, params: Any, task: Names) -> list[tuple[str, int]]:
        return [*super().texts(params, task), *params.texts(task)]

    def setup(self, clip: Clip, tasks: Sequence[TaskData], seed: int) -> None:
        super().setup(clip, tasks, seed)
        if not self.separate and any(p.projection != self.params.projection for p in self.by_task.values()):
            raise UserError("projection: with joint=true all tasks have one gradient and one share")
        self.teacher = [template_features(clip, t, template=self.params_of(t).template) for t in tasks]  # C, d each

    def word_context(self, words: str) -> Tensor:
        missing = self.params.context - len(self.clip.tower.word_vectors(words))
        if not self.params.zeros or missing <= 0:
            return super().word_context(words)
        return F.pad(self.clip.tower.word_vectors(words).cpu(), (0, 0, missing, 0))

    @classmethod
    def gradients(cls, together: Sequence[Step]) -> None:
        cross_entropy, knowledge = [], []
        parameters: list[Tensor] = []
        shares: list[float] = []
        for method, batch, text in cls.encoded(together):
            own, known = method.two_losses(batch, text)
            cross_entropy.append(own)
            knowledge.append(known)
            new = [p for p in method.trained(batch) if not any(p is other for other in parameters)]
            parameters += new
            shares += [method.params_of(method.tasks[batch.present[0]]).projection] * len(new)
        own = torch.autograd.grad(torch.stack(cross_entropy).sum(), parameters, retain_graph=True)
        known = torch.autograd.grad(torch.stack(knowledge).sum(), parameters)
        for parameter, share, g, k in zip(parameters, shares, own, known, strict=True):
            direction = F.normalize(k.flatten(), dim=0).view_as(k)
            parameter.grad = g - share * (g * direction).sum().clamp(max=0) * direction

    def trained(self, batch: Batch) -> list[Tensor]:
        """The parameters that a batch's losses depend on."""
        return [self.part("context", t) for t in batch.present]

    def two_losses(self, batch: Batch, text: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Cross-entropy, and KL to the zero-shot prediction; means over the batch."""
        cross_entropy = knowledge = torch.zeros((), device=self.clip.device)
        heat = self.params.temperature
        for t, own_text in zip(batch.present, text, strict=True):
            mine = (batch.cpu_tasks == t).nonzero()[:, 0].tolist()
            images, labels = self.rows(batch.features, mine), self.rows(batch.labels, mine)
            logits = self.scores(images, own_text)
            taught = self.scores(images, self.teacher[t])
            share = len(mine) / len(batch.labels)
            cross_entropy = cross_entropy + share * batch.cross_entropy(logits, labels)
            knowledge = knowledge + share * heat**2 * F.kl_div(
                F.log_softmax(logits / heat, dim=-1), F.softmax(taught / heat, dim=-1), reduction="batchmean"
            )
        return cross_entropy, knowledge
