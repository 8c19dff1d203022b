"""Parity on a card: what a CUDA device computes is what the CPU computes, and that is held to plain references.

float32 without TF32, as the bench runs it. Skipped where no CUDA device is at hand.
"""

from __future__ import annotations

import copy
import sys
from dataclasses import fields, replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import open_clip
import pytest
import torch

from bench.clip.projection import Projection
from bench.clip.text import POSITIONS, Prompts, TextTower
from bench.methods import find_method, method_names

sys.path.append(str(Path(__file__).parent))
import reference
import test_methods_all as methods

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device is at hand")

TOWERS: dict[str, dict[str, Any]] = {
    "RN50": {"embed_dim": 1024, "text_cfg": open_clip.get_model_config("RN50")["text_cfg"]},
    "ViT-B-16-quickgelu": {
        "embed_dim": 512,
        "text_cfg": open_clip.get_model_config("ViT-B-16-quickgelu")["text_cfg"],
        "quick_gelu": True,
    },
    "tiny": {"embed_dim": 24, "text_cfg": {"width": 32, "heads": 2, "layers": 2}},
}
NAMES = [["cat", "golden retriever", "crocodile head"], ["2012 BMW X3 SUV", "2012 BMW X6 SUV", "2012 Audi S5"]]


def relative(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    apart, size = (ours.cpu().double() - theirs.double()).norm().item(), theirs.double().norm().item()
    return apart / size if size else apart  # what never left zero (a root's residual) has no relative error


@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("name", TOWERS)
def test_text_features_and_gradients_on_a_card_are_the_plain_ones(name: str, position: Any) -> None:
    assert not torch.backends.cuda.matmul.allow_tf32
    model = reference.random_clip(**TOWERS[name])
    tokenizer = reference.clip_tokenizer()
    tower = TextTower(copy.deepcopy(model).cuda(), tokenizer)
    rng = torch.Generator().manual_seed(0)
    contexts = [0.05 * torch.randn(1, 4, tower.width, generator=rng) for _ in NAMES]
    there = [c.cuda().requires_grad_(True) for c in contexts]
    here = [c.detach().clone().requires_grad_(True) for c in contexts]
    ours = tower.encode([Prompts(c, names) for c, names in zip(there, NAMES, strict=True)], position)
    theirs = [
        reference.encode(model, tokenizer, c.expand(len(names), -1, -1), names, position)
        for c, names in zip(here, NAMES, strict=True)
    ]
    weights = [torch.randn(f.shape, generator=rng) for f in theirs]
    torch.stack([(f[0] * w.cuda()).sum() for f, w in zip(ours, weights, strict=True)]).sum().backward()
    torch.stack([(f * w).sum() for f, w in zip(theirs, weights, strict=True)]).sum().backward()
    for mine, true in zip(ours, theirs, strict=True):
        assert relative(mine[0].detach(), true.detach()) < 1e-5
    for mine, true in zip(there, here, strict=True):
        assert mine.grad is not None and true.grad is not None
        assert relative(mine.grad, true.grad) < 1e-5


@cache
def card(local: bool) -> Any:
    """The world of the methods' tests, moved to the card."""
    world = methods.world(local)
    model = copy.deepcopy(world.model).cuda()
    clip = SimpleNamespace(
        tower=TextTower(model, world.tokenizer), scale=world.scale, embed_dim=methods.EMBED,
        device=torch.device("cuda"),
        projection=Projection(world.clip.projection.weight.cuda(), world.clip.projection.bias.cuda()),
    )  # fmt: skip
    return replace(world, model=model, clip=clip)


@pytest.mark.parametrize("name", method_names())
def test_a_method_trained_on_a_card_is_the_one_trained_on_the_cpu(name: str) -> None:
    found = find_method(name)
    local = found.image == "local"
    known = {f.name for f in fields(found.Params)}
    # Four epochs: `softcpt-rank`, a product of two learned matrices, multiplies a relative change of 1e-7 at its start
    # by a thousand in ten, on the CPU as well.
    params = found.Params(**{k: v for k, v in {"epochs": 4, "steps": 8, **methods.RECIPE}.items() if k in known})
    fitted = []
    for where in (methods.world(local), card(local)):
        method: Any = found(params)
        method.fit(where.clip, where.tasks, 1, lambda done, total: None)
        fitted.append(method)
    here, there = fitted
    for key, value in here.state().items():
        assert there.state()[key].device.type == "cpu"
        assert relative(there.state()[key], value) < 1e-4, key
    images = methods.some_images(here)
    for t in range(len(methods.NAMES)):
        ours, theirs = there.predict(there.tasks[t], images).cpu(), here.predict(here.tasks[t], images)
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)
        assert ours.argmax(dim=1).equal(theirs.argmax(dim=1))


@pytest.mark.parametrize("name", ["cuda", "cuda:0"])
def test_a_run_on_a_card_scores_as_on_the_cpu(tiny: Any, tmp_path: Path, name: str) -> None:
    results = {d: tiny.run(tmp_path / d, device=d) for d in ("cpu", name)}
    keys = ["method", "task", "shots", "seed"]
    here, there = (results[d].set_index(keys).sort_index() for d in ("cpu", name))
    assert list(here.index) == list(there.index)
    # An image between two classes may fall to either side: one of twelve test images is 8.3 points.
    assert (here["accuracy"] - there["accuracy"]).abs().max() < 9
    assert set(there["device"]) == {torch.cuda.get_device_name()} and (there["peak_memory_mb"] > 0).all()
