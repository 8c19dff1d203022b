"""Statistics of the report, against values worked out by hand (or scipy's own where a test is scipy's)."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats as scipy_stats

from bench.reports import stats


def rows(values: dict[str, list[float]]) -> pd.DataFrame:
    """Accuracies by task (and seed 1), a column a method; a method that has fewer lacks the last tasks."""
    columns = {name: pd.Series(own, dtype=float) for name, own in values.items()}
    table = pd.DataFrame(columns)
    return table.set_index(pd.MultiIndex.from_tuples([(f"t{i}", 1) for i in table.index], names=["task", "seed"]))


def test_spread_over_three_seeds() -> None:
    """70, 72, 77: mean 73; squares 9 + 1 + 16 = 26, over 2: sd √13; t(2, 97.5 %) = 4.302653, times √(13/3)."""
    found = stats.spread([70, 72, 77])
    assert (found.n, found.mean) == (3, 73)
    assert found.sd == pytest.approx(3.605551)
    assert found.half == pytest.approx(4.302653 * 2.081666, rel=1e-6)


def test_a_single_value_has_no_spread() -> None:
    found = stats.spread([70])
    assert found.mean == 70 and math.isnan(found.sd) and math.isnan(found.half)


def test_an_interval_of_accuracies_never_passes_0_or_100() -> None:
    assert stats.spread([97, 99, 100]).interval[1] == 100
    assert stats.spread([0, 1, 5]).interval[0] == 0


def test_a_single_seed_has_no_interval() -> None:
    assert all(math.isnan(end) for end in stats.spread([70]).interval)


def test_the_average_over_shots_has_the_deviation_of_that_average() -> None:
    """Seed 1: 60 and 80, seed 2: 80 and 60. The averages are 70 and 70: sd 0, though each shot count's is 14.1."""
    table = pd.DataFrame(
        {"seed": [1, 1, 2, 2], "shots": [1, 2, 1, 2], "task": "t", "accuracy": [60.0, 80.0, 80.0, 60.0]}
    )
    found = stats.over_shots(table)
    assert (found.n, found.mean, found.sd) == (2, 70, 0)


def test_a_seed_without_every_shot_count_is_not_in_the_average() -> None:
    table = pd.DataFrame({"seed": [1, 1, 2], "shots": [1, 2, 1], "task": "t", "accuracy": [60.0, 80.0, 0.0]})
    assert (stats.over_shots(table).n, stats.over_shots(table).mean) == (1, 70)


def test_interquartile_mean_leaves_out_a_quarter_at_either_end() -> None:
    assert stats.interquartile_mean([0, 10, 20, 1000]) == 15


def test_performance_profile_is_the_share_above() -> None:
    assert stats.performance_profile([10, 20, 30, 40], [5, 20, 40]) == [1, 0.5, 0]


def test_comparison_of_six_tasks_all_won() -> None:
    """All six differences positive: W = 0, p = 2 / 2^6."""
    found = stats.compare(rows({"a": [11, 22, 33, 44, 55, 66], "b": [10, 20, 30, 40, 50, 60]}), "a", "b")
    assert (found.n, found.difference, found.better) == (6, 3.5, 1.0)
    assert found.p == pytest.approx(2 / 64)
    assert found.verdict == "a is better"


def test_five_pairs_support_no_claim() -> None:
    found = stats.compare(rows({"a": [11, 22, 33, 44, 55], "b": [1, 2, 3, 4, 5]}), "a", "b")
    assert found.verdict == "too few pairs for a claim (5, at least 6 are needed)" and not found.enough


def test_equal_methods_differ_in_nothing() -> None:
    found = stats.compare(rows({"a": [1, 2, 3, 4, 5, 6], "b": [1, 2, 3, 4, 5, 6]}), "a", "b")
    assert (found.p, found.difference, found.better, found.verdict) == (1, 0, 0.5, "no difference shown")


def test_only_cells_that_both_have_are_compared() -> None:
    found = stats.compare(rows({"a": [10, 20, 30], "b": [5, 15]}), "a", "b")
    assert (found.n, found.difference) == (2, 5)
    assert stats.compare(rows({"a": [10]}), "a", "never run").n == 0


def test_probability_of_improvement_pairs_every_run_with_every_run() -> None:
    """One task: a 10, 30; b 20, 20. Two of four pairs are won. Another: 5 against 5, a tie. Mean of ½ and ½."""
    index = pd.MultiIndex.from_tuples([("t", 1), ("t", 2), ("u", 1)], names=["task", "seed"])
    table = pd.DataFrame({"a": [10.0, 30.0, 5.0], "b": [20.0, 20.0, 5.0]}, index)
    assert stats.compare(table, "a", "b").better == 0.5


def test_holm_adjusts_for_the_number_of_tests() -> None:
    """0.01 · 3, then max(0.03, 0.03 · 2), then max(0.06, 0.04 · 1); NaN is no test."""
    nan = float("nan")
    found = stats.holm([0.04, nan, 0.01, 0.03])
    assert found[0] == pytest.approx(0.06) and found[2] == pytest.approx(0.03) and found[3] == pytest.approx(0.06)
    assert math.isnan(found[1])
    assert stats.holm([0.6, 0.9]) == [1, 1]


def test_all_pairs_are_adjusted_together() -> None:
    """Three pairs, each with p = 2/64 when all six tasks agree: 3 · 0.03125 = 0.09375 is no longer below 5 %."""
    values = {name: [10 * i + k for i in range(6)] for k, name in enumerate("abc")}
    # equal differences are ties of ranks: scipy's exact p of six equal signs is still 2/64
    found = stats.all_pairs(rows({k: [float(v) for v in own] for k, own in values.items()}), list("abc"))
    assert [(c.a, c.b) for c in found] == [("a", "b"), ("a", "c"), ("b", "c")]
    raw = [stats.compare(rows({k: [float(v) for v in o] for k, o in values.items()}), c.a, c.b).p for c in found]
    assert [c.p for c in found] == pytest.approx([3 * p for p in raw])
    assert {c.verdict for c in found} == {"too few pairs for a claim (6, at least 7 are needed)"}


def test_ranks_and_critical_difference() -> None:
    """Six tasks, always c > b > a: ranks 3, 2, 1. Nemenyi at 5 % for three: q = 2.343, CD = 2.343 · √(12/36)."""
    values = {name: [float(10 * i + k) for i in range(6)] for k, name in enumerate("abc")}
    found = stats.ranks(rows(values), list("abc"))
    assert (found.mean, found.n) == ({"a": 3, "b": 2, "c": 1}, 6)
    assert found.critical == pytest.approx(2.343 * (1 / 3) ** 0.5, abs=1e-3)
    assert found.p == pytest.approx(scipy_stats.chi2.sf(12, 2))  # χ² = n (k − 1) when all agree
    assert stats.cliques(found) == [["c", "b"], ["b", "a"]]  # 1 apart, 1.35 is needed; c and a are 2 apart


def test_ties_share_a_rank_and_two_methods_have_no_critical_difference() -> None:
    found = stats.ranks(rows({"a": [1, 1], "b": [1, 2]}), ["a", "b"])
    assert found.mean == {"a": 1.75, "b": 1.25}
    assert math.isnan(found.critical) and stats.cliques(found) == []


def test_bootstrap_over_images_holds_the_difference_and_follows_from_the_seed() -> None:
    """100 images: the one method right on 80, the other on 60 of these and no other: 20 points, standard error
    √(0.2 · 0.8 / 100) = 4."""
    difference, low, high = stats.image_bootstrap([1] * 20 + [0] * 80)
    assert difference == pytest.approx(20)
    assert low == pytest.approx(20 - 1.96 * 4, abs=1) and high == pytest.approx(20 + 1.96 * 4, abs=1)
    assert stats.image_bootstrap([1] * 20 + [0] * 80) == (difference, low, high)
    assert stats.image_bootstrap([0] * 100) == (0, 0, 0)


def test_bootstrap_over_images_is_scipy_s() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.random(500) < 0.8, rng.random(500) < 0.6
    said = scipy_stats.bootstrap(
        (a, b), lambda x, y, axis: x.mean(axis) - y.mean(axis), paired=True, method="percentile", n_resamples=4000,
        random_state=2,
    ).confidence_interval  # fmt: skip
    difference, low, high = stats.image_bootstrap(a.astype(int) - b.astype(int), n=4000)
    assert difference == pytest.approx(100 * (a.mean() - b.mean()))
    assert (low, high) == pytest.approx((100 * said.low, 100 * said.high), abs=0.6)


def test_classes_that_count_alike_are_resampled_each_by_itself() -> None:
    """Class 0 has 10 images, 4 of them won; class 1 has 90, none: (40 + 0) / 2 points, where all images alike make 4.

    Standard error: half that of the first class, √(0.4 · 0.6 / 10) / 2 = 7.75.
    """
    difference, low, high = stats.image_bootstrap([1] * 4 + [0] * 96, [0] * 10 + [1] * 90)
    assert difference == pytest.approx(20)
    assert low == pytest.approx(20 - 1.96 * 7.75, abs=2.5) and high == pytest.approx(20 + 1.96 * 7.75, abs=2.5)
    assert stats.image_bootstrap([1] * 4 + [0] * 96)[0] == pytest.approx(4)


def test_signed_rank_test_with_ties_counts_the_signs_that_are_as_unlikely() -> None:
    """1, 1, −1, 2, 2: ranks 2, 2, −2, 4.5, 4.5; negative ranks sum to 2. Of the 32 assignments of signs a sum of 0 has
    one, and 2 has three: p = 2 · 4 / 32. Zeros are left out. The effect is (13 − 2) / 15."""
    p, effect = stats.signed_rank([1, 1, -1, 2, 2, 0, 0])
    assert p == pytest.approx(0.25) and effect == pytest.approx(11 / 15)
    assert stats.signed_rank([0, 0]) == (1, 0)


@pytest.mark.parametrize(("n", "least"), [(3, 0.25), (5, 0.0625), (6, 0.03125), (8, 0.0078125), (10, 0.001953125)])
def test_the_least_p_is_that_of_differences_of_one_sign(n: int, least: float) -> None:
    """Two of the 2ⁿ assignments of signs are as unlikely."""
    assert stats.signed_rank(range(1, n + 1)) == (least, 1)
    assert (least < 0.05) == (n >= stats.pairs_needed())


def test_signed_rank_test_is_scipy_s_where_nothing_is_tied_and_for_many_pairs() -> None:
    few = [1.5, -2, 3, 4.2, -0.3, 7, 8]
    assert stats.signed_rank(few)[0] == pytest.approx(scipy_stats.wilcoxon(few).pvalue)
    many = [(-1) ** (i % 3 == 0) * (i % 7 + 1.0) for i in range(80)]
    approximate = scipy_stats.wilcoxon(many, correction=False, method="approx").pvalue
    assert stats.signed_rank(many)[0] == pytest.approx(approximate)


def test_rounding_of_sums_is_no_difference() -> None:
    assert stats.signed_rank([0.1 + 0.2 - 0.3] * 6) == (1, 0)


def test_paired_t_test_of_three_seeds() -> None:
    """4, 5, 6: mean 5, sd 1, t = 5 √3 = 8.66 at 2 degrees: p = 1 − t / √(2 + t²) = 0.0131."""
    t = 5 * 3**0.5
    p, mean = stats.paired_t([4, 5, 6])
    assert mean == 5 and p == pytest.approx(1 - t / (2 + t**2) ** 0.5)
    assert stats.paired_t([2, 2, 2]) == (0, 2) and stats.paired_t([0, 0]) == (1, 0)
    assert math.isnan(stats.paired_t([2])[0])


@pytest.mark.parametrize(("comparisons", "pairs"), [(1, 6), (2, 7), (16, 10)])
def test_pairs_without_which_no_p_is_small_enough(comparisons: int, pairs: int) -> None:
    assert stats.pairs_needed(comparisons) == pairs
    assert comparisons * 2 / 2**pairs < 0.05 <= comparisons * 2 / 2 ** (pairs - 1)


def test_marks_take_the_number_of_comparisons_into_account() -> None:
    """Nine tasks. b is below a on eight of nine (−1 … −8 against +9): W = 9, p = 0.129 alone. c is below on all nine:
    p = 2 / 2^9, and 2 · 2 / 2^9 by Holm."""
    a = [50.0] * 9
    b = [50.0 - d for d in (1, 2, 3, 4, 5, 6, 7, 8)] + [59.0]
    c = [50.0 - d for d in (1, 2, 3, 4, 5, 6, 7, 8, 9)]
    assert stats.marks(rows({"c": c, "a": a, "b": b}), stats.OVER_TASKS) == {"a": "tie", "b": "tie"}
    assert stats.marks(rows({"c": c, "a": a}), stats.OVER_TASKS) == {"a": "best"}
    assert stats.marks(rows({"a": a}), stats.OVER_TASKS) == {}
    assert stats.marks(rows({"a": a[:5], "c": c[:5]}), stats.OVER_TASKS) is None


def test_holm_can_make_a_tie_of_what_one_test_tells_apart() -> None:
    """Two methods, each told from a with p = 0.03 when it is the only one, are ties when both are asked."""
    below = [1.0, 3.0, -0.5, 2.0, 2.5, 1.0]  # t = 1.5 / (1.225 / √6): p = 0.03
    p = scipy_stats.ttest_1samp(below, 0).pvalue
    assert 0.025 < p < 0.05
    a, b = [50.0] * 6, [50.0 - d for d in below]
    assert stats.marks(rows({"a": a, "b": b}), stats.OVER_SEEDS) == {"a": "best"}
    found = stats.marks(rows({"a": a, "b": b, "c": [x - 0.001 for x in b]}), stats.OVER_SEEDS)
    assert found == {"a": "tie", "b": "tie", "c": "tie"}


def test_a_difference_of_unpaired_means_has_welch_s_interval() -> None:
    """Spreads 1 and 2 over 3 and 3 seeds: variance of the difference 1/3 + 4/3 = 5/3; degrees of freedom
    (5/3)² / ((1/3)²/2 + (4/3)²/2) = 50/17 = 2.94; t = 3.2187."""
    found = stats.unpaired(stats.Spread(3, 70, 1, 0), stats.Spread(3, 66, 2, 0))
    t = scipy_stats.t.ppf(0.975, 50 / 17)
    assert (found.mean, found.how) == (4, "unpaired") and found.half == pytest.approx(t * (5 / 3) ** 0.5)
    assert found.within and not stats.unpaired(stats.Spread(3, 70.2, 1, 0), stats.Spread(3, 66, 2, 0)).within
    assert stats.unpaired(stats.spread([70]), stats.spread([60, 61])).within is None


def test_a_difference_over_the_same_seeds_is_paired() -> None:
    """By seed 1, 2, 3 each one point lower: the spread of 10 points between seeds does not hide it."""
    a, b = pd.Series({1: 50.0, 2: 60.0, 3: 70.0}), pd.Series({1: 49.0, 2: 59.0, 3: 69.0})
    assert stats.by_seed(a, b) == stats.Difference(1, 0, "paired") and stats.by_seed(a, b).within is False
    other = stats.by_seed(a, b.rename({3: 4}))
    assert (other.mean, other.how, other.within) == (1, "unpaired", True)
