"""What every method on frozen features holds: batches, counts, what is kept, and what it cannot see."""

from __future__ import annotations

import math
import sys
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from bench.errors import UserError
from bench.methods import TaskData, find_method, method_names
from bench.methods.heads import HeadMethod, TrainedHead
from bench.methods.log import Log

sys.path.append(str(Path(__file__).parent))
from test_methods_heads import clip, larger

pytestmark = pytest.mark.usefixtures("one_thread")

KINDS: dict[str, Any] = {name: find_method(name) for name in method_names()}
HEADS = [n for n, kind in KINDS.items() if issubclass(kind, HeadMethod) and kind.image == "pooled"]
TRAINED = [n for n in HEADS if issubclass(KINDS[n], TrainedHead)]
SHORT = {"epochs": 3, "steps": 30, "batch": 8, "key_views": 2}
WHERE = clip({}, 12, 20.0)
IMAGES = torch.randn(6, 12, generator=torch.Generator().manual_seed(3))


def settings(name: str, **params: Any) -> Any:
    known = {f.name for f in fields(KINDS[name].Params)}
    return KINDS[name].Params(**{n: v for n, v in {**SHORT, **params}.items() if n in known})


def fitted(name: str, *tasks: TaskData, seed: int = 1, **params: Any) -> Any:
    method = KINDS[name](settings(name, **params))
    method.fit(WHERE, tasks or [larger()], seed, lambda done, total: None)
    return method


# ---- batches -------------------------------------------------------------------------------------------------


def epochs_of(name: str, task: TaskData, **params: Any) -> list[list[tuple[Tensor, Tensor]]]:
    """The batches of each epoch."""
    method = KINDS[name](settings(name, **params))
    method.setup(WHERE, [task], 1)
    steps = list(method.batches(task, torch.Generator().manual_seed(0), Log("", 1)))
    per = method.steps(task)
    return [steps[i : i + per] for i in range(0, len(steps), per)]


def places(task: TaskData, batch: Tensor) -> list[tuple[int, int]]:
    """View and image of each row of a batch."""
    known = torch.nn.functional.normalize(task.views, dim=-1)
    found = []
    for row in batch:
        gaps = (known - row).norm(dim=-1)
        assert gaps.min() < 1e-6
        found.append(divmod(int(gaps.argmin()), known.shape[1]))
    return found


@pytest.mark.parametrize("name", ["taskres", "clip-adapter", "tip-adapter-f", "ape-t"])
@pytest.mark.parametrize(("batch", "whole", "rest"), [(6, 2, 3), (15, 1, 0), (100, 0, 15), (0, 1, 0)])
def test_an_epoch_is_of_one_view_and_every_image_comes_once(name: str, batch: int, whole: int, rest: int) -> None:
    """15 images. The last incomplete batch is kept where the authors' loader keeps it, and where it is the only one."""
    task = larger(views=2)
    keeps = not KINDS[name].drop_last or not whole
    for epoch, steps in enumerate(epochs_of(name, task, batch=batch)):
        assert [len(images) for images, _ in steps] == [batch or 15] * whole + [rest] * (keeps and rest > 0)
        rows = [place for images, _ in steps for place in places(task, images)]
        assert {view for view, _ in rows} == {epoch % 2} and len({image for _, image in rows}) == len(rows)
        assert [task.labels[i] for _, i in rows] == torch.cat([labels for _, labels in steps]).tolist()


@pytest.mark.parametrize("name", ["zs-lp", "clap"])
@pytest.mark.parametrize(("batch", "steps", "size"), [(6, 2, 6), (40, 1, 40), (100, 1, 60)])
def test_stored_views_are_all_drawn_from_but_in_as_many_steps_as_images_give(
    name: str, batch: int, steps: int, size: int
) -> None:
    task = larger(views=4)
    seen = []
    for epoch in epochs_of(name, task, batch=batch, epochs=30):
        assert [len(images) for images, _ in epoch] == [size] * steps
        rows = [place for images, _ in epoch for place in places(task, images)]
        assert len(set(rows)) == len(rows)
        assert [task.labels[i] for _, i in rows] == torch.cat([labels for _, labels in epoch]).tolist()
        seen += rows
    assert len(set(seen)) > 55


def test_recipes_are_the_authors() -> None:
    """As the specification gives them; what the loop adds to them is in the plain trainings."""
    recipes: dict[str, dict[str, Any]] = {
        "tip-adapter": {"alpha": 1, "beta": 5.5, "crop": 0.5},
        "tip-adapter-f": {"lr": 1e-3, "epochs": 20, "batch": 256, "weight_decay": 0.01, "key_views": 10, "crop": 0.5},
        "clip-adapter": {"lr": 1e-5, "epochs": 200, "batch": 32, "ratio": 0.2, "reduction": 4},
        "taskres": {"lr": 2e-3, "epochs": 100, "batch": 256, "weight_decay": 5e-4, "alpha": 0.5},
        "zs-lp": {"lr": 0.1, "epochs": 300, "batch": 256, "momentum": 0.9},
        "clap": {"lr": 0.1, "epochs": 300, "batch": 256, "momentum": 0.9},
        "lp++": {"steps": 300, "momentum": 0.9, "alpha_grad": "accumulated", "crop": 0.5},
        "cross-modal-lp": {"steps": 12800, "batch": 8, "lr": 1e-3, "weight_decay": 0.01, "wise": 0},
        "ape": {"alpha": 1, "beta": 5.5, "gamma": 0.1, "channels": 0.7, "unlike": 0.7, "spread": 0.3, "crop": 0.5},
        "ape-t": {"lr": 1e-3, "epochs": 20, "batch": 256, "weight_decay": 0.1, "key_views": 10, "crop": 0.5},
    }
    views = {"tip-adapter": 10, "ape": 10, "zs-lp": 20, "clap": 20, "lp++": 1}
    for name, recipe in recipes.items():
        params = KINDS[name].Params()
        assert {n: getattr(params, n) for n in recipe} == recipe, name
        assert KINDS[name].own_views == views.get(name)
        assert getattr(params, "search", "none") == "none"


# ---- numbers learned, progress, seeds ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "count"),
    [("tip-adapter", 0), ("ape", 0), ("tip-adapter-f", (15 + 8) * 12), ("clip-adapter", 2 * 12 * 12 // 2),
     ("taskres", (5 + 4) * 12), ("zs-lp", (5 + 4) * 12), ("clap", (5 + 4) * 12), ("lp++", (5 + 4) * 14),
     ("cross-modal-lp", (5 + 4) * 12), ("ape-t", (5 + 4) * 8 + 15 + 8)],
)  # fmt: skip
def test_learned_numbers_are_the_specification_s(name: str, count: int) -> None:
    """Two tasks of 5 and 4 classes, 15 and 8 images; d = 12; 0.7 of the channels are 8."""
    assert fitted(name, larger(), larger(4, 2, seed=1)).n_params == count


@pytest.mark.parametrize("name", HEADS)
def test_progress_ends_at_its_total_and_curves_are_of_each_task(name: str) -> None:
    told: list[tuple[int, int]] = []
    method = KINDS[name](settings(name))
    tasks = [larger(), larger(4, 2, seed=1)]
    method.fit(WHERE, tasks, 1, lambda done, total: told.append((done, total)))
    assert told[-1][0] == told[-1][1] and {total for _, total in told} == {told[-1][1]}
    if method.n_params:
        assert set(method.curves()) == {"task 0", "task 1"}
        assert all(math.isfinite(x) for both in method.curves().values() for values in both for x in values)
    else:
        assert method.curves() == {}


@pytest.mark.parametrize("name", HEADS)
def test_what_is_learned_follows_from_the_seed_and_the_task_alone(name: str) -> None:
    other = larger(4, 2, seed=1)
    with torch.random.fork_rng():
        among = fitted(name, other, larger())
        torch.manual_seed(99)
        alone = fitted(name, larger())
    assert torch.equal(among.predict(larger(), IMAGES), alone.predict(larger(), IMAGES))
    if name in TRAINED and settings(name).batch:  # a full batch has no order
        other_seed = fitted(name, larger(), seed=2)
        assert not torch.equal(other_seed.predict(larger(), IMAGES), alone.predict(larger(), IMAGES))


# ---- kept and restored ---------------------------------------------------------------------------------------


def bare(task: TaskData) -> TaskData:
    """Names alone, as a kept cell gives them."""
    return TaskData(task.name, "", task.class_names, task.template, torch.zeros(1, 0, 0), task.labels[:0])


@pytest.mark.parametrize("name", HEADS)
def test_a_restored_method_scores_as_the_trained_one(name: str) -> None:
    tasks = [larger(), larger(4, 2, seed=1)]
    method, again = fitted(name, *tasks), KINDS[name](settings(name))
    state = method.state()
    again.restore(WHERE, [bare(task) for task in tasks], state)
    for task in tasks:
        assert torch.equal(again.predict(task, IMAGES), method.predict(task, IMAGES))
    assert again.curves() == {} and again.n_params == method.n_params
    with pytest.raises(UserError, match=f"not {name.replace('+', '.')}'s parameters for these tasks"):
        again.restore(WHERE, [bare(tasks[0])], state)
    broken = {key: value[..., :-1] if value.dim() else value for key, value in state.items()}
    with pytest.raises(UserError, match=f"not {name.replace('+', '.')}'s parameters for these tasks"):
        again.restore(WHERE, [bare(task) for task in tasks], broken)


@pytest.mark.parametrize("name", ["tip-adapter", "ape", "ape-t"])
@pytest.mark.parametrize("value", [-1, 99])
def test_a_state_with_labels_or_channels_that_cannot_be_is_refused(name: str, value: int) -> None:
    state = fitted(name).state()
    for key in {"labels-0", "channels-0"} & set(state):
        other = {**state, key: state[key].clone()}
        other[key][1] = value
        with pytest.raises(UserError, match="parameters for these tasks"):
            KINDS[name](settings(name)).restore(WHERE, [bare(larger())], other)


# ---- what no method can see ----------------------------------------------------------------------------------


class Forbidden(Tensor):
    """Validation images that must not be read."""

    @classmethod
    def __torch_function__(cls, function: Any, *args: Any, **kwargs: Any) -> Any:
        raise AssertionError(f"{function} reads what it must not")


@pytest.mark.parametrize("name", [*HEADS, "gda", "protonet"])
def test_without_a_search_no_method_reads_validation_images(name: str) -> None:
    """The harness leaves them out (test_chosen.py); here a method that reads them all the same fails."""
    kind = KINDS[name]
    task = larger()
    hidden = replace(task, val=task.val.as_subclass(Forbidden), val_labels=task.val_labels.as_subclass(Forbidden))
    params = settings(name)
    methods = [kind(params), kind(params)]
    for method, own in zip(methods, (task, hidden), strict=True):
        method.fit(WHERE, [own], 1, lambda done, total: None)
    assert torch.equal(methods[0].predict(task, IMAGES), methods[1].predict(task, IMAGES))
    assert methods[0].chosen() == {} and "val" not in kind.needs_of(params)


@pytest.mark.parametrize("name", [n for n in HEADS if "search" in {f.name for f in fields(KINDS[n].Params)}])
def test_a_search_reads_validation_images(name: str) -> None:
    """So that the test above is no test of nothing."""
    task = larger()
    hidden = replace(task, val=task.val.as_subclass(Forbidden))
    with pytest.raises(AssertionError, match="reads what it must not"):
        fitted(name, hidden, search="val")
    assert "val" in KINDS[name].needs_of(settings(name, search="val"))
    assert fitted(name, task, search="val").chosen()[task.name].images == 15


def test_scores_come_in_chunks_that_bound_the_memory() -> None:
    """A cache of N images makes n · N numbers: of 1024 test images at a time, whatever is asked for."""
    method = fitted("tip-adapter")
    seen: list[int] = []
    head = method.heads[0]
    head.register_forward_pre_hook(lambda module, given: seen.append(len(given[0])))
    images = torch.randn(5000, 12)
    scores = method.predict(larger(), images)
    assert scores.shape == (5000, 5) and max(seen) == 1024 and sum(seen) == 5000
    torch.testing.assert_close(scores[4000:4010], method.predict(larger(), images[4000:4010]))
