"""CoCoOp: prompts that depend on the image.

Zhou et al., "Conditional Prompt Learning for Vision-Language Models", CVPR 2022, arXiv 2203.05557. A context of
L vectors plus the output of a small meta-network of the normalised image feature, added to every vector: each
image has its own prompts, so each image encodes all classes. Learned: T · (L·w + d·h + h + h·w + w), h = d/16.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.clip.text import Prompts
from bench.methods.base import TaskData, param
from bench.methods.prompt import PromptMethod, PromptParams, Step


class CoCoOp(PromptMethod):
    """Context plus meta-network, one pair per task, each task trained alone."""

    name = "cocoop"
    order = 60
    source = "CoCoOp, arXiv 2203.05557"
    separate = True

    @dataclass(frozen=True)
    class Params(PromptParams):
        context: int = param(4, "class-context length L", minimum=1)
        words: str = param("a photo of a", "start from these words' embeddings; empty: from noise")
        reduction: int = param(16, "the meta-network's hidden width is d / reduction", minimum=1)
        max_tokens: int = param(20_000, "most text tokens encoded at a time: bounds memory, not the result", minimum=1)

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

    def contexts(self, tasks: Sequence[int], names: Sequence[Sequence[str]]) -> list[Tensor]:
        return [self.part("context", t) for t in tasks]  # 1, L, w each: before an image's shift

    @classmethod
    def losses(cls, together: Sequence[Step]) -> list[Tensor]:
        logits = cls._logits([(method, batch.features, batch.present[0], None) for method, batch in together])
        return [batch.cross_entropy(own, batch.labels) for own, (_, batch) in zip(logits, together, strict=True)]

    @classmethod
    def gradients(cls, together: Sequence[Step]) -> None:
        # Images do not meet in the loss: gradients of parts add up to the batches'.
        for parts, shares in cls._within_bound(together):
            losses = cls.losses(parts)
            torch.stack([loss * share for loss, share in zip(losses, shares, strict=True)]).sum().backward()

    @classmethod
    def _logits(cls, asked: Sequence[tuple[CoCoOp, Tensor, int, Sequence[str] | None]]) -> list[Tensor]:
        """[B, C] for each (method, normalised images [B, d], task, class names or None for the task's own)."""
        first = asked[0][0]
        prompts = [method._prompts(images, t, names) for method, images, t, names in asked]
        text = first.clip.tower.encode(prompts, first.params.position)  # B, C, d each
        return [
            first.clip.scale * torch.einsum("bd,bcd->bc", images, F.normalize(own, dim=-1))
            for (_, images, *_), own in zip(asked, text, strict=True)
        ]

    def _prompts(self, images: Tensor, t: int, names: Sequence[str] | None) -> Prompts:
        """Every image brings its own prompts: contexts [B, L, w]."""
        hidden = F.relu(F.linear(images, self.part("weight_in", t), self.part("bias_in", t)))
        shift = F.linear(hidden, self.part("weight_out", t), self.part("bias_out", t))  # B, w
        return Prompts(self.part("context", t) + shift[:, None], self.tasks[t].class_names if names is None else names)

    def _tokens(self, names: Sequence[str]) -> int:
        """Tokens that are encoded for one image."""
        tower = self.clip.tower
        return 1 + self.params.context + sum(len(tower.tokens(name)) + 2 for name in names)

    def _chunk(self, names: Sequence[str]) -> int:
        """How many images may be encoded at a time."""
        return max(1, self.params.max_tokens // self._tokens(names))

    @classmethod
    def _within_bound(cls, together: Sequence[Step]) -> Iterator[tuple[list[Step], list[float]]]:
        """Parts of batches that stay within `max_tokens` together, and each part's share of its batch."""
        parts: list[Step] = []
        shares: list[float] = []
        tokens = 0
        for method, batch in together:
            names = method.tasks[batch.present[0]].class_names
            size, each = method._chunk(names), method._tokens(names)
            for first in range(0, len(batch.labels), size):
                part = batch.part(slice(first, first + size))
                n = len(part.labels)
                if parts and tokens + n * each > method.params.max_tokens:
                    yield parts, shares
                    parts, shares, tokens = [], [], 0
                parts.append((method, part))
                shares.append(n / len(batch.labels))
                tokens += n * each
        yield parts, shares

    @torch.no_grad()
    def predict(self, task: TaskData, features: Tensor, class_names: Sequence[str] | None = None) -> Tensor:
        t, names = self.place(task), task.class_names if class_names is None else class_names
        chunks = features.to(self.clip.device).split(self._chunk(names))
        return torch.cat([self._logits([(self, F.normalize(chunk, dim=-1), t, names)])[0] for chunk in chunks])
