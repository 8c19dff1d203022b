"""What every trained method holds, and `check_steps`: a method's training against one written plainly.

The test files of the single methods give `check_steps` the method's loss as a formula. It stands on
`reference.encode` (77 tokens, open_clip's own forward) and on nothing of the bench.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from bench.clip.projection import Projection
from bench.clip.text import TextTower
from bench.errors import UserError
from bench.methods import TaskData, find_method, method_names
from bench.methods.prompt import PromptMethod

sys.path.append(str(Path(__file__).parent))
import reference

pytestmark = pytest.mark.usefixtures("one_thread")

NAMES = (("cat", "golden retriever", "crocodile head"), ("oak tree", "fern"), ("red", "dark green", "blue", "grey"))
TEMPLATES = ("a photo of a {}.", "{}, a type of plant.", "something {}.")
TASK_NAMES = ("animal recognition", "plant recognition", "recognition of the colour of things")
EMBED, SHOTS, BATCH, PLACES = 24, 2, 4, 5
RECIPE = {"batch": BATCH, "lr": 0.004, "warmup_lr": 0.001}

Parameters = dict[str, Tensor]
Images = list[tuple[int, Tensor, int]]  # of one step: task, normalised features, label


# ---- a world -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class World:
    """A tiny CLIP and three tasks with 3, 2 and 4 classes."""

    model: Any
    tokenizer: Any
    clip: Any
    tasks: list[TaskData]

    @property
    def scale(self) -> float:
        return self.clip.scale

    def text(self, contexts: Tensor, names: Sequence[str]) -> Tensor:
        """Normalised text features [n, d], plainly: context i [L, w] before name i; one [L, w] serves all."""
        each = contexts.expand(len(names), -1, -1)
        features = reference.encode(self.model, self.tokenizer, each, list(names))
        return features / features.norm(dim=1, keepdim=True)

    def written(self, task: int) -> Tensor:
        """Normalised features of the hand-written prompts, by open_clip's own tokenizer and forward."""
        sentences = [TEMPLATES[task].format(name) for name in NAMES[task]]
        features = self.model.encode_text(self.tokenizer(sentences))
        return features / features.norm(dim=1, keepdim=True)


@cache
def world(local: bool = False) -> World:
    """With pooled image features, or with five local ones an image."""
    model = reference.random_clip(EMBED, {"width": 32, "heads": 2, "layers": 2})
    tokenizer = reference.clip_tokenizer()
    tower, rng = TextTower(model, tokenizer), torch.Generator().manual_seed(0)
    clip = SimpleNamespace(
        tower=tower, scale=float(model.logit_scale.exp()), embed_dim=EMBED, device=torch.device("cpu"),
        projection=Projection(torch.randn(EMBED, EMBED, generator=rng), torch.randn(EMBED, generator=rng)),
    )  # fmt: skip
    return World(model, tokenizer, clip, [task(t, local) for t in range(3)])


def task(t: int, local: bool) -> TaskData:
    rng = torch.Generator().manual_seed(t)
    labels = torch.arange(len(NAMES[t])).repeat(SHOTS)
    shape = (PLACES, EMBED) if local else (EMBED,)
    middles = torch.randn(len(NAMES[t]), *shape, generator=rng)
    views = middles[labels] + torch.randn(2, len(labels), *shape, generator=rng)
    return TaskData(
        f"task {t}", TASK_NAMES[t], NAMES[t], TEMPLATES[t], views, labels, views[0], views[1], labels,
        flip_view=views[1],
    )  # fmt: skip


# ---- ten steps -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Step:
    epoch: int
    images: Images
    loss: float


def fit(
    name: str, where: World, epochs: int | None = None, by_task: Mapping[str, Any] | None = None, **params: Any
) -> tuple[Any, Parameters, list[Step]]:
    """A trained method, its start values, and what each of its steps saw; epochs for at least ten steps a training.

    by_task : parameters of a task that differ, by its name.
    """
    chosen: Any = find_method(name)
    if epochs is None:  # alone, a task has one or two batches an epoch, all tasks together have four
        epochs = 10 if chosen(chosen.Params(**params)).separate else 3
    settings = chosen.Params(epochs=epochs, **{**RECIPE, **params})
    start, method = chosen(settings), chosen(settings)
    for made in (start, method):
        made.by_task = {task: replace(settings, **own) for task, own in (by_task or {}).items()}
    start.setup(where.clip, where.tasks, seed=1)
    steps: list[Step] = []
    inner = method.gradients

    def gradients(together: Any) -> None:
        with torch.no_grad():
            losses = method.losses(together)
        for (_, batch), loss in zip(together, losses, strict=True):
            n_images = sum(len(where.tasks[t].labels) for t in (batch.present if method.separate else range(3)))
            mine = [s for s in steps if not method.separate or s.images[0][0] == batch.present[0]]
            images = list(zip(batch.tasks.tolist(), batch.features, batch.labels.tolist(), strict=True))
            steps.append(Step(1 + len(mine) // (n_images // BATCH), images, loss.item()))
        inner(together)

    method.gradients = gradients
    method.fit(where.clip, where.tasks, 1, lambda done, total: None)
    return method, {name: value.detach().clone() for name, value in start.learned.items()}, steps


def check_steps(
    name: str,
    loss_of: Callable[[Parameters, Images], Tensor],
    gradients_of: Callable[[Parameters, Images], Sequence[Tensor]] | None = None,
    local: bool = False,
    n_names: int = 1,
    start: Parameters | None = None,
    **params: Any,
) -> None:
    """The method's losses and parameters are the plain ones' after at least ten steps.

    Parameters
    ----------
    loss_of : the loss of a step's images. A method that trains each task alone has parameters for each task;
        the function then gets one task's, and that task's images.
    gradients_of : of a method that does not follow its loss's gradient.
    n_names : how often optimiser and scheduler step, for each batch and each epoch.
    start : where the steps start from, of a method that has learned something before them.
    """
    where = world(local)
    method, made, steps = fit(name, where, **params)
    start = made if start is None else start
    recipe = reference.Recipe(method.params.epochs, method.params.lr, method.params.warmup_lr, names=n_names)
    trainings = [("", steps)]
    if method.separate:
        trainings = [(f"-{t}", [step for step in steps if step.images[0][0] == t]) for t in range(3)]
    for suffix, own in trainings:
        assert len(own) >= 10
        mine = [n for n in start if n.endswith(suffix)]
        values = {n.removesuffix(suffix): start[n].clone().requires_grad_(True) for n in mine}
        speed = {n: torch.zeros_like(v) for n, v in values.items()}
        for step in own:
            loss = loss_of(values, step.images)
            assert step.loss == pytest.approx(loss.item(), rel=1e-4, abs=1e-5)  # logits near 50 round at 4e-6
            found = (
                gradients_of(values, step.images) if gradients_of else torch.autograd.grad(loss, list(values.values()))
            )
            for (n, value), gradient in zip(values.items(), found, strict=True):
                for _ in range(n_names):
                    speed[n] = recipe.momentum * speed[n] + gradient + recipe.weight_decay * value.detach()
                    with torch.no_grad():
                        value -= recipe.learning_rate(step.epoch) * speed[n]
        for n, value in values.items():
            learned, begun = method.learned[n + suffix].detach(), start[n + suffix]
            assert relative(begun, value.detach()) > 0.01, f"{n} hardly moved: this would show nothing"
            assert relative(learned, value.detach()) < 1e-4, n


def relative(a: Tensor, b: Tensor) -> float:
    return (a - b).norm().item() / b.norm().item()


def cross_entropy(logits: Tensor, label: int) -> Tensor:
    return logits.logsumexp(dim=0) - logits[label]


# ---- every method --------------------------------------------------------------------------------------------

SEEN_ONLY = {name: find_method(name).no_new_classes for name in method_names() if find_method(name).no_new_classes}


@cache
def fitted(name: str) -> Any:
    method = find_method(name)
    known = {f.name for f in fields(method.Params)}
    settings = {name: value for name, value in {"epochs": 1, "steps": 8, **RECIPE}.items() if name in known}
    made: Any = method(method.Params(**settings))
    made.fit(world(method.image == "local").clip, world(method.image == "local").tasks, 1, lambda done, total: None)
    return made


def some_images(method: Any, n: int = 6) -> Tensor:
    shape = (PLACES, EMBED) if method.image == "local" else (EMBED,)
    return torch.randn(n, *shape, generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize("name", [n for n in method_names() if n not in SEEN_ONLY])
def test_classes_never_seen_are_scored(name: str) -> None:
    method = fitted(name)
    images = some_images(method)
    scores = method.predict(method.tasks[1], images, ["zebra", "red", "a very long name of a class"])
    assert scores.shape == (6, 3) and scores.isfinite().all()
    if name == "gda":  # its new classes share one covariance
        return
    alone = method.predict(method.tasks[1], images, ["red"])
    torch.testing.assert_close(scores[:, 1:2], alone, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", SEEN_ONLY)
def test_a_method_that_cannot_score_unseen_classes_says_why(name: str) -> None:
    method = fitted(name)
    with pytest.raises(UserError, match=f"^{re.escape(name)} .*{SEEN_ONLY[name]}"):
        method.predict(method.tasks[1], some_images(method), ["oak tree", "moss"])


@pytest.mark.parametrize("name", method_names())
def test_a_task_s_own_names_are_what_it_scores_by_default(name: str) -> None:
    method = fitted(name)
    images = some_images(method)
    for t, names in enumerate(NAMES):
        scores = method.predict(method.tasks[t], images)
        assert scores.shape == (6, len(names))
        torch.testing.assert_close(method.predict(method.tasks[t], images, list(names)), scores)


@pytest.mark.parametrize("name", method_names())
def test_a_task_is_known_by_its_names_alone(name: str) -> None:
    method = fitted(name)
    images = some_images(method)
    for task in method.tasks:
        bare = replace(task, views=torch.zeros(0), labels=torch.zeros(0), test_view=torch.zeros(0), val=torch.zeros(0))
        assert torch.equal(method.predict(bare, images), method.predict(task, images))


@pytest.mark.parametrize("name", [n for n in method_names() if find_method(n).trains])
def test_a_task_that_a_method_was_not_trained_on_is_refused_by_name(name: str) -> None:
    method = fitted(name)
    unseen = replace(method.tasks[0], name="elsewhere")
    with pytest.raises(UserError, match=f"^{re.escape(name)} was not trained on task 'elsewhere'; valid: "):
        method.predict(unseen, some_images(method))


def test_zero_shot_scores_a_task_that_it_was_not_given() -> None:
    method = fitted("zero-shot")
    names, images = ("zebra", "moss"), some_images(method)
    unseen = replace(method.tasks[0], name="elsewhere", class_names=names)
    assert torch.equal(method.predict(unseen, images), method.predict(method.tasks[0], images, names))


@pytest.mark.parametrize("name", method_names())
def test_an_image_s_scores_do_not_depend_on_the_images_beside_it(name: str) -> None:
    method = fitted(name)
    images = some_images(method)
    alone = torch.cat([method.predict(method.tasks[2], image[None]) for image in images])
    torch.testing.assert_close(method.predict(method.tasks[2], images), alone, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", [n for n in method_names() if issubclass(find_method(n), PromptMethod)])
def test_training_follows_from_the_seed_alone(name: str) -> None:
    where = world(find_method(name).image == "local")
    with torch.random.fork_rng():
        first, *_ = fit(name, where, epochs=1)
        torch.manual_seed(99)
        second, *_ = fit(name, where, epochs=1)
    assert all(torch.equal(value, second.learned[n]) for n, value in first.learned.items())


@pytest.mark.parametrize("name", ["coop-cs", "kgcoop", "prograd", "cocoop", "plot", "lasp"])
def test_a_task_trained_alone_gets_what_it_gets_among_others(name: str) -> None:
    where = world(find_method(name).image == "local")
    among, *_ = fit(name, where, epochs=1)
    made = find_method(name)
    alone: Any = made(made.Params(epochs=1, **RECIPE))
    alone.fit(where.clip, where.tasks[2:], 1, lambda done, total: None)
    for n, value in alone.learned.items():
        torch.testing.assert_close(value, among.learned[n.replace("-0", "-2")], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("cocoop", {"reduction": 0}),
        ("cocoop", {"max_tokens": 0}),
        ("kgcoop", {"pull": -1.0}),
        ("lasp", {"text_weight": -1.0}),
        ("lasp", {"noise": -0.1}),
        ("linear-probe", {"steps": -1}),
        ("linear-probe", {"iterations": 0}),
        ("plot", {"prompts": 0}),
        ("plot", {"iterations": 0}),
        ("plot", {"epsilon": 0.0}),
        ("plot", {"epsilon": 0.01}),
        ("plot", {"tolerance": -1.0}),
        ("prograd", {"temperature": 0.0}),
        ("prograd", {"projection": float("nan")}),
        ("softcpt", {"task_context": 0}),
        ("softcpt-csts", {"class_context": 0}),
    ],
)
def test_a_parameter_that_makes_no_sense_is_an_error_that_names_it(name: str, params: dict[str, Any]) -> None:
    (parameter,) = params
    with pytest.raises(UserError, match=f"^{parameter}="):
        find_method(name).Params(**params)


