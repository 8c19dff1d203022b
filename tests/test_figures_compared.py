"""Figures that compare all methods: ranks, profiles and probabilities are read from the axes; values by hand."""

from __future__ import annotations

import re
import sys
import warnings
from pathlib import Path

import matplotlib
import pytest
from matplotlib.colors import to_hex
from matplotlib.text import Text

from bench.reports import figures
from bench.reports.figures.common import LOOK
from bench.reports.groups import Block

sys.path.append(str(Path(__file__).parent))
from test_figures_data import a_block, draw
from test_reports import put


def three(root: Path, tasks: str = "abcdef", seeds: tuple[int, ...] = (1, 2)) -> Block:
    """zero-shot at 40 %; coop gains 10 and softcpt 20 points on all tasks but the last, where coop loses 10 and softcpt
    gains nothing; the shot counts lie 2 points apart."""
    put(root, "zero-shot", 0, 0, dict.fromkeys(tasks, 40.0))
    for seed in seeds:
        for shots, more in ((1, -1.0), (4, 1.0)):
            coop = dict.fromkeys(tasks, 50.0 + more) | {tasks[-1]: 30.0 + more}
            softcpt = dict.fromkeys(tasks, 60.0 + more) | {tasks[-1]: 40.0 + more}
            put(root, "coop", shots, seed, coop)
            put(root, "softcpt", shots, seed, softcpt)
    return a_block(root)


def test_mean_ranks_and_the_critical_difference_are_drawn_of_tasks(tmp_path: Path) -> None:
    figure = draw(three(tmp_path), "critical-difference")
    (axes,) = figure.axes
    texts = [text.get_text() for text in axes.texts]
    # On five tasks softcpt, coop, zero-shot; on the last softcpt and zero-shot are level (1.5 each), coop is third.
    ranks = {"softcpt": (5 * 1 + 1.5) / 6, "coop": (5 * 2 + 3) / 6, "zero-shot": (5 * 3 + 1.5) / 6}
    for name, rank in ranks.items():
        assert f"{name}  {rank:.2f}" in texts
        assert any(line.get_xdata()[0] == pytest.approx(rank) for line in axes.lines if len(line.get_xdata()) == 3)
    # Demšar's table: q(5 %, 3 methods) = 2.343; times √(3 · 4 / (6 · 6 tasks)). Seeds and shots are no further tasks.
    assert "critical difference 1.35" in texts
    bars = [line for line in axes.lines if to_hex(line.get_color()) == "#595959"]
    # 1.08 and 2.17 are less than 1.35 apart, 2.17 and 2.75 too; 1.08 and 2.75 are not.
    joined = [[float(x) for x in line.get_xdata()] for line in bars]
    assert joined == [
        pytest.approx([ranks["softcpt"], ranks["coop"]]),
        pytest.approx([ranks["coop"], ranks["zero-shot"]]),
    ]
    assert any("6 tasks" in text for text in texts)


def test_ranks_of_few_tasks_are_not_drawn_and_it_is_said(tmp_path: Path) -> None:
    block = three(tmp_path, tasks="abcde", seeds=(1, 2, 3))
    assert "critical-difference" not in [figure.name for figure in figures.drawable(block)]
    (said,) = (text for text in figures.not_drawn(block) if "mean ranks" in text)
    assert said.endswith("5 tasks, and ranks take at least 6 for a claim")


def test_a_profile_is_the_share_of_runs_that_gain_more(tmp_path: Path) -> None:
    figure = draw(three(tmp_path), "profile")
    (axes,) = figure.axes
    _, coop, softcpt = axes.lines
    assert list(coop.get_xdata()) == pytest.approx([-11, -10, 0, 10, 20])  # the gains, and a step before the first
    assert list(coop.get_ydata()) == pytest.approx([1, 5 / 6, 5 / 6, 0, 0])
    assert list(softcpt.get_ydata()) == pytest.approx([1, 1, 5 / 6, 5 / 6, 0])
    assert "12 runs" in figure.get_supxlabel()


def test_a_row_s_probability_to_beat_a_column_is_a_mean_over_tasks_with_ties_half(tmp_path: Path) -> None:
    figure = draw(three(tmp_path), "improvement")
    (axes,) = figure.axes
    assert [text.get_text() for text in axes.get_yticklabels()] == ["softcpt", "coop", "zero-shot"]
    found = axes.collections[0].get_array().filled(-1).round(4).tolist()
    # softcpt beats coop on all tasks; zero-shot on five, and is level on the sixth: (5 + 0.5) / 6.
    assert found == [[-1, 1, 0.9167], [0, -1, 0.8333], [0.0833, 0.1667, -1]]
    # 12 pairs: softcpt − coop is always +, p = 2 / 2^12; coop − zero-shot: two of twelve are −.
    told = [text.get_text() for text in axes.texts]
    assert told[:3] == ["100*", "92*", "0*"]


@pytest.mark.parametrize("method", ["coop", "a-method-with-a-name-that-is-long"])
def test_probabilities_of_few_methods_have_room_beside_their_names(method: str, tmp_path: Path) -> None:
    """Nothing is cut off at the figure's edge, and the layout needs no warning."""
    for seed in (1, 2):
        put(tmp_path, method, 4, seed, {"a": 60.0, "b": 70.0})
        put(tmp_path, "softcpt", 4, seed, {"a": 61.0, "b": 72.0})
        put(tmp_path, "shared-coop-matched", 4, seed, {"a": 62.0, "b": 70.0})
    block = a_block(tmp_path)
    figure = figures.drawn(next(f for f in figures.drawable(block) if f.name == "improvement"), block)
    with warnings.catch_warnings(), matplotlib.rc_context(LOOK):
        warnings.simplefilter("error")
        figure.draw_without_rendering()
    (axes,) = figure.axes
    cells, edge = axes.get_window_extent(), figure.get_window_extent()
    assert cells.width / 3 > 0.3 * figure.dpi and cells.height / 3 > 0.2 * figure.dpi
    texts = [text for text in figure.findobj(Text) if text.get_text()]
    title = next(text for text in texts if "probability" in text.get_text()).get_window_extent()
    assert title.y0 > cells.y1
    assert all(edge.x0 <= box.x0 and box.x1 <= edge.x1 and edge.y0 <= box.y0 and box.y1 <= edge.y1
               for box in (text.get_window_extent() for text in texts))  # fmt: skip


def test_methods_that_lack_cells_are_left_out_and_named(tmp_path: Path) -> None:
    three(tmp_path)
    put(tmp_path, "kgcoop", 4, 1, dict.fromkeys("abcdef", 99.0))
    block = a_block(tmp_path)
    for name in ("critical-difference", "profile", "improvement"):
        figure = draw(block, name)
        written = [figure.get_supxlabel(), *(a.get_xlabel() for a in figure.axes)]
        written += [text.get_text() for axes in figure.axes for text in axes.texts]
        said = [" ".join(text.split()) for text in written]
        assert any(re.search(r"without kgcoop \(cells are missing\)", text) for text in said), name
        names = [label.get_text() for axes in figure.axes for label in axes.get_yticklabels()]
        assert "kgcoop" not in names
