"""KgCoOp: cross-entropy plus 8.0 · (1 − mean cosine to the hand-written prompts' features)."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from bench.methods.kgcoop import KgCoOp

sys.path.append(str(Path(__file__).parent))
from test_methods_all import NAMES, Images, Parameters, check_steps, cross_entropy, fit, world

pytestmark = pytest.mark.usefixtures("one_thread")


def loss(parameters: Parameters, images: Images) -> Tensor:
    t = images[0][0]
    text = world().text(parameters["context"], NAMES[t])
    errors = [cross_entropy(world().scale * text @ image, label) for _, image, label in images]
    likeness = [torch.dot(learned, written) for learned, written in zip(text, world().written(t), strict=True)]
    return torch.stack(errors).mean() + 8.0 * (1 - torch.stack(likeness).mean())


def test_ten_steps_are_those_of_the_plain_formula() -> None:
    check_steps("kgcoop", loss)


def test_its_context_starts_from_a_photo_of_a() -> None:
    _, start, _ = fit("kgcoop", world(), epochs=1)
    words = world().model.token_embedding(torch.tensor(world().tokenizer.encode("a photo of a")))
    for t in range(3):
        assert torch.equal(start[f"context-{t}"], words[None])


def test_a_stronger_pull_ends_nearer_to_the_hand_written_prompts() -> None:
    def distance(pull: float) -> float:
        method: Any
        method, *_ = fit("kgcoop", world(), epochs=10, pull=pull)
        with torch.no_grad():
            text = world().text(method.learned["context-2"], NAMES[2])
        return float((1 - (text * world().written(2)).sum(dim=1)).mean())

    assert KgCoOp.Params().pull == 8.0
    assert distance(8.0) < 0.8 * distance(0.0)


def test_a_task_may_be_held_near_another_sentence() -> None:
    """Task 1 alone: its prompts end nearer to "my <name> there" than they do with the task's own sentence."""

    def written() -> Tensor:
        features = world().model.encode_text(world().tokenizer([f"my {name} there" for name in NAMES[1]]))
        return features / features.norm(dim=1, keepdim=True)

    def loss_of(parameters: Parameters, images: Images) -> Tensor:
        if images[0][0] != 1:
            return loss(parameters, images)
        text = world().text(parameters["context"], NAMES[1])
        errors = [cross_entropy(world().scale * text @ image, label) for _, image, label in images]
        return torch.stack(errors).mean() + 8.0 * (1 - (text * written()).sum(dim=1).mean())

    check_steps("kgcoop", loss_of, by_task={"task 1": {"template": "my {} there"}})
