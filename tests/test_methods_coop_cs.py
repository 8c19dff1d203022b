"""CoOp with a context a class: trained as its formula says."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

sys.path.append(str(Path(__file__).parent))
from test_methods_all import NAMES, Images, Parameters, check_steps, cross_entropy, world

pytestmark = pytest.mark.usefixtures("one_thread")


def loss(parameters: Parameters, images: Images) -> Tensor:
    """Mean cross-entropy over the classes of one task; parameters["context"] is [C, L, w]."""
    t = images[0][0]
    text = world().text(parameters["context"], NAMES[t])
    return torch.stack([cross_entropy(world().scale * text @ image, label) for _, image, label in images]).mean()


def joint_loss(parameters: Parameters, images: Images) -> Tensor:
    """The same over the tasks of the batch; parameters["context"] is [all classes, L, w]."""
    of_task = parameters["context"].split([len(names) for names in NAMES])
    text = [world().text(own, names) for own, names in zip(of_task, NAMES, strict=True)]
    return torch.stack([cross_entropy(world().scale * text[t] @ image, label) for t, image, label in images]).mean()


def test_ten_steps_are_those_of_the_plain_formula() -> None:
    check_steps("coop-cs", loss)


def test_ten_joint_steps_are_those_of_the_plain_formula() -> None:
    """Momentum and weight decay act on contexts whose task is absent from the batch, too."""
    check_steps("coop-cs", joint_loss, joint=True)
