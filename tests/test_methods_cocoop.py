"""CoCoOp, each task alone or all together: each image has its own prompts, in as little memory as asked for."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from bench.clip.text import TextTower
from bench.methods import find_method
from bench.methods.cocoop import CoCoOp
from bench.methods.shared_cocoop import SharedCoCoOp

sys.path.append(str(Path(__file__).parent))
from test_methods_all import (
    EMBED,
    NAMES,
    RECIPE,
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


def logits(parameters: Parameters, names: Sequence[str], image: Tensor) -> Tensor:
    """Of one normalised image: the meta-network's output is added to every context vector."""
    hidden = (parameters["weight_in"] @ image + parameters["bias_in"]).clamp(min=0)
    shift = parameters["weight_out"] @ hidden + parameters["bias_out"]
    text = world().text(parameters["context"][0] + shift, names)
    return world().scale * text @ image


def loss(parameters: Parameters, images: Images, counts: Sequence[float] = (1, 1, 1)) -> Tensor:
    """counts : what an image of each task counts."""
    each = [counts[t] * cross_entropy(logits(parameters, NAMES[t], image), label) for t, image, label in images]
    return torch.stack(each).mean()


@pytest.mark.parametrize("name", ["cocoop", "shared-cocoop"])
@pytest.mark.parametrize("max_tokens", [200_000, 60, 1])
def test_ten_steps_are_those_of_the_plain_formula_whatever_is_encoded_at_a_time(max_tokens: int, name: str) -> None:
    """4 images a step, of one task or of several: all at once, two at a time, one at a time."""
    check_steps(name, loss, max_tokens=max_tokens, reduction=4)


@pytest.mark.parametrize(
    ("params", "counts"),
    [
        ({"tasks_a_step": 2}, (1, 2 / 3, 4 / 3)),  # n · T / N of 6, 4 and 8 images
        ({"tasks_a_step": 1, "task_temperature": math.inf}, (1, 1, 1)),
        ({"tasks_a_step": 2, "task_temperature": 2.0}, (1.0097, 0.8244, 1.1659)),  # T · √n / (√6 + √4 + √8)
        ({"task_temperature": 2.0}, (1, 1, 1)),
    ],
)
def test_with_tasks_drawn_images_count_by_their_weights(params: dict[str, Any], counts: Sequence[float]) -> None:
    check_steps("shared-cocoop", partial(loss, counts=counts), max_tokens=60, reduction=4, **params)


def test_the_log_of_a_joint_training_has_its_steps_mean_loss_and_what_was_right() -> None:
    """Nothing is learned, so each of two epochs scores 16 of the 18 images as they are at the start, in two views."""
    method, start, steps = fit("shared-cocoop", world(), epochs=2, lr=0.0, warmup_lr=0.0, max_tokens=60)
    losses, accuracies = method.curves()["all"]
    for epoch in (1, 2):
        images = [image for step in steps if step.epoch == epoch for image in step.images]
        with torch.no_grad():
            right = [logits(start, NAMES[t], image).argmax().item() == label for t, image, label in images]
            assert losses[epoch - 1] == pytest.approx(loss(start, images).item(), rel=1e-4)
        assert accuracies[epoch - 1] == pytest.approx(100 * sum(right) / 16)


def test_trained_on_one_task_the_shared_one_is_cocoop_bit_for_bit() -> None:
    """Its random numbers come from the name "all tasks", CoCoOp's from that of the task."""
    only = replace(world().tasks[2], name="all tasks")
    made = [find_method(name)(find_method(name).Params(epochs=6, **RECIPE)) for name in ("cocoop", "shared-cocoop")]
    for method in made:
        method.fit(world().clip, [only], 1, lambda done, total: None)
    cocoop, shared = made
    start = CoCoOp(cocoop.params)
    start.setup(world().clip, [only], 1)
    for name, value in shared.learned.items():
        assert torch.equal(value, cocoop.learned[f"{name}-0"])
        assert not torch.equal(value, start.learned[f"{name}-0"])


@pytest.mark.parametrize("unseen", ["own", "mean", "nearest"])
def test_an_unseen_task_s_images_make_their_prompts_with_what_was_learned(unseen: str) -> None:
    """Whatever the task is called, and whichever trained task's context is asked for: they have the same."""
    kind = find_method("shared-cocoop")
    method: Any = kind(kind.Params(epochs=2, reduction=4, max_tokens=60, unseen=unseen, **RECIPE))
    method.fit(world().clip, world().tasks[:2], 1, lambda done, total: None)
    new = replace(world().tasks[2], name="new", task_name="vehicle recognition", class_names=("tram", "sea plane"))
    images = some_images(method)
    with torch.no_grad():
        expected = torch.stack([logits(method.learned, new.class_names, image / image.norm()) for image in images])
    torch.testing.assert_close(method.predict_new(new, images), expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(method.predict(method.tasks[0], images, new.class_names), expected, rtol=1e-4, atol=1e-4)


def test_scores_are_those_of_each_image_s_own_prompts() -> None:
    method, *_ = fit("cocoop", world(), epochs=2, max_tokens=60, reduction=4)
    images = some_images(method)
    for t in range(3):
        own = {n.removesuffix(f"-{t}"): v for n, v in method.learned.items() if n.endswith(f"-{t}")}
        with torch.no_grad():
            expected = torch.stack([logits(own, NAMES[t], image / image.norm()) for image in images])
        torch.testing.assert_close(method.predict(method.tasks[t], images), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", [CoCoOp, SharedCoCoOp])
def test_never_more_tokens_than_allowed_are_encoded_at_a_time(
    kind: type[CoCoOp], monkeypatch: pytest.MonkeyPatch
) -> None:
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
    method = kind(kind.Params(epochs=1, batch=8, max_tokens=60))
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
