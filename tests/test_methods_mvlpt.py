"""MVLPT: a context that all tasks learn together, and from it one of each task."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from bench.errors import UserError
from bench.methods import find_method
from bench.methods.mvlpt import MVLPT
from bench.methods.training import Batch

sys.path.append(str(Path(__file__).parent))
from test_methods_all import EMBED, NAMES, RECIPE, Images, Parameters, check_steps, cross_entropy, fit, world

pytestmark = pytest.mark.usefixtures("one_thread")


def loss(parameters: Parameters, images: Images) -> Tensor:
    text = world().text(parameters["context"], NAMES[images[0][0]])
    return torch.stack([cross_entropy(world().scale * text @ image, label) for _, image, label in images]).mean()


def trained(name: str, tasks: Any = None, **params: Any) -> Any:
    chosen: Any = find_method(name)
    method = chosen(chosen.Params(**{**RECIPE, "epochs": 3, **params}))
    method.fit(world().clip, world().tasks if tasks is None else tasks, 1, lambda done, total: None)
    return method


def some_images() -> Tensor:
    return torch.randn(6, EMBED, generator=torch.Generator().manual_seed(5))


def test_ten_steps_of_stage_2_are_coop_s_from_the_shared_context() -> None:
    shared = trained("shared-coop", epochs=10).learned["context"].detach()
    check_steps("mvlpt", loss, start={f"context-{t}": shared for t in range(3)})


def test_without_stage_2_it_predicts_as_shared_coop() -> None:
    mvlpt, shared = trained("mvlpt", stages=1), trained("shared-coop")
    for task in world().tasks:
        assert torch.equal(mvlpt.predict(task, some_images()), shared.predict(task, some_images()))
    assert mvlpt.n_params == shared.n_params == 16 * 32


def test_a_task_left_out_starts_from_what_the_others_have_learned() -> None:
    mvlpt, tasks = trained("mvlpt", stages=1, leave_one_out=True), world().tasks
    for t in range(3):
        others = trained("shared-coop", [*tasks[:t], *tasks[t + 1 :]]).learned["context"]
        assert (mvlpt.learned[f"context-{t}"] - others).norm() < 1e-4 * others.norm()
    with pytest.raises(UserError, match="leave_one_out needs a second task"):
        trained("mvlpt", tasks[:1], leave_one_out=True)


@pytest.mark.parametrize(("softmax", "expected"), [("task", 0.313262), ("all", 1.440190)])
def test_stage_1_s_softmax_in_the_specification_s_example(softmax: Any, expected: float) -> None:
    """One image of a task with logits (2, 1), label 0, beside a task with logits (3, 0)."""
    method: Any = MVLPT._shared(MVLPT.Params(softmax=softmax))
    method.clip = SimpleNamespace(scale=1.0)
    method.tasks = [SimpleNamespace(class_names=("a", "b")), SimpleNamespace(class_names=("c", "d"))]
    batch = Batch.of(torch.ones(1, 1), torch.tensor([0]), torch.tensor([0]))
    _, names = method.scored(batch)
    text = [torch.tensor([[2.0], [1.0]]), torch.tensor([[3.0], [0.0]])]
    assert method.loss(batch, text[: len(names)]).item() == pytest.approx(expected, abs=1e-6)


def test_all_classes_label_an_image_of_the_second_task_behind_the_first_s() -> None:
    method: Any = MVLPT._shared(MVLPT.Params(softmax="all"))
    method.clip = SimpleNamespace(scale=1.0)
    batch = Batch.of(torch.ones(1, 1), torch.tensor([1]), torch.tensor([1]))
    text = [torch.tensor([[2.0], [1.0]]), torch.tensor([[3.0], [0.0]])]
    expected = torch.tensor([2.0, 1.0, 3.0, 0.0]).logsumexp(0) - 0.0
    assert method.loss(batch, text).item() == pytest.approx(expected.item(), abs=1e-6)


def test_the_softmax_over_all_classes_trains_another_context() -> None:
    own, every = (trained("mvlpt", stages=1, softmax=softmax).learned["context-0"] for softmax in ("task", "all"))
    assert (own - every).norm() > 1e-3 * own.norm()


def test_progress_covers_both_stages_and_ends_at_its_total() -> None:
    """Stage 1 has 4 steps an epoch (18 images, batches of 4); in stage 2 the longest task has 2 (8 images)."""
    said: list[tuple[int, int]] = []
    method = MVLPT(MVLPT.Params(epochs=3, **RECIPE))
    method.fit(world().clip, world().tasks, 1, lambda done, total: said.append((done, total)))
    assert said == [(done, 3 * 4 + 3 * 2) for done in range(1, 19)]


def test_seeds_side_by_side_learn_what_they_learn_alone() -> None:
    alone = [fit("mvlpt", world(), epochs=2)[0]]
    methods = [MVLPT(MVLPT.Params(epochs=2, **RECIPE)) for _ in range(2)]
    together = [(method, world().tasks, seed) for method, seed in zip(methods, (1, 2), strict=True)]
    MVLPT.fit_together(together, world().clip, lambda done, total: None)
    for name, value in alone[0].learned.items():
        torch.testing.assert_close(methods[0].learned[name], value, rtol=1e-4, atol=1e-6)
        assert not torch.equal(methods[1].learned[name], value)


def test_both_stages_have_a_curve() -> None:
    assert set(trained("mvlpt").curves()) == {"all", "task 0", "task 1", "task 2"}
