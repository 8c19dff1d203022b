"""The linear probe: scikit-learn's, with C found on the few-shot validation images and on nothing else."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits
from torch import Tensor

from bench.datasets.fewshot import few_shot
from bench.datasets.types import Item
from bench.methods import TaskData
from bench.methods.linear_probe import LinearProbe

pytestmark = [
    pytest.mark.usefixtures("one_thread", "one_blas_thread"),
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
]

ITERATIONS = 30  # by default 1000, which takes seconds at C = 1e6
CLIP: Any = SimpleNamespace(device=torch.device("cpu"))


@pytest.fixture
def one_blas_thread() -> Iterator[None]:
    """Of scikit-learn's; for data of this size two threads wait on each other."""
    with threadpool_limits(1):
        yield


def task(noise: float = 1.5, n_classes: int = 4, n_val: int = 4) -> TaskData:
    rng = torch.Generator().manual_seed(0)
    middles = torch.randn(n_classes, 12, generator=rng)
    labels = torch.arange(n_classes).repeat_interleave(6)
    val_labels = torch.arange(n_classes).repeat_interleave(n_val)

    def images(of: Tensor) -> Tensor:
        return 3 * (middles[of] + noise * torch.randn(len(of), 12, generator=rng))

    return TaskData(
        "task", "", tuple("abcdefg"[:n_classes]), "{}", torch.zeros(1, 0, 12), labels, images(labels),
        images(val_labels), val_labels,
    )  # fmt: skip


def fitted(*tasks: TaskData) -> LinearProbe:
    method = LinearProbe(LinearProbe.Params(iterations=ITERATIONS))
    method.fit(CLIP, tasks, 1, lambda done, total: None)
    return method


def chosen(method: LinearProbe) -> float:
    return method.probes[0].C


def accuracy(data: TaskData, c: float) -> float:
    """On the validation images, in percent of them."""
    probe = LogisticRegression(C=c, max_iter=ITERATIONS).fit(data.test_view.double().numpy(), data.labels.numpy())
    return float(probe.score(data.val.double().numpy(), data.val_labels.numpy()))


def searched(accuracy_of: Callable[[float], float]) -> float:
    """C by the specification: the best power, then 8 halvings of log10 C between 0.1 and 10 times it."""
    powers = [6, 4, 2, 0, -2, -4, -6]
    found = [accuracy_of(10.0**power) for power in powers]
    peak = powers[found.index(max(found))]
    low, high = peak - 1.0, peak + 1.0  # log10 C
    best = float(peak)
    for _ in range(8):
        if accuracy_of(10**low) < accuracy_of(10**high):
            best, low = high, (low + high) / 2
        else:
            best, high = low, (low + high) / 2
    return 10**best


@pytest.mark.parametrize("noise", [0.5, 1.5, 3.0])
def test_c_is_what_the_specification_s_search_finds(noise: float) -> None:
    data = task(noise)
    assert chosen(fitted(data)) == pytest.approx(searched(lambda c: accuracy(data, c)), rel=1e-9)


def test_lbfgs_may_take_a_thousand_iterations_and_the_search_eight_halvings() -> None:
    assert LinearProbe.Params() == LinearProbe.Params(steps=8, iterations=1000)


@pytest.mark.parametrize("best", [3e-5, 0.02, 0.3, 7.0, 40.0, 2e5])
def test_the_search_ends_at_a_c_known_to_be_best(best: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """With an accuracy that falls on both sides of `best`; after 8 halvings within 2 / 2^7 of its logarithm."""
    data = task()

    class Known:
        def __init__(self, C: float, **settings: Any) -> None:
            self.C = C
            assert settings == {"max_iter": ITERATIONS, "solver": "lbfgs"}

        def fit(self, *data: Any) -> Known:
            return self

        def score(self, *data: Any) -> float:
            return -abs(math.log10(self.C / best))

    monkeypatch.setattr("sklearn.linear_model.LogisticRegression", Known)
    assert abs(math.log10(chosen(fitted(data)) / best)) < 2 / 2**7


def test_a_c_that_alone_tells_the_classes_apart_is_found() -> None:
    """Mislabelled training images: a strong prior is needed, so weak ones lose on the validation images."""
    rng = torch.Generator().manual_seed(3)
    direction = torch.randn(40, generator=rng)
    labels = torch.arange(2).repeat_interleave(20)

    def images(of: Tensor) -> Tensor:
        return 0.5 * (2.0 * of[:, None] - 1) * direction + torch.randn(len(of), 40, generator=rng)

    plain, val = images(labels), images(labels)
    wrong = labels.clone()
    wrong[::3] = 1 - wrong[::3]
    data = TaskData("task", "", ("a", "b"), "{}", torch.zeros(1, 0, 40), wrong, plain, val, labels)
    assert chosen(fitted(data)) < 0.1
    assert accuracy(data, chosen(fitted(data))) > accuracy(data, 1e4)


def test_it_tells_what_it_chose_among_how_many() -> None:
    data = task(3.0)
    method = fitted(data)
    told = method.chosen()["task"]
    powers = {10.0**power for power in (6, 4, 2, 0, -2, -4, -6)}
    asked: set[float] = set()

    def ask(c: float) -> float:
        asked.add(float(f"{c:.9g}"))
        return accuracy(data, c)

    best = searched(ask)
    asked |= powers
    right = [accuracy(data, c) for c in sorted(asked)]
    assert told.values == {"C": pytest.approx(best)} and told.images == len(data.val_labels)
    assert told.accuracy == pytest.approx(100 * accuracy(data, best))
    assert (told.tried, told.ties) == (len(asked), right.count(accuracy(data, best)) - 1)


@pytest.mark.parametrize("n_classes", [2, 5])
def test_scores_are_scikit_learn_s_at_the_c_found(n_classes: int) -> None:
    data = task(n_classes=n_classes)
    method = fitted(data)
    theirs = LogisticRegression(C=chosen(method), max_iter=ITERATIONS)
    theirs.fit(data.test_view.double().numpy(), data.labels.numpy())
    images = 3 * torch.randn(20, 12, generator=torch.Generator().manual_seed(9))
    scores = method.predict(data, images)
    np.testing.assert_allclose(scores, theirs.predict_log_proba(images.double().numpy()), rtol=1e-6)
    assert method.n_params == theirs.coef_.size + theirs.intercept_.size


def test_features_are_used_raw() -> None:
    """Normalised, two classes that differ in length alone could not be told apart."""
    direction = torch.ones(1, 12)
    lengths = torch.tensor([1.0, 1.2, 0.9, 4.0, 4.4, 3.8])[:, None]
    labels = torch.tensor([0, 0, 0, 1, 1, 1])
    data = TaskData("t", "", ("short", "long"), "{}", torch.zeros(1, 0, 12), labels, lengths * direction,
                    lengths * direction * 1.05, labels)  # fmt: skip
    assert fitted(data).predict(data, torch.tensor([[1.1], [4.1]]) * direction).argmax(dim=1).tolist() == [0, 1]


def test_nothing_of_a_task_but_its_plain_and_validation_images_counts() -> None:
    data = task()
    images = torch.randn(9, 12, generator=torch.Generator().manual_seed(9))
    other = replace(
        data, views=torch.randn(7, 24, 12), template="something else {}", task_name="other", name="another"
    )
    a, b = fitted(data), fitted(other, task(noise=9.0))  # nor another task
    assert torch.equal(a.predict(data, images), b.predict(other, images)) and chosen(a) == chosen(b)
    assert {"test_view", "val"} == LinearProbe.needs
    for change in ({"test_view": data.test_view.flip(0)}, {"labels": data.labels.flip(0)}):
        assert not torch.equal(fitted(replace(data, **change)).predict(data, images), a.predict(data, images))
    reversed_labels = replace(task(3.0), val_labels=task(3.0).val_labels.flip(0))
    assert chosen(fitted(reversed_labels)) != chosen(fitted(task(3.0)))


# ---- through the harness -------------------------------------------------------------------------------------


FAST = [f"linear-probe.iterations={ITERATIONS}"]


@pytest.fixture
def predictions(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """Scores that the harness asks for from now on."""
    found: list[Tensor] = []
    predict = LinearProbe.predict

    def kept(self: LinearProbe, task: TaskData, features: Tensor, class_names: Any = None) -> Tensor:
        found.append(predict(self, task, features, class_names))
        return found[-1]

    monkeypatch.setattr(LinearProbe, "predict", kept)
    return found


def test_neither_other_validation_images_nor_test_labels_reach_it(
    own_tiny: Any, tmp_path: Path, predictions: list[Tensor]
) -> None:
    arguments: dict[str, Any] = {"methods": ["linear-probe"], "shots": [1], "seeds": [1], "options": FAST}
    first = own_tiny.run(tmp_path / "first", **arguments)
    before = list(predictions)
    assert len(before) == 6  # of each task the test images, and the drawn validation images
    for task in ("colour", "shade", "stripes"):
        split = own_tiny.division(task)
        drawn = {item.path for item in few_shot([Item(path, label) for path, label, _ in split["val"]], 1, 1)}
        for path, *_ in split["val"]:
            if path not in drawn:
                Image.new("RGB", (40, 36), "white").save(own_tiny.data / task / path)
        for row in split["test"]:  # every test image now claims the next class
            row[1:] = next(other[1:] for other in split["train"] if other[1] == (row[1] + 1) % 3)
        (own_tiny.data / task / f"split_zhou_{task.title()}.json").write_text(json.dumps(split), encoding="utf-8")
    second = own_tiny.run(tmp_path / "second", **arguments)
    assert first["accuracy"].tolist() != second["accuracy"].tolist()  # the labels did change
    for old, new in zip(before, predictions[6:], strict=True):
        assert torch.equal(old, new)


def test_the_drawn_validation_images_do_reach_it(own_tiny: Any, tmp_path: Path, count_calls: Any) -> None:
    """So that the test above is no test of nothing."""
    fits = count_calls(LinearProbe, "fit")
    arguments: dict[str, Any] = {"methods": ["linear-probe"], "shots": [1], "seeds": [1], "options": FAST}
    own_tiny.run(tmp_path / "first", **arguments)
    for path, *_ in own_tiny.division()["val"]:
        Image.new("RGB", (40, 36), "white").save(own_tiny.data / "colour" / path)
    own_tiny.run(tmp_path / "second", **arguments)
    (_, _, before, *_), (_, _, after, *_) = fits
    assert not torch.equal(before[0].val, after[0].val) and torch.equal(before[0].test_view, after[0].test_view)
