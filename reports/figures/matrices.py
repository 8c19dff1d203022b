"""Matrices over tasks as pictures, in the order of a dendrogram: what the figures of how tasks relate share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from scipy.cluster.hierarchy import dendrogram, linkage
from scipy.spatial.distance import squareform

from bench.reports.figures.common import NAME, short

CELL = 0.28  # inches


def grown(matrix: pd.DataFrame) -> dict[str, Any]:
    """The dendrogram of a matrix of cosines, as scipy gives it: average linkage of 1 - cosine."""
    cosines = matrix.to_numpy(dtype=float)
    distances = np.clip(1 - (cosines + cosines.T) / 2, 0, None)
    np.fill_diagonal(distances, 0)
    return dict(dendrogram(linkage(squareform(distances), "average", optimal_ordering=True), no_plot=True))


def branches(axes: Axes, tree: dict[str, Any]) -> None:
    """A dendrogram whose leaves are the rows of the matrix to the right of it."""
    for xs, ys in zip(tree["dcoord"], tree["icoord"], strict=True):
        axes.plot(xs, [y / 10 for y in ys], color="0.4", linewidth=0.8)  # its leaves are at 5, 15, …
    axes.invert_xaxis()
    axes.set_axis_off()


def heat(axes: Axes, matrix: pd.DataFrame, gains: bool = False) -> None:
    """Cosines, written × 100 and coloured from the least to the largest of two tasks; a task with itself is left white.

    gains : points, written as they are; red is a loss, blue a gain. All are shown.
    """
    if gains:
        furthest = float(np.nanmax(np.abs(matrix.to_numpy()))) or 1.0
        how: dict[str, Any] = {"cmap": "RdBu", "vmin": -furthest, "vmax": furthest, "annot": matrix.round() + 0}
    else:  # + 0: no "-0"
        how = {"cmap": "cividis", "mask": np.eye(len(matrix), dtype=bool), "annot": (100 * matrix).round() + 0}
    sns.heatmap(matrix, ax=axes, cbar=False, linewidths=0.4, linecolor="white", fmt=".0f",
                annot_kws={"fontsize": 6}, **how)  # fmt: skip
    axes.set_xticks([x + 0.5 for x in range(len(matrix))], [short(str(task), NAME) for task in matrix], rotation=90)
    axes.set(ylabel="")
    axes.tick_params(left=False)
    axes.grid(False)


def name_rows(axes: Axes, tasks: Sequence[str]) -> None:
    """The tasks beside a matrix's rows, for all the panels that share them."""
    axes.set_yticks([y + 0.5 for y in range(len(tasks))], [short(task, NAME) for task in tasks], rotation=0)
    axes.tick_params(labelleft=True)
