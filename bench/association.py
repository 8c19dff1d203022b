"""Whether two matrices over tasks agree, and how much of a kernel between tasks its first directions hold.

Pairs of tasks are not independent: each task is in T − 1 of them. So whether two matrices agree is tested by permuting
tasks, rows and columns together (Mantel, Cancer Research 27, 1967), never by the number of pairs.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import combinations, permutations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata, spearmanr

EXACT = 7  # tasks up to which all permutations are tried: 5040
DRAWS = 9999  # permutations of more tasks
SEED = 1  # of these
SPLITS = 100  # pairs of halves of the seeds, at most
CHUNK = 1 << 22  # numbers that a step of the permutations holds

Matrix = NDArray[np.float64]


def spectrum(features: ArrayLike) -> Matrix:
    """The eigenvalues of K = F Fᵀ as shares of its trace, the largest first: [T], of features F [T, d]."""
    values = np.linalg.svd(np.asarray(features, dtype=np.float64), compute_uv=False) ** 2
    shares = np.zeros(len(np.asarray(features)))
    shares[: len(values)] = values[: len(shares)]
    return shares / shares.sum()


def effective_rank(shares: ArrayLike) -> float:
    """exp of the entropy of the shares (Roy and Vetterli, 2007): 1 where one holds all, T where all are alike."""
    held = np.asarray(shares, dtype=np.float64)
    held = held[held > 0]
    return float(np.exp(-(held * np.log(held)).sum()))


def pairs(matrix: ArrayLike) -> Matrix:
    """The T (T − 1) / 2 values off the diagonal, row by row; of a matrix that is not symmetric, means of (i, j) and
    (j, i)."""
    full = np.asarray(matrix, dtype=np.float64)
    return ((full + full.T) / 2)[np.triu_indices(len(full), 1)]


def spearman(a: ArrayLike, b: ArrayLike) -> float:
    """Spearman's rank correlation of two matrices' pairs; NaN where one has the same value everywhere, or a gap."""
    x, y = pairs(a), pairs(b)
    if len(x) < 2 or np.isnan([*x, *y]).any() or np.ptp(x) == 0 or np.ptp(y) == 0:
        return math.nan
    return float(spearmanr(x, y).statistic)


def mantel(a: ArrayLike, b: ArrayLike) -> tuple[float, float]:
    """Spearman's ρ of two matrices' pairs, and Mantel's one-sided p: how often a permutation of the tasks of one matrix
    gives a ρ as large.

    Of up to `EXACT` tasks every permutation is tried, and p is the share of them, the identity included; of more,
    `DRAWS` are drawn, always the same ones, and p = (1 + number) / (1 + draws). Both are NaN where ρ is.
    """
    rho, n = spearman(a, b), len(np.asarray(a))
    if math.isnan(rho):
        return math.nan, math.nan
    i, j = np.triu_indices(n, 1)
    x, ranks = rankdata(pairs(a)), np.zeros((n, n))
    ranks[i, j] = ranks[j, i] = y = rankdata(pairs(b))
    x = (x - x.mean()) / (np.linalg.norm(x - x.mean()) * np.linalg.norm(y - y.mean()))
    found = np.concatenate([ranks[order[:, i], order[:, j]] @ x for order in _orders(n)])
    reached = int((found >= rho - 1e-9).sum())  # equal ones differ in rounding
    return rho, reached / len(found) if n <= EXACT else (1 + reached) / (1 + len(found))


def _orders(n: int) -> Iterator[NDArray[np.int64]]:
    """Permutations of n tasks, [m, n] a time."""
    step = max(1, CHUNK // (n * n))
    if n <= EXACT:
        yield np.array(list(permutations(range(n))))
        return
    rng = np.random.default_rng(SEED)
    for done in range(0, DRAWS, step):
        yield rng.permuted(np.tile(np.arange(n), (min(step, DRAWS - done), 1)), axis=1)


def least_p(n: int) -> float:
    """The smallest p that `mantel` can give for n tasks."""
    return 1 / math.factorial(n) if n <= EXACT else 1 / (1 + DRAWS)


def reliability(matrices: Sequence[ArrayLike]) -> float:
    """How well the mean of several seeds' matrices would be found again by other seeds: Spearman's ρ between means over
    halves of the seeds, its mean over such halves, stepped up to all of them by Spearman and Brown's 2r / (1 + r).

    Of an odd number of seeds each half leaves one out, so the value is a little low. NaN for one seed; 0 where halves
    do not agree (r ≤ 0).
    """
    held = np.asarray([np.asarray(matrix, dtype=np.float64) for matrix in matrices])
    found = [spearman(held[list(a)].mean(axis=0), held[list(b)].mean(axis=0)) for a, b in _halves(len(held))]
    r = float(np.mean(found)) if found else math.nan
    return r if math.isnan(r) else 2 * r / (1 + r) if r > 0 else 0.0


def _halves(n: int) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Pairs of disjoint halves of n seeds; of many seeds a fixed draw of them."""
    h = n // 2
    if not h:
        return []
    if n <= 8:
        every = combinations(range(n), h)
        return [(a, b) for a in every for b in combinations(sorted({*range(n)} - {*a}), h) if a < b]
    rng = np.random.default_rng(SEED)
    orders = [tuple(int(k) for k in rng.permutation(n)) for _ in range(SPLITS)]
    return [(order[:h], order[h : 2 * h]) for order in orders]


def ceiling(a: float, b: float) -> float:
    """The largest |ρ| that two matrices of these reliabilities can be expected to have: √(a · b)."""
    return math.sqrt(a * b)
