"""Statistics over records: spread over seeds, paired comparisons of methods, ranks.

Everything takes the rows of `bench.reports.records.load` (one per cell, task and part) or plain arrays, and says when
there is too little for a claim instead of making one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import stats

LEVEL = 0.95
MIN_PAIRS = 6  # of five pairs no sign test of ranks can reach 5 %: 2 / 2^5 = 6.25 %
PAIRS = ["task", "seed", "shots"]


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
        """Of an accuracy in percent: it never passes 0 or 100."""
        return max(0.0, self.mean - self.half), min(100.0, self.mean + self.half)


def spread(values: ArrayLike) -> Spread:
    """Mean, standard deviation and 95 % t interval of values over seeds."""
    x = np.asarray(values, dtype=float)
    n = len(x)
    if n < 2:
        return Spread(n, float(x.mean()) if n else float("nan"), float("nan"), float("nan"))
    sd = float(x.std(ddof=1))
    return Spread(n, float(x.mean()), sd, float(stats.t.ppf((1 + LEVEL) / 2, n - 1)) * sd / n**0.5)


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


@dataclass(frozen=True)
class Comparison:
    """Method a against method b on the cells that both have.

    n : pairs (task, seed, shots). difference : mean of a − b in points. p : Wilcoxon's signed-rank test, two-sided;
    NaN where there are too few pairs. better : probability that a beats b on a task (ties count half).
    """

    a: str
    b: str
    n: int
    difference: float
    p: float
    better: float

    @property
    def verdict(self) -> str:
        """What the data support."""
        if np.isnan(self.p):
            return f"too few pairs for a claim ({self.n}, at least {MIN_PAIRS} are needed)"
        if self.p >= 1 - LEVEL:
            return "no difference shown"
        return f"{self.a if self.difference > 0 else self.b} is better"


def compare(rows: pd.DataFrame, a: str, b: str) -> Comparison:
    """Two methods, paired over tasks, seeds and shots.

    rows : columns label, task, seed, shots, accuracy.
    """
    table = rows[rows["label"].isin([a, b])].pivot_table(index=PAIRS, columns="label", values="accuracy")
    pairs = table.dropna() if {a, b} <= set(table) else table.iloc[:0].reindex(columns=[a, b])
    x, y = pairs[a].to_numpy(), pairs[b].to_numpy()
    difference = float((x - y).mean()) if len(x) else float("nan")
    p = float("nan")
    if len(x) >= MIN_PAIRS:
        p = 1.0 if np.array_equal(x, y) else float(stats.wilcoxon(x, y).pvalue)
    return Comparison(a, b, len(x), difference, p, _better(pairs, a, b))


def _better(pairs: pd.DataFrame, a: str, b: str) -> float:
    """Mean over tasks of P(a run of a beats a run of b) at the same shots (arXiv 2108.13264)."""
    shares = []
    for _, group in pairs.groupby(["task", "shots"]):
        x, y = group[a].to_numpy()[:, None], group[b].to_numpy()[None]
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


def all_pairs(rows: pd.DataFrame, labels: Sequence[str]) -> list[Comparison]:
    """Every pair of methods, p values adjusted by Holm's method for their number."""
    found = [compare(rows, a, b) for a, b in combinations(labels, 2)]
    adjusted = holm([c.p for c in found])
    return [
        Comparison(c.a, c.b, c.n, c.difference, p, c.better) for c, p in zip(found, adjusted, strict=True)
    ]


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


def ranks(rows: pd.DataFrame, labels: Sequence[str]) -> Ranks:
    """Mean ranks over tasks, seeds and shots (Demšar, Journal of Machine Learning Research 7, 2006)."""
    table = rows[rows["label"].isin(labels)].pivot_table(index=PAIRS, columns="label", values="accuracy")
    table = table.reindex(columns=list(labels)).dropna()
    n, k = table.shape
    nan = float("nan")
    if not n:
        return Ranks(dict.fromkeys(labels, nan), 0, nan, nan)
    placed: NDArray[np.float64] = stats.rankdata(-table.to_numpy(), axis=1)
    mean = dict(zip(labels, placed.mean(axis=0).tolist(), strict=True))
    if k < 3 or n < MIN_PAIRS:  # Friedman's test is one of three methods or more
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


def paired_bootstrap(right_a: ArrayLike, right_b: ArrayLike, n: int = 10_000, seed: int = 0) -> tuple[float, float]:
    """95 % interval of the difference of two accuracies (points) on the same test images.

    right_a, right_b : whether each image was classified correctly. Images are resampled n times, in pairs.
    """
    difference = np.asarray(right_a, dtype=float) - np.asarray(right_b, dtype=float)
    rng = np.random.default_rng(seed)
    # What a resample's mean depends on is how many images of each difference (−1, 0, 1) it has.
    values, counts = np.unique(difference, return_counts=True)
    drawn = rng.multinomial(len(difference), counts / len(difference), size=n)
    means = 100 * drawn @ values / len(difference)
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
