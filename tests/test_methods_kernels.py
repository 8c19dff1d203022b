"""coop-kernel, the reference of methods that share: the identities that tie CoOp, shared CoOp and SoftCPT together."""

from __future__ import annotations

import sys
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from bench.errors import UserError
from bench.methods import find_method
from bench.methods.coop_kernel import CoOpKernel

sys.path.append(str(Path(__file__).parent))
from test_methods_all import NAMES, RECIPE, TASK_NAMES, Images, Parameters, check_steps, relative, some_images, world
from test_methods_softcpt import LENGTH, WIDTH, joint_loss

pytestmark = pytest.mark.usefixtures("one_thread")

SMALL = {"context": LENGTH, "epochs": 3}  # twelve steps


def learn(name: str, start: Parameters | None = None, held: Collection[str] = (), **params: Any) -> Any:
    """A method after twelve steps. start : other start values of some parameters. held : those that do not learn."""
    kind: Any = find_method(name)

    class Started(kind):
        def initialise(self, tasks: Any, rng: torch.Generator) -> Parameters:
            values = super().initialise(tasks, rng)
            assert set(start or {}) <= set(values)
            return {**values, **{n: value.clone() for n, value in (start or {}).items()}}

        def training(self, which: Any, seed: int, start: int = 0) -> Any:
            whole = super().training(which, seed, start)
            return replace(whole, parameters=[p for n, p in self.learned.items() if n not in held])

    method = Started(kind.Params(**{**RECIPE, **SMALL, **params}))
    method.fit(world().clip, world().tasks, 1, lambda done, total: None)
    return method


def contexts(method: Any) -> Tensor:
    """[3, L·w] of the three tasks."""
    with torch.no_grad():
        return torch.cat([own.flatten(1) for own in method.contexts(range(3), NAMES)])


def check_same(one: Any, other: Any, name: str) -> None:
    """After twelve steps two methods have the same contexts, which are not those that `name` starts with."""
    start: Any = find_method(name)
    start = start(start.Params(**RECIPE, **SMALL))
    start.setup(world().clip, world().tasks, seed=1)
    assert relative(contexts(start), contexts(one)) > 0.01, "hardly moved: this would show nothing"
    assert relative(contexts(one), contexts(other)) < 5e-6  # float32, sums in another order


class Given(CoOpKernel):
    """Contexts of one number, and a given A."""

    def __init__(self, a: Tensor) -> None:
        super().__init__(CoOpKernel.Params(kernel="ones", context=1))
        self.a = a

    def matrix(self, tasks: Any) -> Tensor:
        return self.a


def given(a: Tensor, width: int = 1) -> Any:
    method = Given(a)
    tasks = [SimpleNamespace(name=f"task {t}", task_name="", class_names=("one", "two")) for t in range(len(a))]
    clip = SimpleNamespace(tower=SimpleNamespace(width=width), device=torch.device("cpu"))
    method.setup(clip, tasks, seed=1)  # type: ignore[arg-type]
    return method


def rows(method: Any) -> Tensor:
    n = len(method.fixed)
    return torch.cat([own.flatten(1) for own in method.contexts(range(n), [()] * n)])


def test_a_step_by_hand() -> None:
    """F = (1; 2), V = 0, loss Σ ½ (V_t − 1)², η = 0.1: ΔP = 0.3, V = (0.3, 0.6), which is −0.1 · F Fᵀ · (−1, −1)."""
    method = given(torch.tensor([[1.0], [2.0]]))
    z = method.learned["context"]
    with torch.no_grad():
        z.zero_()
    ((rows(method) - 1) ** 2 / 2).sum().backward()
    with torch.no_grad():
        z -= 0.1 * z.grad
    assert rows(method).flatten().tolist() == pytest.approx([0.3, 0.6])


def test_steps_on_z_are_steps_on_the_contexts_with_gradients_mixed_by_the_kernel() -> None:
    """Momentum, weight decay, a loss that is not linear: after 20 steps the same contexts, in float64."""
    rng = torch.Generator().manual_seed(0)
    a = torch.randn(5, 3, generator=rng, dtype=torch.float64)
    targets = torch.randn(5, 4, generator=rng, dtype=torch.float64)
    method = given(a, width=4)
    z = method.learned["context"] = method.learned["context"].detach().double().requires_grad_(True)
    v = rows(method).detach().requires_grad_(True)
    start, speed = v.detach().clone(), torch.zeros_like(v)
    optimiser = torch.optim.SGD([z], lr=0.05, momentum=0.9, weight_decay=5e-4)

    def loss(contexts: Tensor) -> Tensor:
        return ((contexts - targets).tanh() ** 2).sum() + contexts[0] @ contexts[1]

    for _ in range(20):
        optimiser.zero_grad()
        loss(rows(method)).backward()
        optimiser.step()
        (gradient,) = torch.autograd.grad(loss(v), v)
        speed = 0.9 * speed + a @ a.T @ gradient + 5e-4 * v.detach()
        with torch.no_grad():
            v -= 0.05 * speed
    assert (rows(method) - start).abs().max() > 0.1
    assert (rows(method) - v).abs().max() < 1e-12


def test_with_the_identity_it_is_coop_trained_jointly_bit_for_bit() -> None:
    kernel, coop = learn("coop-kernel", kernel="identity"), learn("coop", joint=True)
    assert torch.equal(kernel.learned["context"], coop.learned["context"])


def test_with_ones_it_is_shared_coop() -> None:
    check_same(learn("coop-kernel", kernel="ones"), learn("shared-coop"), "shared-coop")


def mixed_too(method: Any, f: Tensor) -> Tensor:
    return torch.cat([f, method.proportions(f, range(3))], dim=1)


@pytest.mark.parametrize(
    ("name", "held", "matrix", "free"),
    [
        ("softcpt", ["task_context"], lambda method, f: f, ["projection"]),
        ("softcpt-graph", ["task_context"], lambda method, f: f, ["projection"]),
        (
            "softcpt-rank",
            ["task_context", "reduction"],
            lambda method, f: f @ method.learned["reduction"],
            ["projection"],
        ),
        ("coop-mix", ["keys"], lambda method, f: method.proportions(f, range(3)), ["contexts"]),
        ("softcpt-mix", ["task_context", "keys"], mixed_too, ["projection", "contexts"]),
    ],
)
def test_with_its_other_numbers_held_a_method_is_the_kernel_of_its_matrix(
    name: str, held: list[str], matrix: Any, free: list[str], monkeypatch: Any
) -> None:
    """F, S F, F U, Π, and F beside Π: what stands before the numbers that learn is A, and these are Z."""
    start: Any = find_method(name)
    start = start(start.Params(**RECIPE, **SMALL))
    start.setup(world().clip, world().tasks, seed=1)
    with torch.no_grad():
        a = matrix(start, start.task_input(range(3)))
    z = torch.cat([start.learned[part].detach().view(-1, LENGTH, WIDTH) for part in free])
    monkeypatch.setattr(CoOpKernel, "matrix", lambda self, tasks: a)
    check_same(learn("coop-kernel", start={"context": z}), learn(name, held=held), name)


def test_with_the_bare_names_features_it_is_star_without_its_shared_context() -> None:
    zero = torch.zeros(1, LENGTH, WIDTH)
    star = learn("softcpt-star", start={"context": zero}, held=["context"])
    start: Any = find_method("softcpt-star")
    start = start(start.Params(**RECIPE, **SMALL))
    start.setup(world().clip, world().tasks, seed=1)
    p = start.learned["projection"].detach()
    check_same(learn("coop-kernel", start={"context": p.view(len(p), LENGTH, WIDTH)}), star, "softcpt-star")


def plain(parameters: Parameters, images: Images) -> Tensor:
    text = []
    for task_name, names in zip(TASK_NAMES, NAMES, strict=True):
        with torch.no_grad():
            f = world().model.encode_text(world().tokenizer([f"{task_name}."]))[0]
        text.append(world().text(torch.einsum("d,dlw->lw", f, parameters["context"]), names))
    return joint_loss(text, images)


def test_ten_steps_are_those_of_the_plain_formula() -> None:
    check_steps("coop-kernel", plain, context=LENGTH)


def test_from_a_start_at_0_nothing_outside_the_trained_names_span_is_learned() -> None:
    """Z's gradient is Fᵀ G: a feature that is orthogonal to those of F gives the context 0."""
    for std, learned in ((0.0, False), (0.02, True)):
        method = learn("coop-kernel", init_std=std)
        z, f = method.learned["context"].detach().flatten(1), method.fixed
        outside = z - torch.linalg.pinv(f) @ f @ z
        assert (outside.norm() > 1e-4 * z.norm()) == learned and z.norm() > 0


def test_contexts_start_as_alike_as_the_names_features() -> None:
    """P starts as a random projection: cosines of f P and of f are apart by 3/√(L w) at most, here 3/√8192 = 0.033."""
    method: Any = find_method("softcpt")(find_method("softcpt").Params(context=8192 // WIDTH))
    method.setup(world().clip, world().tasks, seed=1)
    with torch.no_grad():
        f, v = method.features(range(3)), method.context_rows(range(3))
    alike = [torch.nn.functional.normalize(x, dim=1) for x in (f, v)]
    assert (alike[0] @ alike[0].T - alike[1] @ alike[1].T).abs().max() < 3 / 8192**0.5


@pytest.mark.parametrize("kernel", ["features", "ones"])
def test_an_unseen_task_has_a_row_of_a_unless_each_task_is_its_own(kernel: Any) -> None:
    method = learn("coop-kernel", kernel=kernel)
    for task in world().tasks:
        torch.testing.assert_close(
            method.predict_new(task, some_images(method)), method.predict(task, some_images(method)),
            rtol=1e-4, atol=1e-4,
        )  # fmt: skip


def test_a_kernel_without_unseen_tasks_says_so_before_anything_is_trained(tiny: Any, tmp_path: Path) -> None:
    grid: dict[str, Any] = {"methods": ["coop-kernel"], "protocol": "unseen-task", "shots": [1], "seeds": [1]}
    with pytest.raises(UserError, match=r"leave out coop-kernel \(kernel=identity\): with kernel=identity a context"):
        tiny.run(tmp_path, options=["coop-kernel.kernel=identity"], **grid)
    with pytest.raises(UserError, match=r"coop-kernel cannot score task 'task 0', .* with kernel=identity"):
        learn("coop-kernel", kernel="identity", epochs=1).predict_new(world().tasks[0], torch.zeros(1, 24))


def test_words_make_no_sense_where_z_holds_no_contexts() -> None:
    with pytest.raises(UserError, match=r"^words='a photo of a'"):
        CoOpKernel.Params(words="a photo of a")


@pytest.mark.parametrize(
    ("name", "defaults"),
    [
        ("coop-kernel", {"kernel": "features"}),
        ("softcpt", {"span": False, "task_context": 4}),
        ("softcpt-graph", {"a": 0.25, "name_weight": 0.5, "temperature": 0.05, "nearest": 0, "graph": "names"}),
        ("softcpt-rank", {"rank": 8}),
        ("softcpt-mix", {"clusters": 8, "temperature": 0.1, "mixture": "names"}),
        ("coop-mix", {"clusters": 8, "temperature": 0.1, "mixture": "names", "task_context": 0}),
        ("coop-mpt", {"conditioned": False}),
        ("coop-tree", {"nodes": "all", "leaf_decay": 0, "shuffle": 0}),
        ("softcpt-residual", {"nodes": "all", "leaf_decay": 0, "node_scale": 1, "shuffle": 0}),
        ("softcpt-tree", {"shuffle": 0}),
    ],
)
def test_defaults_are_those_that_the_pages_name(name: str, defaults: dict[str, Any]) -> None:
    params = find_method(name).Params()
    assert {key: getattr(params, key) for key in defaults} == defaults
