"""Training curves: lines and crosses are read from the axes; means by hand."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from matplotlib.axes import Axes

from bench.reports import figures
from bench.reports.groups import Block

sys.path.append(str(Path(__file__).parent))
from test_figures_data import a_block, draw
from test_reports import put

BAD = ["training loss grew: from 1 to 3"]


def trained(loss: dict[str, list[float]], accuracy: dict[str, list[float]]) -> dict[str, Any]:
    return {"epochs": [1, 20], "loss": loss, "accuracy": accuracy}


@pytest.fixture
def block(tmp_path: Path) -> Block:
    """coop trains on a and b apart, softcpt on both at once; softcpt's loss grows at one shot with seed 2."""
    put(tmp_path, "zero-shot", 0, 0, {"a": 30.0, "b": 50.0})
    for shots in (1, 4):
        for seed, more in ((1, 0.0), (2, 1.0)):
            loss = {"a": [2.0 + more, 1.0 + more], "b": [4.0 + more, 1.0 + more]}
            accuracy = {"a": [20.0, 60.0 + shots], "b": [40.0, 80.0 + shots]}
            put(tmp_path, "coop", shots, seed, {"a": 50.0, "b": 50.0}, curves=trained(loss, accuracy))
            marks = BAD if shots == 1 and seed == 2 else []
            curves = trained({"all": [1.0, 1.0 + 2 * more]}, {"all": [50.0, 20.0]})
            put(tmp_path, "softcpt", shots, seed, {"a": 60.0, "b": 60.0}, curves=curves, marks=marks)
    return a_block(tmp_path)


def lines(axes: Axes) -> list[list[tuple[float, float]]]:
    return [
        [(float(x), float(y)) for x, y in zip(line.get_xdata(), line.get_ydata(), strict=True)]
        for line in axes.lines
        if len(line.get_xdata()) > 1
    ]


def crosses(axes: Axes) -> list[tuple[float, float]]:
    return [(line.get_xdata()[0], line.get_ydata()[0]) for line in axes.lines if len(line.get_xdata()) == 1]


def test_curves_are_means_of_a_cell_s_trainings_and_of_seeds(block: Block) -> None:
    loss_1, loss_4, accuracy_1, accuracy_4 = draw(block, "curves").axes
    assert [panel.get_title() for panel in (loss_1, loss_4)] == ["1 shot", "4 shots"]
    # coop's loss with seed 1: (2 + 4) / 2 = 3, then 1; with seed 2 a point more. softcpt's: 1, 1 and 1, 3.
    assert lines(loss_1) == lines(loss_4) == [[(1, 3.5), (20, 1.5)], [(1, 1), (20, 2)]]
    assert lines(accuracy_1) == [[(1, 30), (20, 71)], [(1, 50), (20, 20)]]
    assert lines(accuracy_4) == [[(1, 30), (20, 74)], [(1, 50), (20, 20)]]
    assert accuracy_1.get_ylim() == (0, 101)


def test_a_training_that_its_record_marks_has_a_cross_at_its_end(block: Block) -> None:
    figure = draw(block, "curves")
    assert [crosses(panel) for panel in figure.axes] == [[(20, 2)], [], [(20, 20)], []]
    assert [text.get_text() for text in figure.axes[0].texts] == ["softcpt"]
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [
        "coop", "softcpt", "marked: near chance, or loss grew",
    ]  # fmt: skip


def test_cells_without_curves_are_named_and_methods_that_have_none_are_not_missed(block: Block, tmp_path: Path) -> None:
    put(tmp_path, "coop", 4, 3, {"a": 50.0, "b": 50.0})
    put(tmp_path, "tip-adapter", 4, 1, {"a": 50.0, "b": 50.0}, config={"params": {"alpha": 1.0}})
    (legend,) = draw(a_block(tmp_path), "curves").legends
    assert legend.get_title().get_text() == "means of tasks and seeds; no curves of some cells of coop"


def test_older_records_have_no_curves_and_it_is_said(tmp_path: Path) -> None:
    put(tmp_path, "coop", 4, 1, {"a": 50.0, "b": 50.0})
    (reason,) = (text for text in figures.not_drawn(a_block(tmp_path)) if "training loss" in text)
    assert reason.endswith("the records have no curves (earlier versions kept none): run the cells again")
    only = tmp_path / "only"
    put(only, "tip-adapter", 4, 1, {"a": 50.0, "b": 50.0}, config={"params": {"alpha": 1.0}})
    assert not any("training loss" in text for text in figures.not_drawn(a_block(only)))
