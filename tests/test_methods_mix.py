"""softcpt-rank, coop-mix, softcpt-mix, coop-mpt: what they equal where a part of them is held, and by hand."""

from __future__ import annotations

import math
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from bench.controls import with_shuffled
from bench.errors import UserError
from bench.methods import find_method
from bench.methods.coop_mix import CoOpMix, proportions
from bench.methods.coop_mpt import CoOpMPT
from bench.options import Variant

sys.path.append(str(Path(__file__).parent))
from test_methods_all import EMBED, NAMES, RECIPE, TASK_NAMES, Images, Parameters, check_steps, some_images, world
from test_methods_kernels import SMALL, check_same, contexts, learn
from test_methods_softcpt import LENGTH, WIDTH, feature, joint_loss

pytestmark = pytest.mark.usefixtures("one_thread")


def start_of(name: str, **params: Any) -> Parameters:
    kind: Any = find_method(name)
    method = kind(kind.Params(**{**RECIPE, **SMALL, **params}))
    method.setup(world().clip, world().tasks, seed=1)
    return {n: value.detach().clone() for n, value in method.learned.items()}


def bare(task_name: str) -> Tensor:
    with torch.no_grad():
        return world().model.encode_text(world().tokenizer([f"{task_name}."]))[0]


def new_task() -> Any:
    return replace(world().tasks[0], name="new", task_name="recognition of furniture", class_names=("chair", "sofa"))


def guest_s_context(method: Any) -> Tensor:
    """[L·w] of the new task."""
    method.predict_new(new_task(), some_images(method))
    (guest,) = method._guests.values()
    with torch.no_grad():
        return guest.contexts([0], [("chair", "sofa")])[0].flatten()


# ---- softcpt-rank ------------------------------------------------------------------------------------------------


def rank(parameters: Parameters, images: Images) -> Tensor:
    text = []
    for task_name, names in zip(TASK_NAMES, NAMES, strict=True):
        f = feature(parameters["task_context"][0], task_name)
        made = (f @ parameters["reduction"]) @ parameters["projection"]
        text.append(world().text(made.reshape(LENGTH, WIDTH), names))
    return joint_loss(text, images)


def test_ten_steps_of_rank_are_those_of_the_plain_formula() -> None:
    check_steps("softcpt-rank", rank, context=LENGTH, task_context=3, rank=2)


def test_with_full_rank_and_its_first_factor_held_at_the_identity_it_is_softcpt() -> None:
    start = {"reduction": torch.eye(EMBED), "projection": start_of("softcpt")["projection"]}
    check_same(learn("softcpt-rank", start=start, held=["reduction"], rank=EMBED), learn("softcpt"), "softcpt")


def test_as_many_ranks_as_tasks_lose_nothing_for_them() -> None:
    """Whatever the contexts V of three tasks: with U = F⁺ and C = V, F U C = V."""
    softcpt = learn("softcpt")
    f = softcpt.features(range(3)).detach()
    given = {"task_context": softcpt.learned["task_context"].detach(), "reduction": torch.linalg.pinv(f)}
    rank = learn("softcpt-rank", start={**given, "projection": contexts(softcpt)}, held=[*given], rank=3, lr=0,
                 warmup_lr=0)  # fmt: skip
    assert (contexts(rank) - contexts(softcpt)).norm() < 1e-4 * contexts(softcpt).norm()


@pytest.mark.parametrize("k", [2, 200])
def test_contexts_of_any_rank_start_with_softcpt_s_standard_deviation(k: int) -> None:
    """0.02 |f|: here of unit features, at L · w = 16384 numbers; of rank 2 the two factors' draws scatter."""
    start = start_of("softcpt-rank", rank=k, context=512)
    f = torch.nn.functional.normalize(torch.randn(200, EMBED, generator=torch.Generator().manual_seed(0)), dim=1)
    assert (f @ start["reduction"] @ start["projection"]).std() == pytest.approx(0.02, rel=0.1 if k > 2 else 0.4)
    assert torch.equal(start["task_context"], start_of("softcpt", context=512)["task_context"])


# ---- coop-mix and softcpt-mix ------------------------------------------------------------------------------------


def mixed(f: Tensor, parameters: Parameters, temperature: float = 0.02) -> Tensor:
    """[L, w], plainly."""
    logits = [f @ key / (f.norm() * temperature) for key in parameters["keys"].T]
    weights = [(logit - torch.stack(logits).logsumexp(dim=0)).exp() for logit in logits]
    return torch.stack([w * c for w, c in zip(weights, parameters["contexts"], strict=True)]).sum(dim=0)


def coop_mix(parameters: Parameters, images: Images) -> Tensor:
    text = [world().text(mixed(bare(n), parameters), names) for n, names in zip(TASK_NAMES, NAMES, strict=True)]
    return joint_loss(text, images)


def softcpt_mix(parameters: Parameters, images: Images) -> Tensor:
    text = []
    for task_name, names in zip(TASK_NAMES, NAMES, strict=True):
        f = feature(parameters["task_context"][0], task_name)
        made = (f @ parameters["projection"]).reshape(LENGTH, WIDTH)
        text.append(world().text(made + mixed(f, parameters), names))
    return joint_loss(text, images)


def test_ten_steps_of_the_mixtures_are_those_of_the_plain_formula() -> None:
    few: dict[str, Any] = {"context": LENGTH, "clusters": 3, "temperature": 0.02}  # so low that keys move at once
    check_steps("coop-mix", coop_mix, **few, lr=0.02)
    check_steps("softcpt-mix", softcpt_mix, task_context=3, **few)


def test_a_mixture_by_hand() -> None:
    """f = (1, 0), keys I, κ = 1, C = (2, 0), (0, 4): π = (0.7311, 0.2689), V = (1.4621, 1.0758)."""
    method = CoOpMix(CoOpMix.Params(temperature=1, clusters=2, context=1))
    method.learned = {"keys": torch.eye(2), "contexts": torch.tensor([[[2.0, 0.0]], [[0.0, 4.0]]])}
    f = torch.tensor([[1.0, 0.0]])
    assert torch.allclose(proportions(f, torch.eye(2), 1), torch.tensor([[0.7311, 0.2689]]), atol=1e-4)
    assert torch.allclose(proportions(5 * f, torch.eye(2), 1), torch.tensor([[0.7311, 0.2689]]), atol=1e-4)
    assert torch.allclose(method.mixed(f, [0]), torch.tensor([[1.4621, 1.0758]]), atol=1e-4)


def test_one_context_is_shared_coop() -> None:
    one, shared = learn("coop-mix", clusters=1), learn("shared-coop")
    assert torch.equal(start_of("coop-mix", clusters=1)["contexts"], start_of("shared-coop")["context"])
    check_same(one, shared, "shared-coop")


def test_with_its_contexts_held_at_0_softcpt_mix_is_softcpt() -> None:
    mix, softcpt = learn("softcpt-mix", held=["contexts", "keys"]), learn("softcpt")
    assert all(torch.equal(value, mix.learned[n]) for n, value in softcpt.learned.items())
    assert torch.equal(contexts(mix), contexts(softcpt))


def test_softcpt_mix_starts_as_softcpt() -> None:
    mix, softcpt = start_of("softcpt-mix"), start_of("softcpt")
    assert all(torch.equal(mix[n], value) for n, value in softcpt.items())
    assert not mix["contexts"].any() and mix["keys"].std() == pytest.approx(0.02, rel=0.2)


def test_entropy_of_the_mixture_by_hand() -> None:
    """π = (0.7311, 0.2689): 0.5822 nats; with one context 0; with keys of 0 all alike, ln K."""
    method = CoOpMix(CoOpMix.Params(temperature=1, clusters=2))
    method.tasks = [SimpleNamespace(task_name="a")]  # type: ignore[misc]
    method.task_input = lambda tasks: torch.tensor([[1.0, 0.0]])  # type: ignore[method-assign]
    method.learned = {"keys": torch.eye(2)}
    assert method.facts() == pytest.approx(
        {"entropy of the mixture": 0.5822, "largest possible entropy": 0.6931}, abs=1e-4
    )
    method.learned = {"keys": torch.zeros(2, 2)}
    assert method.facts()["entropy of the mixture"] == pytest.approx(math.log(2))


def test_a_record_holds_the_mixture_s_entropy(tiny: Any, tmp_path: Path) -> None:
    options = ["all.epochs=1", "all.context=4", "coop-mix.clusters=3"]
    tiny.run(tmp_path, methods=["coop-mix", "shared-coop"], shots=[1], seeds=[1], options=options)
    facts = {record["cell"]["method"]: record["facts"] for record in tiny.records(tmp_path).values()}
    assert facts["shared-coop"] == {}
    assert facts["coop-mix"]["largest possible entropy"] == pytest.approx(math.log(3))
    assert 0 < facts["coop-mix"]["entropy of the mixture"] <= math.log(3) + 1e-6


@pytest.mark.parametrize("name", ["coop-mix", "softcpt-mix"])
def test_random_proportions_belong_to_a_name_and_say_nothing_of_it(name: str) -> None:
    """The control: as many numbers, a vector for each name, another for another draw; the same in another process."""
    names, random = learn(name, epochs=1), learn(name, epochs=1, mixture="random")
    assert names.n_params == random.n_params
    every = range(3)
    with torch.no_grad():
        f = random.task_input(every)
        pi = random.proportions(f, every)
        assert torch.equal(random.proportions(torch.zeros_like(f), every), pi)
        assert not torch.allclose(names.proportions(f, every), pi, rtol=1e-3)
        again = type(random)(random.params)
        again.restore(world().clip, world().tasks[1:], random.state())
        assert torch.equal(again.proportions(f[1:], range(2)), pi[1:])
        again.params = replace(again.params, draw=2)
        assert not torch.allclose(again.proportions(f[1:], range(2)), pi[1:], rtol=1e-3)


@pytest.mark.parametrize("name", ["coop-mix", "softcpt-mix"])
def test_a_draw_where_nothing_is_drawn_is_refused(name: str) -> None:
    with pytest.raises(UserError, match=r"^draw=2: mixture=names draws nothing"):
        find_method(name).Params(draw=2)
    with pytest.raises(UserError, match=r"^words="):  # what SoftCPT's parameters refuse is refused here, too
        find_method(name).Params(words="a photo")


@pytest.mark.parametrize("params", [{}, {"task_context": 3}])
def test_an_unseen_task_mixes_by_its_own_name(params: dict[str, int]) -> None:
    method = learn("coop-mix", **params)
    with torch.no_grad():
        f = feature(method.learned["task_context"][0], new_task().task_name) if params else bare(new_task().task_name)
        expected = mixed(f, method.learned, method.params.temperature).flatten()
    assert (guest_s_context(method) - expected).norm() < 1e-4 * expected.norm()


# ---- coop-mpt ----------------------------------------------------------------------------------------------------


def mpt(parameters: Parameters, images: Images) -> Tensor:
    text = []
    for t, names in enumerate(NAMES):
        scaling = torch.outer(parameters["vectors"][t], parameters["dimensions"][t])
        text.append(world().text(parameters["context"][0] * scaling, names))
    return joint_loss(text, images)


def conditioned(parameters: Parameters, images: Images) -> Tensor:
    text = []
    for task_name, names in zip(TASK_NAMES, NAMES, strict=True):
        text.append(world().text(parameters["context"][0] * (1 + bare(task_name) @ parameters["dimensions"]), names))
    return joint_loss(text, images)


def test_ten_steps_of_mpt_are_those_of_the_plain_formula() -> None:
    check_steps("coop-mpt", mpt, context=LENGTH, lr=0.2)


def test_a_decomposition_by_hand() -> None:
    """C = [[1, 2], [3, 4]], α = (1, 2), β = (1, 10): [[1, 20], [6, 80]]; the other task's are ones."""
    method = CoOpMPT()
    method.learned = {
        "context": torch.tensor([[[1.0, 2], [3, 4]]]),
        "vectors": torch.tensor([[1.0, 1], [1, 2]]),
        "dimensions": torch.tensor([[1.0, 1], [1, 10]]),
    }
    first, second = method.contexts([0, 1], [(), ()])
    assert first.tolist() == [[[1, 2], [3, 4]]] and second.tolist() == [[[1, 20], [6, 80]]]


def test_with_its_scaling_held_at_1_mpt_is_shared_coop() -> None:
    start = start_of("coop-mpt")
    assert torch.equal(start["context"], start_of("shared-coop")["context"])
    assert start["vectors"].unique().tolist() == start["dimensions"].unique().tolist() == [1]
    check_same(learn("coop-mpt", held=["vectors", "dimensions"]), learn("shared-coop"), "shared-coop")


def test_scaling_made_from_names_serves_unseen_tasks() -> None:
    check_steps("coop-mpt", conditioned, context=LENGTH, conditioned=True)
    method = learn("coop-mpt", conditioned=True)
    with torch.no_grad():
        scaling = 1 + bare(new_task().task_name) @ method.learned["dimensions"]
        expected = (method.learned["context"][0] * scaling).flatten()
    assert (guest_s_context(method) - expected).norm() < 1e-5 * expected.norm()


def test_scaling_of_its_own_leaves_an_unseen_task_without_one() -> None:
    with pytest.raises(UserError, match=r"coop-mpt cannot score task 'new', .*conditioned=true makes them from"):
        learn("coop-mpt", epochs=1).predict_new(new_task(), torch.zeros(1, EMBED))


@pytest.mark.parametrize(
    ("name", "params", "read"),
    [
        ("coop-mpt", {}, False),
        ("coop-mpt", {"conditioned": True}, True),
        ("coop-kernel", {"kernel": "ones"}, False),
        ("coop-kernel", {"kernel": "features"}, True),
        ("coop-mix", {}, True),
    ],
)
def test_a_method_that_does_not_read_tasks_names_has_no_control_with_shuffled_ones(
    name: str, params: dict[str, Any], read: bool
) -> None:
    kind: Any = find_method(name)
    variant = Variant(kind, kind.Params(**params), kind.Params())
    assert [v.shuffled for v in with_shuffled([variant])] == ([False, True] if read else [False])


# ---- all ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["softcpt-rank", "coop-mix", "softcpt-mix"])
def test_tasks_in_another_order_have_the_same_contexts(name: str) -> None:
    method, order = learn(name, epochs=1), [2, 0, 1]
    other = type(method)(method.params)
    other.restore(world().clip, [world().tasks[t] for t in order], method.state())
    torch.testing.assert_close(contexts(other), contexts(method)[order], rtol=1e-4, atol=1e-5)
