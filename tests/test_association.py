"""Do two matrices over tasks agree? Values worked out by hand, and Mantel's p by trying every permutation."""

from __future__ import annotations

from itertools import permutations
from math import isnan

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import spearmanr

from bench import association
from bench.association import ceiling, effective_rank, least_p, mantel, pairs, reliability, spearman, spectrum


def square(*values: float) -> NDArray[np.float64]:
    """A symmetric matrix with these values above its diagonal, row by row; 9 on the diagonal, which must not count."""
    n = next(n for n in range(2, 40) if n * (n - 1) // 2 == len(values))
    full = np.full((n, n), 9.0)
    full[np.triu_indices(n, 1)] = values
    return np.triu(full) + np.triu(full, 1).T


def random_pair(n: int, seed: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    rng = np.random.default_rng(seed)
    a, noise = (square(*rng.normal(size=n * (n - 1) // 2)) for _ in range(2))
    return a, 0.6 * a + noise


def test_three_tasks_by_hand() -> None:
    """Ranks (3, 2, 1) and (2, 1, 3): ρ = 1 − 36/24. The six permutations give 1, 0.5, 0.5, −0.5, −0.5, −1."""
    rho, p = mantel(square(0.9, 0.5, 0.1), square(2, 1, 3))
    assert rho == pytest.approx(-0.5)
    assert p == pytest.approx(5 / 6)
    assert least_p(3) == pytest.approx(1 / 6) and least_p(6) == pytest.approx(1 / 720)


def test_a_matrix_that_is_not_symmetric_counts_as_the_mean_of_both_sides() -> None:
    assert pairs([[9, 1, 4], [3, 9, 0], [2, 5, 9]]).tolist() == [2, 3, 2.5]
    upper = np.triu(2 * square(2, 1, 3), 1)
    assert mantel(square(0.9, 0.5, 0.1), upper)[0] == pytest.approx(-0.5)


def test_up_to_seven_tasks_every_permutation_counts_the_identity_too() -> None:
    same = square(1, 2, 3, 4, 5, 6)  # six values that differ: no other permutation of the four tasks keeps them
    assert mantel(same, same) == pytest.approx((1, 1 / 24))
    a, b = random_pair(5, seed=3)
    rho = spearmanr(pairs(a), pairs(b)).statistic
    every = [spearmanr(pairs(a), pairs(b[np.ix_(order, order)])).statistic for order in permutations(range(5))]
    assert mantel(a, b) == pytest.approx((rho, np.mean(np.array(every) >= rho - 1e-9)))


def test_more_tasks_get_9999_permutations_and_the_least_p_is_one_in_10000(monkeypatch: pytest.MonkeyPatch) -> None:
    same, _ = random_pair(12, seed=1)
    assert mantel(same, same) == pytest.approx((1, 1e-4))
    assert least_p(12) == pytest.approx(1e-4)
    a, b = random_pair(8, seed=2)
    drawn = mantel(a, b)
    assert drawn == mantel(a, b)  # the same permutations every time
    monkeypatch.setattr(association, "CHUNK", 100)
    assert mantel(a, b) == drawn  # however many are looked at together
    monkeypatch.setattr(association, "EXACT", 8)
    exact = mantel(a, b)
    assert 0.1 < exact[1] < 0.2 and drawn[1] == pytest.approx(exact[1], abs=0.015)


def test_without_a_difference_or_with_a_gap_there_is_no_correlation() -> None:
    for a in (square(1, 1, 1), square(1, float("nan"), 2)):
        assert all(map(isnan, mantel(a, square(1, 2, 3)))) and all(map(isnan, mantel(square(1, 2, 3), a)))
    assert isnan(spearman(square(1), square(2)))  # two tasks are one pair


@pytest.mark.parametrize(
    ("features", "shares", "rank"),
    [
        ([[1, 0], [0, 1]], [0.5, 0.5], 2),
        ([[3, 4], [3, 4]], [1, 0], 1),
        ([[2, 0, 0], [0, 1, 0]], [0.8, 0.2], 1.6494),  # K has 4 and 1; exp(−0.8 ln 0.8 − 0.2 ln 0.2)
        ([[1], [2]], [1, 0], 1),  # fewer numbers than tasks
    ],
)
def test_spectrum_of_the_kernel(features: list[list[float]], shares: list[float], rank: float) -> None:
    assert spectrum(features) == pytest.approx(np.array(shares), abs=1e-12)
    assert effective_rank(spectrum(features)) == pytest.approx(rank, abs=1e-4)


def test_reliability_is_what_halves_of_the_seeds_share_stepped_up() -> None:
    first, second = square(3, 2, 1), square(3, 1, 2)  # Σδ² = 2: ρ = 1 − 12/24 = 0.5, and 2 · 0.5 / 1.5
    assert reliability([first, second]) == pytest.approx(2 / 3)
    assert reliability([first, first, second, second]) == pytest.approx(2 * (0.5 + 1 + 1) / 3 / (1 + (0.5 + 1 + 1) / 3))
    assert isnan(reliability([first]))
    assert reliability([first, first, first]) == pytest.approx(1)
    assert reliability([first, square(1, 2, 3)]) == 0
    assert reliability([first] * 12) == pytest.approx(1)  # of many seeds, a draw of halves
    assert ceiling(0.64, 0.25) == pytest.approx(0.4) and isnan(ceiling(float("nan"), 1))


def test_halves_of_five_seeds_leave_one_out() -> None:
    halves = association._halves(5)
    assert len(halves) == 15 and all(len({*a, *b}) == 4 for a, b in halves)  # 5 to leave out, 3 ways to pair four
