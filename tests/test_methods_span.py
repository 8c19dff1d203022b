"""What serves an unseen task: a guest that shares what was learned, and the part of its name that was trained on."""

from __future__ import annotations

import sys
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from bench.errors import UserError
from bench.methods import TaskData, find_method, method_names
from bench.methods.softcpt import SoftCPT
from bench.methods.span import inside_span

sys.path.append(str(Path(__file__).parent))
from test_methods_all import EMBED, RECIPE, fitted, some_images, world

pytestmark = pytest.mark.usefixtures("one_thread")

WITH_SPAN = ["softcpt", "softcpt-star", "softcpt-cata"]


def unseen(task_name: str) -> TaskData:
    task = world().tasks[0]
    return replace(task, name="new", task_name=task_name, class_names=("rose", "tulip"))


def trained(name: str, **params: Any) -> Any:
    kind = find_method(name)
    made = kind(kind.Params(epochs=1, **RECIPE, **params))
    made.fit(world().clip, world().tasks, 1, lambda done, total: None)
    return made


def test_span_by_hand() -> None:
    """F = [[1, 0, 0], [0, 2, 0]]: of (3, 1, 5) the third number lies outside."""
    seen = torch.tensor([[1.0, 0, 0], [0, 2, 0]])
    assert torch.allclose(inside_span(torch.tensor([[3.0, 1, 5]]), seen), torch.tensor([[3.0, 1, 0]]))


def test_with_one_trained_task_the_span_is_its_direction() -> None:
    """⟨(3, 4), (2, 0)⟩ / 4 · (2, 0) = (3, 0)."""
    assert torch.allclose(inside_span(torch.tensor([[3.0, 4]]), torch.tensor([[2.0, 0]])), torch.tensor([[3.0, 0]]))


def test_directions_that_trained_tasks_hardly_differ_in_are_left_out() -> None:
    """Singular values of diag(1000, 0.5) are 1000 and 0.5: the second is below a thousandth of the first."""
    seen = torch.diag(torch.tensor([1000.0, 0.5]))
    assert torch.allclose(inside_span(torch.tensor([[7.0, 7]]), seen), torch.tensor([[7.0, 0]]))


@pytest.mark.parametrize("name", WITH_SPAN)
def test_span_changes_no_trained_task_and_changes_an_unseen_one(name: str) -> None:
    plain, spanned = trained(name), trained(name, span=True)
    images = some_images(plain)
    for n, value in plain.learned.items():
        assert torch.equal(value, spanned.learned[n])
    for task in world().tasks:
        assert torch.equal(plain.predict(task, images), spanned.predict(task, images))
        # F has full row rank here: a trained task's feature is inside the span.
        torch.testing.assert_close(spanned.predict_new(task, images), plain.predict(task, images), rtol=1e-3, atol=1e-3)
    new = unseen("recognition of furniture")
    assert not torch.allclose(spanned.predict_new(new, images), plain.predict_new(new, images), rtol=1e-2)


def test_span_is_the_contexts_projection_onto_those_of_trained_tasks() -> None:
    """f̂ P is a combination of the trained tasks' contexts f_t P, with the coefficients f F⁺: solved for here."""
    method = trained("softcpt", span=True)
    method.predict_new(unseen("recognition of furniture"), some_images(method))
    (guest,) = method._guests.values()
    with torch.no_grad():
        made, f = guest.context_rows([0])[0], guest.features([0])[0]
        theirs, features = method.context_rows(range(3)), method.features(range(3))
        weights = torch.linalg.lstsq(features.double().T, f.double()[:, None]).solution[:, 0]
    assert torch.allclose(made.double(), weights @ theirs.double(), atol=1e-4 * float(made.norm()))


OF_SOFTCPT = [n for n in method_names() if issubclass(k := find_method(n), SoftCPT) and hasattr(k.Params(), "span")]


@pytest.mark.parametrize("name", OF_SOFTCPT)
def test_every_method_with_a_span_makes_an_unseen_context_of_the_projected_feature(name: str) -> None:
    """Whatever it does with the feature: the context is that of a name which has the projection for its feature."""
    kind: Any = find_method(name)
    method = kind(kind.Params(**RECIPE, context=4, span=True))
    method.setup(world().clip, world().tasks, 1)
    for parameter in {"keys", "contexts"} & set(method.learned):  # near 0 at the start
        method.learned[parameter].data.normal_(generator=torch.Generator().manual_seed(1))
    new = unseen("recognition of furniture")
    method.predict_new(new, some_images(method))
    (guest,) = method._guests.values()
    plain = copy(guest)
    plain.params = replace(guest.params, span=False)
    with torch.no_grad():
        made, uncut = (torch.cat(one.contexts([0], [new.class_names])) for one in (guest, plain))
        cut = inside_span(guest.features([0]), method.features(range(3)))
        plain.features = lambda tasks: cut
        (expected,) = plain.contexts([0], [new.class_names])
    assert (made - expected).norm() < 1e-5 * expected.norm()
    assert (made - uncut).norm() > 1e-3 * expected.norm()


@pytest.mark.parametrize("name", ["softcpt-nats", "softcpt-csta", "shared-coop"])
def test_methods_that_make_no_context_of_an_unseen_name_have_no_span(name: str) -> None:
    assert not hasattr(find_method(name).Params(), "span")


def test_a_guest_shares_what_was_learned_and_draws_nothing(count_calls: Any) -> None:
    method = fitted("softcpt")
    drawn = count_calls(type(method), "initialise")
    method.predict_new(unseen("recognition of cars"), torch.zeros(1, EMBED))
    ((_, guest),) = method._guests.items()
    assert drawn == [] and guest.learned is method.learned and guest.host is method and method.host is None
    assert [task.name for task in method.tasks] == ["task 0", "task 1", "task 2"]


def test_a_parameter_may_close_a_method_to_unseen_tasks(tiny: Any, tmp_path: Path, monkeypatch: Any) -> None:
    """The plan asks with the parameters that a variant has, before anything is trained."""
    monkeypatch.setattr(SoftCPT, "unseen_of", classmethod(lambda cls, p: "not with a span" if p.span else ""))
    for options, said in ([["softcpt.span=true"], "leave out softcpt .span=True.: not with a span"],):
        with pytest.raises(UserError, match=said):
            tiny.run(tmp_path, methods=["softcpt"], protocol="unseen-task", options=options)
    assert not tiny.records(tmp_path)
