"""CoCoOp: prompts that depend on the image.

Zhou et al., "Conditional Prompt Learning for Vision-Language Models", CVPR 2022, arXiv 2203.05557. A context of
L vectors plus the output of a small meta-network of the normalised image feature, added to every vector: each
image has its own prompts, so each image encodes all classes. Learned: T · (L·w + d·h + h + h·w + w), h = d/16.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.methods.base import TaskData, param
from bench.methods.prompt import PromptMethod, PromptParams
from bench.methods.training import Batch
from bench.text import Prompts


class CoCoOp(PromptMethod):
    """Context plus meta-network, one pair a task, each task trained alone."""

    name = "cocoop"
    order = 60
    source = "CoCoOp, arXiv 2203.05557"
    separate = True

    @dataclass(frozen=True)
    class Params(PromptParams):
        context: int = param(4, "class-context length L", least=1)
        words: str = param("a photo of a", "start from these words' embeddings; empty: from noise")
        reduction: int = param(16, "the meta-network's hidden width is d / reduction", least=1)
        max_tokens: int = param(20_000, "text tokens encoded at a time: bounds the memory, not the result", least=1)

    def initialise(self, tasks: Sequence[TaskData], rng: torch.Generator) -> dict[str, Tensor]:
        d, width = self.clip.embed_dim, self.clip.tower.width
        hidden = max(1, d // self.params.reduction)

        def linear(inputs: int, *shape: int) -> Tensor:  # as torch.nn.Linear starts
            return (torch.rand(*shape, generator=rng) * 2 - 1) / inputs**0.5

        return {
            "context": self.start_context(1, rng),  # 1, L, w
            "weight_in": linear(d, hidden, d),
            "bias_in": linear(d, hidden),
            "weight_out": linear(hidden, width, hidden),
            "bias_out": linear(hidden, width),
        }

    def logits(self, features: Tensor, tasks: Sequence[int], names: Sequence[Sequence[str]]) -> Tensor:
        (t,), (own,) = tasks, names
        hidden = F.relu(F.linear(features, self.part("weight_in", t), self.part("bias_in", t)))
        shift = F.linear(hidden, self.part("weight_out", t), self.part("bias_out", t))  # B, w
        contexts = self.part("context", t) + shift[:, None]  # B, L, w
        text = F.normalize(self.clip.tower.encode([Prompts(contexts, own)], self.params.position)[0], dim=-1)
        return self.clip.scale * torch.einsum("bd,bcd->bc", features, text)

    def _chunk(self, names: Sequence[str]) -> int:
        """How many images are encoded at a time."""
        tower = self.clip.tower
        tokens = 1 + self.params.context + sum(len(tower.tokens(name)) + 2 for name in names)
        return max(1, self.params.max_tokens // tokens)

    def gradients(self, batch: Batch) -> None:
        (t,) = batch.present
        names = self.tasks[t].class_names
        size = self._chunk(names)
        # Images do not meet in the loss: gradients of chunks add up to the batch's.
        for features, labels in zip(batch.features.split(size), batch.labels.split(size), strict=True):
            loss = F.cross_entropy(self.logits(features, [t], [names]), labels, reduction="sum")
            (loss / len(batch.labels)).backward()

    @torch.no_grad()
    def predict(self, task: int, features: Tensor, class_names: Sequence[str] | None = None) -> Tensor:
        names = self.tasks[task].class_names if class_names is None else class_names
        chunks = F.normalize(features.to(self.clip.device), dim=-1).split(self._chunk(names))
        return torch.cat([self.logits(chunk, [task], [names]) for chunk in chunks])
