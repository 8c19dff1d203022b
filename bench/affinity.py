"""What a gradient step for one task does for another: inner products of gradients, and the step itself."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from bench.clip.text import Prompts
from bench.methods.prompt import PromptMethod

Matrix = NDArray[np.float64]


def gradients(method: PromptMethod, images: Sequence[Tensor], labels: Sequence[Tensor]) -> Matrix:
    """[T, T]: ⟨G_i, G_j⟩, G_i the gradient of task i's loss (cross-entropy on its few-shot set) by its context, as
    learned. Times K it is the inner product of the gradients by P: to first order, what a step for i does for j's loss
    ("task affinity", Fifty et al., NeurIPS 2021, arXiv 2109.04617).

    images [n, d], labels [n] : of each task. The tasks have one context each.
    """
    rows = []
    for t, (own, wanted) in enumerate(zip(images, labels, strict=True)):
        names = method.tasks[t].class_names
        with torch.enable_grad():
            context = method.contexts([t], [names])[0].detach().requires_grad_(True)
            encoded = method.clip.tower.encode([Prompts(context, names)], method.params.position)
            (text,) = method.normalised(method.shifted([t], encoded), [names])
            scores = method.scores(F.normalize(own.to(text.device), dim=-1), text)
            (gradient,) = torch.autograd.grad(F.cross_entropy(scores, wanted.to(text.device)), context)
        rows.append(gradient.flatten().double().cpu())
    return (torch.stack(rows) @ torch.stack(rows).T).numpy()


def affinity(method: PromptMethod, images: Sequence[Tensor], labels: Sequence[Tensor]) -> Matrix:
    """[T, T]: row i, column j is 1 − L_j(θ − η g_i) / L_j(θ), the share of task j's loss that one step of gradient
    descent for task i takes away (task affinity, Fifty et al., NeurIPS 2021, arXiv 2109.04617; there a mean over the
    steps of a training, here the one step from what was learned). L: cross-entropy on the few-shot set; η: the
    recipe's learning rate; no momentum, no weight decay. A loss that is 0 already leaves nothing to take away: 0.

    images [n, d], labels [n] : of each task. The method's tasks learn together. θ is left as it was.
    """
    wanted = [own.to(method.clip.device) for own in labels]
    features = [F.normalize(own.to(method.clip.device), dim=-1) for own in images]

    def loss(t: int) -> Tensor:
        (text,) = method.text_features([t], [method.tasks[t].class_names])
        return F.cross_entropy(method.scores(features[t], text), wanted[t])

    def losses() -> Matrix:
        with torch.no_grad():
            return np.array([float(loss(t)) for t in range(len(features))])

    before, rows = losses(), []
    learned = method.learned
    try:
        for i in range(len(features)):
            method.learned = {name: value.detach().clone().requires_grad_(True) for name, value in learned.items()}
            with torch.enable_grad():
                found = torch.autograd.grad(loss(i), list(method.learned.values()), allow_unused=True)
            with torch.no_grad():
                for value, gradient in zip(method.learned.values(), found, strict=True):
                    if gradient is not None:
                        value -= method.params.lr * gradient
            rows.append(losses())
    finally:
        method.learned = learned
    return 1 - np.divide(np.stack(rows), before, out=np.ones((len(rows), len(rows))), where=before > 0)
