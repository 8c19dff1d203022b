"""`bench stability`: the curvature of a training's loss, the bound of its recipe, and what noise does to its scores."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from torch import Tensor

import bench
from bench.cli import main
from bench.curvature import _whole, bound_of, curvatures, hessian, largest_eigenvalue
from bench.errors import UserError
from bench.methods import find_method
from bench.methods.training import Recipe

sys.path.append(str(Path(__file__).parent))
from test_methods_all import NAMES, TASK_NAMES, cross_entropy, world

pytestmark = pytest.mark.usefixtures("one_thread")


def diagonal(*values: float) -> Any:
    """A symmetric matrix with these eigenvalues in a turned basis, as a product; and what it acts on."""
    rng = torch.Generator().manual_seed(0)
    basis, _ = torch.linalg.qr(torch.randn(len(values), len(values), generator=rng, dtype=torch.float64))
    matrix = basis @ torch.diag(torch.tensor(values, dtype=torch.float64)) @ basis.T
    return lambda vectors: [matrix @ vectors[0]], [torch.zeros(len(values), dtype=torch.float64)]


@pytest.mark.parametrize(
    ("values", "largest"),
    [((3.0, 1.0, 0.5), 3.0), ((3.0, -5.0, 1.0), 3.0), ((-4.0, -1.0, -2.0), -1.0), ((0.0, 0.0), 0.0), ((2.0, 2.0), 2.0)],
)
def test_the_most_positive_eigenvalue_is_found(values: tuple[float, ...], largest: float) -> None:
    found = largest_eigenvalue(*diagonal(*values), torch.Generator().manual_seed(1))
    assert found == pytest.approx(largest, rel=0.01, abs=1e-9)


def plain_loss(name: str, t: int, parameters: dict[str, Tensor]) -> Tensor:
    """Mean cross-entropy of a task's images in their first view, by the tests' own CLIP."""
    task = world().tasks[t]
    if name == "coop":
        text = world().text(parameters["context"], NAMES[t])
    else:
        f = world().text_of(parameters["task_context"][0], f"{TASK_NAMES[t]}.")
        text = world().text((f @ parameters["projection"]).reshape(1, 2, -1), NAMES[t])
    images = task.views[0] / task.views[0].norm(dim=1, keepdim=True)
    errors = [cross_entropy(world().scale * text @ i, y) for i, y in zip(images, task.labels.tolist(), strict=True)]
    return torch.stack(errors).mean()


def test_it_is_the_largest_eigenvalue_of_the_dense_hessian() -> None:
    """Of CoOp's two vectors of each task: the dense Hessian of a plain loss, all its eigenvalues."""
    coop = find_method("coop")
    method: Any = coop(coop.Params(context=2, init_std=0.5))
    method.setup(world().clip, world().tasks, seed=1)
    found = curvatures(method, seed=3)
    assert list(found) == ["task 0", "task 1", "task 2"]
    for t in range(3):
        start = method.learned[f"context-{t}"].detach()

        def loss(flat: Tensor, t: int = t, shape: Any = start.shape) -> Tensor:
            return plain_loss("coop", t, {"context": flat.view(shape)})

        with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
            dense = torch.autograd.functional.hessian(loss, start.flatten())
        values = torch.linalg.eigvalsh(dense.double())
        assert found[f"task {t}"] == pytest.approx(values[-1].item(), rel=0.02)
        product, like = hessian(method, [t])
        vector = torch.randn(like[0].shape, generator=torch.Generator().manual_seed(2))
        (turned,) = product([vector])
        assert torch.allclose(turned.flatten(), dense @ vector.flatten(), rtol=1e-2, atol=1e-3 * turned.norm().item())


@pytest.mark.parametrize("name", ["softcpt", "softcpt-cata", "cocoop", "kgcoop", "prograd", "coop-cs"])
def test_the_product_is_the_slope_of_the_gradient(name: str) -> None:
    """Against differences of gradients: H v ≈ (g(x + h v) − g(x − h v)) / 2h."""
    kind = find_method(name)
    params: dict[str, Any] = {"context": 2, "init_std": 0.3, "words": ""}
    method: Any = kind(kind.Params(**params))
    where = world()
    method.setup(where.clip, where.tasks, seed=1)
    which = method.trainings()[0]
    product, parameters = hessian(method, which)
    rng = torch.Generator().manual_seed(2)
    vectors = [torch.randn(p.shape, generator=rng) for p in parameters]
    length = torch.stack([v.norm() for v in vectors]).norm()
    vectors = [v / length for v in vectors]
    turned = product(vectors)
    h = 3e-3

    def slopes(sign: float) -> list[Tensor]:
        with torch.no_grad():
            for p, v in zip(parameters, vectors, strict=True):
                p += sign * h * v
        total = [torch.zeros_like(p) for p in parameters]
        for batch, share in _whole(method, which):
            (loss,) = kind.losses([(method, batch)])
            found = torch.autograd.grad(loss * share, parameters, materialize_grads=True)
            total = [a + b for a, b in zip(total, found, strict=True)]
        with torch.no_grad():
            for p, v in zip(parameters, vectors, strict=True):
                p -= sign * h * v
        return total

    plain = [(a - b) / (2 * h) for a, b in zip(slopes(1), slopes(-1), strict=True)]
    size = torch.stack([t.norm() for t in plain]).norm()
    assert size > 0.01
    difference = torch.stack([(a - b).norm() for a, b in zip(turned, plain, strict=True)]).norm()
    assert difference < 0.03 * size


def test_a_loss_in_parts_is_the_loss_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    coop = find_method("coop")
    method: Any = coop(coop.Params(context=2, init_std=0.3))
    method.setup(world().clip, world().tasks, seed=1)
    product, like = hessian(method, [0])
    vector = torch.randn(like[0].shape, generator=torch.Generator().manual_seed(2))
    (whole,) = product([vector])
    monkeypatch.setattr(coop, "at_once", 4)  # of 6 images
    (parts,) = product([vector])
    assert torch.allclose(parts, whole, rtol=1e-3, atol=1e-4 * whole.norm().item())


@pytest.mark.parametrize(
    ("repeats", "momentum"), [(1, 0.9), (1, 0.0), (1, 0.5), (2, 0.9), (3, 0.9), (4, 0.9), (3, 0.0)]
)
def test_beyond_the_bound_steps_grow_and_below_it_they_shrink(repeats: int, momentum: float) -> None:
    """On x² λ/2 with λ = 1, step by step; with one step a batch the bound is 2 (1 + momentum)."""
    recipe = Recipe(repeats=repeats, momentum=momentum)
    bound = bound_of(recipe)
    if repeats == 1:
        assert bound == pytest.approx(2 * (1 + momentum))

    def after(rate: float) -> float:
        x, v = 1.0, 0.0
        for _ in range(30_000):
            g = x
            for _ in range(repeats):
                v = momentum * v + g
                x -= rate * v
            if abs(x) > 1e6:
                break
        return abs(x)

    assert after(0.98 * bound) < 1e-3 and after(1.02 * bound) > 1e3


def test_the_public_loop_bears_a_35th_of_the_curvature() -> None:
    """Three steps on one gradient with momentum 0.9: 0.1075 in place of 3.8."""
    assert bound_of(Recipe(repeats=3)) == pytest.approx(0.1075, abs=5e-4)


def test_a_grid_is_measured_kept_beside_its_records_and_shown(tiny: Any, tmp_path: Path) -> None:
    results = tmp_path / "runs"
    grid = {**tiny.arguments, "methods": ["coop", "softcpt"], "shots": [1], "seeds": [1], "results": results}
    bench.run(**grid, quiet=True)
    before = {p: p.read_bytes() for p in results.rglob("*") if p.is_file()}
    table = bench.stability(times=2, **grid, quiet=True)
    assert list(table["task"]) == ["Colour", "Shade", "Stripes", ""]
    assert set(table["noise"]) == {2} and (table["range"] >= 0).all() and table["end"].notna().all()
    assert list(table["limit"]) == pytest.approx([2 * 1.9 / 0.5] * 4)  # the tiny suite's rate
    assert list(table["steady"]) == list(table["end"] <= table["limit"])
    after = {p: p.read_bytes() for p in results.rglob("*") if p.is_file() and "stability" not in p.name}
    assert after == before  # nothing of what a run keeps is touched or added
    records = {r["key"]: r["score"] for r in tiny.records(results).values()}
    assert dict(zip(table["key"], table["accuracy"], strict=True)) == pytest.approx(records)
    again = bench.stability(times=0, **{**grid, "methods": ["softcpt"]}, quiet=True)
    kept = pd.read_csv(results / "stability.csv", keep_default_na=False)
    assert list(kept["task"]) == ["Colour", "Shade", "Stripes", ""] and list(kept["noise"]) == [2, 2, 2, 0]
    assert again["start"].item() == table["start"].iloc[-1]
    bench.report(results, tmp_path / "out")
    text = (tmp_path / "out" / "table.md").read_text()
    assert "Curvature of the loss" in text and "range under noise" in text


def test_one_cell_by_its_key(tiny: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = tmp_path / "runs"
    tiny.run(results, methods=["coop"], shots=[1, 2], seeds=[1, 2], options=["coop.epochs=3"])
    (record,) = [r for r in tiny.records(results).values() if (r["cell"]["shots"], r["cell"]["seed"]) == (2, 2)]
    where = ["--results", str(results), "--data", str(tiny.data), "--suite", tiny.suite, "--backbone", tiny.backbone]
    assert main(["stability", "--cell", record["key"][:10], "--perturb", "0", *where]) == 0
    kept = pd.read_csv(results / "stability.csv")
    assert set(kept["key"]) == {record["key"]} and len(kept) == 3
    assert "Colour" in capsys.readouterr().out
    assert main(["stability", "--cell", record["key"][:10], *where, "-o", "coop.epochs=4"]) == 2
    assert "with these settings no cell has its key" in capsys.readouterr().err
    assert main(["stability", "--cell", "abcdef", *where]) == 2
    assert "no records below" in capsys.readouterr().err


def test_what_does_not_train_by_steps_is_refused(tiny: Any, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none of the methods trains by steps \(protonet\)"):
        bench.stability(**{**tiny.arguments, "methods": ["protonet"], "results": tmp_path})
    with pytest.raises(UserError, match="--perturb -1: not negative"):
        bench.stability(times=-1, **{**tiny.arguments, "results": tmp_path})
