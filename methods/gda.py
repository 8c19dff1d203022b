"""GDA: Gaussian discriminant analysis beside the hand-written prompts, without training.

Wang et al., "A Hard-to-Beat Baseline for Training-free CLIP-based Adaptation", ICLR 2024, arXiv 2402.04087; code
mrflogs/ICLR24, `main_few_shots.py`. The classes of a task are Gaussians of one covariance, estimated from all training
views of the few-shot images, each normalised. With the class means μ of these M views, the unbiased covariance S of the
views minus their class's mean, and P = d · ((M − 1)·S + tr(S)·I)⁻¹,

    score = τ · cos(image, text) + α · (image · Pμ_c − ½ · μ_cPμ_c − log C).

α grows with the shots, for with one image per class the covariance is that of an image's views alone. Learned: 0
numbers; C · (d + 1) are kept per task. A class without images keeps its zero-shot score.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from bench.errors import UserError
from bench.methods.base import Clip, Method, Parameters, ProgressCallback, TaskData, check_shapes, param
from bench.methods.zero_shot import template_features

ALPHAS = {1: 1e-3, 2: 0.1, 4: 0.3, 8: 1.0, 16: 10.0}  # by images of a class


class GDA(Method):
    """score = τ · cos(image, text) + α · log-likelihood of Gaussians with one covariance (up to what classes share)."""

    name = "gda"
    order = 24
    own_views = 10
    no_new_classes = "it knows a class by its images"
    source = "GDA, arXiv 2402.04087; code mrflogs/ICLR24"
    footnote = (
        "GDA's α follows from the shots alone (0.001, 0.1, 0.3, 1, 10 at 1, 2, 4, 8, 16): about the medians of "
        "what its authors' logged runs chose on the full validation splits of CoOp's data sets: more labels than the "
        "shots have gone into them."
    )

    @dataclass(frozen=True)
    class Params(Parameters):
        strength: float = param(
            1.0, "factor on the α of the shot count (0.001, 0.1, 0.3, 1, 10 at 1, 2, 4, 8, 16); 0: zero-shot", minimum=0
        )

    def fit(self, clip: Clip, tasks: Sequence[TaskData], seed: int, report: ProgressCallback) -> None:
        self.clip, self.tasks = clip, tasks
        self.weights: list[Tensor] = []  # C, d: of normalised images, text and Gaussians together
        self.bias: list[Tensor] = []  # C
        for t, task in enumerate(tasks):
            text = clip.scale * template_features(clip, task).cpu().double()
            try:
                weights, bias = gaussians(task.views, task.labels, len(task.class_names))
            except ValueError as error:
                advice = "give one image per class several training views (--views 10)"
                raise UserError(f"gda, task {task.name}: {error}; {advice}") from None
            alpha = self.params.strength * alpha_of(int(task.labels.bincount().max()))
            self.weights.append((text + alpha * weights).float().to(clip.device))
            self.bias.append((alpha * bias).float().to(clip.device))
            report(t + 1, len(tasks))

    def predict(self, task: TaskData, features: Tensor, class_names: Sequence[str] | None = None) -> Tensor:
        t = self.place(task)
        if tuple(task.class_names if class_names is None else class_names) != self.tasks[t].class_names:
            self.refuse_new_classes()
        weights = self.weights[t]
        return F.normalize(features.to(weights.device), dim=-1) @ weights.T + self.bias[t]

    def state(self) -> dict[str, Tensor]:
        return {f"{part}-{t}": x.cpu() for part in ("weights", "bias") for t, x in enumerate(getattr(self, part))}

    def restore(self, clip: Clip, tasks: Sequence[TaskData], state: Mapping[str, Tensor]) -> None:
        sizes = [len(task.class_names) for task in tasks]
        wanted: dict[str, tuple[int, ...]] = {f"weights-{t}": (n, clip.embed_dim) for t, n in enumerate(sizes)}
        wanted |= {f"bias-{t}": (n,) for t, n in enumerate(sizes)}
        check_shapes(self.name, wanted, state)
        self.clip, self.tasks = clip, tasks
        for part in ("weights", "bias"):
            setattr(self, part, [state[f"{part}-{t}"].to(clip.device) for t in range(len(tasks))])


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
    members = F.one_hot(labels, n_classes).double()  # n, C
    counts = n_views * members.sum(dim=0)  # C
    total = torch.zeros(n_classes, d, dtype=torch.double)
    for view in views:  # one at a time: all of them at once would be gigabytes
        total += members.T @ F.normalize(view.double(), dim=-1)
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
