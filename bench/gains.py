"""What tasks gain by being trained together, from records of a method that was trained on several sets of tasks."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bench.association import pairs as pairs_of
from bench.progress import count
from bench.records import Record

Accuracies = Mapping[frozenset[str], Mapping[str, float]]
"""Of one seed: by the set of tasks that were trained together, each task's accuracy, percent."""
SHOWN = 8  # tasks that a note names


def accuracies(records: Sequence[Record], separate: Callable[[Record], bool]) -> dict[int, Accuracies]:
    """By seed. separate : whether a record's training was one for each task; then each task counts as trained alone.

    records : of one method at one number of shots; of two of the same training, the later one counts.
    """
    found: dict[int, dict[frozenset[str], dict[str, float]]] = {}
    for record in sorted(records, key=lambda record: record.finished):
        own = {str(row["task"]): float(row["accuracy"]) for row in record.tasks}
        sets = [{task: own[task]} for task in own] if separate(record) else [own]
        found.setdefault(record.cell["seed"], {}).update({frozenset(one): one for one in sets})
    return {seed: found[seed] for seed in sorted(found)}


def alone(seeds: Mapping[int, Accuracies], tasks: Sequence[str]) -> pd.DataFrame:
    """g_t = A_t(all) − A_t({t}), over the seeds that have both.

    Returns
    -------
    DataFrame : one row per task that has such seeds: task; together, alone (percent) and gain (points), means over
        `seeds` seeds.
    """
    rows = []
    for task in tasks:
        own, every = frozenset([task]), frozenset(tasks)
        both = [(held[every][task], held[own][task]) for held in seeds.values() if every in held and own in held]
        if both:
            together, single = np.mean(both, axis=0)
            gain = round(together - single, 9)  # what rounding alone makes of no gain is neither a gain nor a loss
            rows.append({"task": task, "together": together, "alone": single, "gain": gain, "seeds": len(both)})
    return pd.DataFrame(rows, columns=["task", "together", "alone", "gain", "seeds"])


def pairs(held: Accuracies, tasks: Sequence[str]) -> NDArray[np.float64]:
    """[T, T], points: row i, column j is A_i({i, j}) − A_i({i}), what i gains by j; NaN on the diagonal, and where a
    training is missing."""
    return _matrix(tasks, held, lambda i, j: (frozenset([i, j]), frozenset([i])))


def left_out(held: Accuracies, tasks: Sequence[str]) -> NDArray[np.float64]:
    """[T, T], points: row i, column j is A_i(all) − A_i(all without j), what i loses when j is left out; NaN as in
    `pairs`."""
    every = frozenset(tasks)
    return _matrix(tasks, held, lambda i, j: (every, every - {j}))


def _matrix(
    tasks: Sequence[str],
    held: Accuracies,
    sets: Callable[[str, str], tuple[frozenset[str], frozenset[str]]],
) -> NDArray[np.float64]:
    found = np.full((len(tasks), len(tasks)), np.nan)
    for i, task in enumerate(tasks):
        for j, other in enumerate(tasks):
            more, less = sets(task, other)
            if i != j and more in held and less in held:
                found[i, j] = held[more][task] - held[less][task]
    return found


def notes(
    seeds: Mapping[int, Accuracies], tasks: Sequence[str], matrices: Mapping[str, Sequence[NDArray[np.float64]]]
) -> list[str]:
    """What gains lack, in sentences: single-task trainings, and pairs of tasks.

    matrices : those of `pairs` and `left_out` of each seed, by name.
    """
    both = [seed for seed, held in seeds.items() if frozenset(tasks) in held]  # none where each task is trained alone
    lacking = {task: [seed for seed in both if frozenset([task]) not in seeds[seed]] for task in tasks}
    named = [f"{task} (seed{'s' * (len(own) > 1)} {', '.join(map(str, own))})" for task, own in lacking.items() if own]
    more = f" and {len(named) - SHOWN} more" if len(named) > SHOWN else ""
    said = []
    if both and all(len(own) == len(both) for own in lacking.values()):
        said.append("No gains of joint training: there is no cell of this setting that was trained on one task.")
    elif named:
        said.append(f"Gains are without cells trained on one task: {', '.join(named[:SHOWN])}{more}.")
    for name, several in matrices.items():
        gaps = [int(np.isnan(pairs_of(matrix)).sum()) for matrix in (mean(several), *several)]
        if gaps[0]:
            n = len(pairs_of(several[0]))
            said.append(f"{name}: {gaps[0]} of {count(n, 'pair')} of tasks lack records: correlated with nothing.")
        elif any(gaps):
            seeds_said = f"{gaps[1:].count(0)} of {count(len(several), 'seed')}"
            said.append(f"{name}: all pairs of tasks have records with {seeds_said} only.")
    return said


def mean(matrices: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """Over seeds, those that have a value."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Mean of empty slice")
        return np.asarray(np.nanmean(np.stack(matrices), axis=0))
