"""PLOT: several prompts a class, matched to an image's parts by optimal transport.

Chen et al., "PLOT: Prompt Learning with Optimal Transport for Vision-Language Models", ICLR 2023, arXiv
2210.01253. N contexts a task; a class is N text features, an image P local features. Score of a class =
τ · Σ T*_{pn} · cos(p, n), with T* the entropic optimal-transport plan (uniform marginals, cost 1 − cos, ε = 0.1)
by Sinkhorn's iterations; no gradient runs through the plan. Learned: T · N · L · w numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.methods.base import TaskData, param
from bench.methods.prompt import PromptMethod, PromptParams
from bench.text import Prompts

LEAST_EPSILON = 0.03  # costs reach 2: exp(-2 / 0.03) = 1e-29, and scalings as far the other way


class PLOT(PromptMethod):
    """N contexts of L vectors for each task; images are sets of local features."""

    name = "plot"
    order = 90
    source = "PLOT, arXiv 2210.01253"
    image = "local"
    separate = True

    @dataclass(frozen=True)
    class Params(PromptParams):
        prompts: int = param(4, "contexts N a task (the count in the paper's table for General-10 fits 2)", least=1)
        epsilon: float = param(0.1, "entropic regularisation ε", least=LEAST_EPSILON)
        iterations: int = param(100, "Sinkhorn iterations at most", least=1)
        tolerance: float = param(1e-2, "mean change of the row scaling at which Sinkhorn stops", least=0)

    def initialise(self, tasks: Sequence[TaskData], rng: torch.Generator) -> dict[str, Tensor]:
        return {"context": self.start_context(self.params.prompts, rng)}  # N, L, w

    def text_features(self, tasks: Sequence[int], names: Sequence[Sequence[str]]) -> list[Tensor]:
        prompts = [Prompts(self.part("context", t), own) for t, own in zip(tasks, names, strict=True)]
        return self.clip.tower.encode(prompts, self.params.position)  # N, C, d each

    def logits(self, features: Tensor, tasks: Sequence[int], names: Sequence[Sequence[str]]) -> Tensor:
        return self._score(features, F.normalize(self.text_features(tasks, names)[0], dim=-1))

    def _score(self, local: Tensor, text: Tensor) -> Tensor:
        """[B, C] from local features [B, P, d] and text features [N, C, d], both normalised, float32."""
        cosine = torch.einsum("bpd,ncd->bcpn", local, text)
        p = self.params
        with torch.no_grad():
            plan = sinkhorn(1 - cosine, p.epsilon, p.iterations, p.tolerance)
        return self.clip.scale * (plan * cosine).sum(dim=(-1, -2))

    @torch.no_grad()
    def predict(self, task: int, features: Tensor, class_names: Sequence[str] | None = None) -> Tensor:
        names = self.tasks[task].class_names if class_names is None else class_names
        text = F.normalize(self.text_features([task], [names])[0], dim=-1)
        chunks = F.normalize(features.to(text.device), dim=-1).split(256)
        return torch.cat([self._score(chunk, text) for chunk in chunks])


def sinkhorn(cost: Tensor, epsilon: float, iterations: int, tolerance: float) -> Tensor:
    """Entropic optimal-transport plans [..., P, N] with uniform marginals for costs [..., P, N].

    Each problem stops when its row scaling changes by less than `tolerance` on average: what becomes of one does
    not depend on the others. In float32, whatever the costs are in.
    """
    kernel = torch.exp(-cost.float() / epsilon)
    n_rows, n_columns = cost.shape[-2:]
    rows = torch.ones_like(kernel[..., 0])  # ..., P
    columns = torch.ones_like(kernel[..., 0, :])  # ..., N
    moving = torch.ones_like(rows[..., :1], dtype=torch.bool)  # ..., 1
    for _ in range(iterations):
        new = (1 / n_rows) / (kernel @ columns[..., None])[..., 0]
        change = (new - rows).abs().mean(dim=-1, keepdim=True)
        rows = torch.where(moving, new, rows)
        columns = torch.where(moving, (1 / n_columns) / (kernel.mT @ rows[..., None])[..., 0], columns)
        moving = moving & (change >= tolerance)
        if not moving.any():
            break
    return rows[..., None] * kernel * columns[..., None, :]
