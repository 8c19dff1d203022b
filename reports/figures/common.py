"""What the figures share: how they are laid out, and how a method's line, its legend and its letters look."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from bench.reports.groups import Block

_BASE = sns.color_palette("colorblind")
# (colour, lightness) for the paper's methods in its order, then for others; dark twins where the palette ends.
_COLOURS = [
    (7, 1), (5, 1), (0, 1), (0, 0.5), (2, 1), (3, 1), (4, 1), (9, 1), (4, 0.5), (3, 0.5), (8, 0.7), (1, 1),
    (2, 0.5), (7, 0.5), (9, 0.5), (5, 0.5),
]  # fmt: skip
PALETTE = [tuple(channel * light for channel in _BASE[i]) for i, light in _COLOURS]
# 16 colours and 13 markers have no common factor: pairs differ for 16 · 13 methods.
MARKERS = ["p", "h", "o", "D", "s", "v", "P", "X", "<", "*", ">", "^", "d"]
ZERO_SHOT: dict[str, Any] = {"color": "black", "linestyle": "--", "linewidth": 1.2}
LOOK = {
    **sns.axes_style("whitegrid"),
    "font.size": 10, "axes.titlesize": 10, "axes.labelsize": 10, "xtick.labelsize": 9, "ytick.labelsize": 9,
    "legend.fontsize": 9, "figure.titlesize": 11, "grid.color": "0.9", "axes.edgecolor": "0.5",
    "axes.spines.top": False, "axes.spines.right": False, "lines.linewidth": 1.6,
    "savefig.dpi": 160, "svg.hashsalt": "bench", "figure.constrained_layout.use": True,
    "figure.constrained_layout.h_pad": 0.08, "figure.constrained_layout.w_pad": 0.08,
}  # fmt: skip


def over_shots(axes: Axes, block: Block, scores: pd.DataFrame, small: bool = False) -> None:
    """Lines over shots; methods stand a little apart on the axis, so that no error bar hides another."""
    trained = scores[scores["shots"] > 0]
    names = [name for name in marked(block) if name in set(trained["label"])]
    for place, name in enumerate(names):
        line = trained[trained["label"] == name].sort_values("shots")
        apart = 2 ** ((place - (len(names) - 1) / 2) * min(0.06, 0.25 / len(names)))
        look = {"capsize": 0 if small else 2, "elinewidth": 0.9, **style(block, name, 0.65 if small else 1)}
        axes.errorbar(line["shots"] * apart, line["mean"], yerr=line["std"], **look)
    for name, mean in scores.loc[scores["shots"] == 0, ["label", "mean"]].itertuples(index=False):
        if name in marked(block):  # another method than zero-shot that trains nothing
            axes.axhline(mean, color=style(block, name)["color"], linestyle=":", linewidth=1.2, zorder=1)
    zero_line(axes, block, scores)
    axes.set_xscale("log", base=2)
    axes.set_xticks(block.shots, [str(n) for n in block.shots])
    axes.minorticks_off()
    axes.set_xlim(block.shots[0] / 1.35, block.shots[-1] * 1.35)


def zero_line(axes: Axes, block: Block, scores: pd.DataFrame | None = None, label: str = "") -> None:
    """Zero-shot has no shots, no cost and no parameters: a line over all of them."""
    scores = block.scores if scores is None else scores
    for mean in scores.loc[scores["method"] == "zero-shot", "mean"].head(1):
        axes.axhline(mean, **ZERO_SHOT, zorder=1, label=label or None)


def marked(block: Block) -> list[str]:
    """The labels drawn with a marker: the main table's but zero-shot."""
    return [name for name in block.main if block.of(name, "method") != "zero-shot"]


def style(block: Block, name: str, scale: float = 1, points: bool = False) -> dict[str, Any]:
    """A method's look, by its place among the methods: the paper's have theirs for good."""
    methods = {label: block.of(label, "method") for label in block.main}
    place = block.methods.index(methods[name]) - 1  # after zero-shot
    again = [label for label in methods if methods[label] == methods[name]].index(name)  # hollow from the second on
    colour, marker = PALETTE[place % len(PALETTE)], MARKERS[place % len(MARKERS)]
    return {
        "color": colour,
        "marker": marker,
        "markersize": scale * (9 if marker == "*" else 6),  # matplotlib's star is small for its size
        "linewidth": scale * 1.6,
        "linestyle": "" if points else ["-", "--", ":", "-."][again % 4],
        "markerfacecolor": "white" if again else colour,
        "markeredgecolor": colour if again else "white",
        "markeredgewidth": scale * (1.2 if again else 0.6),
    }


def legend(
    figure: Figure, block: Block, below: bool = False, points: bool = False, more: Sequence[Line2D] = ()
) -> None:
    """Beside the panels, or below them; the figure grows where names are many or long (inches, at 9 points)."""
    handles = [Line2D([], [], label=escaped(n), **style(block, n, points=points)) for n in marked(block)]
    if len(handles) < len(block.main):
        handles.insert(0, Line2D([], [], **ZERO_SHOT, label="zero-shot"))
    handles += more
    width, height = figure.get_size_inches()
    longest = max(len(str(handle.get_label())) for handle in handles)
    if below:
        columns = min(len(handles), max(1, int(width / (0.75 + 0.08 * longest))))
        figure.legend(handles=handles, loc="outside lower center", ncols=columns, frameon=False)
    else:
        figure.set_size_inches(width + 0.08 * max(0, longest - 14), max(height, 0.4 + 0.21 * len(handles)))
        figure.legend(handles=handles, loc="outside right upper", frameon=False)


def grid(count: int, columns: int, size: tuple[float, float]) -> tuple[Figure, list[Axes]]:
    """Panels, row by row; no pyplot: a notebook's figures and backend are left alone."""
    figure = Figure(figsize=size)
    FigureCanvasAgg(figure)
    panels = list(figure.subplots(math.ceil(count / columns), columns, squeeze=False).flat)
    for panel in panels[count:]:
        panel.remove()
    return figure, panels[:count]


def escaped(text: str) -> str:
    """Text from records shown as it is: a dollar sign would begin a formula."""
    return " ".join(text.split()).replace("$", r"\$")


def short(text: str, width: int) -> str:
    return escaped(text if len(text) <= width else text[: width - 1].rstrip() + "…")
