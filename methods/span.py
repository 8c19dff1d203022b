"""Of an unseen task's feature, the part that trained tasks' features can make up: an option of SoftCPT's family."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bench.methods.base import Parameters, param


@dataclass(frozen=True)
class SpanParams(Parameters):
    """What methods have that make an unseen task's context from its name's feature alone."""

    span: bool = param(
        False, "of an unseen task's feature, keep only the part that the trained tasks' features can make up"
    )


def inside_span(f: Tensor, seen: Tensor) -> Tensor:
    """f F⁺ F: the part of features f [n, d] inside the span of the rows of F = `seen` [T, d].

    What lies outside meets nothing in P but its start noise. Singular values below 1e-3 of the largest count as 0.
    """
    return f @ torch.linalg.pinv(seen, rtol=1e-3) @ seen
