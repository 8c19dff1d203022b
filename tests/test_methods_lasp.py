"""LASP: the images' cross-entropy, and that of hand-written sentences among the learned features."""

from __future__ import annotations

import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from bench.methods import find_method
from bench.methods.lasp import LASP, TEMPLATES

sys.path.append(str(Path(__file__).parent))
import reference
import test_methods_all
from test_methods_all import EMBED, NAMES, Images, Parameters, check_steps, cross_entropy, fit, world

pytestmark = pytest.mark.usefixtures("one_thread")


def learned_features(parameters: Parameters, t: int) -> Tensor:
    """unit(E(prompt) + δ), plainly."""
    where = world()
    each = parameters["context"].expand(len(NAMES[t]), -1, -1)
    raw = reference.encode(where.model, where.tokenizer, each, list(NAMES[t])) + parameters["correction"]
    return raw / raw.norm(dim=1, keepdim=True)


def loss(parameters: Parameters, images: Images) -> Tensor:
    t = images[0][0]
    text = learned_features(parameters, t)
    errors = [cross_entropy(world().scale * text @ image, label) for _, image, label in images]
    sentences = []
    for template in TEMPLATES:
        raw = world().model.encode_text(world().tokenizer([template.format(name) for name in NAMES[t]]))
        for c, feature in enumerate(raw):
            sentences.append(cross_entropy(world().scale * text @ (feature / feature.norm()), c))
    return torch.stack(errors).mean() + 5.0 * torch.stack(sentences).mean()


def test_ten_steps_are_those_of_the_plain_formula() -> None:
    check_steps("lasp", loss, noise=0.0)


NEW = (("zebra",), ("moss", "yellow flag"), ())


def loss_with_new_names(parameters: Parameters, images: Images) -> Tensor:
    """The images among their own classes, sentences of all classes among all."""
    t = images[0][0]
    names = [*NAMES[t], *NEW[t]]
    context = parameters["context"].expand(len(names), -1, -1)
    raw = reference.encode(world().model, world().tokenizer, context, names) + parameters["correction"]
    text = raw / raw.norm(dim=1, keepdim=True)
    own = text[: len(NAMES[t])]
    errors = [cross_entropy(world().scale * own @ image, label) for _, image, label in images]
    sentences = []
    for template in TEMPLATES:
        raw = world().model.encode_text(world().tokenizer([template.format(name) for name in names]))
        for c, feature in enumerate(raw):
            sentences.append(cross_entropy(world().scale * text @ (feature / feature.norm()), c))
    return torch.stack(errors).mean() + 5.0 * torch.stack(sentences).mean()


def test_ten_steps_with_the_names_of_new_classes_are_those_of_the_plain_formula(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tasks = [replace(task, new_names=new) for task, new in zip(world().tasks, NEW, strict=True)]
    more = replace(world(), tasks=tasks)
    monkeypatch.setattr(test_methods_all, "world", lambda local: more)
    check_steps("lasp", loss_with_new_names, noise=0.0, names="all")


def test_only_a_run_that_asks_for_them_gives_it_new_names(tiny: Any, tmp_path: Path, count_calls: Any) -> None:
    """Of three classes one is new. A row that read its name says so; without new classes there is nothing to say."""
    seen = count_calls(LASP, "setup")
    grid: dict[str, Any] = {"methods": ["lasp"], "shots": [1], "seeds": [1], "tasks": ["Colour"]}
    notes = {}
    for protocol, names in (("base2new", "own"), ("base2new", "all"), ("few-shot", "all")):
        folder = tmp_path / f"{protocol}-{names}"
        tiny.run(folder, protocol=protocol, options=[f"lasp.names={names}", "lasp.epochs=1", "lasp.words="], **grid)
        (record,) = tiny.records(folder).values()
        notes[protocol, names] = "names of the new classes" in record["footnote"]
    assert notes == {("base2new", "own"): False, ("base2new", "all"): True, ("few-shot", "all"): False}
    given = [tasks[0].new_names for _, tasks, *_ in (call[1:] for call in seen)]
    assert given == [(), ("red paint",), ()]


def test_the_sentences_loss_of_the_specification_s_example() -> None:
    """τ = 10, g = (1,0), (.6,.8); the softmax is over g (over h it would be .454782)."""
    method = LASP()
    method.clip = SimpleNamespace(scale=10.0)  # type: ignore[assignment]
    written = torch.tensor([[[0.8, 0.6], [0.0, 1.0]], [[1.0, 0.0], [0.28, 0.96]]], dtype=torch.double)
    learned = torch.tensor([[1.0, 0.0], [0.6, 0.8]], dtype=torch.double)
    templates = [method._sentence_loss(h[None], learned).item() for h in written]
    expected = [(1.783901 + 0.000335) / 2, (0.018150 + 0.001415) / 2]
    np.testing.assert_allclose(templates, expected, atol=1e-6)
    np.testing.assert_allclose(method._sentence_loss(written, learned).item(), 0.450950, atol=1e-6)


def test_without_sentences_and_correction_it_is_kgcoop_without_its_pull() -> None:
    lasp, *_ = fit("lasp", world(), text_weight=0.0, correction=False)
    kgcoop, *_ = fit("kgcoop", world(), pull=0.0)
    images = torch.randn(6, EMBED, generator=torch.Generator().manual_seed(5))
    for t, task in enumerate(world().tasks):
        assert torch.equal(lasp.learned[f"context-{t}"], kgcoop.learned[f"context-{t}"])
        assert torch.equal(lasp.predict(task, images), kgcoop.predict(task, images))


def test_it_starts_as_the_prompt_a_photo_of_a() -> None:
    _, start, _ = fit("lasp", world(), epochs=1)
    words = world().model.token_embedding(torch.tensor(world().tokenizer.encode("a photo of a")))
    for t in range(3):
        assert torch.equal(start[f"context-{t}"], words[None])
        assert torch.equal(start[f"correction-{t}"], torch.zeros(1, EMBED))


def test_the_learned_correction_is_in_the_scores_of_any_class_name() -> None:
    method, *_ = fit("lasp", world(), epochs=1)
    image = torch.randn(1, EMBED, generator=torch.Generator().manual_seed(5))
    parameters = {n: method.learned[f"{n}-0"].detach() for n in ("context", "correction")}
    expected = world().scale * image @ learned_features(parameters, 0).T / image.norm()
    torch.testing.assert_close(method.predict(world().tasks[0], image), expected, rtol=1e-4, atol=1e-4)
    with torch.no_grad():
        method.learned["correction-0"] += 1.0
    method._text.clear()
    new = method.predict(world().tasks[0], image, ["zebra", "moss"])
    method._text.clear()
    with torch.no_grad():
        method.learned["correction-0"] -= 1.0
    assert ((new - method.predict(world().tasks[0], image, ["zebra", "moss"])).abs() > 1e-3).all()


def test_half_of_the_steps_add_noise_of_the_stated_size() -> None:
    method: Any = LASP(LASP.Params(noise=0.05))
    method.setup(world().clip, world().tasks, seed=1)
    draws = [method._sentences(0) - method._written[0] for _ in range(400)]
    noisy = [draw for draw in draws if draw.any()]
    assert 160 <= len(noisy) <= 240  # 400 throws of a coin: four standard deviations
    assert torch.cat(noisy).std().item() == pytest.approx(0.05, rel=0.01)
    assert not any(torch.equal(a, b) for a, b in pairwise(noisy))


def test_there_are_34_templates_none_of_them_twice() -> None:
    assert len(TEMPLATES) == len(set(TEMPLATES)) == 34
    assert all(template.count("{}") == 1 for template in TEMPLATES)


def test_tasks_trained_jointly_have_a_correction_each() -> None:
    method, *_ = fit("lasp", world(), epochs=1, joint=True)
    for t, task in enumerate(world().tasks):
        image = torch.randn(1, EMBED, generator=torch.Generator().manual_seed(5))
        parameters = {n: method.learned[n].detach()[t : t + 1] for n in ("context", "correction")}
        expected = world().scale * image @ learned_features(parameters, t).T / image.norm()
        torch.testing.assert_close(method.predict(task, image), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("joint", [False, True])
def test_count_is_a_context_of_four_and_one_vector_a_task(joint: bool) -> None:
    method, *_ = fit("lasp", world(), epochs=1, joint=joint)
    assert method.n_params == 3 * (4 * 32 + EMBED)
    made: Any = find_method("lasp")
    assert "LayerNorms" in made.footnote
