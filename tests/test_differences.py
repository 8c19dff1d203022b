"""scripts/differences.py: paired differences over seeds, by hand."""

from __future__ import annotations

import sys
from pathlib import Path

import pandas as pd
import pytest

sys.path.append(str(Path(__file__).parents[1] / "scripts"))
from differences import differences


def rows(scores: dict[tuple[int, int], tuple[float, float]]) -> pd.DataFrame:
    """One method's rows: (shots, seed) -> the accuracies of two tasks."""
    return pd.DataFrame(
        [
            {"suite": "s", "method": "m", "shots": n, "seed": seed, "task": t, "accuracy": a, "key": f"{n}-{seed}"}
            for (n, seed), pair in scores.items()
            for t, a in zip("ab", pair, strict=True)
        ]
    )


def test_differences_are_of_means_over_tasks_paired_over_seeds() -> None:
    """Moves of 1, 2 and 3 points at 1 shot: mean 2, sd 1, half width 4.303 / √3 = 2.484; of 0 at 4 shots."""
    first = rows({(1, 1): (50, 60), (1, 2): (40, 40), (1, 3): (30, 50), (4, 1): (70, 70), (4, 2): (60, 60)})
    second = rows({(1, 1): (52, 60), (1, 2): (42, 42), (1, 3): (36, 50), (4, 1): (71, 69), (4, 2): (60, 60)})
    table = differences(first, second).set_index("shots")
    assert list(table.loc["1", ["n", "mean", "low", "high"]]) == pytest.approx([3, 2, 2 - 2.48, 2 + 2.48], abs=0.006)
    assert list(table.loc["4", ["n", "mean", "low", "high"]]) == pytest.approx([2, 0, 0, 0])
    assert list(table.loc["all", ["n", "mean"]]) == pytest.approx([2, 0.75])  # of 0.5 and 1; seed 3 lacks 4 shots


def test_two_settings_in_one_file_are_refused() -> None:
    first = rows({(1, 1): (50, 60)})
    twice = pd.concat([first, first.assign(key="other")])
    with pytest.raises(SystemExit, match="two cells of a suite"):
        differences(first, twice)
