"""softcpt-graph: task features smoothed over a graph of tasks."""

from __future__ import annotations

import math
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from bench.errors import UserError
from bench.methods import TaskData
from bench.methods.softcpt_graph import SoftCPTGraph

sys.path.append(str(Path(__file__).parent))
from test_methods_all import NAMES, TASK_NAMES, Images, Parameters, check_steps, some_images, world
from test_methods_kernels import check_same, contexts, learn
from test_methods_softcpt import LENGTH, WIDTH, feature, joint_loss

pytestmark = pytest.mark.usefixtures("one_thread")

A = 0.25


def bare(texts: list[str]) -> Tensor:
    """Unit features, by open_clip's own tokenizer and forward."""
    with torch.no_grad():
        return F.normalize(world().model.encode_text(world().tokenizer(texts)), dim=-1)


def about(task_name: str, names: Any) -> tuple[Tensor, Tensor]:
    return bare([f"{task_name}."])[0], F.normalize(bare([f"{name}." for name in names]).mean(dim=0), dim=0)


@cache
def seen() -> list[tuple[Tensor, Tensor]]:
    return [about(*pair) for pair in zip(TASK_NAMES, NAMES, strict=True)]


def row(own: tuple[Tensor, Tensor], others: list[int]) -> dict[int, float]:
    """A task's weights of other tasks, written plainly: both features centred over the three trained tasks."""
    middle = [torch.stack([pair[k] for pair in seen()]).mean(dim=0) for k in (0, 1)]
    likeness = {j: sum(float(0.5 * (own[k] - middle[k]) @ (seen()[j][k] - middle[k])) for k in (0, 1)) for j in others}
    exp = {j: math.exp(value / 0.05) for j, value in likeness.items()}
    return {j: value / sum(exp.values()) for j, value in exp.items()}


def plain(parameters: Parameters, images: Images) -> Tensor:
    f = [feature(parameters["task_context"][0], name) for name in TASK_NAMES]
    text = []
    for t, names in enumerate(NAMES):
        weights = row(seen()[t], [j for j in range(3) if j != t])
        smoothed = (1 - A) * f[t] + A * sum(weight * f[j] for j, weight in weights.items())
        text.append(world().text((smoothed @ parameters["projection"]).reshape(LENGTH, WIDTH), names))
    return joint_loss(text, images)


def test_ten_steps_are_those_of_the_plain_formula() -> None:
    check_steps("softcpt-graph", plain, context=LENGTH, task_context=3)


def test_by_hand() -> None:
    """f = (0, 3, 6), every other task ½, a = ½: (2.25, 3, 3.75), f less half of (I − A) f = (−4.5, 0, 4.5)."""
    method = SoftCPTGraph(SoftCPTGraph.Params(a=0.5, graph="uniform"))
    method.tasks = [SimpleNamespace(name=n) for n in "abc"]  # type: ignore[misc]
    f = torch.tensor([[0.0], [3.0], [6.0]])
    method.features = lambda tasks: f[list(tasks)]  # type: ignore[method-assign]
    method.about = torch.zeros(2, 3, 1)
    method.graph, method.neighbours = method._graph(), None
    assert method.graph.tolist() == [[0, 0.5, 0.5], [0.5, 0, 0.5], [0.5, 0.5, 0]]
    assert method.task_input([0, 1, 2]).flatten().tolist() == [2.25, 3, 3.75]
    assert method.task_input([2]).flatten().tolist() == [3.75]  # the others count, in the batch or not


@pytest.mark.parametrize("shift", [0.0, 7.0])
def test_weights_by_hand(shift: float) -> None:
    """e = (1, 0, −1), whatever is added to all; m alike; ρ/κ = 1: first row softmax(0, −1), second (½, ½)."""
    e = torch.tensor([[1.0], [0.0], [-1.0]]) + shift
    marks = torch.stack([e, torch.full((3, 1), 5.0)])
    method = SoftCPTGraph(SoftCPTGraph.Params(temperature=0.5))
    made = method._weights(marks, marks, itself=True)
    expected = torch.tensor([[0, 0.7311, 0.2689], [0.5, 0, 0.5], [0.2689, 0.7311, 0]])
    assert torch.allclose(made, expected, atol=1e-4)
    of_classes = SoftCPTGraph(SoftCPTGraph.Params(temperature=0.5, name_weight=0))._weights(marks, marks, itself=True)
    assert torch.allclose(of_classes, 0.5 * (1 - torch.eye(3)))  # by class names all are alike
    one = SoftCPTGraph(SoftCPTGraph.Params(temperature=0.5, nearest=1))._weights(marks, marks, itself=True)
    assert one.tolist() == [[0, 1, 0], [0.5, 0, 0.5], [0, 1, 0]]  # the nearest; equally near ones share


def test_with_few_neighbours_no_other_name_is_encoded(count_calls: Any) -> None:
    """The same contexts as with the whole rows, whose other weights are 0."""
    method = learn("softcpt-graph", a=0.5, nearest=1, epochs=1)
    (neighbour,) = method.neighbours[0]
    asked = count_calls(method, "features")
    with torch.no_grad():
        made = method.task_input([0])
        assert [list(tasks) for (tasks,) in asked] == [[0], [neighbour]]
        f = method.features(range(3))
        assert (made[0] - 0.5 * (f[0] + f[neighbour])).norm() < 1e-5 * made.norm()


def test_without_smoothing_it_is_softcpt_bit_for_bit() -> None:
    plain, graph = learn("softcpt"), learn("softcpt-graph", a=0)
    assert all(torch.equal(value, graph.learned[n]) for n, value in plain.learned.items())
    assert torch.equal(contexts(plain), contexts(graph))


def test_smoothing_features_is_smoothing_contexts() -> None:
    """P is linear and has no bias: S F P = S (F P), F P being SoftCPT's contexts under the same learned numbers."""
    graph, softcpt = learn("softcpt-graph", a=0.5, epochs=1), learn("softcpt", epochs=1)
    softcpt.learned = graph.learned
    with torch.no_grad():
        expected = (0.5 * torch.eye(3) + 0.5 * graph.graph) @ contexts(softcpt)
    assert (contexts(graph) - expected).norm() < 1e-5 * expected.norm()
    assert (contexts(softcpt) - expected).norm() > 0.01 * expected.norm()


def test_with_next_to_no_smoothing_it_is_softcpt() -> None:
    check_same(learn("softcpt-graph", a=1e-8), learn("softcpt"), "softcpt")


def under(method: Any, tasks: list[TaskData]) -> Any:
    """A trained method for other tasks."""
    other = type(method)(method.params)
    other.restore(world().clip, tasks, method.state())
    return other


def test_a_single_task_and_tasks_of_one_name_are_left_as_softcpt_has_them() -> None:
    graph, softcpt = learn("softcpt-graph", a=0.5, epochs=1), learn("softcpt", epochs=1)
    one, same = world().tasks[:1], [replace(task, task_name="recognition") for task in world().tasks]
    for tasks in (one, same):
        ours, theirs = under(graph, tasks), under(softcpt, tasks)
        theirs.learned = ours.learned
        n = len(tasks)
        with torch.no_grad():
            made, expected = ours.context_rows(range(n)), theirs.context_rows(range(n))
        assert (made - expected).norm() < 1e-5 * expected.norm()


def test_tasks_in_another_order_have_the_same_contexts() -> None:
    graph = learn("softcpt-graph", a=0.5, epochs=1)
    order = [2, 0, 1]
    other = under(graph, [world().tasks[t] for t in order])
    with torch.no_grad():
        torch.testing.assert_close(other.context_rows(range(3)), graph.context_rows(order), rtol=1e-4, atol=1e-5)


def test_an_unseen_task_has_a_row_of_its_own_and_changes_no_other() -> None:
    method = learn("softcpt-graph", a=A, task_context=3, epochs=1)
    before, made_before = method.graph.clone(), contexts(method)
    new = replace(world().tasks[0], name="new", task_name="recognition of furniture", class_names=("chair", "sofa"))
    method.predict_new(new, some_images(method))
    assert torch.equal(method.graph, before) and torch.equal(contexts(method), made_before)
    (guest,) = method._guests.values()
    u = method.learned["task_context"][0].detach()
    f = [feature(u, name).detach() for name in TASK_NAMES]
    weights = row(about(new.task_name, new.class_names), [0, 1, 2])
    expected = (1 - A) * feature(u, new.task_name).detach() + A * sum(w * f[j] for j, w in weights.items())
    with torch.no_grad():
        assert (guest.task_input([0])[0] - expected).norm() < 1e-4 * expected.norm()


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ({}, [0.6652, 0.2447, 0.0900]),  # softmax(1, 0, -1)
        ({"nearest": 1}, [1, 0, 0]),
        ({"nearest": 2}, [0.7311, 0.2689, 0]),
        ({"graph": "uniform"}, [1 / 3, 1 / 3, 1 / 3]),
        ({"graph": "permuted", "draw": 1}, None),
    ],
)
def test_the_row_of_an_unseen_task_by_hand(params: dict[str, Any], expected: list[float] | None) -> None:
    """Trained e = (1, 0, -1), the unseen task's 1; m alike; ρ/κ = 1. Permuted, it is near to whichever task has the
    place of the first."""
    method, guest = (SoftCPTGraph(SoftCPTGraph.Params(temperature=0.5, **params)) for _ in range(2))
    trained, new = ([SimpleNamespace(task_name=n, class_names=()) for n in names] for names in ("abc", "d"))
    method.tasks, guest.tasks = trained, new  # type: ignore[assignment]
    method.about = torch.stack([torch.tensor([[1.0], [0.0], [-1.0]]), torch.full((3, 1), 5.0)])
    guest.about = torch.tensor([[[1.0]], [[5.0]]])
    if expected is None:
        place = method._exchanged().tolist()
        assert place != [0, 1, 2]
        expected = [[0.6652, 0.2447, 0.0900][p] for p in place]
    assert guest._row(method)[0].tolist() == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("graph", ["names", "permuted", "uniform"])
def test_a_trained_tasks_names_score_as_the_task(graph: Any) -> None:
    method = learn("softcpt-graph", a=0.5, graph=graph, epochs=1)
    for task in world().tasks:
        images = some_images(method)
        torch.testing.assert_close(method.predict_new(task, images), method.predict(task, images), rtol=1e-4, atol=1e-4)


def test_with_a_span_an_unseen_feature_is_cut_before_it_is_smoothed() -> None:
    method = learn("softcpt-graph", a=0.5, span=True, epochs=1)
    new = replace(world().tasks[0], name="new", task_name="recognition of furniture")
    method.predict_new(new, some_images(method))
    (guest,) = method._guests.values()
    with torch.no_grad():
        made, seen = guest.task_input([0]), method.features(range(3))
        outside = made - made @ torch.linalg.pinv(seen) @ seen
        assert outside.norm() < 1e-4 * made.norm()
        f = guest.features([0])
        assert (f - f @ torch.linalg.pinv(seen) @ seen).norm() > 0.01 * f.norm()


def test_the_permuted_control_gives_each_task_the_place_of_another() -> None:
    names, permuted = learn("softcpt-graph", epochs=1), learn("softcpt-graph", epochs=1, graph="permuted")
    place = permuted._exchanged().tolist()
    assert sorted(place) == [0, 1, 2] and all(own != t for t, own in enumerate(place))
    for i in range(3):
        for j in range(3):
            assert permuted.graph[i, j] == names.graph[place[i], place[j]]
    assert not torch.allclose(permuted.graph, names.graph, atol=1e-3)
    found = set()
    for draw in range(1, 9):
        permuted.params = replace(permuted.params, draw=draw)
        found.add(tuple(permuted._exchanged().tolist()))
    assert found == {(1, 2, 0), (2, 0, 1)}  # the two without a task in its own place


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({"graph": "uniform", "nearest": 2}, "^nearest=2: with graph=uniform no task is nearer"),
        ({"draw": 2}, "^draw=2: graph=names draws nothing"),
    ],
)
def test_values_that_would_change_nothing_are_refused(params: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        SoftCPTGraph.Params(**params)


@pytest.mark.parametrize(("name", "value"), [("a", -0.6), ("a", 1.0), ("temperature", 0.0), ("name_weight", 1.5)])
def test_values_that_make_no_graph_are_refused(name: str, value: float) -> None:
    with pytest.raises(UserError, match=f"^{name}="):
        SoftCPTGraph.Params(**{name: value})  # type: ignore[arg-type]
