"""RLA and ProLIP: the specification's examples, identities, ten steps written plainly, the search, and a run."""

from __future__ import annotations

import math
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import bench
from bench.clip.projection import Projection
from bench.methods import TaskData, find_method
from bench.methods.base import Choice
from bench.methods.rla import PULLS, RATES

sys.path.append(str(Path(__file__).parent))
from test_methods_heads import QUERY, clip, digits, example, larger, made, put, scores

pytestmark = pytest.mark.usefixtures("one_thread")

WIDTH = 12


def before(d: int = 5, seed: int = 0) -> Any:
    """A clip whose projection is [12, d] with a bias."""
    rng = torch.Generator().manual_seed(seed)
    weight, bias = torch.randn(WIDTH, d, generator=rng), torch.randn(d, generator=rng)
    where = clip({}, d, 20.0)
    where.projection = Projection(weight, bias)
    return where


def fitted(name: str, task: TaskData, where: Any, **params: Any) -> Any:
    found = find_method(name)
    method: Any = found(found.Params(**params))
    method.fit(where, [task], 1, lambda done, total: None)
    return method


# ---- by hand -------------------------------------------------------------------------------------------------


def test_rla_scores_the_example_s_query_and_has_its_penalty() -> None:
    """A = (1, .1 | 0, 1): ‖A − I‖² = .01, and two shots have λ = 1/2."""
    method = made("rla")
    put(method, "weight", [[1.0, 0.0], [0.1, 1.0]])  # transposed
    assert scores(method) == digits(9.284767, 3.713907)
    assert method.heads[0].penalty().item() == pytest.approx(0.005, abs=1e-8)


def test_prolip_s_gradient_and_step_are_the_example_s() -> None:
    """x = (1, 0), W₀ = I, text = I, label 0, scale 1: cross-entropy .31326, gradient (0, .26894 | 0, 0); a plain step
    of size 1 gives (1, −.26894 | 0, 1)."""
    where = clip({"first": [1.0, 0.0], "second": [0.0, 1.0]}, 2, 1.0)
    where.projection = Projection(torch.eye(2), torch.zeros(2))
    head = made("prolip", example(), where).heads[0]
    loss = torch.nn.functional.cross_entropy(head(torch.tensor([[1.0, 0.0]])), torch.tensor([0]))
    (loss + head.penalty()).backward()
    assert loss.item() == pytest.approx(0.31326, abs=5e-6)
    torch.testing.assert_close(head.weight.grad, torch.tensor([[0.0, 0.26894], [0.0, 0.0]]), rtol=0, atol=5e-6)
    torch.optim.SGD([head.weight], lr=1.0).step()
    torch.testing.assert_close(head.weight.data, torch.tensor([[1.0, -0.26894], [0.0, 1.0]]), rtol=0, atol=5e-6)


@pytest.mark.parametrize(("power", "expected"), [(1.0, 2.0 / 3), (2.0, 2.0 / 9), (0.0, 2.0)])
def test_lambda_is_the_pull_over_a_power_of_the_shots(power: float, expected: float) -> None:
    """Three shots; a class that is short of images changes nothing."""
    task = larger(n_classes=3, shots=3)
    short = replace(task, views=task.views[:, :-1], labels=task.labels[:-1])
    for own in (task, short):
        method = made("rla", own, clip({}, WIDTH), pull=2.0, power=power)
        assert method.heads[0].pull == pytest.approx(expected)


# ---- identities ----------------------------------------------------------------------------------------------


def test_before_the_first_step_rla_is_zero_shot() -> None:
    assert scores(made("rla"), QUERY) == digits(9.230769, 3.846154)


def test_before_the_first_step_prolip_is_zero_shot_on_projected_features() -> None:
    where, task = before(), larger()
    zero_shot = find_method("zero-shot")()
    zero_shot.fit(where, [task], 1, lambda done, total: None)
    images = task.views[0]
    expected = zero_shot.predict(task, images @ where.projection.weight + where.projection.bias)
    torch.testing.assert_close(made("prolip", task, where).predict(task, images), expected)


def test_without_a_learning_rate_nothing_moves_and_with_one_and_no_pull_it_does() -> None:
    where, task = before(), larger()
    still, moved = (fitted("prolip", task, where, epochs=5, lr=lr, pull=0.0) for lr in (0.0, 1e-2))
    assert torch.equal(still.heads[0].weight, where.projection.weight)
    assert (moved.heads[0].weight - where.projection.weight).norm() > 0.1


def test_classes_never_seen_are_scored_by_their_names() -> None:
    where, task = before(), larger()
    method = fitted("prolip", task, where, epochs=2)
    text = torch.nn.functional.normalize(where.tower.encode_texts(["a zebra.", "a moss."]), dim=-1)
    x = task.views[0] @ method.heads[0].weight + where.projection.bias
    expected = where.scale * (x / x.norm(dim=1, keepdim=True)) @ text.T
    torch.testing.assert_close(method.predict(task, task.views[0], ["zebra", "moss"]), expected.detach())


# ---- ten steps -----------------------------------------------------------------------------------------------


def plainly(x: list[Tensor], labels: Tensor, text: Tensor, scale: float, start: Tensor, bias: Tensor, pull: float,
            lr: float, steps: int) -> Tensor:  # fmt: skip
    """Adam (.9, .999, ε 1e-4), learning rate lr · ½(1 + cos(πk/S)), all images in a step, in turn in each view."""
    weight, first, second = start.double().clone(), 0.0, 0.0
    for k in range(steps):
        w = weight.clone().requires_grad_(True)
        total = pull * ((w - start.double()) ** 2).sum()
        for image, label in zip(x[k % len(x)].double(), labels.tolist(), strict=True):
            mapped = image @ w + bias.double()
            logits = scale * text.double() @ (mapped / mapped.norm())
            total = total + (logits.logsumexp(0) - logits[label]) / len(labels)
        (gradient,) = torch.autograd.grad(total, w)
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * gradient**2
        step = (first / (1 - 0.9 ** (k + 1))) / ((second / (1 - 0.999 ** (k + 1))).sqrt() + 1e-4)
        weight = weight - lr * 0.5 * (1 + math.cos(math.pi * k / steps)) * step
    return weight


@pytest.mark.parametrize("name", ["rla", "prolip"])
def test_ten_steps_are_those_of_the_plain_formula(name: str) -> None:
    where, task = (before(), larger()) if name == "prolip" else (clip({}, WIDTH, 20.0), larger())
    method = fitted(name, task, where, epochs=10, lr=1e-2)
    start, bias = torch.eye(WIDTH), torch.zeros(WIDTH)
    if name == "prolip":
        start, bias = where.projection.weight, where.projection.bias
    text = where.tower.encode_texts([f"a {c}." for c in task.class_names])
    text = text / text.norm(dim=1, keepdim=True)
    expected = plainly(list(task.views), task.labels, text, 20.0, start, bias, 1 / 3, 1e-2, 10)
    moved = (expected - start.double()).norm()
    assert moved > 0.1
    assert (method.heads[0].weight.double() - expected).norm() < 1e-3 * moved


# ---- the search ----------------------------------------------------------------------------------------------


def test_the_search_takes_the_first_of_the_49_settings_with_the_most_validation_images_right() -> None:
    where, task = clip({}, WIDTH, 20.0), larger()
    searched = fitted("rla", task, where, epochs=4, search="val")
    right = {}
    for lr in RATES:
        for pull in PULLS:
            method = fitted("rla", task, where, epochs=4, lr=lr, pull=pull, power=0.0)
            right[lr, pull] = int((method.predict(task, task.val).argmax(dim=1) == task.val_labels).sum())
            if right[lr, pull] == max(right.values()) and list(right.values()).count(right[lr, pull]) == 1:
                best = method
    most = max(right.values())
    (lr, pull), *others = [setting for setting, hits in right.items() if hits == most]
    expected = Choice({"lr": lr, "lambda": pull}, 100 * most / 15, 15, 49, len(others))
    assert searched.chosen() == {"task 0": expected}
    torch.testing.assert_close(searched.heads[0].weight, best.heads[0].weight)
    assert fitted("rla", task, where, epochs=1).chosen() == {}


# ---- counts, and in a run ------------------------------------------------------------------------------------


def test_the_map_s_size_is_what_is_learned_and_kept() -> None:
    for name, where, count in (("rla", clip({}, WIDTH), 144), ("prolip", before(), 60)):
        method = fitted(name, larger(), where, epochs=1)
        assert method.n_params == sum(x.numel() for x in method.state().values()) == count
        again: Any = find_method(name)()
        again.restore(where, [replace(larger(), views=torch.zeros(0), labels=torch.zeros(0).long())], method.state())
        images = larger().views[0]
        assert torch.equal(again.predict(larger(), images), method.predict(larger(), images))


def test_recipes_are_the_authors_but_for_the_stored_views() -> None:
    for name, kind in (("rla", "pooled"), ("prolip", "preproj")):
        params = find_method(name).Params()
        told = (params.epochs, params.batch, params.lr, params.pull, params.power, params.crop)
        assert told == (300, 0, 1e-5, 1.0, 1.0, 0.5)
        assert find_method(name).image == kind and find_method(name).own_views == 50
        assert find_method(name)(params).optimiser([torch.nn.Parameter(torch.zeros(1))], params).defaults["eps"] == 1e-4


def test_in_a_run_its_own_start_scores_as_zero_shot_and_both_kinds_are_encoded_once(tiny: Any, tmp_path: Path) -> None:
    common = {"shots": [2], "seeds": [1], "views": 2, "options": ["prolip.lr=0", "prolip.epochs=2"]}
    results = tiny.run(tmp_path / "runs", methods=["prolip", "zero-shot"], **common)
    accuracy = results.pivot_table(index="task", columns="method", values="accuracy")
    assert (accuracy["prolip"] == accuracy["zero-shot"]).all()
    record = next(r for path, r in tiny.records(tmp_path / "runs").items() if "prolip" in path)
    assert record["n_params"] == 3 * 256 * 16
    kept = bench.load_cell(record["key"], tmp_path / "runs", tiny.backbone)
    assert kept.method.heads[0].weight.shape == (256, 16)
