"""How steady a training is: its loss's curvature beside what its recipe bears, and what rounding does to its scores.

Gradient descent with momentum on a loss whose Hessian has an eigenvalue λ moves along its eigenvector by a linear map
of position and velocity. Where rate · λ is above a bound, 2 (1 + momentum) for plain steps, that map is unstable: any
difference, rounding among them, grows every step until something else bounds it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pandas as pd
import torch
import torch.nn.functional as F
from filelock import FileLock
from scipy.linalg import eigh_tridiagonal
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from bench.cells import Cell
from bench.config import RunConfig
from bench.errors import UserError
from bench.evaluate import evaluate
from bench.files import write_whole
from bench.methods import Clip, Method, TaskData
from bench.methods.base import ProgressCallback, generator
from bench.methods.prompt import PromptMethod
from bench.methods.training import Batch, Recipe
from bench.perturb import SIZE, perturbed
from bench.plan import Plan, prepare
from bench.progress import bar, count
from bench.records import STABILITY
from bench.saved import find_record

Product = Callable[[list[Tensor]], list[Tensor]]
"""The Hessian times a vector; both have the shapes of the parameters."""

CELL = ("key", "suite", "backbone", "method", "variant", "shots", "seed")
COLUMNS = [*CELL, "task", "rate", "limit", "start", "end", "steady", "accuracy", "noise", "sd", "range", "measured"]


def stability(times: int = 3, cell: str | None = None, **arguments: Any) -> pd.DataFrame:
    """Measure how steady the trainings of a grid are; see `measure`.

    Parameters
    ----------
    times : trainings from perturbed numbers. cell : the beginning of a finished cell's key, or its record's path: this
        cell alone, with the settings of its run. arguments : as for `bench.run`, above the cell's own.
    """
    RunConfig(**arguments).refuse_of_records("stability")
    return measure(plan_of(cell, arguments), times)


def plan_of(cell: str | None, given: dict[str, Any]) -> Plan:
    """The plan of a grid, or of one finished cell.

    Raises
    ------
    UserError : no such cell, or one that these settings do not make again: another code, other images, other weights.
    """
    if cell is None:
        return prepare(RunConfig(**given))
    results = given.get("results", RunConfig.results)
    record = find_record(cell, results)
    own = {**record.run, "shots": record.cell["shots"] or RunConfig.shots, "seeds": record.cell["seed"]}
    own = {name: value for name, value in own.items() if name not in ("keep", "profile", "seeds_at_once")}
    if not own.get("methods") or len(own["methods"]) > 1:
        own["methods"] = record.cell["method"]
    plan = prepare(RunConfig(**{**own, **given}))
    same = [c for c in plan.cells if c.key == record.key]
    if not same:
        raise UserError(
            f"--cell {cell}: with these settings no cell has its key; give --suite, --data, --backbone and --draws as "
            "in its run (a record holds no paths), and note that other code makes another cell"
        )
    return replace(plan, cells=same)


def measure(plan: Plan, times: int = 3) -> pd.DataFrame:
    """Train each cell, look at its loss's curvature before and after, and train it `times` times more under noise.

    Written into `stability.csv` in the folder of the records, in place of what it held of the same cells; a report
    shows it. Records are neither read nor written.

    Returns
    -------
    DataFrame : one row per training: of all tasks together, or of each task.
        task : "" for all. rate : its largest learning rate. limit : the λ beyond which the recipe is unstable.
        start, end : the largest eigenvalue λ of the Hessian, before and after training. steady : whether `end` is
        within the limit. accuracy, sd, range : the cell's score, percent, and sample standard deviation and
        max − min of it over itself and `noise` trainings from numbers changed by 1e-7 of themselves (NaN without any).

    Raises
    ------
    UserError : `times` is negative, a method does not train by steps, or a cell fails.
    """
    if times < 0:
        raise UserError(f"--perturb {times}: not negative")
    chosen = [(c, c.variant.method) for c in plan.cells if issubclass(c.variant.method, PromptMethod)]
    if not chosen:
        names = ", ".join(sorted({c.variant.method.name for c in plan.cells}))
        raise UserError(f"stability: none of the methods trains by steps ({names})")
    alone = replace(plan, config=replace(plan.config, keep=False, profile=False, seeds_at_once=False, quiet=True))
    frames = []
    with bar("training", len(chosen) * (times + 1), "time", plan.hide, position=0) as shown:
        for cell, kind in chosen:
            watched, found = watching(kind)
            scores = [_score(alone, cell, watched)]
            shown.update()
            for number in range(1, times + 1):
                scores.append(_score(alone, cell, perturbed(kind, SIZE, number)))
                shown.update()
            frames.append(_rows(cell, found, scores))
            _write(plan.store.folder / STABILITY, frames[-1])
    return pd.concat(frames, ignore_index=True)


def _rows(cell: Cell, found: Found, scores: Sequence[float]) -> pd.DataFrame:
    params, noisy = cell.variant.params, pd.Series(scores)
    bound = bound_of(params) / params.lr if params.lr else math.inf
    about = {name: cell.name[name] if name != "key" else cell.key for name in CELL}
    rows = [
        {
            **about, "task": task, "rate": params.lr, "limit": bound, "start": found.start[task], "end": end,
            "steady": end <= bound, "accuracy": scores[0], "noise": len(scores) - 1, "sd": noisy.std(),
            "range": noisy.max() - noisy.min() if len(scores) > 1 else math.nan,
            "measured": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        }
        for task, end in found.end.items()
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=COLUMNS)


def _write(file: Path, rows: pd.DataFrame) -> None:
    """Put rows into the file, in place of those of the same cells."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(file.with_name(f".{file.stem}.lock")):
        if file.is_file():
            held = pd.read_csv(file, keep_default_na=False, na_values={"sd": [""], "range": [""]})
            rows = pd.concat([held[~held["key"].isin(rows["key"])], rows], ignore_index=True)
        text = rows.to_csv(index=False)
        write_whole(file, text)


def _score(plan: Plan, cell: Cell, kind: type[Method]) -> float:
    (record,) = evaluate(plan, [replace(cell, variant=replace(cell.variant, method=kind))])
    if record.score is None:
        raise UserError(f"{kind.name}, {count(cell.shots, 'shot')}, seed {cell.seed}: {record.error}")
    return record.score


def bound_of(recipe: Recipe) -> float:
    """The largest rate · λ for which a recipe's steps are stable, where the gradient is λ times the position.

    A batch's gradient g is applied r = `repeats` times: v ← m v + g, x ← x − rate · v, with g = λ x from before the
    first. Position and velocity after them are a linear map of those before, whose eigenvalues stay within the unit
    circle as long as the two conditions on its trace and determinant (Jury's) hold. With r = 1 the bound is 2 (1 + m).
    """
    m, r = recipe.momentum, recipe.repeats
    powers = [m**i for i in range(r)]
    s = sum(powers)  # of g in v
    b = sum(sum(powers[:j]) for j in range(1, r + 1))  # of g in x
    decay, turn = m * s * s - b * m**r, b * (1 + m**r) - m * s * s
    bounds = [(1 - m**r) / decay if decay > 1e-12 else math.inf, 2 * (1 + m**r) / turn if turn > 1e-12 else math.inf]
    return min(bounds)


@dataclass
class Found:
    """The largest eigenvalue of each training's Hessian, by task ("" for all tasks together)."""

    start: dict[str, float] = field(default_factory=dict)
    end: dict[str, float] = field(default_factory=dict)


def watching(kind: type[PromptMethod]) -> tuple[type[PromptMethod], Found]:
    """A method that trains as `kind` does and measures its loss's curvature before and after; and where it says so."""
    found = Found()

    class Watched(kind):  # type: ignore[misc, valid-type]
        def setup(self, clip: Clip, tasks: Sequence[TaskData], seed: int) -> None:
            super().setup(clip, tasks, seed)
            found.start = curvatures(self, seed)

        def fit(self, clip: Clip, tasks: Sequence[TaskData], seed: int, report: ProgressCallback) -> None:
            super().fit(clip, tasks, seed, report)
            found.end = curvatures(self, seed)

    return Watched, found


def curvatures(method: PromptMethod, seed: int) -> dict[str, float]:
    """The largest eigenvalue of each training's Hessian at the method's present parameters.

    The loss is that of all few-shot images in their first view: cross-entropy, with KgCoOp's pull (ProGrad's steps
    follow a projected gradient, which has no loss). All classes of a task are scored, PLOT's transport plans are held.
    Weight decay would add itself to each eigenvalue.
    """
    params = method.params
    method.params = replace(params, absent=1.0) if hasattr(params, "absent") else params
    found = {}
    try:
        for which in method.trainings():
            name = method.tasks[which[0]].name if method.separate else ""
            found[name] = largest_eigenvalue(*hessian(method, which), generator(seed, name, "curvature"))
    finally:
        method.params = params
    return found


def hessian(method: PromptMethod, which: Sequence[int]) -> tuple[Product, list[Tensor]]:
    """The Hessian of a training's loss, as its product with a vector; and the parameters that it is of."""
    parameters = method.training(which, seed=0).parameters

    def product(vectors: list[Tensor]) -> list[Tensor]:
        total = [torch.zeros_like(p) for p in parameters]
        for batch, share in _whole(method, which):
            with sdpa_kernel(SDPBackend.MATH):  # the only one that can be differentiated twice
                (loss,) = type(method).losses([(method, batch)])
                slopes = torch.autograd.grad(share * loss, parameters, create_graph=True, materialize_grads=True)
                along = torch.stack([(g * v).sum() for g, v in zip(slopes, vectors, strict=True)]).sum()
                twice = torch.autograd.grad(along, parameters, materialize_grads=True)
            total = [a + b for a, b in zip(total, twice, strict=True)]
        return total

    return product, parameters


def _whole(method: PromptMethod, which: Sequence[int]) -> Iterator[tuple[Batch, float]]:
    """All few-shot images of some tasks, in parts; and each part's share of them."""
    own_losses = any("losses" in vars(kind) for kind in type(method).__mro__ if kind is not PromptMethod)
    size = method.params.batch if own_losses else method.at_once  # CoCoOp's memory grows with the images
    images = torch.cat([method.tasks[t].views[0] for t in which])
    labels = torch.cat([method.tasks[t].labels for t in which])
    owner = torch.cat([torch.full((len(method.tasks[t].labels),), t) for t in which])
    for rows in torch.arange(len(labels)).split(size):
        features = F.normalize(images[rows].to(method.clip.device), dim=-1)
        yield Batch.of(features, labels[rows], owner[rows]), len(rows) / len(labels)


def largest_eigenvalue(
    product: Product, like: Sequence[Tensor], rng: torch.Generator, tolerance: float = 0.01, most: int = 100
) -> float:
    """The largest (most positive) eigenvalue of a symmetric matrix, by Lanczos' iteration on products with vectors.

    Power iteration that keeps what it has seen: after k products the value is the largest that a vector of their span
    gives, so never above the true one, and `tolerance` bounds its distance to an eigenvalue. Rounding makes copies of
    values that were found already, which the largest does not mind: three vectors are enough.

    tolerance : relative. most : products.
    """
    along = [torch.randn(p.shape, generator=rng).to(p) for p in like]
    before = [torch.zeros_like(p) for p in like]
    length, value = _length(along), 0.0
    diagonal: list[float] = []
    beside: list[float] = []
    for _ in range(min(most, sum(p.numel() for p in like))):
        along = [v / length for v in along]
        turned = product(along)
        diagonal.append(sum(float((h * v).sum()) for h, v in zip(turned, along, strict=True)))
        values, vectors = eigh_tridiagonal(diagonal, beside)
        value, last = float(values[-1]), abs(float(vectors[-1, -1]))
        rest = [
            h - diagonal[-1] * v - (length if beside else 0.0) * u
            for h, v, u in zip(turned, along, before, strict=True)
        ]
        before, along, length = along, rest, _length(rest)
        if length * last <= tolerance * abs(value) or length == 0:
            break
        beside.append(length)
    return value


def _length(vectors: Sequence[Tensor]) -> float:
    return math.sqrt(sum(float((v * v).sum()) for v in vectors))
