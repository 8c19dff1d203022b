"""LP++, the cross-modal probe, APE and APE-T: the specification's examples, identities, plain trainings; and searches.

The example and the small helpers are those of test_methods_heads.py.
"""

from __future__ import annotations

import itertools
import math
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from bench.errors import UserError
from bench.methods import TaskData, find_method

sys.path.append(str(Path(__file__).parent))
from test_methods_heads import (
    LABELS,
    RAW,
    ZERO_SHOT,
    adam,
    clip,
    digits,
    fitted,
    larger,
    loss_and_gradient,
    made,
    put,
    scores,
    unit,
)

pytestmark = pytest.mark.usefixtures("one_thread")

# ---- LP++ ----------------------------------------------------------------------------------------------------


def started(**params: Any) -> tuple[Any, tuple[float, float]]:
    method = made("lp++", **params)
    return method, method.heads[0].start(method.prepared(torch.tensor(RAW)), torch.tensor(LABELS))


def test_lp_plus_plus_starts_as_the_example() -> None:
    method, rates = started()
    head = method.heads[0]
    assert head.weights[0].tolist() == digits(1.76, 0.88) and head.weights[1].tolist() == digits(0.32, 1.76)
    assert head.alpha.tolist() == pytest.approx([220, 220], rel=1e-6)
    assert rates == (pytest.approx(5.405405, rel=1e-6), pytest.approx(0.5, rel=1e-6))
    assert scores(method) == pytest.approx([205.04, 85.587692], rel=1e-6)


def test_lp_plus_plus_s_gradients_are_the_example_s() -> None:
    method, _ = started()
    put(method, "alpha", [2.0, 2.0])
    loss, gradient = loss_and_gradient(method, "weights")
    assert loss == pytest.approx(0.247536, abs=1e-6)
    assert gradient[0] == digits(-0.006724, 0.048725) and gradient[1] == digits(0.006724, -0.048725)
    head = method.heads[0]
    assert head.bias.grad.tolist() == digits(0.030844, -0.030844)
    assert head.alpha.grad.tolist() == digits(-0.006724, -0.048725)


@pytest.mark.parametrize(
    ("steps", "gradients", "expected"),
    [
        (1, "accumulated", {"weights": [1.796344, 0.616624, 0.283656, 2.023376], "bias": [-0.166723, 0.166723]}),
        (10, "accumulated", {
            "weights": [5.69142, -3.29766, -3.61142, 5.93766], "bias": [-0.09124, 0.09124],
            "alpha": [2.075662, 2.074743],
        }),
        (10, "last", {"alpha": [2.007580, 1.998238]}),
    ],
)  # fmt: skip
def test_lp_plus_plus_steps_as_the_example(
    steps: int, gradients: str, expected: dict[str, list[float]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """From α = 2: the example's other start."""
    found = find_method("lp++")
    blend = type(made("lp++").heads[0])
    original = blend.start

    def start(self: Any, images: Tensor, labels: Tensor) -> Any:
        rates = original(self, images, labels)
        with torch.no_grad():
            self.alpha.fill_(2.0)
        return rates

    monkeypatch.setattr(blend, "start", start)
    head = fitted(found.name, steps=steps, alpha_grad=gradients).heads[0]
    for name, values in expected.items():
        assert getattr(head, name).flatten().tolist() == pytest.approx(values, abs=2e-5, rel=2e-6)


def test_lp_plus_plus_without_weights_and_bias_is_zero_shot() -> None:
    method = made("lp++")
    put(method, "alpha", [10.0, 10.0])
    assert scores(method) == digits(*ZERO_SHOT)


@pytest.mark.parametrize("gradients", ["accumulated", "last"])
def test_lp_plus_plus_equals_a_plain_training_of_more_than_twenty_steps(gradients: str) -> None:
    """Two of α's steps; classes of different sizes, one of them without an image."""
    where, task = clip({}, 12), larger()
    keep = torch.tensor([i for i, label in enumerate(task.labels.tolist()) if label != 2 and i not in (0, 1)])
    task = replace(task, views=task.views[:, keep], labels=task.labels[keep])
    method = fitted("lp++", task, where, steps=23, alpha_grad=gradients)
    f, labels = unit(task.views[0].double()), task.labels.tolist()
    t = unit(where.tower.encode_texts([f"a {c}." for c in task.class_names]).double())
    w, own = torch.zeros(5, 12).double(), []
    for c in range(5):
        mine = [i for i, label in enumerate(labels) if label == c]
        if mine:
            w[c] = f[mine].sum(dim=0)
            own.append(sum(float(f[i] @ t[c]) for i in mine) / len(mine))
    values = [w, torch.zeros(5).double(), torch.full((5,), 250 * sum(own) / len(own)).double()]
    n = len(labels)
    rate = 4 * n / float(torch.linalg.svdvals(f)[0]) ** 2
    slow = n / (4 * max(float(((f @ t[c]) ** 2).sum()) for c in range(5)))
    speeds, total = [torch.zeros(5, 12).double(), torch.zeros(5).double()], torch.zeros(5).double()
    for step in range(1, 24):
        values = [v.clone().requires_grad_(True) for v in values]
        logits = f @ values[0].T + values[1] + values[2] * (f @ t.T)
        loss = torch.stack([logits[i].logsumexp(0) - logits[i, labels[i]] for i in range(n)]).mean()
        gradient = torch.autograd.grad(loss, values)
        total = total + gradient[2] if gradients == "accumulated" else gradient[2]
        speeds = [0.9 * s + g for s, g in zip(speeds, gradient[:2], strict=True)]
        with torch.no_grad():
            values = [v - rate * s for v, s in zip(values[:2], speeds, strict=True)] + [
                values[2] - slow * total if step % 10 == 0 else values[2].detach()
            ]
    for name, value in zip(("weights", "bias", "alpha"), values, strict=True):
        assert (method.learned[f"{name}-0"] - value).norm() < 1e-4 * value.norm(), name


# ---- the cross-modal probe -----------------------------------------------------------------------------------


def test_the_cross_modal_probe_s_loss_and_gradient_are_the_example_s(monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch of the images 0 and 2 and both texts."""
    method = made("cross-modal-lp")
    head = method.heads[0]
    f, t = method.prepared(torch.tensor(RAW)), method.text(method.tasks[0])
    loss = torch.nn.functional.cross_entropy(head(torch.cat([f[[0, 2]], t])), torch.tensor([0, 1, 0, 1]))
    loss.backward()
    assert loss.item() == pytest.approx(0.063487, abs=1e-6)
    assert head.weights.grad[0].tolist() == digits(-0.059715, 0.059715)
    assert head.weights.grad[1].tolist() == digits(0.059715, -0.059715)
    assert scores(made("cross-modal-lp")) == digits(*ZERO_SHOT)


def test_the_cross_modal_probe_s_batches_are_half_images_of_both_views_half_texts() -> None:
    where, task = clip({}, 12), larger()
    method = made("cross-modal-lp", task, where, steps=60)
    rows = [x.tolist() for x in unit(torch.cat([task.test_view, task.flip_view]))]
    texts = [x.tolist() for x in method.text(task)]
    seen: set[int] = set()
    steps = list(method.batches(task, method.params, torch.Generator().manual_seed(0)))
    assert len(steps) == 60
    for features, labels in steps:
        assert len(features) == len(labels) == 8
        for i, (feature, label) in enumerate(zip(features, labels.tolist(), strict=True)):
            known = rows if i < 4 else texts
            gaps = [math.dist(feature.tolist(), row) for row in known]
            place = gaps.index(min(gaps))
            assert min(gaps) < 1e-6 and label == (int(task.labels[place % 15]) if i < 4 else place)
            seen |= {place} if i < 4 else set()
    assert seen == set(range(30))


def rise_and_cosine(k: int, lr: float, steps: int) -> float:
    if k < 50:
        return lr * k / 50 if k else 1e-5
    return lr * 0.5 * (1 + math.cos(math.pi * (k - 50) / steps))


def noted_batches(name: str, monkeypatch: pytest.MonkeyPatch) -> list[tuple[Tensor, Tensor]]:
    """What a method's training will be given, in float64: images and labels of each step."""
    seen: list[tuple[Tensor, Tensor]] = []
    found: Any = find_method(name)
    original = found.batches

    def noted(self: Any, *args: Any) -> Any:
        for images, labels in original(self, *args):
            seen.append((images.double(), labels))
            yield images, labels

    monkeypatch.setattr(found, "batches", noted)
    return seen


def test_the_cross_modal_probe_equals_a_plain_training(monkeypatch: pytest.MonkeyPatch) -> None:
    where, task = clip({}, 12, 50.0), larger()
    seen = noted_batches("cross-modal-lp", monkeypatch)
    method = fitted("cross-modal-lp", task, where, steps=70, lr=0.01)
    w = unit(where.tower.encode_texts([f"a {c}." for c in task.class_names]).double())
    first, memory = w.clone(), {}
    for k, (images, labels) in enumerate(seen):
        w = w.clone().requires_grad_(True)
        logits = 50 * images @ w.T
        loss = (logits.logsumexp(dim=1) - logits[range(8), labels]).mean()
        (gradient,) = torch.autograd.grad(loss, [w])
        w = adam(w.detach(), gradient, memory, rise_and_cosine(k, 0.01, 70), k + 1, decay=0.01)
    assert len(seen) == 70 and (w - first).norm() > 0.05 * first.norm()
    assert (method.learned["weights-0"] - w).norm() < 1e-4 * w.norm()
    wise = fitted("cross-modal-lp", task, where, steps=70, lr=0.01, wise=0.5)
    images = torch.randn(6, 12, generator=torch.Generator().manual_seed(3))
    expected = 50 * unit(images.double()) @ ((w + first) / 2).T
    torch.testing.assert_close(wise.predict(task, images).double(), expected, rtol=1e-3, atol=1e-3)


def test_the_cross_modal_probe_s_search_takes_the_first_best_of_all_settings_and_checkpoints() -> None:
    where, task = clip({}, 12), larger()
    found = fitted("cross-modal-lp", task, where, steps=201, search="val").chosen()[task.name]
    assert (found.tried, found.images) == (2 * 3 * 1 * 3, 15)  # five classes: half of batch 32 is not below them
    assert found.values["batch"] == 8 and found.values["step"] in (1, 101, 201)
    right = []
    for lr, decay in itertools.product((1e-3, 1e-4), (0.0, 0.01, 1e-4)):
        for step in (1, 101, 201):
            method = trained_for(task, where, step, lr=lr, weight_decay=decay)
            guessed = method.predict(task, task.val).argmax(dim=1)
            right.append((int((guessed == task.val_labels).sum()), {"lr": lr, "weight_decay": decay, "step": step}))
    best = max(hits for hits, _ in right)
    assert found.accuracy == pytest.approx(100 * best / 15)
    assert found.ties == sum(hits == best for hits, _ in right) - 1
    expected = next(setting for hits, setting in right if hits == best)
    assert {name: found.values[name] for name in expected} == expected


@pytest.mark.parametrize(
    ("classes", "shots", "batches"),
    [(3, 2, {8}), (4, 2, {8}), (5, 2, {8}), (16, 1, {8}), (17, 1, {8, 32}), (100, 1, {8, 32})],
)
def test_a_batch_is_tried_only_where_half_of_it_is_below_the_numbers_of_texts_and_images(
    classes: int, shots: int, batches: set[int]
) -> None:
    """Where none is, the default one is."""
    task = larger(classes, shots)
    method = made("cross-modal-lp", task, clip({}, 12), search="val")
    assert {p.batch for p in method.settings(task)} == batches
    few = replace(task, labels=task.labels[:8])  # 16 rows with their mirror images
    assert {p.batch for p in method.settings(few)} == {8}


def trained_for(task: TaskData, where: Any, steps: int, **params: Any) -> Any:
    """As after some steps of a training of 201."""
    chosen = find_method("cross-modal-lp")

    class Stopped(chosen):  # type: ignore[valid-type, misc]
        def batches(self, *args: Any) -> Any:
            return itertools.islice(super().batches(*args), steps)

    method = Stopped(chosen.Params(steps=201, **params))
    method.fit(where, [task], 1, lambda done, total: None)
    return method


# ---- APE, APE-T ----------------------------------------------------------------------------------------------


def test_ape_s_channels_surprise_and_scores_are_the_example_s() -> None:
    from bench.methods.ape import criterion

    method = made("ape", alpha=2.0, beta=3.0, gamma=0.1, channels=1.0)
    head = method.heads[0]
    text = method.text(method.tasks[0])
    labels = torch.tensor(LABELS)
    alike, spread = (criterion(text, head.keys, labels, weights) for weights in ((-1.0, 0.0), (0.0, 1.0)))
    assert alike.tolist() == digits(0.098133, 0.269867) and spread.tolist() == digits(0.5, 0.5)
    assert criterion(text, head.keys, labels, (0.7, 0.3)).tolist() == digits(0.081307, -0.038907)
    assert head.channels.tolist() == [0, 1]
    assert made("ape", channels=0.5).heads[0].channels.tolist() == [0]
    assert head.surprise.tolist() == digits(0.862931, 0.591312, 0.862931, 0.366682)
    assert scores(method) == digits(13.301792, 5.429318)


def test_a_channel_s_likeness_is_the_mean_over_all_pairs_of_samples_of_different_classes() -> None:
    """Also where classes have one, three and no images."""
    from bench.methods.ape import criterion

    rng = torch.Generator().manual_seed(2)
    text, keys, labels = torch.randn(3, 4, generator=rng), torch.randn(4, 4, generator=rng), torch.tensor([0, 2, 2, 2])
    samples = [(c, text[c]) for c in range(3)] + [(int(c), key) for c, key in zip(labels, keys, strict=True)]
    products = [a * b for (i, a), (j, b) in itertools.permutations(samples, 2) if i != j]
    torch.testing.assert_close(criterion(text, keys, labels, (-1.0, 0.0)), torch.stack(products).mean(dim=0))


def test_ape_on_all_channels_without_surprise_is_tip_adapter() -> None:
    where, task = clip({}, 12), larger()
    images = torch.randn(6, 12, generator=torch.Generator().manual_seed(3))
    ape, tip = made("ape", task, where, channels=1.0, gamma=0.0), made("tip-adapter", task, where)
    torch.testing.assert_close(ape.predict(task, images), tip.predict(task, images))
    assert not torch.allclose(made("ape", task, where).predict(task, images), tip.predict(task, images))


def test_ape_t_starts_as_ape_without_surprise() -> None:
    where, task = clip({}, 12), larger()
    images = torch.randn(6, 12, generator=torch.Generator().manual_seed(3))
    ape, start = made("ape", task, where, gamma=0.0), made("ape-t", task, where)
    torch.testing.assert_close(start.predict(task, images), ape.predict(task, images))
    assert start.n_params == 5 * 8 + 15  # C·Q + N: 0.7 · 12 channels


def test_ape_t_equals_a_plain_training(monkeypatch: pytest.MonkeyPatch) -> None:
    where, task = clip({}, 12, 50.0), larger()
    seen = noted_batches("ape-t", monkeypatch)
    method = fitted("ape-t", task, where, epochs=6, batch=6, lr=0.05, key_views=2)
    t = unit(where.tower.encode_texts([f"a {c}." for c in task.class_names]).double())
    keys = unit(task.views[:2].double().mean(dim=0))
    own = torch.zeros(15, 5).double()
    own[range(15), task.labels] = 1
    kept = ranked(t, keys, task.labels.tolist())[:8]
    assert method.heads[0].channels.tolist() == kept
    values: dict[str, Tensor] = {"residual": torch.zeros(5, 8).double(), "weights": torch.ones(15).double()}
    memory: dict[str, dict[str, Tensor]] = {"residual": {}, "weights": {}}
    for k, (f, labels) in enumerate(seen):
        values = {n: v.clone().requires_grad_(True) for n, v in values.items()}
        text = t.clone()
        text[:, kept] = t[:, kept] + values["residual"]
        moved = unit(keys[:, kept]) + values["residual"][task.labels]
        logits = 50 * f @ text.T
        logits = logits + torch.exp(-5.5 * (1 - unit(f[:, kept]) @ moved.T)) @ (own * values["weights"][:, None])
        loss = (logits.logsumexp(dim=1) - logits[range(len(labels)), labels]).mean()
        gradients = torch.autograd.grad(loss, list(values.values()))
        rate = 0.05 * 0.5 * (1 + math.cos(math.pi * k / len(seen)))
        values = {
            n: adam(v.detach(), g, memory[n], rate, k + 1, decay=0.1, eps=1e-3)
            for (n, v), g in zip(values.items(), gradients, strict=True)
        }
    assert len(seen) == 18
    for n, value in values.items():
        assert (value - (1 if n == "weights" else 0)).norm() > 0.01, "hardly moved: this would show nothing"
        assert (method.learned[f"{n}-0"] - value).norm() < 1e-4 * value.norm(), n


def ranked(text: Tensor, keys: Tensor, labels: list[int]) -> list[int]:
    samples = [(c, t) for c, t in enumerate(text)] + list(zip(labels, keys, strict=True))
    alike = torch.stack([a * b for (i, a), (j, b) in itertools.permutations(samples, 2) if i != j]).mean(dim=0)
    spread = ((text - text.mean(dim=0)) ** 2).sum(dim=0) / (len(text) - 1)
    return (-0.7 * alike + 0.3 * spread).argsort(descending=True).tolist()


# ---- searches ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "gammas"), [("tip-adapter", [None]), ("ape", [0.0, 0.1, 0.2, 0.4, 0.7, 1.0])])
def test_a_cache_s_search_takes_the_best_setting_and_of_ties_the_nearest(name: str, gammas: list[Any]) -> None:
    """Compared with one that tries every setting as a method of its own."""
    where, task = clip({}, 12, 5.0), larger(seed=4)
    found = fitted(name, task, where, search="val")
    steps = 20 if name == "tip-adapter" else 10
    values = [10 ** (-1 + i * math.log10(500) / (steps - 1)) for i in range(steps)]
    tried = []
    for alpha, beta, gamma in itertools.product(values, values, gammas):
        extra = {} if gamma is None else {"gamma": gamma}
        method = made(name, task, where, alpha=alpha, beta=beta, **extra)
        right = int((method.predict(task, task.val).argmax(dim=1) == task.val_labels).sum())
        away = math.log(alpha) ** 2 + math.log(beta / 5.5) ** 2 + ((gamma or 0.1) - 0.1) ** 2
        away += 0.01 if gamma == 0 else 0
        tried.append((-right, away, {"alpha": alpha, "beta": beta, **extra}))
    hits, _, setting = min(tried, key=lambda x: x[:2])
    choice = found.chosen()[task.name]
    assert dict(choice.values) == pytest.approx(setting)
    assert choice.tried == len(tried) and choice.images == 15
    assert choice.accuracy == pytest.approx(-100 * hits / 15)
    assert choice.ties == sum(h == hits for h, *_ in tried) - 1
    assert len({h for h, *_ in tried}) > 2  # there is something to choose
    scored = found.predict(task, task.val).argmax(dim=1)
    assert int((scored == task.val_labels).sum()) == -hits
    again = made(name, task, where)
    again.restore(where, [replace(task, labels=task.labels[:0], views=torch.zeros(1, 0, 0))], found.state())
    assert torch.equal(again.predict(task, task.val), found.predict(task, task.val))


def test_lp_plus_plus_s_search_keeps_the_last_of_the_best_iterations() -> None:
    where, task = clip({}, 12), larger(seed=4)
    found = fitted("lp++", task, where, steps=40, search="val")
    right = []
    for steps in range(1, 41):
        method = fitted("lp++", task, where, steps=steps)
        right.append(int((method.predict(task, task.val).argmax(dim=1) == task.val_labels).sum()))
    last = max(i for i, hits in enumerate(right) if hits == max(right))
    choice = found.chosen()[task.name]
    assert choice.values == {"iteration": last + 1} and choice.tried == 40
    assert choice.ties == right.count(max(right)) - 1 and choice.accuracy == pytest.approx(100 * max(right) / 15)
    expected = fitted("lp++", task, where, steps=last + 1)
    torch.testing.assert_close(found.predict(task, QUERY_LIKE), expected.predict(task, QUERY_LIKE))


QUERY_LIKE = torch.randn(6, 12, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize(
    "name", ["tip-adapter", "tip-adapter-f", "ape", "ape-t", "lp++", "cross-modal-lp", "gda", "rla"]
)
def test_a_search_without_validation_images_is_refused_before_anything_is_trained(name: str) -> None:
    """Also where the last task alone has none."""
    without = replace(larger(4, 2, seed=1), name="moss", val=torch.zeros(0, 12), val_labels=torch.zeros(0).long())
    found: Any = find_method(name)
    method, told = found(found.Params(search="val")), []
    with pytest.raises(UserError, match=f"{re.escape(name)}: search=val needs validation images; task moss has none"):
        method.fit(clip({}, 12), [larger(), without], 1, lambda done, total: told.append(done))
    assert told == []
