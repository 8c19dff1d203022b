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
