"""Figures of many methods, long names and few seeds can still be read: who is coloured, where labels stand."""

from __future__ import annotations

import sys
from itertools import combinations
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.text import Text

from bench.reports import figures, looks
from bench.reports.figures.common import LOOK, bars, spaced
from bench.reports.figures.cost import device
from bench.reports.groups import Block

sys.path.append(str(Path(__file__).parent))
from test_figures_data import a_block, dashed, draw
from test_reports import put

NAMES = [name for family in looks.FAMILIES[1:] for name in family.methods]
THIRTY = [*NAMES[:23], *NAMES[-7:]]  # of every family


def many(root: Path, methods: list[str], shots: tuple[int, ...] = (1, 16), tasks: str = "ab") -> Block:
    """zero-shot at 40 %, and methods at 50, 51, 52, … % at 1 shot and 10 points more at 16 shots."""
    put(root, "zero-shot", 0, 0, dict.fromkeys(tasks, 40.0))
    for place, method in enumerate(methods):
        for n in shots:
            for seed in (1, 2):
                score = 50.0 + place + 10 * (n == 16) + seed - 1.5
                put(root, method, n, seed, dict.fromkeys(tasks, score))
    return a_block(root)


def coloured(figure: Figure) -> list[list[str]]:
    """By panel, the colours of the lines that have error bars."""
    return [[to_hex(c.lines[0].get_color()) for c in axes.containers] for axes in figure.axes]


def test_thirty_methods_stand_in_a_panel_per_family_each_with_zero_shot_and_the_others_grey(tmp_path: Path) -> None:
    block = many(tmp_path, THIRTY)
    figure = draw(block, "accuracy")
    titles = [axes.get_title(loc="left") for axes in figure.axes]
    assert titles == [family.name for family in looks.FAMILIES[1:]]
    for axes in figure.axes:
        own = len(axes.containers)
        assert 1 <= own <= 8
        assert dashed(axes) == [40]
        grey = [line for line in axes.lines if to_hex(line.get_color()) == looks.GREY]
        assert len(grey) == 30 - own
    drawn = sorted(colour for panel in coloured(figure) for colour in panel)
    assert drawn == sorted(look.colour for look in looks.looks(THIRTY).values())


def test_a_family_of_more_than_eight_has_two_panels(tmp_path: Path) -> None:
    block = many(tmp_path, ["coop", *(f"coop-{i}" for i in range(9))])
    figure = draw(block, "accuracy")
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["CoOp family, 1 of 2", "CoOp family, 2 of 2"]
    assert [len(axes.containers) for axes in figure.axes] == [8, 2]


def test_of_many_methods_a_task_s_panel_colours_the_best_of_each_family(tmp_path: Path) -> None:
    names = ["coop", "cocoop", "plot", "kgcoop", "prograd", "softcpt", "softcpt-cats", "protonet", "linear-probe"]
    block = many(tmp_path, names)  # from the worst to the best
    best = looks.looks(["linear-probe", "plot", "prograd", "softcpt-cats"])
    figure = draw(block, "tasks")
    assert coloured(figure)[:2] == [[look.colour for look in best.values()]] * 2
    figure = draw(block, "gain")
    shown = [to_hex(line.get_color()) for line in figure.axes[0].lines if line.get_marker() not in (".", "None", "")]
    assert shown == [look.colour for look in best.values()]


def test_labels_at_the_ends_do_not_overlap_and_stand_in_the_order_of_the_lines(tmp_path: Path) -> None:
    root = tmp_path / "close"
    names = NAMES[:7]
    for place, method in enumerate(names):
        for n in (1, 16):
            put(root, method, n, 1, {"a": 50.0 + n + 0.01 * place})  # they end within 0.06 points
    block = a_block(root)
    figure = figures.drawn(figures.drawable(block)[0], block)
    with matplotlib.rc_context(LOOK):
        figure.draw_without_rendering()
    texts = [text for text in figure.axes[0].texts if text.get_text()]
    boxes = [text.get_window_extent() for text in texts]
    assert [text.get_text() for text in sorted(texts, key=lambda t: t.get_position()[1])] == names
    assert not any(a.overlaps(b) for a, b in combinations(boxes, 2))
    inside = figure.get_window_extent()
    assert all(inside.x0 <= box.x0 and box.x1 <= inside.x1 for box in boxes)


@pytest.mark.parametrize(
    ("wanted", "placed"),
    [
        ([10, 50, 90], [10, 50, 90]),  # far enough apart already
        ([50, 50], [45, 55]),
        ([50, 52, 90], [46, 56, 90]),
        ([0, 0, 50], [5, 15, 50]),  # the lower edge
        ([99, 100], [85, 95]),
    ],
)
def test_labels_move_as_little_as_possible(wanted: list[float], placed: list[float]) -> None:
    assert spaced(wanted, 10, 100) == pytest.approx(placed)


def test_labels_that_do_not_fit_share_the_height() -> None:
    assert spaced([50.0] * 4, 10, 20) == pytest.approx([2.5, 7.5, 12.5, 17.5])


def test_intervals_never_pass_0_or_100_percent_and_a_single_seed_has_none(tmp_path: Path) -> None:
    for seed, accuracy in ((1, 90.0), (2, 100.0)):
        put(tmp_path, "coop", 1, seed, {"a": accuracy})
        put(tmp_path, "coop", 4, seed, {"a": 100 - accuracy})
    put(tmp_path, "softcpt", 4, 1, {"a": 50.0})
    scores = a_block(tmp_path).scores
    below, above = bars(scores)
    found = zip(scores["label"], scores["shots"], scores["mean"] - below, scores["mean"] + above, strict=True)
    ends = {(label, shots): (low, high) for label, shots, low, high in found}
    # 95 ± 12.706 · 7.07 / √2 = 95 ± 63.5
    assert ends["coop", 1] == pytest.approx((31.5, 100), abs=0.05)
    assert ends["coop", 4] == pytest.approx((0, 68.5), abs=0.05)
    assert np.isnan(ends["softcpt", 4]).all()  # nothing is drawn


def test_a_single_shot_count_is_drawn_as_dots_the_best_on_top(tmp_path: Path) -> None:
    block = many(tmp_path, ["softcpt", "coop", "kgcoop"], shots=(16,))
    assert [figure.name for figure in figures.drawable(block)][:2] == ["accuracy", "gain"]
    assert any("a single shot count" in said for said in figures.not_drawn(block))
    (axes,) = draw(block, "accuracy").axes
    drawn = [(float(c.lines[0].get_xdata()[0]), float(c.lines[0].get_ydata()[0])) for c in axes.containers]
    assert drawn == [(60, 0), (61, 1), (62, 2)]
    assert [text.get_text() for text in axes.get_yticklabels()] == ["softcpt", "coop", "kgcoop"]
    (bar,) = axes.containers[0].lines[2][0].get_segments()
    # 59.5 and 60.5: t(97.5 %, 1) = 12.706, times 0.707 / √2
    assert [x for x, _ in bar] == pytest.approx([60 - 6.353, 60 + 6.353], abs=0.001)
    upright = [line for line in axes.lines if to_hex(line.get_color()) == "#000000"]
    assert [float(line.get_xdata()[0]) for line in upright] == [40]


def test_a_row_with_other_settings_is_hollow(tmp_path: Path) -> None:
    for views, score in ((None, 50.0), (10, 60.0)):
        put(tmp_path, "coop", 4, 1, {"a": score}, config={"views": views})
    put(tmp_path, "coop", 1, 1, {"a": 40.0}, config={"views": 10})
    block = a_block(tmp_path)
    lines = [c.lines[0] for axes in draw(block, "time").axes for c in axes.containers]
    assert [line.get_markerfacecolor() == "white" for line in lines] == [False, True]
    assert len({line.get_color() for line in lines}) == 1


@pytest.mark.parametrize(
    ("name", "called"),
    [
        ("Intel(R) Xeon(R) Platinum 8481C CPU @ 2.70GHz", "Intel Xeon Platinum 8481C"),
        ("AMD EPYC 7B13 64-Core Processor", "AMD EPYC 7B13"),
        ("NVIDIA H100 80GB HBM3", "NVIDIA H100 80GB HBM3"),
        ("cpu", "cpu"),
        ("CPU", "CPU"),
    ],
)
def test_devices_are_called_by_the_names_people_use(name: str, called: str) -> None:
    assert device(name) == called


@pytest.mark.parametrize(
    ("suite", "backbone", "title"),
    [("Demo", "demo-clip", "DEMO: "), ("My toys", "RN50", "DEMO · My toys · RN50: ")],
)
def test_a_demo_s_title_says_so_once(tmp_path: Path, suite: str, backbone: str, title: str) -> None:
    put(tmp_path, "coop", 4, 1, {"a": 50.0}, demo=True, title=suite, cell={"backbone": backbone})
    block = a_block(tmp_path)
    (figure,) = (figure for figure in figures.drawable(block) if figure.name == "accuracy")
    assert figures.drawn(figure, block).get_suptitle() == f"{title}accuracy at 4 shots"
    assert figures.drawn(figure, block, titles=False).get_suptitle() == ""


def test_the_heat_map_has_the_gains_of_every_task_and_their_mean(tmp_path: Path) -> None:
    put(tmp_path, "zero-shot", 0, 0, {"a": 40.0, "b": 50.0})
    put(tmp_path, "softcpt", 4, 1, {"a": 45.0, "b": 80.0})  # gains 5 and 30
    put(tmp_path, "kgcoop", 4, 1, {"a": 30.0, "b": 62.0})  # −10 and 12
    put(tmp_path, "softcpt", 1, 1, {"a": 1.0, "b": 1.0})
    top, below = draw(a_block(tmp_path), "heat").axes
    assert [text.get_text() for text in top.get_yticklabels()] == ["b", "a"]  # mean gains 21 and −2.5
    assert [text.get_text() for text in below.get_xticklabels()] == ["kgcoop", "softcpt"]  # family by family
    assert top.collections[0].get_array().tolist() == [[12, 30], [-10, 5]]
    assert below.collections[0].get_array().tolist() == [[1, 17.5]]
    assert [text.get_text() for text in top.texts] == ["12", "30", "-10", "5"]
    assert top.collections[0].get_clim() == (-30, 30)  # 0 is white


def test_a_loss_that_rounds_to_nothing_is_written_without_a_sign(tmp_path: Path) -> None:
    put(tmp_path, "zero-shot", 0, 0, {"a": 40.0, "b": 50.0})
    put(tmp_path, "softcpt", 4, 1, {"a": 39.8, "b": 80.0})
    top, _ = draw(a_block(tmp_path), "heat").axes
    assert [text.get_text() for text in top.texts] == ["30", "0"]


def test_rows_that_used_validation_labels_are_marked_in_every_figure_that_names_them(tmp_path: Path) -> None:
    choice = {"values": {"alpha": 0.25}, "accuracy": 71.5, "images": 20, "tried": 21, "ties": 3}
    tasks = dict.fromkeys("abcdefgh", 60.0)
    put(tmp_path / "runs", "zero-shot", 0, 0, tasks)
    for seed in (1, 2):
        for shots in (1, 4):
            put(tmp_path / "runs", "tip-adapter", shots, seed, tasks, chosen=dict.fromkeys(tasks, choice))
            put(tmp_path / "runs", "coop", shots, seed, {task: 50.0 + seed for task in tasks})
    block, seen = a_block(tmp_path / "runs"), set()
    for figure in figures.drawable(block):
        texts = [text.get_text() for text in figures.drawn(figure, block).findobj(Text)]
        naming = [text for text in texts if text.startswith("tip-adapter")]
        assert all(text.startswith("tip-adapter †") for text in naming), (figure.name, naming)
        assert not any(text.startswith("coop †") for text in texts)
        said = [text for text in texts if "†chosenbyaccuracyonthefew-shotvalidationimages" in "".join(text.split())]
        assert len(said) == bool(naming), figure.name
        seen |= {figure.name} if naming else set()
    assert {"accuracy", "heat", "critical-difference", "improvement", "profile"} <= seen, seen
