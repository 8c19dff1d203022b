"""PLOT: several prompts per class, matched to an image's parts by optimal transport.

Chen et al., "PLOT: Prompt Learning with Optimal Transport for Vision-Language Models", ICLR 2023, arXiv
2210.01253. N contexts a task; a class is N text features, an image P local features. Score of a class =
τ · Σ T*_{pn} · cos(p, n), with T* the entropic optimal-transport plan (uniform marginals, cost 1 − cos, ε = 0.1)
by Sinkhorn's iterations; no gradient runs through the plan. Learned: T · N · L · w numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bench.methods.base import TaskData, param
from bench.methods.prompt import PromptMethod, PromptParams

MIN_EPSILON = 0.03  # costs reach 2: exp(-2 / 0.03) = 1e-29, and scalings as far the other way


class PLOT(PromptMethod):
    """N contexts of L vectors for each task; images are sets of local features."""

    name = "plot"
    order = 90
    source = "PLOT, arXiv 2210.01253"
    image = "local"
    separate = True
    at_once = 256

    @dataclass(frozen=True)
    class Params(PromptParams):
        prompts: int = param(4, "contexts N per task (the count in the paper's table for General-10 fits 2)", minimum=1)
        epsilon: float = param(0.1, "entropic regularisation ε", minimum=MIN_EPSILON)
        iterations: int = param(100, "Sinkhorn iterations at most", minimum=1)
        tolerance: float = param(1e-2, "mean change of the row scaling at which Sinkhorn stops", minimum=0)

    @property
    def weight(self) -> int:
        return self.params.prompts

    def initialise(self, tasks: Sequence[TaskData], rng: torch.Generator) -> dict[str, Tensor]:
        return {"context": self.start_context(self.params.prompts, rng)}  # N, L, w

    def contexts(self, tasks: Sequence[int], names: Sequence[Sequence[str]]) -> list[Tensor]:
        return [self.part("context", t) for t in tasks]  # N, L, w each

    def scores(self, features: Tensor, text: Tensor) -> Tensor:
        """[B, C] from local features [B, P, d] and text features [N, C, d], both normalised, float32."""
        text = text if text.dim() == 3 else text[None]  # N = 1
        cosine = torch.einsum("bpd,ncd->bcpn", features, text)
        p = self.params
        with torch.no_grad():
            plan = sinkhorn(1 - cosine, p.epsilon, p.iterations, p.tolerance)
        return self.clip.scale * (plan * cosine).sum(dim=(-1, -2))


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
        # On a device the host would have to wait for the answer; what has stopped stays as it is there, too.
        if moving.device.type == "cpu" and not moving.any():
            break
    return rows[..., None] * kernel * columns[..., None, :]
