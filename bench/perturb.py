"""How much of a score is rounding: cells trained again from numbers that differ in their last bits.

Another processor, another library or another order of a sum changes the last bits of a number. A steady training
keeps such a difference small; one whose learning rate lies beyond the edge of stability (largest eigenvalue of the
loss's Hessian above 2 (1 + momentum) / rate) doubles it every few steps, until accuracies differ by points.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from bench.cells import Cell
from bench.config import RunConfig
from bench.errors import UserError
from bench.evaluate import evaluate
from bench.methods import Clip, Method, TaskData
from bench.methods.base import ProgressCallback, generator
from bench.plan import Plan, prepare
from bench.progress import bar, count

SIZE = 1e-7  # about the last bit of a float32


def rounding(times: int = 5, size: float = SIZE, **arguments: Any) -> pd.DataFrame:
    """Tell how much of a grid's accuracies is rounding; nothing is recorded.

    Parameters
    ----------
    times : perturbed trainings of each cell. size : of the noise, relative. arguments : as for `bench.run`.

    Returns
    -------
    DataFrame : see `spread`.

    Raises
    ------
    UserError : as of `spread`; or an argument asks for what this does not do.
    """
    config = RunConfig(**arguments)
    config.refuse_of_records("rounding")
    return spread(prepare(config), times, size)


def spread(plan: Plan, times: int, size: float = SIZE) -> pd.DataFrame:
    """Train every cell once as it is and `times` times perturbed; records are neither read nor written.

    Returns
    -------
    DataFrame : one row per method, variant and shot count. accuracy : mean over tasks and seeds in percent, as it is;
        sd, range : sample standard deviation and max − min of that mean over the times + 1 trainings.

    Raises
    ------
    UserError : `times` is below 1, or a cell fails.
    """
    if times < 1:
        raise UserError(f"--perturb {times}: at least 1")
    quiet = replace(plan.config, keep=False, profile=False, seeds_at_once=False, quiet=True)
    alone = replace(plan, config=quiet)
    scores = []
    with bar("training perturbed", len(plan.cells) * (times + 1), "cell", plan.hide, position=0) as shown:
        for cell in plan.cells:
            row = {name: cell.name[name] for name in ("method", "variant", "shots")}
            for number in range(times + 1):
                kind = perturbed(cell.variant.method, size, number) if number else cell.variant.method
                scores.append({**row, "number": number, "score": _score(alone, cell, kind)})
                shown.update()
    per_number = pd.DataFrame(scores).groupby([*row, "number"], sort=False)["score"].mean().unstack("number")
    return pd.DataFrame(
        {
            "accuracy": per_number[0],
            "sd": per_number.std(axis=1),
            "range": per_number.max(axis=1) - per_number.min(axis=1),
        }
    ).reset_index()


def _score(plan: Plan, cell: Cell, kind: type[Method]) -> float:
    (record,) = evaluate(plan, [replace(cell, variant=replace(cell.variant, method=kind))])
    if record.score is None:
        raise UserError(f"--perturb: {kind.name}, {count(cell.shots, 'shot')}, seed {cell.seed}: {record.error}")
    return record.score


def perturbed(kind: type[Method], size: float, number: int) -> type[Method]:
    """A method that differs from `kind` in the last bits of all it starts from: image features and start values.

    The noise follows from the cell's seed and `number`. Start values are those of learned prompts; a method
    that makes its own otherwise is perturbed through its features.
    """

    class Perturbed(kind):  # type: ignore[misc, valid-type]
        def fit(self, clip: Clip, tasks: Sequence[TaskData], seed: int, report: ProgressCallback) -> None:
            self._noise = generator(seed, "perturbation", number)
            fields = ("views", "test_view", "val")
            noise: list[dict[str, Any]] = [{f: noisy(getattr(t, f), size, self._noise) for f in fields} for t in tasks]
            changed = [replace(t, **own) for t, own in zip(tasks, noise, strict=True)]
            super().fit(clip, changed, seed, report)

        def initialise(self, tasks: Sequence[TaskData], rng: torch.Generator) -> Mapping[str, Tensor]:
            start = super().initialise(tasks, rng)
            return {name: noisy(value, size, self._noise) for name, value in start.items()}

        def predict(self, task: TaskData, features: Tensor, class_names: Sequence[str] | None = None) -> Tensor:
            return super().predict(task, noisy(features, size, self._noise), class_names)

    return Perturbed


def noisy(values: Tensor, size: float, rng: torch.Generator) -> Tensor:
    """values · (1 + size · n), n standard normal; rounded as any sum is."""
    noise = torch.randn(values.shape, generator=rng).to(values)
    return torch.addcmul(values, values, noise, value=size)
