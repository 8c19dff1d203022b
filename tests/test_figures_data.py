"""What stands in the figures: points, bars and lines are read from the axes and compared with literal values."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.container import ErrorbarContainer
from matplotlib.contour import QuadContourSet
from matplotlib.figure import Figure

from bench.reports import figures
from bench.reports.config import ReportConfig
from bench.reports.figures import drawable
from bench.reports.figures.gain import Gain
from bench.reports.groups import Block, split
from bench.reports.records import load

sys.path.append(str(Path(__file__).parent))
from test_reports import put, put_halves

Point = tuple[float, float, float]  # x, y, half the length of its bar


def points(axes: Axes) -> list[list[Point]]:
    """Each drawn method's points with the half lengths of their vertical bars, in the order of drawing."""
    found = []
    for container in axes.containers:
        assert isinstance(container, ErrorbarContainer)
        line, _, bars = container.lines
        halves = [(segment[1][1] - segment[0][1]) / 2 for segment in bars[-1].get_segments()]
        found.append([tuple(map(float, p)) for p in zip(line.get_xdata(), line.get_ydata(), halves, strict=True)])
    return found  # type: ignore[return-value]


def dashed(axes: Axes) -> list[float]:
    """Heights of the horizontal dashed lines that stand for zero-shot."""
    lines = [line for line in axes.lines if to_hex(line.get_color()) == "#000000" and line.get_linestyle() == "--"]
    return [float(line.get_ydata()[0]) for line in lines]


def about(points: list[Point]) -> Any:
    # Methods stand up to 6 % apart on the shots' axis; half lengths are rounded to two places.
    return [(pytest.approx(x, rel=0.07), pytest.approx(y), pytest.approx(std, abs=0.005)) for x, y, std in points]


def draw(block: Block, name: str) -> Figure:
    """A figure by its name, as the report draws it."""
    (found,) = (figure for figure in drawable(block) if figure.name == name)
    return found.draw(block)


def a_block(root: Path) -> Block:
    loaded = load(ReportConfig(root))
    (block,) = split(loaded.rows, loaded.cells)
    return block


HALF = 6.57  # of the interval of 2.646 over three seeds: t(97.5 %, 2) = 4.303, times 2.646 / √3


@pytest.fixture
def block(tmp_path: Path) -> Block:
    """Two tasks, zero-shot, and two methods with three seeds at 1, 4 and 16 shots; coop falls before it rises."""
    put(tmp_path, "zero-shot", 0, 0, {"a": 30.0, "b": 50.0})  # mean 40
    for seed, extra in ((1, 0.0), (2, 1.0), (3, 5.0)):  # mean 2, sample deviation √((4 + 1 + 9) / 2) = 2.646
        for shots, a, b in ((1, 50, 60), (4, 40, 54), (16, 66, 80)):
            put(tmp_path, "coop", shots, seed, {"a": a + extra, "b": b + extra})
            put(tmp_path, "softcpt", shots, seed, {"a": a + 6.0, "b": b + 2 * extra}, train_seconds=3.0 * shots)
    return a_block(tmp_path)


def test_accuracy_is_drawn_over_shots_with_the_interval_over_seeds(block: Block) -> None:
    (axes,) = draw(block, "accuracy").axes
    coop, softcpt = points(axes)
    assert coop == about([(1, 57, HALF), (4, 49, HALF), (16, 75, HALF)])
    # Suite means of a seed: (56 + 60 + 2 · extra) / 2, so the deviation is that of `extra`.
    assert softcpt == about([(1, 60, HALF), (4, 52, HALF), (16, 78, HALF)])
    assert dashed(axes) == [40]
    low, high = axes.get_xlim()
    assert low < 0.9 and high > 17.5  # nothing stands outside


def test_every_task_has_a_panel_of_its_own_numbers(block: Block) -> None:
    figure = draw(block, "tasks")
    first, second = figure.axes
    assert (first.get_title(), second.get_title()) == ("a", "b")
    assert points(first)[0] == about([(1, 52, HALF), (4, 42, HALF), (16, 68, HALF)])
    assert points(first)[1] == about([(1, 56, 0), (4, 46, 0), (16, 72, 0)])  # no seed differs in task a
    assert points(second)[0] == about([(1, 62, HALF), (4, 56, HALF), (16, 82, HALF)])
    assert points(second)[1] == about([(1, 64, 2 * HALF), (4, 58, 2 * HALF), (16, 84, 2 * HALF)])
    assert (dashed(first), dashed(second)) == ([30], [50])


def test_gain_is_what_a_method_adds_to_zero_shot_at_the_most_shots_the_largest_on_top(block: Block) -> None:
    figure = draw(block, "gain")
    (axes,) = figure.axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["b", "a"]  # from below: mean gains 33 and 40
    nothing, coop, softcpt = axes.lines
    assert list(nothing.get_xdata()) == [0, 0]
    assert list(coop.get_xdata()) == pytest.approx([82 - 50, 68 - 30])
    assert list(softcpt.get_xdata()) == pytest.approx([84 - 50, 72 - 30])
    assert list(coop.get_ydata()) == pytest.approx([0, 1], abs=0.3)
    assert Gain().heading(block) == "gain over zero-shot at 16 shots"


@pytest.mark.parametrize(("name", "costs"), [("time", (32, 48)), ("params", (1000, 1000))])
def test_cost_stands_against_accuracy_at_the_most_shots(block: Block, name: str, costs: tuple[float, float]) -> None:
    (axes,) = draw(block, name).axes
    assert points(axes) == [about([(costs[0], 75, HALF)]), about([(costs[1], 78, HALF)])]
    assert dashed(axes) == [40]


def test_new_classes_stand_over_base_classes_with_lines_of_equal_harmonic_mean(tmp_path: Path) -> None:
    put_halves(tmp_path, "zero-shot", 0, 0, {"a": (40.0, 60.0), "b": (60.0, 60.0)})
    put_halves(tmp_path, "coop", 4, 1, {"a": (80.0, 20.0), "b": (60.0, 60.0)})  # 70, 40
    put_halves(tmp_path, "coop", 4, 2, {"a": (80.0, 30.0), "b": (64.0, 70.0)})  # 72, 50
    panel = draw(a_block(tmp_path), "new-over-base").axes[0]
    (container,) = panel.containers
    assert isinstance(container, ErrorbarContainer)
    line, _, (wide, high) = container.lines
    assert (line.get_xdata()[0], line.get_ydata()[0]) == (pytest.approx(71), pytest.approx(45))
    (left, right), (bottom, top) = wide.get_segments()[0], high.get_segments()[0]
    assert (right[0] - left[0]) / 2 == pytest.approx(12.71, abs=0.01)  # of 70 and 72: t = 12.71, times √2 / √2
    assert (bottom[1], top[1]) == (0, 100)  # of 40 and 50: 45 ± 63.5, cut at what an accuracy can be
    upright, level = (line for line in panel.lines if to_hex(line.get_color()) == "#000000")
    assert (upright.get_xdata()[0], level.get_ydata()[0]) == (50, 60)  # zero-shot's base and new
    (contours,) = (found for found in panel.collections if isinstance(found, QuadContourSet))
    drawn = [
        (height, x, y)
        for height, lines in zip(contours.levels, contours.allsegs, strict=True)
        for points in lines
        for x, y in points[::10]
    ]
    assert len(drawn) > 10
    for height, x, y in drawn:
        assert 2 / (1 / x + 1 / y) == pytest.approx(height, abs=0.1)


def test_an_ablation_stands_over_the_values_a_line_a_shot_count(tmp_path: Path) -> None:
    for seed, extra in ((1, 0.0), (2, 2.0)):  # t(97.5 %, 1) = 12.706, times √2 / √2
        for value, score in ((4, 50), (2, 30), (16, 40)):
            for shots in (1, 8):
                variant = "" if value == 4 else f"context={value}"
                config = {"params": {"epochs": 20, "context": value}}
                scores = {"a": score + shots + extra, "b": score + shots + extra}
                put(tmp_path, "coop", shots, seed, scores, cell={"variant": variant}, config=config)
    figure: Figure = draw(a_block(tmp_path), "ablation")
    one, eight = points(figure.axes[0])
    assert one == about([(2, 32, 12.706), (4, 52, 12.706), (16, 42, 12.706)])
    assert eight == about([(2, 39, 12.706), (4, 59, 12.706), (16, 49, 12.706)])


def test_a_figure_is_written_in_every_format_asked_for_and_without_its_title(block: Block, tmp_path: Path) -> None:
    titles = []
    for folder, titled in (("with", True), ("without", False)):
        names = figures.draw(block, tmp_path / folder, ("pdf", "svg"), titled)
        assert names[0] == f"{folder}/toy-tiny-accuracy.pdf"
        assert {path.suffix for path in (tmp_path / folder).iterdir()} == {".pdf", ".svg"}
        assert (tmp_path / folder / "toy-tiny-accuracy.pdf").read_bytes().startswith(b"%PDF")
        titles.append(
            "<!-- toy · tiny: accuracy over shots -->" in (tmp_path / folder / "toy-tiny-accuracy.svg").read_text()
        )
    assert titles == [True, False]
    assert figures.draw(block, tmp_path / "none", ()) == [] and not (tmp_path / "none").exists()
