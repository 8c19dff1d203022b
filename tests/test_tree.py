"""Methods that read where a task stands in a suite's tree: their formulas, and what each is a case of."""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from bench.datasets.spec import load_suite
from bench.errors import UserError
from bench.methods import TaskData, find_method
from bench.methods.coop_kernel import CoOpKernel
from bench.methods.prompt import PromptMethod
from bench.methods.training import batches
from bench.methods.tree import above, branching, inner_nodes, place_of_new, places

sys.path.append(str(Path(__file__).parent))
import reference
import test_methods_all
from test_methods_all import (
    EMBED,
    NAMES,
    RECIPE,
    TASK_NAMES,
    Images,
    Parameters,
    World,
    check_steps,
    cross_entropy,
    world,
)

pytestmark = pytest.mark.usefixtures("one_thread")

# Three tasks: two animals, of which one is also below "pets" alone, and one outside.
PATHS = [("animals", "pets"), ("animals",), ()]
ON_PATH = [(0, 1, 2), (0, 1, 3), (0, 4)]  # root, animals, leaves; "pets" has one child and is none


def world_of(monkeypatch: pytest.MonkeyPatch, paths: list[Any]) -> World:
    """The world of the other methods' tests, with places."""
    where = world()
    tasks = [replace(task, path=path) for task, path in zip(where.tasks, paths, strict=True)]
    there = replace(where, tasks=tasks)
    monkeypatch.setattr(test_methods_all, "world", lambda local=False: there)
    return there


@pytest.fixture
def tree(monkeypatch: pytest.MonkeyPatch) -> World:
    return world_of(monkeypatch, PATHS)


def made(name: str, where: World, report: Any = None, **params: Any) -> Any:
    """A method after eight steps."""
    chosen: Any = find_method(name)
    known = {"epochs": 2, "context": 4, **RECIPE, **params}
    method = chosen(chosen.Params(**known))
    method.fit(where.clip, where.tasks, 1, (lambda done, total: None) if report is None else lambda *_: report(method))
    return method


def some_images() -> Tensor:
    return torch.randn(6, EMBED, generator=torch.Generator().manual_seed(5))


# The tree --------------------------------------------------------------------------------------------------


def test_inner_nodes_have_two_children_and_the_root_is_above_all() -> None:
    paths = [("clothing", "shoes"), ("clothing", "shoes"), ("clothing", "hat"), ("clothing",)]
    assert branching(paths) == [("clothing",), ("clothing", "shoes")]  # hat has one
    assert inner_nodes(paths) == [(), ("clothing", "shoes")]  # clothing is above all of them, as the root is
    assert inner_nodes([*paths, ()]) == [(), ("clothing",), ("clothing", "shoes")]
    assert inner_nodes([()]) == inner_nodes([("a", "b")]) == [()]
    assert above(paths, [(), ("clothing", "shoes")]).tolist() == [[1, 1], [1, 1], [1, 0], [1, 0]]


def test_nodes_of_one_name_in_two_places_are_two() -> None:
    paths = [("plants", "leaf"), ("plants", "leaf"), ("tea", "leaf"), ("tea", "leaf")]
    assert inner_nodes(paths) == [(), ("plants", "leaf"), ("tea", "leaf")]  # plants and tea have one child each
    assert above(paths, inner_nodes(paths)).tolist() == [[1, 1, 0], [1, 1, 0], [1, 0, 1], [1, 0, 1]]


def test_a_random_tree_has_the_same_shape_and_follows_from_its_number() -> None:
    tasks = load_suite("fashion20").tasks
    own = places(tasks, 0)
    assert own == [task.path for task in tasks]
    one, other = places(tasks, 1), places(tasks, 2)
    assert sorted(one) == sorted(other) == sorted(own) and one != own and one != other
    assert places(tasks, 1) == one
    assert place_of_new(tasks[0], own, 0) == tasks[0].path
    assert {place_of_new(task, own, 1) for task in tasks} > {("clothing", "shoes")}


# coop-tree -------------------------------------------------------------------------------------------------


def tree_loss(parameters: Parameters, images: Images) -> Tensor:
    nodes = parameters["nodes"]
    text = [world().text(sum(nodes[v] for v in path), NAMES[t]) for t, path in enumerate(ON_PATH)]
    return torch.stack([cross_entropy(world().scale * text[t] @ image, label) for t, image, label in images]).mean()


def test_ten_steps_of_coop_tree_are_those_of_the_plain_formula(tree: World) -> None:
    check_steps("coop-tree", tree_loss, context=4)


def test_ten_steps_with_decayed_leaves_are_those_of_the_plain_formula(tree: World) -> None:
    def loss(parameters: Parameters, images: Images) -> Tensor:
        return tree_loss(parameters, images) + 0.5 * 3.0 * parameters["nodes"][2:].square().sum()

    check_steps("coop-tree", loss, context=4, leaf_decay=3.0)


def test_the_root_alone_is_shared_coop(tree: World) -> None:
    one, shared = made("coop-tree", tree, nodes="root"), made("shared-coop", tree)
    ours, theirs = one.learned["nodes"], shared.learned["context"]
    assert ours.shape == theirs.shape and one.n_params == shared.n_params
    assert (ours - theirs).norm() < 1e-5 * theirs.norm()


def test_leaves_alone_are_coop_trained_jointly(tree: World) -> None:
    leaves, coop = made("coop-tree", tree, nodes="leaves"), made("coop", tree, joint=True)
    assert torch.equal(leaves.learned["nodes"], coop.learned["context"])


def test_the_root_starts_as_shared_coop_s_context_and_all_other_nodes_at_nothing(tree: World) -> None:
    method, shared = (find_method(n)(find_method(n).Params(context=4)) for n in ("coop-tree", "shared-coop"))
    for one in (method, shared):
        one.setup(tree.clip, tree.tasks, seed=7)
    assert torch.equal(method.learned["nodes"][:1], shared.learned["context"])
    assert not method.learned["nodes"][1:].any() and len(method.learned["nodes"]) == 5


def test_a_node_is_the_sum_of_its_children_after_every_step(tree: World) -> None:
    """All start at 0, under one rate and decay: root = animals + the third leaf, animals = the first two leaves."""
    seen = []

    def check(method: Any) -> None:
        root, animals, *leaves = method.learned["nodes"].detach().clone()
        seen.append(root.norm())
        assert (root - animals - leaves[2]).norm() < 1e-5 * root.norm()
        assert (animals - leaves[0] - leaves[1]).norm() < 1e-5 * animals.norm()
        assert leaves[0].norm() > 0

    made("coop-tree", tree, check, init_std=0, epochs=4, momentum=0.9, weight_decay=0.05)
    assert len(seen) == 16 and seen[-1] > seen[0]


def test_what_a_root_gains_over_its_start_is_the_sum_of_what_its_children_learned(tree: World) -> None:
    method = made("coop-tree", tree, momentum=0.9, weight_decay=0.0)
    start: Any = find_method("coop-tree")(find_method("coop-tree").Params(context=4))
    start.setup(tree.clip, tree.tasks, seed=1)
    root, animals, *leaves = method.learned["nodes"].detach()
    gained = root - start.learned["nodes"][0].detach()
    assert gained.norm() > 0 and (gained - animals - leaves[2]).norm() < 1e-4 * gained.norm()


def test_of_a_root_with_a_start_value_the_rest_is_the_sum_of_its_children_under_decay_too(tree: World) -> None:
    """The rest is what remains less the start value, which decays by itself: a step without a gradient is linear."""
    decay: dict[str, Any] = {"momentum": 0.9, "weight_decay": 0.5}
    method = made("coop-tree", tree, **decay)
    start: Any = find_method("coop-tree")(find_method("coop-tree").Params(context=4))
    start.setup(tree.clip, tree.tasks, seed=1)
    value = start.learned["nodes"][0].detach()
    speed = torch.zeros_like(value)
    for rate, _ in batches(tree.tasks, range(3), method.params, torch.Generator(), torch.device("cpu")):
        speed = 0.9 * speed + 0.5 * value
        value = value - rate * speed
    root, animals, *leaves = method.learned["nodes"].detach()
    rest = root - value
    assert (value - start.learned["nodes"][0].detach()).norm() > 5e-3 * rest.norm()  # decay counts
    assert (rest - animals - leaves[2]).norm() < 1e-4 * rest.norm()


@pytest.mark.parametrize("name", ["coop-tree", "softcpt-residual", "softcpt-tree"])
def test_a_tree_is_the_kernel_of_its_matrix(name: str, tree: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """B; F beside c B; and F + s F_v: what stands before the numbers that learn is coop-kernel's A, and these its Z."""
    more: dict[str, Any] = {"softcpt-residual": {"node_scale": 3.0}}.get(name, {})
    kind: Any = find_method(name)

    class Held(kind):
        def setup(self, *given: Any) -> None:
            super().setup(*given)
            if "scales" in self.learned:
                self.learned["scales"].data.fill_(0.5)
            for parameter in {"task_context", "scales"} & set(self.learned):
                self.learned[parameter].requires_grad_(False)

    method = Held(kind.Params(epochs=2, context=4, **RECIPE, **more))
    method.setup(tree.clip, tree.tasks, 1)
    with torch.no_grad():
        parts = [] if name == "coop-tree" else [method.task_input(range(3))]
        a = torch.cat(parts + ([] if name == "softcpt-tree" else [more.get("node_scale", 1.0) * method.on_path]), dim=1)
        z = [method.learned[part].view(-1, 4, world().clip.tower.width) for part in ("projection", "nodes")
             if part in method.learned]  # fmt: skip
        z, before = torch.cat(z).clone(), method.context_rows(range(3))
    monkeypatch.setattr(CoOpKernel, "matrix", lambda self, tasks: a)
    monkeypatch.setattr(CoOpKernel, "initialise", lambda self, tasks, rng: {"context": z})
    method.fit(tree.clip, tree.tasks, 1, lambda done, total: None)
    kernel = made("coop-kernel", tree)
    with torch.no_grad():
        theirs = torch.cat(kernel.contexts(range(3), NAMES)).flatten(1)
        ours = method.context_rows(range(3))
    assert (ours - before).norm() > 0.01 * before.norm(), "hardly moved: this would show nothing"
    assert (ours - theirs).norm() < 1e-5 * ours.norm()


@pytest.mark.parametrize(("decay", "first", "second"), [(1.0, 2.5, 3.5), (9.0, 2.9, 3.1)])
def test_decayed_leaves_stay_near_the_root(
    decay: float, first: float, second: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Squared loss, targets 2 and 4: V₁ + V₂ = 6, so the root is 3, and V₁ − 3 = (2 − V₁)/λ."""
    tasks = world().tasks[:2]
    method: Any = find_method("coop-tree")(find_method("coop-tree").Params(context=1, leaf_decay=decay))
    method.setup(world().clip, tasks, seed=1)
    monkeypatch.setattr(PromptMethod, "loss", lambda *_: torch.zeros(()))
    targets = torch.tensor([2.0, 4.0])
    steps = torch.optim.SGD([method.learned["nodes"]], lr=0.05)
    for _ in range(600):
        steps.zero_grad()
        contexts = torch.cat(method.contexts([0, 1], [t.class_names for t in tasks])).flatten(1)  # 2, w
        (0.5 * (contexts - targets[:, None]).square().sum() + method.loss(None, [])).backward()
        steps.step()
    assert method.learned["nodes"][0].mean().item() == pytest.approx(3, abs=1e-3)
    assert contexts.mean(dim=1).tolist() == pytest.approx([first, second], abs=1e-3)


def test_of_fashion20_two_shoe_tasks_have_two_nodes_in_common() -> None:
    """Root, pants, tops, shoes, socks; hat, skirt and underwear are their one task's."""
    tasks = placed("fashion20")
    method: Any = find_method("coop-tree")()
    method.setup(world().clip, tasks, seed=1)
    assert len(method.learned["nodes"]) == 25
    kernel = method.on_path @ method.on_path.T
    pants, shoes, hat = 0, 7, 14
    assert (kernel[shoes, shoes + 1], kernel[shoes, shoes], kernel[shoes, pants]) == (2, 3, 1)
    assert (kernel[hat, hat], kernel[hat, shoes]) == (2, 1)


def placed(suite: str) -> list[TaskData]:
    """A suite's tasks with their places, as far as they are known without images."""
    none = torch.zeros(0, dtype=torch.long)
    return [TaskData(t.name, t.name, ("a", "b"), "{}.", torch.zeros(1, 0, EMBED), none, path=t.path)
            for t in load_suite(suite).tasks]  # fmt: skip


def test_another_order_of_tasks_is_another_order_of_leaves_alone(tree: World) -> None:
    ours, others = (find_method("coop-tree")() for _ in range(2))
    ours.setup(tree.clip, tree.tasks, seed=1)
    others.setup(tree.clip, tree.tasks[::-1], seed=1)
    assert torch.equal(ours.on_path @ ours.on_path.T, (others.on_path @ others.on_path.T).flip(0, 1))
    assert torch.equal(ours.learned["nodes"][0], others.learned["nodes"][0])


def test_a_new_task_has_what_the_nodes_above_it_learned_and_no_leaf(tree: World) -> None:
    method = made("coop-tree", tree)
    root, animals = method.learned["nodes"][:2]
    new = replace(tree.tasks[0], name="zoo", path=("animals", "birds"))
    expected = context_scores(tree, root + animals, new)
    assert torch.allclose(method.predict_new(new, some_images()), expected, atol=1e-3)
    outside = replace(new, name="rocks", path=("minerals",))
    assert torch.allclose(method.predict_new(outside, some_images()), context_scores(tree, root, new), atol=1e-3)
    elsewhere = replace(new, path=("minerals",))  # under the same names
    assert torch.allclose(method.predict_new(elsewhere, some_images()), context_scores(tree, root, new), atol=1e-3)
    known = method.predict(tree.tasks[0], some_images())
    assert not torch.allclose(method.predict_new(tree.tasks[0], some_images()), known, atol=1e-3)


def test_leaves_alone_serve_no_new_task(tree: World) -> None:
    method = made("coop-tree", tree, nodes="leaves")
    with pytest.raises(UserError, match="with nodes=leaves it learns nothing but tasks' own contexts"):
        method.predict_new(replace(tree.tasks[0], name="zoo"), some_images())


def context_scores(where: World, context: Tensor, task: TaskData) -> Tensor:
    text = where.text(context.detach(), task.class_names)
    return where.scale * torch.nn.functional.normalize(some_images(), dim=-1) @ text.T


# softcpt-residual ------------------------------------------------------------------------------------------


def meta_loss(parameters: Parameters, images: Images, inputs: Any, more: Any) -> Tensor:
    """inputs, more : of task t, what P reads, and what is added to the context."""
    text = []
    for t, names in enumerate(NAMES):
        context = (inputs(t) @ parameters["projection"]).reshape(4, -1) + more(t)
        text.append(world().text(context, names))
    return torch.stack([cross_entropy(world().scale * text[t] @ image, label) for t, image, label in images]).mean()


def test_ten_steps_of_the_residual_are_those_of_the_plain_formula(tree: World) -> None:
    def loss(parameters: Parameters, images: Images) -> Tensor:
        u, nodes = parameters["task_context"][0], parameters["nodes"]
        return meta_loss(
            parameters, images, lambda t: feature(u, TASK_NAMES[t]), lambda t: sum(nodes[v] for v in ON_PATH[t])
        )

    # From nodes at 0, whose change is all that they are, rounding would be large beside them.
    check_steps("softcpt-residual", loss, context=4, task_context=3, init_std=0.1)


@pytest.mark.parametrize(("name", "held"), [("softcpt-residual", "nodes"), ("softcpt-tree", "scales")])
def test_held_at_their_start_values_they_are_softcpt(
    name: str, held: str, tree: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind: Any = find_method(name)
    setup = kind.setup

    def holding(self: Any, *given: Any) -> None:
        setup(self, *given)
        self.learned[held].requires_grad_(False)

    monkeypatch.setattr(kind, "setup", holding)
    method, softcpt = made(name, tree), made("softcpt", tree)
    assert not method.learned[held].any() and method.learned[held].numel()
    for parameter, value in softcpt.learned.items():
        ours = method.learned[parameter]
        if name == "softcpt-residual":
            assert torch.equal(ours, value)
        else:  # the nodes' names stand in the same batch of texts, which rounds otherwise
            assert (ours - value).norm() < 1e-5 * value.norm()


@pytest.mark.parametrize("name", ["softcpt-residual", "softcpt-tree"])
def test_softcpt_s_start_values_are_theirs(name: str, tree: World) -> None:
    kind: Any = find_method(name)
    method: Any = kind()
    softcpt: Any = find_method("softcpt")()
    for one in (method, softcpt):
        one.setup(tree.clip, tree.tasks, seed=7)
    assert all(torch.equal(method.learned[n], value) for n, value in softcpt.learned.items())


def test_a_new_task_s_residual_is_that_of_the_nodes_above_it(tree: World) -> None:
    method = made("softcpt-residual", tree, task_context=3)
    new = replace(tree.tasks[0], name="zoo", task_name="bird recognition", path=("animals",))
    f = feature(method.learned["task_context"][0], "bird recognition")
    context = (f @ method.learned["projection"]).view(4, -1) + method.learned["nodes"][:2].sum(dim=0)
    assert torch.allclose(method.predict_new(new, some_images()), context_scores(tree, context, new), atol=1e-3)


def feature(context: Tensor, name: str) -> Tensor:
    return reference.encode(world().model, world().tokenizer, context[None], [name])[0]


# softcpt-tree ----------------------------------------------------------------------------------------------

DEEP = [("animals", "pets"), ("animals", "pets"), ("animals",)]  # animals and pets are nodes: two depths


@pytest.fixture
def deep(monkeypatch: pytest.MonkeyPatch) -> World:
    return world_of(monkeypatch, DEEP)


def tree_input(parameters: Parameters, t: int) -> Tensor:
    u, scales = parameters["task_context"][0], parameters["scales"]
    above_it = sum(scale * feature(u, node) for scale, node in zip(scales, DEEP[t], strict=False))
    return feature(u, TASK_NAMES[t]) + above_it


def test_ten_steps_of_softcpt_tree_are_those_of_the_plain_formula_with_scales_that_do_not_decay(deep: World) -> None:
    def loss(parameters: Parameters, images: Images) -> Tensor:
        return meta_loss(parameters, images, lambda t: tree_input(parameters, t), lambda t: 0)

    def own_loss(parameters: Parameters, images: Images) -> Tensor:  # what undoes the decay is in the method's loss
        return loss(parameters, images) - 0.5 * 5e-4 * parameters["scales"].square().sum()

    def gradients(parameters: Parameters, images: Images) -> list[Tensor]:
        of_loss = torch.autograd.grad(loss(parameters, images), [*parameters.values()])
        found = dict(zip(parameters, of_loss, strict=True))
        found["scales"] = found["scales"] - 5e-4 * parameters["scales"].detach()  # the plain recipe decays all
        return [*found.values()]

    check_steps("softcpt-tree", own_loss, gradients, context=4, task_context=3, init_std=0.1)


def test_decay_leaves_the_scales_alone(deep: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a cross-entropy that says nothing, only decay could move them."""
    method: Any = find_method("softcpt-tree")(find_method("softcpt-tree").Params(weight_decay=10.0))
    method.setup(deep.clip, deep.tasks, seed=1)
    scales = method.learned["scales"]
    scales.data.fill_(2.0)
    monkeypatch.setattr(PromptMethod, "loss", lambda *_: torch.zeros(()))
    optimiser = torch.optim.SGD([scales], lr=0.01, momentum=0.9, weight_decay=10.0)
    for _ in range(5):
        optimiser.zero_grad()
        method.loss(None, []).backward()
        optimiser.step()
    assert torch.allclose(scales, torch.full((2,), 2.0))


def test_what_the_meta_network_reads_is_the_task_s_feature_and_half_of_the_node_s(
    tree: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By hand: f_t = (1, 0), f_v = (0, 2), s = 0.5: (1, 1). A task outside the tree has its own feature alone."""
    method: Any = find_method("softcpt-tree")()
    method.setup(tree.clip, tree.tasks, seed=1)
    assert method.inner == [("animals",)] and len(method.learned["scales"]) == 1
    method.learned["scales"].data.fill_(0.5)
    vectors = {"animals": [0.0, 2.0], TASK_NAMES[0]: [1.0, 0.0], TASK_NAMES[1]: [3.0, 0.0], TASK_NAMES[2]: [0.0, 7.0]}

    def encode(tower: Any, prompts: Any, *rest: Any) -> list[Tensor]:
        return [torch.tensor([vectors[name] for name in prompts[0].names])]

    monkeypatch.setattr(type(tree.clip.tower), "encode", encode)
    assert method.task_input([0]).tolist() == [[1, 1]]
    assert method.task_input([2, 0, 1]).tolist() == [[0, 7], [1, 1], [3, 1]]


def test_a_new_task_reads_the_nodes_that_training_knew(deep: World) -> None:
    method = made("softcpt-tree", deep, task_context=3)
    method.learned["scales"].data.copy_(torch.tensor([0.5, -1.0]))
    u = method.learned["task_context"][0]
    new = replace(deep.tasks[0], name="zoo", task_name="bird recognition", path=("animals", "birds"))
    f = feature(u, "bird recognition") + 0.5 * feature(u, "animals")
    context = (f @ method.learned["projection"]).view(4, -1)
    assert torch.allclose(method.predict_new(new, some_images()), context_scores(deep, context, new), atol=1e-3)


# The control: a random tree ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["coop-tree", "softcpt-tree", "softcpt-residual"])
def test_a_shuffled_tree_is_as_large_and_places_new_tasks_below_a_seen_one(name: str) -> None:
    tasks = placed("fashion20")
    kind: Any = find_method(name)
    own, other = kind(kind.Params(context=4)), kind(kind.Params(context=4, shuffle=3))
    for method in (own, other):
        method.setup(world().clip, tasks, seed=1)
    assert own.n_params == other.n_params and own.inner == other.inner
    assert not torch.equal(own.on_path, other.on_path)
    assert torch.equal(own.on_path.sum(dim=0), other.on_path.sum(dim=0))  # as many tasks below each node
    other.predict_new(replace(tasks[0], name="new", path=("nowhere",)), some_images())
    (guest,) = other._guests.values()
    assert guest.paths[0] in other.paths and guest.on_path.sum() >= 1


@pytest.mark.parametrize("name", ["coop-tree", "softcpt-residual"])
@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"nodes": "root", "leaf_decay": 0.5}, "leaf_decay=0.5: with nodes=root tasks have no nodes of their own"),
        ({"nodes": "root", "shuffle": 2}, "shuffle=2: with nodes=root a task's place makes no difference"),
        ({"nodes": "leaves", "shuffle": 2}, "shuffle=2: with nodes=leaves a task's place makes no difference"),
    ],
)
def test_a_value_that_the_nodes_learned_make_void_is_refused(name: str, given: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=re.escape(said)):
        find_method(name).Params(**given)
    find_method(name).Params(nodes="leaves", leaf_decay=0.5)
    find_method(name).Params(leaf_decay=0.5, shuffle=2)
