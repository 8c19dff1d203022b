"""SoftCPT's other readings: a task context a task, no task context, and a context a class."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from bench.methods.softcpt_class import SoftCPTCSTA
from bench.methods.softcpt_star import SoftCPTStar
from bench.methods.training import Batch, batches
from bench.recipe import load_recipe

sys.path.append(str(Path(__file__).parent))
import reference
from test_methods_all import NAMES, TASK_NAMES, Images, Parameters, check_steps, cross_entropy, world

pytestmark = pytest.mark.usefixtures("one_thread")

LENGTH, WIDTH = 5, 32  # of class contexts here; the paper's are 16 long


def joint_loss(text: list[Tensor], images: Images) -> Tensor:
    """Mean cross-entropy, each image over its own task's classes."""
    return torch.stack([cross_entropy(world().scale * text[t] @ image, label) for t, image, label in images]).mean()


def feature(contexts: Tensor, name: str) -> Tensor:
    """E("v_1 … v_n <name>."), not normalised."""
    return reference.encode(world().model, world().tokenizer, contexts[None], [name])[0]


def nats(parameters: Parameters, images: Images) -> Tensor:
    text = []
    for u, task_name, names in zip(parameters["task_context"], TASK_NAMES, NAMES, strict=True):
        context = (feature(u, task_name) @ parameters["projection"]).reshape(LENGTH, WIDTH)
        text.append(world().text(context, names))
    return joint_loss(text, images)


def nata(parameters: Parameters, images: Images) -> Tensor:
    return nats({**parameters, "task_context": parameters["task_context"].expand(len(TASK_NAMES), -1, -1)}, images)


def star(parameters: Parameters, images: Images) -> Tensor:
    text = []
    for task_name, names in zip(TASK_NAMES, NAMES, strict=True):
        with torch.no_grad():
            f = world().model.encode_text(world().tokenizer([f"{task_name}."]))[0]
        made = (f @ parameters["projection"]).reshape(LENGTH, WIDTH)
        text.append(world().text(parameters["context"][0] + made, names))
    return joint_loss(text, images)


def class_conditional(parameters: Parameters, images: Images) -> Tensor:
    """reshape([g_c ; f_t] · P): one z, or one a class in the order of tasks; one u, or one a task."""
    z, u = parameters["class_context"], parameters["task_context"]
    text, n_seen = [], 0
    for t, (task_name, names) in enumerate(zip(TASK_NAMES, NAMES, strict=True)):
        f = feature(u[t] if len(u) > 1 else u[0], task_name)
        contexts = []
        for name in names:
            g = feature(z[n_seen] if len(z) > 1 else z[0], name)
            contexts.append((torch.cat([g, f]) @ parameters["projection"]).reshape(LENGTH, WIDTH))
            n_seen += 1
        text.append(world().text(torch.stack(contexts), names))
    return joint_loss(text, images)


def test_ten_steps_of_nats_are_those_of_the_plain_formula() -> None:
    check_steps("softcpt-nats", nats, context=LENGTH, task_context=3)


def test_ten_steps_of_star_are_those_of_the_plain_formula() -> None:
    check_steps("softcpt-star", star, context=LENGTH)


@pytest.mark.parametrize("name", ["softcpt-cata", "softcpt-cats", "softcpt-csta", "softcpt-csts"])
def test_ten_steps_of_the_class_conditional_ones_are_those_of_the_plain_formula(name: str) -> None:
    check_steps(name, class_conditional, context=LENGTH, task_context=3, class_context=2)


@pytest.mark.parametrize(
    ("name", "loss", "params", "names"),
    [
        ("softcpt", nata, {}, 3),
        ("softcpt-nats", nats, {}, 3),
        ("softcpt-cata", class_conditional, {"class_context": 2}, 4),
        ("softcpt-csts", class_conditional, {"class_context": 2}, 4),
    ],
)
def test_steps_of_the_public_training_loop_are_those_of_the_plain_one(
    name: str, loss: Any, params: dict[str, int], names: int
) -> None:
    """One gradient per batch, applied once for each registered name; so does the schedule step once for each."""
    values = load_recipe("softcpt-public").values[name]
    assert values == {"repeats": names, "schedule_steps": names}
    check_steps(name, loss, n_names=names, context=LENGTH, task_context=3, **values, **params)


def test_some_of_the_absent_classes_are_scored_and_all_of_those_in_the_batch() -> None:
    """Each step's loss is the plain one over the classes that the step encoded."""
    asked: list[list[list[str]]] = []

    class Recording(SoftCPTCSTA):
        def prompts(self, tasks: Any, names: Any) -> Any:
            asked.append([list(own) for own in names])
            return super().prompts(tasks, names)

    params = Recording.Params(epochs=2, batch=4, context=LENGTH, task_context=3, class_context=2, absent=0.5)
    method: Any = Recording(params)
    method.setup(world().clip, world().tasks, seed=1)
    rng = torch.Generator().manual_seed(0)
    sizes = set()
    for _, batch in batches(world().tasks, range(3), params, rng, torch.device("cpu")):
        (loss,) = method.losses([(method, batch)])
        (names,) = asked[-1:]
        terms = []
        for image, label, t in zip(batch.features, batch.labels.tolist(), batch.tasks.tolist(), strict=True):
            own = names[batch.present.index(t)]
            in_batch = {NAMES[t][c] for c in batch.labels[batch.tasks == t].tolist()}
            n_absent = len(NAMES[t]) - len(in_batch)
            assert in_batch <= set(own) and len(own) == len(in_batch) + (n_absent + 1) // 2
            sizes.add(len(own) < len(NAMES[t]))
            first = sum(len(n) for n in NAMES[:t])
            text = []
            for name in own:
                g = feature(method.learned["class_context"][first + NAMES[t].index(name)], name)
                f = feature(method.learned["task_context"][0], TASK_NAMES[t])
                made = (torch.cat([g, f]) @ method.learned["projection"]).reshape(LENGTH, WIDTH)
                text.append(world().text(made, [name])[0])
            terms.append(cross_entropy(world().scale * torch.stack(text) @ image, own.index(NAMES[t][label])))
        assert loss.item() == pytest.approx(torch.stack(terms).mean().item(), rel=1e-4)
    assert True in sizes  # something was left out


def test_the_footnote_says_that_star_is_our_reading() -> None:
    assert "our interpretation" in SoftCPTStar.footnote


def test_classes_of_one_name_have_contexts_of_their_own() -> None:
    """In one task and in another: each class reads its own z, and an image of the second crane trains the second's."""
    names = [("crane", "heron", "crane"), ("fern", "crane")]
    tasks = [replace(task, class_names=own) for task, own in zip(world().tasks, names, strict=False)]
    params = SoftCPTCSTA.Params(context=LENGTH, task_context=3, class_context=2, absent=0.01)
    method: Any = SoftCPTCSTA(params)
    method.setup(world().clip, tasks, seed=1)
    z, made = method.learned["class_context"], []
    for k, (t, name) in enumerate([(0, "crane"), (0, "heron"), (0, "crane"), (1, "fern"), (1, "crane")]):
        f = feature(method.learned["task_context"][0], TASK_NAMES[t])
        made.append((torch.cat([feature(z[k], name), f]) @ method.learned["projection"]).reshape(LENGTH, WIDTH))
    torch.testing.assert_close(torch.cat(method.contexts([0, 1], names)), torch.stack(made))

    one = Batch.of(tasks[0].views[0][2:3], torch.tensor([2]), torch.tensor([0]))  # an image of the second crane
    method.losses([(method, one)])[0].backward()
    assert z.grad[2].abs().sum() > 0 and z.grad[4].abs().sum() == 0
    drawn = [method.scored(one) for _ in range(9)]  # the heron or not; the first crane always, by its name
    assert {tuple(scored) for _, (scored,) in drawn} == {("crane", "crane"), ("crane", "heron", "crane")}
    assert all(batch.labels.item() == len(scored) - 1 for batch, (scored,) in drawn)
