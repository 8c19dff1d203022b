"""ProGrad: cross-entropy's gradient, without its part that goes against zero-shot CLIP's."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

sys.path.append(str(Path(__file__).parent))
from test_methods_all import NAMES, Images, Parameters, check_steps, cross_entropy, world

pytestmark = pytest.mark.usefixtures("one_thread")


def losses(parameters: Parameters, images: Images) -> tuple[Tensor, Tensor]:
    """Mean cross-entropy, and mean KL(zero-shot ‖ learned), image by image."""
    t = images[0][0]
    text, taught = world().text(parameters["context"], NAMES[t]), world().written(t)
    errors, distances = [], []
    for _, image, label in images:
        learned, teacher = world().scale * text @ image, world().scale * taught @ image
        errors.append(cross_entropy(learned, label))
        p, q = (logits.exp() / logits.exp().sum() for logits in (teacher.double(), learned.double()))
        distances.append((p * (p.log() - q.log())).sum().float())
    return torch.stack(errors).mean(), torch.stack(distances).mean()


def test_ten_steps_are_those_of_the_plain_formula_both_where_gradients_agree_and_where_not() -> None:
    cosines = []

    def gradients(parameters: Parameters, images: Images) -> list[Tensor]:
        error, distance = losses(parameters, images)
        (g,) = torch.autograd.grad(error, [parameters["context"]], retain_graph=True)
        (k,) = torch.autograd.grad(distance, [parameters["context"]])
        cosines.append(float((g * k).sum() / g.norm() / k.norm()))
        if cosines[-1] < 0:
            g = g - (g * k).sum() / (k * k).sum() * k
        return [g]

    check_steps("prograd", lambda parameters, images: losses(parameters, images)[0], gradients)
    assert min(cosines) < -0.05 and max(cosines) > 0.05


def test_no_share_taken_out_is_coop() -> None:
    check_steps("prograd", lambda parameters, images: losses(parameters, images)[0], projection=0.0)
