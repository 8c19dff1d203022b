"""CoCoOp: each image has its own prompts, in as little memory as asked for."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from bench.clip.text import TextTower
from bench.methods.cocoop import CoCoOp

sys.path.append(str(Path(__file__).parent))
from test_methods_all import (
    EMBED,
    NAMES,
    Images,
    Parameters,
    check_steps,
    cross_entropy,
    fit,
    relative,
    some_images,
    world,
)

pytestmark = pytest.mark.usefixtures("one_thread")


def logits(parameters: Parameters, t: int, image: Tensor) -> Tensor:
    """Of one normalised image: the meta-network's output is added to every context vector."""
    hidden = (parameters["weight_in"] @ image + parameters["bias_in"]).clamp(min=0)
    shift = parameters["weight_out"] @ hidden + parameters["bias_out"]
    text = world().text(parameters["context"][0] + shift, NAMES[t])
    return world().scale * text @ image


def loss(parameters: Parameters, images: Images) -> Tensor:
    return torch.stack([cross_entropy(logits(parameters, t, image), label) for t, image, label in images]).mean()


@pytest.mark.parametrize("max_tokens", [200_000, 60, 1])
def test_ten_steps_are_those_of_the_plain_formula_whatever_is_encoded_at_a_time(max_tokens: int) -> None:
    """4 images a step: all at once, two at a time, one at a time."""
    check_steps("cocoop", loss, max_tokens=max_tokens, reduction=4)


def test_scores_are_those_of_each_image_s_own_prompts() -> None:
    method, *_ = fit("cocoop", world(), epochs=2, max_tokens=60, reduction=4)
    images = some_images(method)
    for t in range(3):
        own = {n.removesuffix(f"-{t}"): v for n, v in method.learned.items() if n.endswith(f"-{t}")}
        with torch.no_grad():
            expected = torch.stack([logits(own, t, image / image.norm()) for image in images])
        torch.testing.assert_close(method.predict(method.tasks[t], images), expected, rtol=1e-4, atol=1e-4)


def test_never_more_tokens_than_allowed_are_encoded_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    tokens: list[int] = []
    encode = TextTower.encode

    def counted(self: TextTower, prompts: Any, *args: Any, **kwargs: Any) -> Any:
        at_once = 0
        for p in prompts:
            own = sum(len(world().tokenizer.encode(f"{name}.")) + 1 for name in p.names)  # with EOT
            at_once += len(p.context) * (1 + p.context.shape[1] + own)  # the prefix once an image
        tokens.append(at_once)
        return encode(self, prompts, *args, **kwargs)

    monkeypatch.setattr(TextTower, "encode", counted)
    method = CoCoOp(CoCoOp.Params(epochs=1, batch=8, max_tokens=60))
    method.fit(world().clip, world().tasks, 1, lambda done, total: None)
    trained = len(tokens)
    method.predict(method.tasks[2], some_images(method, 50))
    assert trained >= 6 and len(tokens) >= trained + 17
    assert 30 < max(tokens) <= 60


def test_its_meta_network_is_d_to_a_sixteenth_to_w() -> None:
    method, start, _ = fit("cocoop", world(), epochs=1)
    assert start["weight_in-0"].shape == (EMBED // 16, EMBED)
    assert start["weight_out-0"].shape == (32, EMBED // 16)
    words = world().model.token_embedding(torch.tensor(world().tokenizer.encode("a photo of a")))
    assert torch.equal(start["context-1"], words[None])
    assert relative(method.learned["weight_in-0"], start["weight_in-0"]) > 0
