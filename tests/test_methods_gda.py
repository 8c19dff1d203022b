"""GDA: the specification's example by hand, its identities, and a plain version of its formula in NumPy."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from bench.errors import UserError
from bench.methods import TaskData
from bench.methods.base import Choice
from bench.methods.gda import GDA, alpha_of, gaussians, synthesised
from bench.methods.zero_shot import ZeroShot

IMAGES = torch.tensor([[1.6, 1.2], [0.48, 0.14], [0.6, 0.8], [-0.84, 2.88]])
LABELS = torch.tensor([0, 0, 1, 1])
QUERY = torch.tensor([[2.4, 1.0]])
TOWER = SimpleNamespace(encode_texts=lambda texts: torch.tensor([[2.0, 0.0], [0.0, 0.5]]))
CLIP: Any = SimpleNamespace(tower=TOWER, scale=10.0, embed_dim=2, device=torch.device("cpu"))
TOY = TaskData("toy", "", ("one", "two"), "{}", IMAGES[None], LABELS)


def fitted(tasks: list[TaskData], clip: Any = CLIP, **params: Any) -> GDA:
    method = GDA(GDA.Params(**params))
    method.fit(clip, tasks, 1, lambda done, total: None)
    return method


def random_task(n_views: int, counts: list[int], seed: int = 0) -> TaskData:
    """Images of six dimensions, of random lengths; counts : images of each class."""
    rng = torch.Generator().manual_seed(seed)
    labels = torch.cat([torch.full((n,), c) for c, n in enumerate(counts)])[torch.randperm(sum(counts), generator=rng)]
    views = torch.randn(len(counts), 6, generator=rng)[labels] + torch.randn(n_views, len(labels), 6, generator=rng)
    names = tuple(f"class {c}" for c in range(len(counts)))
    return TaskData("random", "", names, "{}", views * torch.rand(len(labels), 1, generator=rng) * 9, labels)


def random_clip(n_classes: int) -> Any:
    text = torch.randn(n_classes, 6, generator=torch.Generator().manual_seed(9))
    tower = SimpleNamespace(encode_texts=lambda texts: text)
    return SimpleNamespace(tower=tower, scale=50.0, embed_dim=6, device=torch.device("cpu"))


def plain(task: TaskData, text: np.ndarray, scale: float, alpha: float, query: np.ndarray) -> np.ndarray:
    """The specification's formula, row by row, with a pseudo-inverse."""
    rows = task.views.double().numpy()
    rows = rows / np.linalg.norm(rows, axis=-1, keepdims=True)
    stacked = np.concatenate(list(rows))
    labels = np.tile(task.labels.numpy(), len(rows))
    n_classes, d = text.shape
    means = np.stack([stacked[labels == c].mean(axis=0) for c in range(n_classes)])
    covariance = np.cov(np.stack([row - means[label] for row, label in zip(stacked, labels, strict=True)]).T)
    precision = d * np.linalg.pinv((len(stacked) - 1) * covariance + np.trace(covariance) * np.eye(d))
    query = query / np.linalg.norm(query, axis=1, keepdims=True)
    text = text / np.linalg.norm(text, axis=1, keepdims=True)
    scores = np.empty((len(query), n_classes))
    for i, image in enumerate(query):
        for c in range(n_classes):
            likelihood = image @ precision @ means[c] + np.log(1 / n_classes) - means[c] @ precision @ means[c] / 2
            scores[i, c] = scale * image @ text[c] + alpha * likelihood
    return scores


def test_weights_and_bias_of_the_specification_s_example() -> None:
    weights, bias = gaussians(IMAGES[None], LABELS, 2)
    expected = [[4.187817, 5.862944], [2.131980, 8.984772]]
    np.testing.assert_allclose(weights.numpy(), expected, atol=1e-6)
    np.testing.assert_allclose(bias.numpy(), [-3.825634, -4.817005], atol=1e-6)
    query = torch.tensor([0.923077, 0.384615], dtype=torch.double)
    np.testing.assert_allclose((weights @ query + bias).numpy(), [2.295022, 0.606658], atol=5e-6)


def test_scores_of_the_specification_s_example() -> None:
    """At α = 1; two images a class have α = 0.1."""
    method = fitted([TOY], strength=10.0)
    np.testing.assert_allclose(method.predict(TOY, QUERY).numpy(), [[11.525791, 4.452811]], atol=2e-6)


@pytest.mark.parametrize(("n_views", "counts"), [(1, [2, 2, 2]), (10, [1, 1, 1, 1]), (3, [5, 1, 3])])
def test_scores_are_those_of_a_plain_pseudo_inverse(n_views: int, counts: list[int]) -> None:
    task, clip = random_task(n_views, counts), random_clip(len(counts))
    query = torch.randn(7, 6, generator=torch.Generator().manual_seed(3))
    alpha = alpha_of(max(counts))
    text = clip.tower.encode_texts([]).double().numpy()
    expected = plain(task, text, 50.0, alpha, query.double().numpy())
    np.testing.assert_allclose(fitted([task], clip).predict(task, query).numpy(), expected, rtol=1e-4, atol=1e-4)


def test_alpha_zero_is_zero_shot() -> None:
    zero_shot = ZeroShot()
    zero_shot.fit(CLIP, [TOY], 1, lambda done, total: None)
    torch.testing.assert_close(fitted([TOY], strength=0.0).predict(TOY, IMAGES), zero_shot.predict(TOY, IMAGES))


def test_alpha_by_shots_is_straight_between_the_logarithms() -> None:
    assert [alpha_of(k) for k in (1, 2, 4, 8, 16, 99)] == pytest.approx([1e-3, 0.1, 0.3, 1, 10, 10])
    assert alpha_of(3) == pytest.approx(0.1 * 3 ** (np.log(1.5) / np.log(2)))  # of the way from 2 to 4 shots


def test_one_view_of_one_image_a_class_is_refused_and_two_views_are_not() -> None:
    """Every row is its own mean: the covariance is zero, and a pseudo-inverse would silently be zero-shot."""
    with pytest.raises(UserError, match=r"^gda, task random: .*no covariance.*--views"):
        fitted([random_task(1, [1, 1, 1])], random_clip(3))
    fitted([random_task(2, [1, 1, 1])], random_clip(3))


def test_a_class_without_images_keeps_its_zero_shot_score() -> None:
    task, clip = random_task(4, [3, 0, 2]), random_clip(3)
    query = torch.randn(5, 6, generator=torch.Generator().manual_seed(3))
    found, zero_shot = (fitted([task], clip, strength=s).predict(task, query) for s in (1.0, 0.0))
    torch.testing.assert_close(found[:, 1], zero_shot[:, 1], rtol=1e-5, atol=1e-5)
    assert ((found - zero_shot)[:, [0, 2]].abs() > 1e-3).all()


def test_the_order_of_images_does_not_matter() -> None:
    task, clip = random_task(4, [3, 3]), random_clip(2)
    order = torch.tensor([4, 2, 0, 5, 1, 3])
    other = replace(task, views=task.views[:, order], labels=task.labels[order])
    torch.testing.assert_close(fitted([other], clip).heads[0].weights, fitted([task], clip).heads[0].weights)


def test_a_new_class_of_two_views_by_hand() -> None:
    """Views (1, 0) and (0, 1), text (1, 0): the mean is (17, 1)/18; the differences (0, 0) and (−1, 1) give
    S = (1, −1 | −1, 1), so P = 2 · (S + 2I)⁻¹ = (.75, .25 | .25, .75)."""
    views = torch.tensor([[[3.0, 0.0], [0.0, 0.5]]])
    weights, bias = synthesised(views, torch.tensor([[1.0, 0.0]]))
    np.testing.assert_allclose(weights.numpy(), [[13 / 18, 5 / 18]], atol=1e-12)
    np.testing.assert_allclose(bias.numpy(), [-226 / 648], atol=1e-12)


def test_new_classes_are_those_of_a_plain_pseudo_inverse_of_each() -> None:
    """Of 88 views the 64 nearest to each of two new texts."""
    task, clip = random_task(4, [9, 6, 7]), random_clip(3)
    new = torch.randn(2, 6, generator=torch.Generator().manual_seed(8))
    method = fitted([task], clip)
    clip.tower.encode_texts = lambda texts: new
    query = torch.randn(5, 6, generator=torch.Generator().manual_seed(3))
    found = method.predict(task, query, ["moss", "fern"]).numpy()

    rows = task.views.reshape(-1, 6).double().numpy()
    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    texts = new.double().numpy()
    texts = texts / np.linalg.norm(texts, axis=1, keepdims=True)
    means, inverses = [], []
    for text in texts:
        near = rows[np.argsort(-rows @ text)[:64]]
        means.append(np.concatenate([near, np.tile(text, (16, 1))]).mean(axis=0))
        s = (near - text).T @ (near - text) / 63
        inverses.append(6 * np.linalg.pinv(63 * s + np.trace(s) * np.eye(6)))
    p = np.mean(inverses, axis=0)
    f = query.double().numpy()
    f = f / np.linalg.norm(f, axis=1, keepdims=True)
    alpha = math.exp(np.interp(math.log(9), np.log([8, 16]), np.log([1, 10])))
    for c, (text, mean) in enumerate(zip(texts, means, strict=True)):
        expected = 50 * f @ text + alpha * (f @ p @ mean - math.log(2) - mean @ p @ mean / 2)
        np.testing.assert_allclose(found[:, c], expected, rtol=1e-4, atol=1e-4)
    own = method.predict(task, query)
    assert own.shape == (5, 3)  # its own classes are as they were
    np.testing.assert_allclose(method.predict(task, query, ["moss", "fern"]).numpy(), found)


def test_a_saved_method_has_no_views_to_make_a_new_class_of() -> None:
    again = GDA()
    bare = replace(TOY, views=torch.zeros(1, 0, 2), labels=LABELS[:0])
    again.restore(CLIP, [bare], fitted([TOY]).state())
    with pytest.raises(UserError, match="gda makes new classes of its training views, which are not kept"):
        again.predict(TOY, QUERY, ["a new class"])


def test_base_to_new_scores_new_classes(tiny: Any, tmp_path: Any) -> None:
    """Two base classes and a new one, alone among its own: right whatever it scores, if it is finite."""
    tiny.run(tmp_path, methods=["gda"], shots=[2], seeds=[1], tasks=["Colour"], protocol="base2new", views=2)
    (record,) = tiny.records(tmp_path).values()
    assert [row["part"] for row in record["tasks"]] == ["base", "new", "harmonic"]
    assert record["tasks"][1]["accuracy"] == 100


def test_its_views_are_the_authors_and_nothing_is_searched_by_default() -> None:
    """Ten views of each image, crops from half of it on."""
    params = GDA.Params()
    assert (GDA.own_views, params.crop, params.strength, params.search) == (10, 0.5, 1.0, "none")


def test_nothing_is_learned_and_what_is_kept_is_a_weight_and_a_bias_for_each_class() -> None:
    method = fitted([TOY])
    assert method.n_params == 0
    assert sum(x.numel() for name, x in method.state().items() if name != "alpha-0") == 2 * (2 + 1)
    again = GDA()
    again.restore(CLIP, [TOY], method.state())
    assert torch.equal(again.predict(TOY, IMAGES), method.predict(TOY, IMAGES))


def test_a_search_takes_the_alpha_with_the_most_validation_images_right_of_equals_the_smallest() -> None:
    """In the example, zero-shot gives (.68, .7332) to class 1 by .532 and the Gaussians to class 0 by .1005: class 0
    from α = 5.3 on. (.67, .7424): by .724 and .0510, class 0 from α = 14.2 on. So α = 10 alone has both right."""
    images = 3 * torch.tensor([[0.68, 0.7332], [0.67, 0.7424]])
    method = fitted([replace(TOY, val=images, val_labels=torch.tensor([0, 1]))], search="val")
    assert method.chosen()["toy"] == Choice({"alpha": 10.0}, 100.0, images=2, tried=7, ties=0)
    expected = fitted([TOY], strength=100.0).predict(TOY, QUERY)  # two shots: 100 · 0.1
    torch.testing.assert_close(method.predict(TOY, QUERY), expected)
    clear = replace(TOY, val=torch.tensor([[1.0, 0.0]]), val_labels=torch.tensor([0]))
    assert fitted([clear], search="val").chosen()["toy"] == Choice({"alpha": 1e-4}, 100.0, images=1, tried=7, ties=6)
    assert fitted([clear]).chosen() == {}
