"""Methods on frozen features: the specification's examples to their digits, its identities, ten steps written plainly.

The example: d = 2, two classes, two images each, τ = 10. Nothing here is computed by the code under test; the plain
trainings write losses and optimisers out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from bench.methods import TaskData, find_method, method_names
from bench.methods.heads import HeadMethod, TrainedHead

pytestmark = pytest.mark.usefixtures("one_thread")

RAW = [[1.6, 1.2], [0.48, 0.14], [0.6, 0.8], [-0.84, 2.88]]
LABELS = [0, 0, 1, 1]
TEXT = {"first": [2.0, 0.0], "second": [0.0, 0.5]}
QUERY = [[2.4, 1.0]]
ZERO_SHOT = [9.230769, 3.846154]
HEADS = [name for name in method_names() if issubclass(find_method(name), HeadMethod)]
TRAINED = [name for name in HEADS if issubclass(find_method(name), TrainedHead)]


class Tower:
    """Text features by the class's name, whatever stands around it; of other names some of their own."""

    def __init__(self, known: Mapping[str, list[float]], width: int) -> None:
        self.known, self.width = known, width

    def encode_texts(self, texts: list[str]) -> Tensor:
        return torch.stack([self.of(text) for text in texts])

    def of(self, text: str) -> Tensor:
        for name, value in self.known.items():
            if name in text:
                return torch.tensor(value)
        return torch.randn(self.width, generator=torch.Generator().manual_seed(sum(map(ord, text))))


def clip(known: Mapping[str, list[float]] = TEXT, width: int = 2, scale: float = 10.0) -> Any:
    return SimpleNamespace(tower=Tower(known, width), scale=scale, embed_dim=width, device=torch.device("cpu"))


def example(**changes: Any) -> TaskData:
    images, labels = torch.tensor(RAW), torch.tensor(LABELS)
    made = TaskData("toy", "", ("first", "second"), "a {}.", images[None], labels, images)
    return replace(made, flip_view=images, val=images, val_labels=labels, **changes)


def larger(n_classes: int = 5, shots: int = 3, views: int = 4, width: int = 12, seed: int = 0) -> TaskData:
    rng = torch.Generator().manual_seed(seed)
    labels = torch.arange(n_classes).repeat(shots)
    middles = torch.randn(n_classes, width, generator=rng)
    drawn = middles[labels] + torch.randn(views + 3, len(labels), width, generator=rng)
    classes = tuple(f"class {seed} {c}" for c in range(n_classes))
    return TaskData(
        f"task {seed}", "", classes, "a {}.", drawn[:views], labels, drawn[-1], drawn[-2], labels,
        flip_view=drawn[-3],
    )  # fmt: skip


def made(name: str, task: TaskData | None = None, where: Any = None, seed: int = 1, **params: Any) -> Any:
    """A method before its training."""
    found = find_method(name)
    method: Any = found(found.Params(**params))
    method.setup(where or clip(), [task or example()], seed)
    return method


def fitted(name: str, task: TaskData | None = None, where: Any = None, seed: int = 1, **params: Any) -> Any:
    found = find_method(name)
    method: Any = found(found.Params(**params))
    method.fit(where or clip(), [task or example()], seed, lambda done, total: None)
    return method


def scores(method: Any, images: Any = QUERY) -> list[float]:
    return method.predict(method.tasks[0], torch.as_tensor(images))[0].tolist()


def digits(*values: float) -> Any:
    """Six decimals, of float32."""
    return pytest.approx(values, rel=3e-7, abs=2e-6)


def loss_and_gradient(method: Any, parameter: str) -> tuple[float, list[list[float]]]:
    """Of the four images."""
    head = method.heads[0]
    logits = head(method.prepared(torch.tensor(RAW)))
    loss = torch.nn.functional.cross_entropy(logits, torch.tensor(LABELS))
    penalty = head.penalty()
    (loss if penalty is None else loss + penalty).backward()
    return loss.item(), dict(head.named_parameters())[parameter].grad.tolist()


def put(method: Any, parameter: str, value: Any) -> None:
    with torch.no_grad():
        dict(method.heads[0].named_parameters())[parameter].copy_(torch.as_tensor(value))


# ---- the specification's examples ----------------------------------------------------------------------------


def test_tip_adapter_scores_the_example_s_query() -> None:
    assert scores(made("tip-adapter", alpha=2.0, beta=3.0)) == digits(13.017834, 5.305151)


def test_tip_adapter_s_key_is_the_mean_of_raw_views() -> None:
    """(3, 0) and (0, 1): normalised before the mean it would be (0.707107, 0.707107)."""
    views = torch.tensor([[[3.0, 0.0]], [[0.0, 1.0]]])
    method = made("tip-adapter", example(views=views, labels=torch.tensor([0])))
    assert method.heads[0].keys[0].tolist() == digits(0.948683, 0.316228)


def test_tip_adapter_f_starts_and_steps_as_the_example() -> None:
    method = made("tip-adapter-f", alpha=2.0, beta=3.0)
    loss, gradient = loss_and_gradient(method, "keys")
    assert loss == pytest.approx(0.047595, abs=1e-6)
    wanted = [(0.087783, 0.135953), (0.047598, 0.079116), (-0.106777, -0.159114), (-0.036171, -0.050925)]
    assert [row == digits(*want) for row, want in zip(gradient, wanted, strict=True)] == [True] * 4
    stepped = fitted("tip-adapter-f", alpha=2.0, beta=3.0, epochs=1)
    keys = [(0.798993, 0.598995), (0.958992, 0.278998), (0.600993, 0.800991), (-0.279, 0.960988)]
    for row, want in zip(stepped.heads[0].keys.tolist(), keys, strict=True):
        assert row == digits(*want)
    assert scores(stepped) == digits(13.002916, 5.310846)


def test_clip_adapter_scores_the_example_s_query_from_raw_and_from_normalised_features() -> None:
    method = made("clip-adapter", reduction=2)
    put(method, "first", [[0.5, 0.25]])
    put(method, "second", [[0.4], [-0.8]])
    head = method.heads[0]
    assert head.adapted(torch.tensor(QUERY))[0].tolist() == digits(2.036, 0.8)
    for images in (torch.tensor(QUERY), method.prepared(torch.tensor(QUERY))):
        assert head(images)[0].tolist() == digits(9.307293, 3.657089)
    assert scores(method) == digits(9.307293, 3.657089)
    assert loss_and_gradient(method, "first")[0] == pytest.approx(0.073533, abs=1e-6)  # specification: .073532


def test_taskres_on_raw_text_is_the_example_s() -> None:
    """On normalised text the query's scores would be (9.567665, 5.581767)."""
    method = made("taskres", alpha=0.5)
    loss, gradient = loss_and_gradient(method, "x")
    assert loss == pytest.approx(0.063743, abs=1e-6)
    assert gradient[0] == digits(0, 0.014708) and gradient[1] == digits(0.062274, 0)
    put(method, "x", [[0, 0.2], [0.4, 0]])
    assert scores(method) == digits(9.411320, 6.999286)
    assert loss_and_gradient(method, "x")[0] == pytest.approx(0.223194, abs=1e-6)


def test_zs_lp_s_gradient_at_its_start_is_the_example_s() -> None:
    loss, gradient = loss_and_gradient(made("zs-lp"), "weights")
    assert loss == pytest.approx(0.063743, abs=1e-6)
    assert gradient[0] == digits(0, 0.029416) and gradient[1] == digits(0.124549, 0)


def test_clap_s_pull_penalty_and_gradient_are_the_example_s() -> None:
    method = made("clap")
    head = method.heads[0]
    assert head.pull.tolist() == digits(0.939842, 0.940396)
    assert loss_and_gradient(method, "weights")[1][1] == digits(0.124549, 0)  # nothing pulls at the start
    head.zero_grad()
    put(method, "weights", [[2, 0.2], [0.4, 0.5]])
    assert head.penalty().item() == pytest.approx(0.094029, abs=1e-6)
    loss, gradient = loss_and_gradient(method, "weights")
    assert loss == pytest.approx(0.405481, abs=1e-6)
    assert gradient[0] == digits(0.048473, -0.296758) and gradient[1] == digits(1.239133, -0.690380)
    assert scores(method) == digits(9.567665, 8.769757)


def test_clip_adapter_starts_uniform_within_one_over_the_root_of_what_goes_in() -> None:
    """As PyTorch's linear layers: of a uniform distribution the standard deviation is its bound over √3."""
    head = made("clip-adapter", larger(width=256), clip({}, 256)).heads[0]
    for weight, shape, bound in ((head.first, (64, 256), 1 / 16), (head.second, (256, 64), 1 / 8)):
        assert tuple(weight.shape) == shape and 0.99 * bound < weight.abs().max() <= bound
        assert weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.02) and abs(weight.mean()) < bound / 50


SENTENCES = {"a one.": [2.0, 0.0], "the one": [0.0, 1.0], "a two.": [0.0, -3.0], "the two": [0.0, -1.0]}


@pytest.mark.parametrize(
    ("name", "tensor", "expected"),
    [(name, tensor, [[1.0, 0.5], [0.0, -2.0]])
     for name, tensor in (("taskres", "text"), ("zs-lp", "weights"), ("clap", "start"))]
    + [(name, "text", [[math.sqrt(0.5), math.sqrt(0.5)], [0.0, -1.0]])
       for name in ("tip-adapter", "tip-adapter-f", "clip-adapter", "lp++", "gda", "cross-modal-lp", "ape-t", "rla")],
)  # fmt: skip
def test_of_several_sentences_some_take_the_mean_of_raw_features_and_others_of_normalised_ones(
    name: str, tensor: str, expected: list[list[float]]
) -> None:
    """(2, 0) and (0, 1) have the mean (1, .5); normalised (1, 0) and (0, 1), whose mean has the direction (1, 1)."""
    where = clip()
    where.tower.encode_texts = lambda texts: torch.tensor([SENTENCES[text] for text in texts])
    params = {"reduction": 2} if name == "clip-adapter" else {}
    head = made(name, replace(example(), class_names=("one", "two"), template=("a {}.", "the {}")), where, **params)
    assert getattr(head.heads[0], tensor).tolist() == [digits(*row) for row in expected]


# ---- identities ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "params"),
    [
        ("tip-adapter", {"alpha": 0.0}),
        ("tip-adapter-f", {"alpha": 0.0}),
        ("clip-adapter", {"ratio": 0.0, "reduction": 2}),
        ("taskres", {}),
        ("zs-lp", {}),
        ("clap", {}),
    ],
)
def test_before_the_first_step_or_without_its_part_a_method_is_zero_shot(name: str, params: dict[str, Any]) -> None:
    assert scores(made(name, **params)) == digits(*ZERO_SHOT)
    where, task = clip({}, 12, 50.0), larger()
    zero_shot = find_method("zero-shot")()
    zero_shot.fit(where, [task], 1, lambda done, total: None)
    images = torch.randn(6, 12, generator=torch.Generator().manual_seed(3))
    expected = zero_shot.predict(task, images)
    torch.testing.assert_close(made(name, task, where, **params).predict(task, images), expected, rtol=1e-5, atol=1e-5)


def test_clap_without_a_pull_is_zs_lp() -> None:
    where, task = clip({}, 12), larger()
    free = made("clap", task, where, epochs=5)
    free.heads[0].pull.zero_()
    free.train(1, lambda done, total: None)
    plain = fitted("zs-lp", task, where, epochs=5)
    assert torch.equal(free.heads[0].weights, plain.heads[0].weights)
    held = fitted("clap", task, where, epochs=5)
    assert not torch.allclose(held.heads[0].weights, plain.heads[0].weights)


def test_a_class_without_images_has_the_mean_of_the_others_pull() -> None:
    task = larger()
    without = replace(task, views=task.views[:, task.labels != 2], labels=task.labels[task.labels != 2])
    pull = made("clap", without, clip({}, 12)).heads[0].pull
    assert pull[2].item() == pytest.approx(pull[[0, 1, 3, 4]].mean().item())
    assert (pull > 0).all()


# ---- ten steps, written plainly ------------------------------------------------------------------------------

Values = dict[str, Tensor]


def sgd(value: Tensor, gradient: Tensor, memory: Values, rate: float, step: int) -> Tensor:
    memory["speed"] = 0.9 * memory.get("speed", torch.zeros_like(value)) + gradient
    return value - rate * memory["speed"]


def adam(
    value: Tensor, gradient: Tensor, memory: Values, rate: float, step: int,
    l2: float = 0.0, decay: float = 0.0, eps: float = 1e-8,
) -> Tensor:  # fmt: skip
    """Adam with L2 in the gradient, or (`decay`) AdamW."""
    gradient = gradient + l2 * value
    memory["mean"] = 0.9 * memory.get("mean", torch.zeros_like(value)) + 0.1 * gradient
    memory["square"] = 0.999 * memory.get("square", torch.zeros_like(value)) + 0.001 * gradient**2
    mean, square = memory["mean"] / (1 - 0.9**step), memory["square"] / (1 - 0.999**step)
    return value * (1 - rate * decay) - rate * mean / (square.sqrt() + eps)


def by_epoch(lr: float, epochs: int, epoch: int) -> float:
    return 1e-5 if epoch == 1 else lr * 0.5 * (1 + math.cos(math.pi * (epoch - 2) / epochs))


def unit(x: Tensor) -> Tensor:
    return x / x.norm(dim=-1, keepdim=True)


def tip_f(p: Values, f: Tensor, task: TaskData, raw: Tensor) -> Tensor:
    own = torch.zeros(len(task.labels), len(raw), dtype=f.dtype)
    own[range(len(task.labels)), task.labels] = 1
    return 50 * f @ unit(raw).T + 1.0 * torch.exp(-5.5 * (1 - f @ p["keys"].T)) @ own


def adapter(p: Values, f: Tensor, task: TaskData, raw: Tensor) -> Tensor:
    inner = torch.clamp(torch.clamp(f @ p["first"].T, min=0) @ p["second"].T, min=0)
    return 50 * unit(0.2 * inner + 0.8 * f) @ unit(raw).T


def residual(p: Values, f: Tensor, task: TaskData, raw: Tensor) -> Tensor:
    return 50 * f @ unit(raw + 0.5 * p["x"]).T


def weights(p: Values, f: Tensor, task: TaskData, raw: Tensor) -> Tensor:
    return 50 * f @ unit(p["weights"]).T


PLAIN: dict[str, tuple[Callable[..., Tensor], Callable[..., Tensor], dict[str, Any], str]] = {
    "tip-adapter-f": (tip_f, lambda *a: adam(*a, decay=0.01, eps=1e-4), {"lr": 0.05, "key_views": 2}, "step"),
    "clip-adapter": (adapter, adam, {"lr": 0.02}, "epoch"),
    "taskres": (residual, lambda *a: adam(*a, l2=0.5), {"lr": 0.02, "weight_decay": 0.5}, "epoch"),
    "zs-lp": (weights, sgd, {"lr": 0.05}, "epoch"),
    "clap": (weights, sgd, {"lr": 0.05}, "epoch"),
}


@pytest.mark.parametrize("name", PLAIN)
def test_training_equals_a_plain_one_over_ten_steps(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    logits_of, update, params, schedule = PLAIN[name]
    where, task, epochs = clip({}, 12, 50.0), larger(), 6
    batch = 6  # of 15 images: two steps an epoch, or three with the last incomplete one
    raw = where.tower.encode_texts([f"a {c}." for c in task.class_names]).double()
    start = made(name, task, where, epochs=epochs, batch=batch, **params).learned
    seen: list[tuple[Tensor, Tensor]] = []
    original = find_method(name).batches  # type: ignore[attr-defined]

    def noted(self: Any, *args: Any) -> Any:
        for images, labels in original(self, *args):
            seen.append((images.clone().double(), labels.clone()))
            yield images, labels

    monkeypatch.setattr(find_method(name), "batches", noted)
    method = fitted(name, task, where, epochs=epochs, batch=batch, **params)
    per_epoch = len(seen) // epochs
    assert len(seen) >= 10 and per_epoch == (3 if name == "tip-adapter-f" else 2)
    values = {n.removesuffix("-0"): v.detach().double() for n, v in start.items()}
    first = {n: v.clone() for n, v in values.items()}
    memory: dict[str, Values] = {n: {} for n in values}
    losses = []
    own = (50 * unit(task.views.double()) @ unit(raw).T).softmax(dim=-1)
    own = own[:, range(15), task.labels].mean(dim=0)
    pull = torch.stack([own[task.labels == c].mean() for c in range(5)])
    for k, (images, labels) in enumerate(seen):
        values = {n: v.clone().requires_grad_(True) for n, v in values.items()}
        logits = logits_of(values, images, task, raw)
        loss = (logits.logsumexp(dim=1) - logits[range(len(labels)), labels]).mean()
        losses.append(loss.item())
        if name == "clap":
            loss = loss + (pull * ((values["weights"] - raw) ** 2).sum(dim=1)).mean()
        gradients = torch.autograd.grad(loss, list(values.values()))
        if schedule == "step":
            rate = params["lr"] * 0.5 * (1 + math.cos(math.pi * k / len(seen)))
        else:
            rate = by_epoch(params["lr"], epochs, 1 + k // per_epoch)
        with torch.no_grad():
            pairs = zip(values.items(), gradients, strict=True)
            values = {n: update(v.detach(), g, memory[n], rate, k + 1) for (n, v), g in pairs}
    for n, value in values.items():
        assert (value - first[n]).norm() > 0.01 * first[n].norm(), "hardly moved: this would show nothing"
        assert (method.learned[f"{n}-0"] - value).norm() < 1e-4 * value.norm(), n
    (curve, _), = method.curves().values()
    sizes = [len(labels) for _, labels in seen]
    for epoch, found in enumerate(curve):
        part = slice(epoch * per_epoch, (epoch + 1) * per_epoch)
        mean = sum(a * b for a, b in zip(losses[part], sizes[part], strict=True)) / sum(sizes[part])
        assert found == pytest.approx(mean, rel=1e-3, abs=1e-5)
