"""PLOT: the score of a class is what an optimal-transport plan collects between its prompts and an image's parts."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import ot
import pytest
import torch
from torch import Tensor

from bench.clip.text import TextTower
from bench.methods.plot import PLOT, sinkhorn

sys.path.append(str(Path(__file__).parent))
import reference
from test_methods_all import NAMES, PLACES, Images, Parameters, check_steps, cross_entropy, fit, some_images, world

pytestmark = pytest.mark.usefixtures("one_thread")


# ---- training ------------------------------------------------------------------------------------------------


def plan_of(cost: list[list[float]]) -> list[list[float]]:
    """Sinkhorn's iterations number by number: ε = 0.1, at most 100, until the rows' scaling rests within 1e-2."""
    n, m = len(cost), len(cost[0])
    kernel = [[math.exp(-cost[i][j] / 0.1) for j in range(m)] for i in range(n)]
    rows, columns = [1.0] * n, [1.0] * m
    for _ in range(100):
        before = rows
        rows = [1 / n / sum(kernel[i][j] * columns[j] for j in range(m)) for i in range(n)]
        columns = [1 / m / sum(kernel[i][j] * rows[i] for i in range(n)) for j in range(m)]
        if sum(abs(a - b) for a, b in zip(rows, before, strict=True)) / n < 1e-2:
            break
    return [[rows[i] * kernel[i][j] * columns[j] for j in range(m)] for i in range(n)]


def prompts(parameters: Parameters, t: int) -> list[Tensor]:
    """Normalised text features [C, d] of each context; parameters["context"] is [N, L, w]."""
    return [world(local=True).text(context, NAMES[t]) for context in parameters["context"]]


def logits(text: list[Tensor], image: Tensor) -> Tensor:
    """Of one image's normalised local features [P, d]."""
    scores = []
    for c in range(len(text[0])):
        cosine = torch.stack([image @ prompt[c] for prompt in text], dim=1)  # P, N
        plan = torch.tensor(plan_of((1 - cosine.detach().double()).tolist()))  # no gradient runs through it
        scores.append((plan * cosine).sum())
    return world(local=True).scale * torch.stack(scores)


def loss(parameters: Parameters, images: Images) -> Tensor:
    text = prompts(parameters, images[0][0])
    return torch.stack([cross_entropy(logits(text, image), label) for _, image, label in images]).mean()


def test_ten_steps_are_those_of_the_plain_formula() -> None:
    check_steps("plot", loss, local=True, prompts=3, context=5)


def test_scores_are_those_of_the_plain_formula() -> None:
    method, *_ = fit("plot", world(local=True), epochs=1, prompts=3, context=5)
    images = some_images(method)
    for t in range(3):
        text = prompts({"context": method.learned[f"context-{t}"].detach()}, t)
        expected = torch.stack([logits(text, image / image.norm(dim=1, keepdim=True)) for image in images])
        torch.testing.assert_close(method.predict(method.tasks[t], images), expected, rtol=1e-4, atol=1e-4)


# ---- Sinkhorn ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(49, 4), (196, 4), (7, 2), (1, 4), (5, 1)])
@pytest.mark.parametrize("epsilon", [0.1, 0.05, 1.0])
def test_plans_are_those_of_a_solver_that_is_not_ours(shape: tuple[int, int], epsilon: float) -> None:
    rng = torch.Generator().manual_seed(0)
    cost = torch.rand(3, *shape, generator=rng) * 2
    ours = sinkhorn(cost, epsilon, iterations=2000, tolerance=0.0)
    for plan, own in zip(ours, cost.double(), strict=True):
        n, m = shape
        theirs = ot.sinkhorn([1 / n] * n, [1 / m] * m, own.numpy(), reg=epsilon, numItermax=20_000, stopThr=1e-13)
        torch.testing.assert_close(plan.double(), torch.as_tensor(theirs), rtol=1e-3, atol=1e-7)


def test_a_plan_s_columns_have_equal_mass_however_early_it_stops() -> None:
    cost = torch.rand(8, 49, 4, generator=torch.Generator().manual_seed(1))
    plan = sinkhorn(cost, 0.1, iterations=1, tolerance=1e-2)
    torch.testing.assert_close(plan.sum(dim=1), torch.full((8, 4), 0.25))


def test_each_problem_stops_by_itself() -> None:
    rng = torch.Generator().manual_seed(2)
    easy_to_hard = torch.rand(12, 9, 3, generator=rng) * torch.linspace(0.1, 2, 12)[:, None, None]
    together = sinkhorn(easy_to_hard, 0.1, 100, 1e-2)
    alone = torch.stack([sinkhorn(cost, 0.1, 100, 1e-2) for cost in easy_to_hard])
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=0)
    assert not torch.allclose(together[0], sinkhorn(easy_to_hard[0], 0.1, 100, 0.0), rtol=1e-5, atol=0)  # it stopped


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("epsilon", [0.1, 0.03])
def test_extreme_costs_in_any_precision_give_finite_plans(dtype: torch.dtype, epsilon: float) -> None:
    """Cosines reach from −1 to 1, so costs from 0 to 2."""
    far, near = torch.full((49, 4), 2.0), torch.zeros(49, 4)
    mixed = torch.zeros(49, 4)
    mixed[::2] = 2.0
    crossed = torch.where(torch.rand(49, 4, generator=torch.Generator().manual_seed(3)) < 0.5, 0.0, 2.0)
    one_far_column = torch.zeros(49, 4)
    one_far_column[:, 0] = 2.0
    plans = sinkhorn(torch.stack([far, near, mixed, crossed, one_far_column]).to(dtype), epsilon, 100, 1e-2)
    assert plans.dtype == torch.float32
    assert plans.isfinite().all()
    torch.testing.assert_close(plans.sum(dim=(1, 2)), torch.ones(5))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_text_tower_of_half_precision_trains_and_scores_without_nan(dtype: torch.dtype) -> None:
    where = world(local=True)
    model = reference.random_clip(24, {"width": 32, "heads": 2, "layers": 2}).to(dtype)
    clip: Any = SimpleNamespace(**{**vars(where.clip), "tower": TextTower(model, where.tokenizer)})
    method = PLOT(PLOT.Params(epochs=2, batch=4))
    # What a half-precision image tower gives: the feature cache keeps it as float32, unnormalised and large.
    tasks = [
        type(t)(t.name, t.task_name, t.class_names, t.template, (t.views * 1000).to(dtype).float(), t.labels)
        for t in where.tasks
    ]
    method.fit(clip, tasks, 1, lambda done, total: None)
    assert all(value.isfinite().all() and value.dtype == torch.float32 for value in method.learned.values())
    scores = method.predict(tasks[0], some_images(method))
    assert scores.isfinite().all() and scores.dtype == torch.float32
    single, *_ = fit("plot", where, epochs=2)
    torch.testing.assert_close(scores, single.predict(tasks[0], some_images(method)), rtol=0.1, atol=1.0)


def test_its_images_are_sets_of_local_features() -> None:
    assert PLOT.image == "local"
    assert some_images(PLOT()).shape[1] == PLACES
