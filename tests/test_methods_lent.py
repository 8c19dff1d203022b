"""`unseen`: trained tasks' contexts serve a task that was not trained on, their mean or that of the nearest name."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from bench.cells import parameters_kept
from bench.config import RunConfig
from bench.errors import UserError
from bench.methods import TaskData, find_method, method_names
from bench.methods.prompt import PromptMethod
from bench.plan import prepare

sys.path.append(str(Path(__file__).parent))
from test_methods_all import RECIPE, some_images, world

pytestmark = pytest.mark.usefixtures("one_thread")

PROMPTS = [name for name in method_names() if issubclass(find_method(name), PromptMethod)]
PER_TASK = ["coop", "kgcoop", "prograd", "plot"]
CLOSED = {"coop-cs", "softcpt-csta", "softcpt-csts"}  # a context belongs to a class
MORE_THAN_CONTEXTS = {"cocoop", "lasp"}


def trained(name: str, n_tasks: int, **params: Any) -> Any:
    where = world(find_method(name).image == "local")
    made = find_method(name)(find_method(name).Params(epochs=1, **RECIPE, **params))
    made.fit(where.clip, where.tasks[:n_tasks], 1, lambda done, total: None)
    return made


def new(name: str = "vehicle recognition") -> TaskData:
    return replace(world().tasks[0], name="new", task_name=name, class_names=("car", "bicycle", "tram"))


@pytest.mark.parametrize("how", ["mean", "nearest"])
@pytest.mark.parametrize("name", sorted({*PROMPTS} - CLOSED))
def test_of_a_single_trained_task_every_way_takes_its_context(name: str, how: str) -> None:
    if how == "mean" and name in MORE_THAN_CONTEXTS:
        return
    method = trained(name, 1, unseen=how)
    images = some_images(method)
    scores = method.predict_new(new(), images)
    assert torch.equal(scores, method.predict(method.tasks[0], images, new().class_names))


def test_coop_trained_jointly_lends_as_alone() -> None:
    method = trained("coop", 2, joint=True, unseen="mean")
    with torch.no_grad():
        method.learned["context"][0], method.learned["context"][1] = 0.1, 0.5
    images = some_images(method)
    scores = method.predict_new(new(), images)
    with torch.no_grad():
        method.learned["context"][0] = 0.3
    torch.testing.assert_close(scores, method.predict(method.tasks[0], images, new().class_names))


@pytest.mark.parametrize("name", PER_TASK)
def test_the_mean_of_two_contexts_is_taken_vector_by_vector(name: str) -> None:
    """0.1 and 0.5 make 0.3; of PLOT's, the second context of each task has −0.4 and 0.2, which make −0.1."""
    more = {"prompts": 2} if name == "plot" else {}
    method = trained(name, 2, unseen="mean", **more)
    by_hand = {"context-0": (0.1, -0.4), "context-1": (0.5, 0.2), "mean": (0.3, -0.1)}
    pattern = torch.linspace(-1, 1, method.params.context)[:, None]  # a context's vectors differ
    made = {
        key: torch.stack([n * pattern.expand(-1, 32) for n in numbers[: len(method.learned["context-0"])]])
        for key, numbers in by_hand.items()
    }
    assert made["mean"].shape == method.learned["context-0"].shape
    method.learned = {key: made[key] for key in ("context-0", "context-1")}
    images = some_images(method)
    scores = method.predict_new(new(), images)
    method.learned["context-0"] = made["mean"]
    torch.testing.assert_close(scores, method.predict(method.tasks[0], images, new().class_names))


def name_features(method: Any, monkeypatch: Any, features: dict[str, list[float]]) -> None:
    """Frozen features of tasks' names, set by hand."""
    found = {f"{name}.": torch.tensor(values) for name, values in features.items()}
    monkeypatch.setattr(method.clip.tower, "encode_texts", lambda texts: torch.stack([found[text] for text in texts]))


@pytest.mark.parametrize("name", [*PER_TASK, *sorted(MORE_THAN_CONTEXTS)])
def test_nearest_takes_the_context_of_the_most_similar_name(name: str, monkeypatch: Any) -> None:
    """Cosines to (10, 9): 0.74 of (1, 0), 0.999 of (3, 3), 0.67 of (0, 9), whose product is the largest."""
    method = trained(name, 3, unseen="nearest")
    names = [task.task_name for task in method.tasks]
    features = dict(zip(names, ([1.0, 0], [3.0, 3], [0.0, 9]), strict=True))
    name_features(method, monkeypatch, {**features, new().task_name: [10.0, 9]})
    images = some_images(method)
    scores = method.predict_new(new(), images)
    each = [method.predict(task, images, new().class_names) for task in method.tasks]
    assert [torch.equal(scores, own) for own in each] == [False, True, False]


def test_of_equally_similar_names_the_first_task_s_context_is_taken(monkeypatch: Any) -> None:
    method = trained("coop", 3, unseen="nearest")
    first, second, third = method.tasks
    names = [task.task_name for task in method.tasks]
    features = dict(zip(names, ([0.0, 1], [1.0, 0], [1.0, 0]), strict=True))
    name_features(method, monkeypatch, {**features, "x": [2.0, 0]})
    assert method.nearest("x").name == second.name
    method.know(method.clip, [first, replace(third, task_name=second.task_name), second])  # two tasks of one name
    assert method.nearest("x").name == third.name


def test_without_the_option_nothing_is_lent_and_the_reason_names_it() -> None:
    for name in PER_TASK:
        with pytest.raises(UserError, match=f"^{name} cannot score task 'new', .*unseen=mean or nearest takes"):
            trained(name, 1).predict_new(new(), torch.zeros(1, 1))
    assert "(unseen=nearest takes" in find_method("cocoop").refuses_unseen(find_method("cocoop").Params())


@pytest.mark.parametrize("name", sorted(CLOSED | MORE_THAN_CONTEXTS))
def test_what_cannot_be_lent_is_refused_with_the_reason(name: str) -> None:
    kind = find_method(name)
    why = kind.refuses_unseen(kind.Params(unseen="mean"))
    assert ("unseen=mean: it learns more than contexts" if name in MORE_THAN_CONTEXTS else kind.no_new_classes) in why
    assert bool(kind.refuses_unseen(kind.Params(unseen="nearest"))) == (name in CLOSED)


def test_a_method_that_makes_a_context_of_a_new_name_can_take_the_mean_instead() -> None:
    """Of SoftCPT the mean of f P over the trained tasks, whatever the new task is called."""
    own, mean = trained("softcpt", 3), trained("softcpt", 3, unseen="mean")
    images = some_images(own)
    assert all(torch.equal(value, mean.learned[key]) for key, value in own.learned.items())
    one, other = (mean.predict_new(new(name), images) for name in ("vehicle recognition", "x"))
    assert torch.equal(one, other) and not torch.allclose(one, own.predict_new(new(), images), rtol=1e-3)


def test_left_at_its_default_it_is_no_part_of_a_cell_s_key() -> None:
    for name in PROMPTS:
        assert "unseen" not in parameters_kept(find_method(name).Params())
        assert parameters_kept(find_method(name).Params(unseen="mean"))["unseen"] == "mean"


def test_only_nearest_reads_tasks_names() -> None:
    kind = find_method("kgcoop")
    texts = {how: kind.texts(kind.Params(unseen=how), new()) for how in ("own", "mean", "nearest")}
    assert texts["own"] == texts["mean"]
    assert {*texts["nearest"]} - {*texts["own"]} == {("vehicle recognition.", 0)}


# Runs --------------------------------------------------------------------------------------------------------


def test_a_run_that_names_no_methods_leaves_out_those_that_the_protocol_cannot_test(tiny: Any, tmp_path: Path) -> None:
    given = {**tiny.arguments, "results": tmp_path, "quiet": True, "shots": [1], "seeds": [1]}
    given.pop("methods", None)

    def methods(plan: Any) -> list[str]:
        return list(dict.fromkeys(cell.variant.method.name for cell in plan.cells))

    plan = prepare(RunConfig(**given, protocol="unseen-task"))
    assert sorted(methods(plan)) == ["shared-coop", "softcpt", "zero-shot"]
    assert list(plan.left_out) == ["coop"] and "unseen=mean or nearest" in plan.left_out["coop"]
    opened = prepare(RunConfig(**given, protocol="unseen-task", options=["coop.unseen=mean"]))
    assert sorted(methods(opened)) == ["coop", "shared-coop", "softcpt", "zero-shot"] and not opened.left_out
    assert sorted(methods(prepare(RunConfig(**given)))) == ["coop", "shared-coop", "softcpt", "zero-shot"]
    with pytest.raises(UserError, match="leave out coop: what it learns belongs to"):
        prepare(RunConfig(**given, protocol="unseen-task", methods=["coop", "softcpt"]))


def test_under_other_names_nearest_scores_their_tasks_contexts_and_the_mean_nothing(tiny: Any, tmp_path: Path) -> None:
    """Of a name that leads to the same context as the own one there is a score, too: it is that of the own name."""
    options = ["coop.unseen=mean,nearest"]
    tiny.run(tmp_path, methods=["coop"], shots=[1], seeds=[1], options=options, protocol="source-task:Colour")
    for record in tiny.records(tmp_path).values():
        for row in record["tasks"]:
            found = record["under_names"].get(row["task"])
            same = {"": row["accuracy"], "Colour": row["accuracy"]}  # one trained task serves every name
            assert found == (same if record["config"]["params"]["unseen"] == "nearest" else None)
