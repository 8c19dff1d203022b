"""KgCoOp: CoOp held near the hand-written prompts.

Yao et al., "Visual-Language Prompt Tuning with Knowledge-guided Context Optimization", CVPR 2023,
arXiv 2303.13283. Loss = cross-entropy + 8.0 · (1 − mean over classes of cos(learned, hand-written text feature)).
Learned: T · L · w numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from bench.methods.base import Clip, Names, TaskData, param
from bench.methods.coop import CoOp
from bench.methods.training import Batch
from bench.methods.zero_shot import Teacher, template_features


class KgCoOp(CoOp):
    """CoOp plus a pull of each class's text feature to that of the hand-written prompt."""

    name = "kgcoop"
    order = 80
    source = "KgCoOp, arXiv 2303.13283"

    @dataclass(frozen=True)
    class Params(CoOp.Params, Teacher):
        context: int = param(4, "class-context length L", minimum=1)
        words: str = param("a photo of a", "start from these words' embeddings; empty: from noise", by_task=True)
        pull: float = param(8.0, "weight of the pull to the hand-written prompts' features", minimum=0)

    @classmethod
    def texts(cls, params: Any, task: Names) -> list[tuple[str, int]]:
        return [*super().texts(params, task), *params.texts(task)]

    def setup(self, clip: Clip, tasks: Sequence[TaskData], seed: int) -> None:
        super().setup(clip, tasks, seed)
        self.written = [template_features(clip, t, template=self.params_of(t).template) for t in tasks]  # C, d each

    def loss(self, batch: Batch, text: Sequence[Tensor]) -> Tensor:
        likeness = [(f * self.written[t]).sum(-1).mean() for f, t in zip(text, batch.present, strict=True)]
        return super().loss(batch, text) + self.params.pull * (1 - sum(likeness) / len(likeness))
