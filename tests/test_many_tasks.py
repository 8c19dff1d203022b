"""Many tasks trained together: which images a step draws, what they count, and where their features come from."""

from __future__ import annotations

import importlib.util
import json
import math
import sys
from collections import Counter
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from bench.cells import parameters_kept
from bench.errors import UserError
from bench.methods import TaskData, find_method, training
from bench.methods.training import Batch, Recipe, batches, drawn, task_shares, task_weights

sys.path.append(str(Path(__file__).parent))
from test_methods_all import world

CPU = torch.device("cpu")
LATER = {"epoch_steps", "task_temperature", "tasks_a_step", "unseen"}


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def tasks_of(*sizes: int, places: int = 0) -> list[TaskData]:
    """Tasks of two classes with so many images, two views of each; image i of task t is known by its features."""
    made = []
    for t, n in enumerate(sizes):
        shape = (2, n, places, 5) if places else (2, n, 5)
        views = torch.randn(*shape, generator=rng(t))
        made.append(TaskData(f"task {t}", f"{t}", ("a", "b"), "{}", views, torch.arange(n) % 2))
    return made


def all_batches(tasks: list[TaskData], recipe: Recipe, start: int = 0) -> list[tuple[float, Batch]]:
    return list(batches(tasks, range(len(tasks)), recipe, rng(), CPU, start=start))


def same(one: list[tuple[float, Batch]], other: list[tuple[float, Batch]]) -> bool:
    """Whether two lists of steps are the same to the last bit."""
    names = ("features", "labels", "tasks", "cpu_labels", "cpu_tasks", "weights")
    pairs = list(zip(one, other, strict=True))
    values = [(getattr(a, name), getattr(b, name)) for (_, a), (_, b) in pairs for name in names]
    alike = all(x is y is None or torch.equal(x, y) for x, y in values)
    return alike and [rate for rate, _ in one] == [rate for rate, _ in other]


# ---- which images a step draws -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("temperature", "expected"), [(1, (0.00990, 0.99010)), (2, (0.09091, 0.90909)), (math.inf, (0.5, 0.5))]
)
def test_a_temperature_draws_tasks_by_a_root_of_their_images(temperature: float, expected: tuple[float, ...]) -> None:
    """n = 10 and 1000; the root of 1000 / 10 is 10, so that the shares are 1 : 10."""
    assert task_shares(torch.tensor([10, 1000]), temperature).tolist() == pytest.approx(expected, abs=5e-6)
    assert task_shares(torch.tensor([0, 10, 1000]), temperature)[0] == 0


def test_by_default_every_image_comes_once_per_epoch_in_a_random_order() -> None:
    """The batches are those of a plain permutation of all images, cut into pieces, to the last bit."""
    tasks = tasks_of(3, 9, 6)
    order, found = rng(), all_batches(tasks, Recipe(epochs=3, batch=4))
    labels = torch.cat([task.labels for task in tasks])
    owner = torch.tensor([0] * 3 + [1] * 9 + [2] * 6)
    steps = iter(found)
    for epoch in range(3):
        images = F.normalize(torch.cat([task.views[epoch % 2] for task in tasks]), dim=-1)
        places = torch.randperm(18, generator=order)
        for step in range(4):  # 18 // 4; two images are left over
            chosen = places[4 * step : 4 * step + 4]
            _, batch = next(steps)
            assert torch.equal(batch.features, images[chosen]) and torch.equal(batch.labels, labels[chosen])
            assert torch.equal(batch.tasks, owner[chosen]) and batch.weights is None
    assert next(steps, None) is None


def test_tasks_come_as_often_as_the_temperature_says_and_their_images_in_turn() -> None:
    sizes = torch.tensor([5, 500])
    places = drawn(sizes, Recipe(batch=20, epoch_steps=500, task_temperature=math.inf), rng())
    assert places.shape == (500, 20)
    counts = torch.bincount(places.flatten(), minlength=505)
    assert counts[:5].sum() == pytest.approx(5000, abs=250)  # half of 10,000; five standard deviations are 250
    assert counts[:5].max() - counts[:5].min() <= 1 and counts[5:].max() - counts[5:].min() <= 1
    places = drawn(sizes, Recipe(batch=20, epoch_steps=500, task_temperature=2), rng())
    assert (places < 5).sum() == pytest.approx(909, abs=144)  # 10,000 / 11


@pytest.mark.parametrize("temperature", [1, 2, math.inf])
def test_a_step_has_so_many_tasks_and_as_many_images_of_each(temperature: float) -> None:
    recipe = Recipe(epochs=4, batch=6, tasks_a_step=2, task_temperature=temperature)
    found = all_batches(tasks_of(3, 40, 6, 0, 11), recipe)
    assert len(found) == 4 * (60 // 6)
    for _, batch in found:
        assert sorted(Counter(batch.cpu_tasks.tolist()).values()) == [3, 3]
    drawn_tasks = Counter(t for _, batch in found for t in batch.present)
    assert set(drawn_tasks) == {0, 1, 2, 4} and min(drawn_tasks.values()) >= 8  # of 80, evenly: about 20 each


def test_no_more_tasks_than_a_step_may_have_are_drawn_as_without_a_limit() -> None:
    tasks, recipe = tasks_of(3, 9, 6), Recipe(epochs=2, batch=6)
    assert same(all_batches(tasks, recipe), all_batches(tasks, replace(recipe, tasks_a_step=3)))
    assert same(all_batches(tasks, recipe), all_batches(tasks, replace(recipe, task_temperature=1.0)))
    assert not same(all_batches(tasks, recipe), all_batches(tasks, replace(recipe, tasks_a_step=2)))


def test_an_epoch_may_have_a_given_number_of_steps_whatever_the_number_of_images() -> None:
    few, many = (all_batches(tasks_of(*sizes), Recipe(epochs=2, batch=4, epoch_steps=5)) for sizes in ((6,), (30, 30)))
    assert len(few) == len(many) == 10
    assert [rate for rate, _ in few] == [rate for rate, _ in many]
    images = torch.cat([batch.features for _, batch in few[:3]])
    assert len(images[:6].unique(dim=0)) == len(images[6:12].unique(dim=0)) == 6  # all six, then all six again
    assert len(all_batches(tasks_of(3), Recipe(epochs=2, batch=4, epoch_steps=5))[0][1].labels) == 3


@pytest.mark.parametrize("more", [{}, {"task_temperature": 2.0}, {"tasks_a_step": 2}, {"epoch_steps": 7}])
def test_a_training_goes_on_with_the_batches_that_it_would_have_had(more: dict[str, Any]) -> None:
    tasks, recipe = tasks_of(3, 9, 6), Recipe(epochs=3, batch=4, **more)
    whole = all_batches(tasks, recipe)
    for start in (1, 6, 9):
        assert same(all_batches(tasks, recipe, start), whole[start:])


@pytest.mark.parametrize(("n", "expected", "within"), [(10, 9.66, 0.06), (100, 27.50, 0.2), (1000, 31.51, 0.1)])
def test_a_batch_of_32_holds_so_many_of_n_tasks_that_are_drawn_alike(n: int, expected: float, within: float) -> None:
    """T(1 − (1 − 1/T)^32): of ten tasks 10 · (1 − 0.9^32) = 9.66. `within`: five standard errors of 2000 steps."""
    recipe = Recipe(batch=32, epoch_steps=2000, task_temperature=math.inf)
    places = drawn(torch.full((n,), 8), recipe, rng())
    assert np.mean([len(np.unique(step)) for step in (places // 8).numpy()]) == pytest.approx(expected, abs=within)


# ---- what an image counts ------------------------------------------------------------------------------------


def test_weights_make_evenly_drawn_tasks_count_by_their_images() -> None:
    """n · T / N of 2 and 6 images: 2 · 2/8 and 6 · 2/8."""
    one = Recipe(tasks_a_step=1)
    assert task_weights(torch.tensor([2, 6]), one).tolist() == [0.5, 1.5]
    assert task_weights(torch.tensor([2, 0, 6]), one).tolist() == [0.5, 0, 1.5]  # no image: no task
    assert task_weights(torch.tensor([2, 6]), replace(one, task_temperature=math.inf)).tolist() == [1, 1]
    assert task_weights(torch.tensor([2, 6]), Recipe()) is None


def test_a_batch_s_loss_counts_images_by_their_weights() -> None:
    """Of two classes, logits 0 and 0 cost ln 2 and logits ln 3 and 0 of the second class ln 4."""
    logits = torch.tensor([[0.0, 0.0], [math.log(3), 0.0]])
    labels = torch.tensor([0, 1])
    batch = replace(Batch.of(torch.zeros(2, 1), labels, labels), weights=torch.tensor([0.5, 1.5]))
    expected = (0.5 * math.log(2) + 1.5 * math.log(4)) / 2
    assert batch.cross_entropy(logits, labels).item() == pytest.approx(expected, rel=1e-6)
    assert batch.part(slice(1, 2)).cross_entropy(logits[1:], labels[1:]).item() == pytest.approx(1.5 * math.log(4))


def test_the_mean_of_all_steps_that_may_be_drawn_is_the_loss_of_all_images() -> None:
    """One task per step, six images of it: one six times, two three times, three twice. The mean over the tasks of the
    steps' gradients is the gradient of the mean loss of the six images."""
    tasks = [replace(task, views=task.views[:1]) for task in tasks_of(1, 2, 3)]
    weight = torch.randn(5, 2, generator=rng(), requires_grad=True)
    steps = {batch.present[0]: batch for _, batch in all_batches(tasks, Recipe(epochs=30, batch=6, tasks_a_step=1))}
    losses = [steps[t].cross_entropy(steps[t].features @ weight, steps[t].labels) for t in range(3)]
    (mean,) = torch.autograd.grad(sum(losses) / 3, weight)
    images = F.normalize(torch.cat([task.views[0] for task in tasks]), dim=-1)
    labels = torch.cat([task.labels for task in tasks])
    (expected,) = torch.autograd.grad(F.cross_entropy(images @ weight, labels), weight)
    torch.testing.assert_close(mean, expected)


@pytest.mark.parametrize("name", ["softcpt", "softcpt-csta", "mvlpt"])
def test_a_method_s_loss_is_that_of_its_weighted_images(name: str) -> None:
    """Twice the weights are twice the loss, whichever class names a method scores."""
    where, kind = world(), find_method(name)
    if name == "mvlpt":  # whose first stage trains all tasks together
        kind = kind.Shared
    more = {"absent": 0.5} if name == "softcpt-csta" else {}  # some of the absent classes: another batch is scored
    method: Any = kind(kind.Params(context=4, batch=4, **more))
    method.setup(where.clip, where.tasks, 1)
    _, batch = next(batches(where.tasks, range(3), replace(method.params, tasks_a_step=2), rng(), CPU))
    plain, twice = (replace(batch, weights=w) for w in (None, torch.full((4,), 2.0)))
    losses = []
    for given in (plain, twice):
        torch.manual_seed(0)
        method.setup(where.clip, where.tasks, 1)
        losses.append(method.losses([(method, given)])[0].item())
    assert losses[1] == pytest.approx(2 * losses[0], rel=1e-5)


# ---- where features come from --------------------------------------------------------------------------------


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("places", [0, 3])
@pytest.mark.parametrize("more", [{}, {"tasks_a_step": 2}])
def test_features_gathered_step_by_step_are_those_of_a_whole_epoch(
    places: int, more: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks, recipe = tasks_of(3, 0, 9, 6, places=places), Recipe(epochs=3, batch=4, **more)
    whole = all_batches(tasks, recipe)
    monkeypatch.setattr(training, "EPOCH_AT_ONCE", 0)
    cut = all_batches(tasks, recipe)
    assert whole[0][1].features.shape == ((4, places, 5) if places else (4, 5))
    assert same(whole, cut)


def test_a_large_epoch_is_not_copied_as_a_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 3 + 9 + 6 images of 5 numbers, 360 bytes, a step of 4 takes 80."""
    copied: list[int] = []
    normalise = F.normalize
    monkeypatch.setattr(F, "normalize", lambda x, **how: copied.append(x.numel() * 4) or normalise(x, **how))
    monkeypatch.setattr(training, "EPOCH_AT_ONCE", 360)
    next(batches(tasks_of(3, 9, 6), range(3), Recipe(batch=4), rng(), CPU))
    assert copied == [360]
    monkeypatch.setattr(training, "EPOCH_AT_ONCE", 359)
    list(islice(batches(tasks_of(3, 9, 6), range(3), Recipe(batch=4), rng(), CPU), 2))
    assert copied == [360, 80, 80]


# ---- what is refused, and what a cell's key holds ------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"tasks_a_step": 5}, "tasks_a_step=5: batch=32 is not a multiple of it"),
        ({"tasks_a_step": -1}, "tasks_a_step=-1: not negative"),
        ({"task_temperature": 0.5}, "task_temperature=0.5: at least 1"),
        ({"task_temperature": math.nan}, "task_temperature=nan: at least 1"),
        ({"lr": math.inf}, "lr=inf: not negative and finite"),
    ],
)
def test_what_no_step_can_have_is_refused(more: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        Recipe(**more)


def test_a_method_that_trains_each_task_alone_refuses_to_draw_tasks() -> None:
    where = world()
    for name, more in (("coop", {"task_temperature": 2.0}), ("prograd", {"tasks_a_step": 2})):
        kind = find_method(name)
        with pytest.raises(UserError, match="of tasks that are trained together, not alone"):
            kind(kind.Params(**more)).fit(where.clip, where.tasks, 1, lambda done, total: None)
    prograd = find_method("prograd")
    with pytest.raises(UserError, match="tasks_a_step: prograd makes gradients of its own"):
        prograd(prograd.Params(tasks_a_step=2, joint=True)).setup(where.clip, where.tasks, 1)


def test_parameters_that_came_later_are_in_a_cell_s_key_only_where_they_are_set() -> None:
    kind = find_method("softcpt")
    assert not LATER & set(parameters_kept(kind.Params()))
    assert set(parameters_kept(kind.Params(), whole=True)) - set(parameters_kept(kind.Params())) == LATER
    kept = parameters_kept(kind.Params(tasks_a_step=4, task_temperature=math.inf))
    assert (kept["tasks_a_step"], kept["task_temperature"]) == (4, "inf")
    json.dumps(kept, allow_nan=False)


def test_a_run_tells_its_draws_of_tasks_and_a_loaded_cell_has_them(tiny: Any, tmp_path: Any) -> None:
    import bench

    options = ["softcpt.task_temperature=1,inf", "softcpt.tasks_a_step=0,2"]
    tiny.run(tmp_path, methods=["softcpt"], shots=[2], seeds=[1], options=options)
    table = bench.report(tmp_path, tmp_path / "out", format=["csv"])
    expected = {"", "tasks_a_step=2", "task_temperature=inf", "task_temperature=inf,tasks_a_step=2"}
    assert set(table["variant"]) == expected
    losses = {tuple(record["curves"]["loss"]["all"]) for record in tiny.records(tmp_path).values()}
    assert len(losses) == 3  # of tasks of one size a temperature changes no weight, and without a limit the draw alone
    (key,) = table.loc[table["variant"] == "task_temperature=inf", "key"].unique()
    assert bench.load_cell(key, results=tmp_path).method.params.task_temperature == math.inf


# ---- scripts/growth.py ---------------------------------------------------------------------------------------


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize(("method", "limit"), [("softcpt", 0), ("softcpt-graph", 2), ("coop-mpt", 2), ("coop-tree", 2)])
def test_growth_counts_tasks_classes_and_learned_numbers(
    method: str, limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """lite-clip's sizes: 256 · 16 · 192 numbers of P and 4 · 192 of u; C, and α and β of each task for coop-mpt; for
    coop-tree a root, 2 of the 10 fields (the others have one task each) and 12 leaves."""
    place = Path(__file__).parents[1] / "scripts" / "growth.py"
    spec = importlib.util.spec_from_file_location("growth", place)
    assert spec is not None and spec.loader is not None
    growth = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(growth)
    monkeypatch.setattr(growth, "STEPS", 2)
    found = growth.measure("lite", method, 12, limit)
    assert (found["tasks"], found["tasks_a_step"], found["method"]) == (12, limit, method)
    assert 120 <= found["classes"] <= 360 and found["seconds_a_step"] > 0
    assert found["tasks_in_a_batch"] == limit or (not limit and found["tasks_in_a_batch"] > 3)
    context = 16 * 192
    numbers = {"coop-mpt": context + 12 * (16 + 192), "coop-tree": 15 * context}.get(method, 256 * context + 4 * 192)
    assert found["learned_numbers"] == numbers
