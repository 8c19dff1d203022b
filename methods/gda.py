"""GDA: Gaussian discriminant analysis beside the hand-written prompts, without training.

Wang et al., "A Hard-to-Beat Baseline for Training-free CLIP-based Adaptation", ICLR 2024, arXiv 2402.04087; code
mrflogs/ICLR24, `main_few_shots.py`. The classes of a task are Gaussians of one covariance, estimated from all training
views of the few-shot images, each normalised. With the class means μ of these M views, the unbiased covariance S of the
views minus their class's mean, and P = d · ((M − 1)·S + tr(S)·I)⁻¹,

    score = τ · cos(image, text) + α · (image · Pμ_c − ½ · μ_cPμ_c − log C).

α grows with the shots, for with one image per class the covariance is that of an image's views alone. `search=val`
chooses it task by task, from the authors' seven powers of ten, on the few-shot validation images alone; ties go to the
smaller. Learned: 0 numbers; C · (d + 1) and α are kept per task. A class without images keeps its zero-shot score.

A class that was not trained on (`main_base2new.py`) has as its mean that of the 64 training views nearest to its text t
and of 16 copies of t; with the covariance S of these views about t, P = d · (63·S + tr(S)·I)⁻¹, averaged over the new
classes; α is that of the trained ones. Our own: the trained ones keep the covariance above, where that script takes the
pseudo-inverse of the mean of the classes' own; the factor is d, where it has 512; of fewer than 64 views all are taken
and 63 is one less than these. The views are not kept: a saved cell scores no classes but its own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from bench.errors import UserError
from bench.methods.base import Choice, Searching, TaskData, param
from bench.methods.heads import Head, HeadMethod, choose

ALPHAS = {1: 1e-3, 2: 0.1, 4: 0.3, 8: 1.0, 16: 10.0}  # by shots
NEAREST, COPIES = 64, 16  # views and copies of its text that a new class is made of
GRID = (1e-4, 1e-3, 1e-2, 0.1, 1.0, 10.0, 100.0)  # the authors'


class Gaussians(Head):
    """text : [C, d], normalised. weights : [C, d]. bias : [C]. alpha : as a 0-dimensional tensor, kept.

    views : [V, n, d], raw; new classes are made of them. Not kept.
    """

    def __init__(
        self, scale: float, text: Tensor, weights: Tensor, bias: Tensor, alpha: float, views: Tensor | None = None
    ) -> None:
        super().__init__()
        self.scale, self.views = scale, views
        self._new: tuple[Tensor, Tensor, Tensor] | None = None  # the last: text, weights, bias
        self.text: Tensor
        self.weights: Tensor
        self.bias: Tensor
        self.alpha: Tensor
        self.register_buffer("text", text, persistent=False)
        self.register_buffer("weights", weights)
        self.register_buffer("bias", bias)
        self.register_buffer("alpha", torch.tensor(alpha))

    def forward(self, images: Tensor, text: Tensor | None = None) -> Tensor:
        text, weights, bias = (self.text, self.weights, self.bias) if text is None else self.new(text)
        return self.scale * images @ text.T + self.alpha * (images @ weights.T + bias)

    def new(self, text: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Text, weights and bias of other classes."""
        if self.views is None:
            raise UserError("gda makes new classes of its training views, which are not kept: score them in the run")
        if self._new is None or not torch.equal(self._new[0], text):
            weights, bias = (x.to(text.device, text.dtype) for x in synthesised(self.views, text.cpu()))
            self._new = text, weights, bias
        return self._new


class GDA(HeadMethod):
    """score = τ · cos(image, text) + α · log-likelihood of Gaussians with one covariance (up to what classes share)."""

    name = "gda"
    order = 24
    own_views: ClassVar[int | None] = 10
    source = "GDA, arXiv 2402.04087; code mrflogs/ICLR24"
    searched = frozenset({"strength"})
    footnote = (
        "Without a search GDA's α follows from the shots alone (0.001, 0.1, 0.3, 1, 10 at 1, 2, 4, 8, 16): about the "
        "medians of what its authors' logged runs chose on the full validation splits of CoOp's data sets, so more "
        "labels than the shots have gone into them."
    )

    @dataclass(frozen=True)
    class Params(Searching):
        strength: float = param(
            1.0, "factor on the α of the shot count (0.001, 0.1, 0.3, 1, 10 at 1, 2, 4, 8, 16); 0: zero-shot", minimum=0
        )
        crop: float = param(0.5, "smallest share of the image in a training view", minimum=0.01, maximum=1)

    def head(self, task: TaskData, rng: torch.Generator) -> Gaussians:
        text = self.text(task)
        if not len(task.labels):  # restored: the values follow
            return Gaussians(self.clip.scale, text, torch.zeros_like(text), torch.zeros(len(text)), 0.0)
        try:
            weights, bias = gaussians(task.views, task.labels, len(text))
        except ValueError as error:
            advice = "give one image per class several training views (--views 10)"
            raise UserError(f"gda, task {task.name}: {error}; {advice}") from None
        alpha = self.params.strength * alpha_of(task.shots)
        return Gaussians(self.clip.scale, text, weights.float(), bias.float(), alpha, task.views)

    def search(self, head: Gaussians, task: TaskData) -> Choice:
        images, labels = self.validation(task)
        right = []
        for alpha in GRID:  # ascending: the smallest wins ties
            head.alpha.fill_(alpha)
            right.append(int((head(images).argmax(dim=1) == labels).sum()))
        choice = choose([{"alpha": alpha} for alpha in GRID], right, len(labels))
        head.alpha.fill_(choice.values["alpha"])
        return choice


def alpha_of(shots: int) -> float:
    """α of a number of images a class: between those of `ALPHAS` straight in the logarithms of both."""
    return math.exp(np.interp(math.log(shots), np.log(list(ALPHAS)), np.log(list(ALPHAS.values()))))


def gaussians(views: Tensor, labels: Tensor, n_classes: int) -> tuple[Tensor, Tensor]:
    """Weights [C, d] and bias [C] of the discriminant, float64; zero for a class without images.

    Parameters
    ----------
    views : raw image features [V, n, d]. labels : [n].

    Raises
    ------
    ValueError : every view is its class's mean: a pseudo-inverse would silently make it zero-shot.
    """
    n_views, _, d = views.shape
    counts = n_views * labels.bincount(minlength=n_classes)
    total = torch.zeros(n_classes, d, dtype=torch.double)
    for view in views:  # one at a time: all of them at once would be gigabytes
        total.index_add_(0, labels, F.normalize(view.double(), dim=-1))
    means = total / counts.clamp(min=1)[:, None]
    scatter = torch.zeros(d, d, dtype=torch.double)  # (M − 1) · S
    for view in views:
        rest = F.normalize(view.double(), dim=-1) - means[labels]
        scatter += rest.T @ rest
    spread = scatter.trace() / max(1, n_views * len(labels) - 1)
    if not spread > 1e-12:
        raise ValueError("every view is its class's mean, so there is no covariance")
    shrunk = scatter + spread * torch.eye(d, dtype=torch.double)  # positive definite: no pseudo-inverse is needed
    weights = d * torch.linalg.solve(shrunk, means.T).T
    bias = -math.log(n_classes) - (weights * means).sum(dim=1) / 2
    return weights, torch.where(counts > 0, bias, 0)


def synthesised(views: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
    """Weights [C, d] and bias [C], float64, of classes of which there is no image.

    Parameters
    ----------
    views : raw image features [V, n, d] of other classes. text : [C, d], normalised.
    """
    text, (_, n, d) = text.double(), views.shape
    near = torch.cat([F.normalize(view.double(), dim=-1) @ text.T for view in views])  # V · n, C
    rows = near.topk(min(NEAREST, len(near)), dim=0).indices.T  # C, k
    nearest = F.normalize(views[rows // n, rows % n].double(), dim=-1)  # C, k, d
    k = nearest.shape[1]
    means = (nearest.sum(dim=1) + COPIES * text) / (k + COPIES)
    rests = nearest - text[:, None]
    spreads = rests.square().sum(dim=(1, 2)) / (k - 1)  # tr(S)
    weights = torch.zeros_like(means)
    for rest, spread in zip(rests, spreads, strict=True):  # (RᵀR + s·I)⁻¹ by the k × k matrix RRᵀ + s·I
        inner = torch.linalg.solve(rest @ rest.T + spread * torch.eye(k, dtype=torch.double), rest @ means.T)
        weights += d * (means - inner.T @ rest) / spread / len(text)
    return weights, -math.log(len(text)) - (weights * means).sum(dim=1) / 2
