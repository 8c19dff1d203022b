"""SoftCPT's other readings: a task context a task, no task context, and a context a class."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from bench.methods.softcpt_star import SoftCPTStar

sys.path.append(str(Path(__file__).parent))
import reference
from test_methods_all import NAMES, TASK_NAMES, Images, Parameters, check_steps, cross_entropy, world

pytestmark = pytest.mark.usefixtures("one_thread")

LENGTH, WIDTH = 5, 32  # of class contexts here; the paper's are 16 long


def joint_loss(text: list[Tensor], images: Images) -> Tensor:
    """Mean cross-entropy, each image over its own task's classes."""
    return torch.stack([cross_entropy(world().scale * text[t] @ image, label) for t, image, label in images]).mean()


def feature(contexts: Tensor, name: str) -> Tensor:
    """E("v_1 … v_n <name>."), not normalised."""
    return reference.encode(world().model, world().tokenizer, contexts[None], [name])[0]


def nats(parameters: Parameters, images: Images) -> Tensor:
    text = []
    for u, task_name, names in zip(parameters["task_context"], TASK_NAMES, NAMES, strict=True):
        context = (feature(u, task_name) @ parameters["projection"]).reshape(LENGTH, WIDTH)
        text.append(world().text(context, names))
    return joint_loss(text, images)


def star(parameters: Parameters, images: Images) -> Tensor:
    text = []
    for task_name, names in zip(TASK_NAMES, NAMES, strict=True):
        with torch.no_grad():
            f = world().model.encode_text(world().tokenizer([f"{task_name}."]))[0]
        made = (f @ parameters["projection"]).reshape(LENGTH, WIDTH)
        text.append(world().text(parameters["context"][0] + made, names))
    return joint_loss(text, images)


def class_conditional(parameters: Parameters, images: Images) -> Tensor:
    """reshape([g_c ; f_t] · P): one z, or one a class in the order of tasks; one u, or one a task."""
    z, u = parameters["class_context"], parameters["task_context"]
    text, n_seen = [], 0
    for t, (task_name, names) in enumerate(zip(TASK_NAMES, NAMES, strict=True)):
        f = feature(u[t] if len(u) > 1 else u[0], task_name)
        contexts = []
        for name in names:
            g = feature(z[n_seen] if len(z) > 1 else z[0], name)
            contexts.append((torch.cat([g, f]) @ parameters["projection"]).reshape(LENGTH, WIDTH))
            n_seen += 1
        text.append(world().text(torch.stack(contexts), names))
    return joint_loss(text, images)


def test_ten_steps_of_nats_are_those_of_the_plain_formula() -> None:
    check_steps("softcpt-nats", nats, context=LENGTH, task_context=3)


def test_ten_steps_of_star_are_those_of_the_plain_formula() -> None:
    check_steps("softcpt-star", star, context=LENGTH)


@pytest.mark.parametrize("name", ["softcpt-cata", "softcpt-cats", "softcpt-csta", "softcpt-csts"])
def test_ten_steps_of_the_class_conditional_ones_are_those_of_the_plain_formula(name: str) -> None:
    check_steps(name, class_conditional, context=LENGTH, task_context=3, class_context=2)


def test_the_footnote_says_that_star_is_our_reading() -> None:
    assert "our reading" in SoftCPTStar.footnote
