"""Similarity of tasks: order, cosines and gains are read from the axes and compared with values worked out by hand."""

from __future__ import annotations

import sys
from math import isnan
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.container import ErrorbarContainer

from bench.reports import figures
from bench.reports.figures.similarity import grown
from bench.reports.groups import Block

sys.path.append(str(Path(__file__).parent))
from test_figures_data import a_block, draw
from test_reports import put

T = 12.7062047  # t(97.5 %, 1)


def cosines(ab: float, ac: float, bc: float) -> dict[str, Any]:
    """A record's similarity of tasks a, b and c; contexts are half as alike as features. Its tasks stand in another
    order than the report's."""
    features = [[1, bc, ac], [bc, 1, ab], [ac, ab, 1]]
    contexts = [[1, bc / 2, ac / 2], [bc / 2, 1, ab / 2], [ac / 2, ab / 2, 1]]
    return {"tasks": ["c", "b", "a"], "features": features, "contexts": contexts}


def a_report(root: Path, single: str = "coop", seeds: tuple[int, ...] = (1, 2)) -> Block:
    for seed in seeds:
        put(root, single, 4, seed, {"a": 50.0, "b": 60.0, "c": 70.0})
    put(root, "softcpt", 4, 1, {"a": 52.0, "b": 60.0, "c": 69.0}, similarity=cosines(0.3, 1.0, 0.1))
    put(root, "softcpt", 4, 2, {"a": 54.0, "b": 60.0, "c": 69.0}, similarity=cosines(0.1, 0.8, 0.1))
    put(root, "softcpt", 1, 1, {"a": 52.0, "b": 60.0, "c": 69.0}, similarity=cosines(0.9, 0.9, 0.9))
    return a_block(root)


def gains(axes: Axes, order: list[str]) -> list[dict[str, tuple[float, float]]]:
    """Of each label, by task: the point, and half the length of its bar."""
    found = []
    for container in axes.containers:
        assert isinstance(container, ErrorbarContainer)
        line, _, (bars,) = container.lines
        halves = [float(bar[1][0] - bar[0][0]) / 2 if len(bar) else float("nan") for bar in bars.get_segments()]
        points = zip(line.get_xdata(), line.get_ydata(), halves, strict=True)
        found.append({order[int(y)]: (float(x), half) for x, y, half in points})  # a task's row: from y to y + 1
    return found


def test_tasks_stand_in_the_order_of_their_dendrogram_beside_cosines_and_gains(tmp_path: Path) -> None:
    figure = draw(a_report(tmp_path), "similarity")
    tree, features, contexts, more = figure.axes
    # Means over seeds at 4 shots: a–b 0.2, a–c 0.9, b–c 0.1. So a and c meet at 0.1, and b joins at (0.8 + 0.9) / 2;
    # of the orders that this allows, b beside a is the one whose neighbours are the more alike.
    order = [label.get_text() for label in features.get_yticklabels()]
    assert order in (["b", "a", "c"], ["c", "a", "b"])
    assert sorted(max(line.get_xdata()) for line in tree.lines) == pytest.approx([0.1, 0.85])
    for axes, by_row in (
        (features, {"b": ["20", "10"], "a": ["20", "90"], "c": ["10", "90"]}),
        (contexts, {"b": ["10", "5"], "a": ["10", "45"], "c": ["5", "45"]}),
    ):
        written = [text.get_text() for text in axes.texts]  # row by row, nothing of a task with itself
        rows = {task: written[2 * y : 2 * y + 2] for y, task in enumerate(order)}
        assert rows == (by_row if order[0] == "b" else {task: own[::-1] for task, own in by_row.items()})
    # a: 2 and 4 points, so 3 ± T · √2 / √2; b: 0; c: −1 with both seeds.
    (softcpt,) = gains(more, order)
    assert {task: gain for task, (gain, _) in softcpt.items()} == pytest.approx({"a": 3, "b": 0, "c": -1})
    assert {task: half for task, (_, half) in softcpt.items()} == pytest.approx({"a": T, "b": 0, "c": 0})
    assert more.get_title() == "gain over coop,\ntrained on each task alone"


def test_one_context_for_all_tasks_is_compared_too(tmp_path: Path) -> None:
    put(tmp_path, "shared-coop", 4, 2, {"a": 45.0, "b": 60.0, "c": 70.5})  # one seed, so no interval
    figure = draw(a_report(tmp_path), "similarity")
    order = [label.get_text() for label in figure.axes[1].get_yticklabels()]
    shared, _ = gains(figure.axes[3], order)
    assert {task: gain for task, (gain, _) in shared.items()} == pytest.approx({"a": -5, "b": 0, "c": 0.5})
    assert all(isnan(half) for _, half in shared.values())
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["shared-coop", "softcpt"]


@pytest.mark.parametrize(
    ("single", "seeds", "said"),
    [
        ("kgcoop", (1, 2), "no gain of joint training: the records have no coop, which trains on each task alone"),
        ("coop", (5,), "no gain of joint training: coop and softcpt have no seed in common at 4 shots"),
    ],
)
def test_a_pair_that_the_records_lack_is_told_in_the_figure(
    tmp_path: Path, single: str, seeds: tuple[int, ...], said: str
) -> None:
    figure = draw(a_report(tmp_path, single, seeds), "similarity")
    assert len(figure.axes) == 3 and figure.get_supxlabel() == said


def test_records_without_similarities_and_reports_without_softcpt(tmp_path: Path) -> None:
    put(tmp_path / "old", "softcpt", 4, 1, {"a": 52.0, "b": 60.0})
    (told,) = (line for line in figures.not_drawn(a_block(tmp_path / "old")) if "similarity" in line)
    assert told.endswith(
        "no record has similarities of all these tasks (folds have their own tasks', earlier versions none)"
    )
    put(tmp_path / "other", "coop", 4, 1, {"a": 52.0, "b": 60.0})
    block = a_block(tmp_path / "other")
    assert not [line for line in figures.not_drawn(block) if "similarity" in line]
    assert "similarity" not in [figure.name for figure in figures.drawable(block)]


def test_cosines_that_rounding_left_above_one_make_no_negative_distance() -> None:
    tree = grown(pd.DataFrame([[1, 1.00004], [1.00004, 1]]))
    assert tree["dcoord"] == [[0, 0, 0, 0]]
