"""Statistics over records: spread over seeds, paired comparisons of methods, ranks.

Everything takes accuracies by task and seed (a block's `values`) or plain arrays, and says when there is too little for
a claim instead of making one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import stats

LEVEL = 0.95
EXACT = 50  # pairs up to which the signed-rank test is exact
SAME = 0.005  # points: what is printed with two decimals is not told apart below this
PAIRS = ["task", "seed"]
RESAMPLES = 2000  # of test images


@dataclass(frozen=True)
class Spread:
    """Values over seeds. sd : sample standard deviation. half : half the width of the 95 % interval of the mean (t).

    Both are NaN for a single value.
    """

    n: int
    mean: float
    sd: float
    half: float

    @property
    def interval(self) -> tuple[float, float]:
        """Of an accuracy in percent: it never passes 0 or 100. NaN for a single value."""
        low, high = np.clip([self.mean - self.half, self.mean + self.half], 0, 100)
        return float(low), float(high)


def spread(values: ArrayLike) -> Spread:
    """Mean, standard deviation and 95 % t interval of values over seeds."""
    x = np.asarray(values, dtype=float)
    n = len(x)
    if n < 2:
        return Spread(n, float(x.mean()) if n else float("nan"), float("nan"), float("nan"))
    sd = float(x.std(ddof=1))
    return Spread(n, float(x.mean()), sd, float(half_width(sd, n)))


def half_width(sd: ArrayLike, n: ArrayLike) -> NDArray[np.float64]:
    """Half the width of the mean's 95 % interval (t), of sample standard deviations of n values; NaN for one."""
    n = np.asarray(n, dtype=float)
    t = stats.t.ppf((1 + LEVEL) / 2, np.where(n > 1, n - 1, np.nan))
    return np.asarray(t * np.asarray(sd, dtype=float) / n**0.5)


def over_shots(rows: pd.DataFrame) -> Spread:
    """The average over shot counts: the spread *of that average* over seeds, not the mean of the spreads.

    rows : one method's, columns seed, shots, task, accuracy. A seed counts when it has every shot count.
    """
    cells = rows.groupby(["seed", "shots"])["accuracy"].mean().unstack("shots")
    return spread(cells.dropna().mean(axis=1).to_numpy())


def interquartile_mean(values: ArrayLike) -> float:
    """Mean of the middle half (a quarter of the values is cut off at either end; Agarwal et al., arXiv 2108.13264)."""
    return float(stats.trim_mean(np.asarray(values, dtype=float), 0.25))


def performance_profile(values: ArrayLike, thresholds: Sequence[float]) -> list[float]:
    """Share of the values above each threshold (arXiv 2108.13264)."""
    x = np.asarray(values, dtype=float)
    return [float((x > t).mean()) for t in thresholds]


def signed_rank(differences: ArrayLike) -> tuple[float, float]:
    """Wilcoxon's signed-rank test, two-sided: p, and the rank-biserial correlation (1: all are positive).

    Exact up to 50 differences, also with ties (scipy's exact test is for values without ties); zeros are left out, as
    Wilcoxon does.
    """
    d = np.asarray(differences, dtype=float).round(9)  # what rounding alone tells apart is a tie
    d = d[d != 0]
    if not len(d):
        return 1.0, 0.0
    placed = stats.rankdata(np.abs(d))
    positive, total = float(placed[d > 0].sum()), float(placed.sum())
    effect = (2 * positive - total) / total
    if len(d) > EXACT:
        return float(stats.wilcoxon(d, correction=False, method="approx").pvalue), effect
    doubled = (2 * placed).astype(int)  # ranks of ties are halves
    share = np.zeros(doubled.sum() + 1)  # of the 2^n assignments of signs, by twice the sum of positive ranks
    share[0] = 1
    for rank in doubled:
        with_it = np.zeros_like(share)
        with_it[rank:] = share[: len(share) - rank]
        share = (share + with_it) / 2
    low = share[: round(2 * min(positive, total - positive)) + 1].sum()
    return min(1.0, 2 * float(low)), effect


def paired_t(differences: ArrayLike) -> tuple[float, float]:
    """Student's t test of differences over seeds, two-sided: p, and the mean; NaN for fewer than two."""
    d = np.asarray(differences, dtype=float).round(9)
    if len(d) < 2:
        return float("nan"), float(d.mean()) if len(d) else float("nan")
    if (d == d[0]).all():  # no spread at all: t is infinite, or 0 / 0
        return float(d[0] == 0), float(d[0])
    return float(stats.ttest_1samp(d, 0).pvalue), float(d.mean())


def pairs_needed(comparisons: int = 1) -> int:
    """The least number of pairs with which a signed-rank test can reach 5 % as one of several: 2 / 2^n is its smallest
    p, times the comparisons by Holm. 6 for one, 10 for sixteen."""
    n = 1
    while max(comparisons, 1) * 2 / 2**n >= 1 - LEVEL:
        n += 1
    return n


def seeds_needed(comparisons: int = 1) -> int:
    """Of `paired_t`, whose p has no smallest value: a spread must be there."""
    return 2


@dataclass(frozen=True)
class Comparison:
    """Method a against method b on the pairs (task, seed) that both have.

    difference : mean of a − b in points. p : Wilcoxon's signed-rank test, two-sided. effect : its rank-biserial
    correlation. better : probability that a beats b on a task (ties count half). needed : pairs without which no p can
    be small enough.
    """

    a: str
    b: str
    n: int
    difference: float
    p: float
    effect: float
    better: float
    needed: int = 0

    @property
    def enough(self) -> bool:
        return self.n >= self.needed

    @property
    def verdict(self) -> str:
        """What the data support."""
        if not self.enough:
            return f"too few pairs for a claim ({self.n}, at least {self.needed} are needed)"
        if self.p >= 1 - LEVEL:
            return "no difference shown"
        return f"{self.a if self.effect > 0 else self.b} is better"


def compare(values: pd.DataFrame, a: str, b: str) -> Comparison:
    """Two methods, paired.

    values : accuracy in percent, a column a method, indexed by task and seed; NaN where a method has none.
    """
    x, y = (values.get(name, pd.Series(np.nan, values.index)).to_numpy(dtype=float) for name in (a, b))
    both = ~np.isnan(x - y)
    tasks = values.index.get_level_values("task").to_numpy()[both]
    x, y = x[both], y[both]
    p, effect = signed_rank(x - y)
    mean = float((x - y).mean()) if len(x) else float("nan")
    return Comparison(a, b, len(x), mean, p, effect, _better(tasks, x, y), pairs_needed())


def _better(tasks: NDArray[Any], first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    """Mean over tasks of P(a run of the first beats a run of the second) (arXiv 2108.13264)."""
    shares = []
    for task in dict.fromkeys(tasks):
        x, y = first[tasks == task][:, None], second[tasks == task][None]
        shares.append(float(((x > y) + 0.5 * (x == y)).mean()))
    return float(np.mean(shares)) if shares else float("nan")


def holm(p: Sequence[float]) -> list[float]:
    """Holm's adjustment of p values for their number; NaN stays NaN and is not counted.

    Holm, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of Statistics 6, 1979.
    """
    known = sorted((value, i) for i, value in enumerate(p) if not np.isnan(value))
    out, worst = [float("nan")] * len(p), 0.0
    for rank, (value, i) in enumerate(known):
        worst = max(worst, min(1.0, (len(known) - rank) * value))
        out[i] = worst
    return out


def all_pairs(values: pd.DataFrame, labels: Sequence[str]) -> list[Comparison]:
    """Every pair of methods, p values adjusted by Holm's method for their number."""
    return adjusted([compare(values, a, b) for a, b in combinations(labels, 2)])


def adjusted(found: Sequence[Comparison]) -> list[Comparison]:
    """Comparisons with p values adjusted for their number."""
    needed = pairs_needed(len(found))
    return [replace(c, p=p, needed=needed) for c, p in zip(found, holm([c.p for c in found]), strict=True)]


@dataclass(frozen=True)
class Test:
    """Of the differences between two methods: p, and a number that is positive where the first is better.

    name : as a reader is told. pairs : what is paired. needed : how many of them, by the number of comparisons.
    """

    name: str
    pairs: str
    needed: Callable[[int], int]
    run: Callable[[ArrayLike], tuple[float, float]]


OVER_TASKS = Test(
    "Wilcoxon's signed-rank test over tasks × seeds", "pairs of a task and a seed", pairs_needed, signed_rank
)
OVER_SEEDS = Test("paired t test over seeds", "seeds", seeds_needed, paired_t)


def marks(values: pd.DataFrame, test: Test) -> dict[str, str] | None:
    """What the data support of a ranking: the column with the highest mean is "best" where `test` tells it from every
    other one (Holm), and the next is "second" where it is told from all that follow; else the highest and all that are
    not told from it are each a "tie". None: too few pairs for the test.

    values : a column a method, a line a pair, nothing missing.
    """
    means = values.mean().sort_values(ascending=False, kind="stable")
    columns = {str(name): values[name].to_numpy(dtype=float) for name in means.index}
    return _marks(columns, {str(name): float(mean) for name, mean in means.items()}, test)


def _marks(columns: dict[str, NDArray[np.float64]], means: dict[str, float], test: Test) -> dict[str, str] | None:
    """As `marks`, of columns in the order of their means."""
    if len(columns) < 2:
        return {}
    best, *others = columns
    if len(columns[best]) < test.needed(len(others)):
        return None
    found = [test.run(columns[best] - columns[name]) for name in others]
    apart = [
        p < 1 - LEVEL and effect > 0 and means[best] - means[name] >= SAME
        for name, p, (_, effect) in zip(others, holm([p for p, _ in found]), found, strict=True)
    ]
    if not all(apart):
        return {best: "tie", **{name: "tie" for name, told in zip(others, apart, strict=True) if not told}}
    # Of the others only who is the best matters.
    below = _marks({name: columns[name] for name in others}, means, test) or {}
    return {best: "best", **{name: "second" for name, mark in below.items() if mark == "best"}}


@dataclass(frozen=True)
class Difference:
    """Of two means over seeds: in points, half the width of its 95 % interval, and how that was found: "paired" over
    seeds that both have, "unpaired" (Welch), or "" where one of them has a single seed (then it is NaN)."""

    mean: float
    half: float
    how: str

    @property
    def within(self) -> bool | None:
        """Whether the spread over seeds explains the difference; None: no spread to judge by."""
        return None if np.isnan(self.half) else bool(abs(self.mean) <= self.half + 1e-9)


def unpaired(a: Spread, b: Spread) -> Difference:
    """a − b with Welch's interval: the spreads of both, which need not be alike."""
    mean = a.mean - b.mean
    if a.n < 2 or b.n < 2:
        return Difference(mean, float("nan"), "")
    va, vb = a.sd**2 / a.n, b.sd**2 / b.n
    if va + vb == 0:
        return Difference(mean, 0.0, "unpaired")
    df = (va + vb) ** 2 / (va**2 / (a.n - 1) + vb**2 / (b.n - 1))
    return Difference(mean, float(stats.t.ppf((1 + LEVEL) / 2, df)) * (va + vb) ** 0.5, "unpaired")


def by_seed(a: pd.Series, b: pd.Series) -> Difference:
    """a − b of values by seed: paired where both have the same seeds."""
    if set(a.index) == set(b.index) and len(a) > 1:
        found = spread((a - b).to_numpy())
        return Difference(found.mean, found.half, "paired")
    return unpaired(spread(a.to_numpy()), spread(b.to_numpy()))


@dataclass(frozen=True)
class Ranks:
    """Mean ranks (1 is best) over the cells that all methods have.

    n : cells. p : Friedman's test that all are alike. critical : difference of two mean ranks below which Nemenyi's
    test (5 %) sees none. p and critical are NaN where there are too few methods or cells.
    """

    mean: dict[str, float]
    n: int
    p: float
    critical: float


def ranks(values: pd.DataFrame, labels: Sequence[str]) -> Ranks:
    """Mean ranks over tasks and seeds (Demšar, Journal of Machine Learning Research 7, 2006).

    values : as for `compare`.
    """
    table = values.reindex(columns=list(labels)).dropna()
    n, k = table.shape
    nan = float("nan")
    if not n:
        return Ranks(dict.fromkeys(labels, nan), 0, nan, nan)
    placed: NDArray[np.float64] = stats.rankdata(-table.to_numpy(), axis=1)
    mean = dict(zip(labels, placed.mean(axis=0).tolist(), strict=True))
    if k < 3 or n < pairs_needed():  # Friedman's test is one of three methods or more
        return Ranks(mean, n, nan, nan)
    p = 1.0 if (placed == placed[:, :1]).all() else float(stats.friedmanchisquare(*table.to_numpy().T).pvalue)
    q = float(stats.studentized_range.ppf(LEVEL, k, np.inf)) / 2**0.5
    return Ranks(mean, n, p, q * (k * (k + 1) / (6 * n)) ** 0.5)


def cliques(found: Ranks) -> list[list[str]]:
    """Groups of methods that Nemenyi's test does not tell apart, best first; only those that no other contains."""
    if np.isnan(found.critical):
        return []
    order = sorted(found.mean, key=lambda name: found.mean[name])
    groups: list[list[str]] = []
    for i, first in enumerate(order):
        group = [name for name in order[i:] if found.mean[name] - found.mean[first] < found.critical]
        if len(group) > 1 and not any(set(group) <= set(other) for other in groups):
            groups.append(group)
    return groups


def image_bootstrap(
    difference: ArrayLike, classes: ArrayLike | None = None, n: int = RESAMPLES, seed: int = 0
) -> tuple[float, float, float]:
    """The difference of two methods' accuracies on the same test images, in points, and its 95 % interval: percentiles
    of n resamples of the images, each with both its answers.

    difference : of each image, whether the one was right minus whether the other was, or the mean of that over seeds.
    classes : of each image, where classes count alike (mean_acc): then images are resampled within each class.
    """
    values, codes = np.unique(np.asarray(difference, dtype=float).round(9), return_inverse=True)
    groups = np.zeros(len(codes), int) if classes is None else np.unique(np.asarray(classes), return_inverse=True)[1]
    counts = np.zeros((groups.max() + 1, len(values)))  # what a mean depends on: how many images have each difference
    np.add.at(counts, (groups, codes), 1)
    sizes = counts.sum(axis=1).astype(int)
    drawn = np.random.default_rng(seed).multinomial(sizes, counts / sizes[:, None], size=(n, len(sizes)))
    means = 100 * (drawn @ values / sizes).mean(axis=1)
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(100 * (counts @ values / sizes).mean()), float(low), float(high)
