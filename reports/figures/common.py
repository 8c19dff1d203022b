"""What the figures share: how they are laid out, and how a method's line, its label and its legend look."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray
from scipy.optimize import isotonic_regression

from bench.reports.groups import DAGGER, Block
from bench.reports.looks import GREY, ZERO_SHOT, looks, order
from bench.reports.looks import family as family_of

NAME = 26  # letters of a method's name
MOST = 8  # lines of a panel that the eye can follow
ZERO: dict[str, Any] = {"color": ZERO_SHOT.colour, "linestyle": (0, ZERO_SHOT.dash), "linewidth": 1.2}
INTERVALS = "bars: 95 % intervals over seeds"
LOOK = {
    **sns.axes_style("whitegrid"),
    "font.size": 9, "axes.titlesize": 9, "axes.labelsize": 9, "xtick.labelsize": 8, "ytick.labelsize": 8,
    "legend.fontsize": 8, "legend.title_fontsize": 8, "figure.titlesize": 10, "grid.color": "0.92",
    "axes.edgecolor": "0.5", "axes.spines.top": False, "axes.spines.right": False, "lines.linewidth": 1.5,
    "savefig.dpi": 200, "svg.hashsalt": "bench", "pdf.fonttype": 42, "figure.constrained_layout.use": True,
    "figure.constrained_layout.h_pad": 0.06, "figure.constrained_layout.w_pad": 0.06,
}  # fmt: skip


def grid(count: int, columns: int, size: tuple[float, float], **how: Any) -> tuple[Figure, list[Axes]]:
    """Panels, row by row; no pyplot: a notebook's figures and backend are left alone.

    size : width and height in inches. how : `sharex`, `sharey` of `Figure.subplots`.
    """
    figure = Figure(figsize=size)
    FigureCanvasAgg(figure)
    panels = list(figure.subplots(math.ceil(count / columns), columns, squeeze=False, **how).flat)
    for place, panel in enumerate(panels):
        if place >= count:
            panel.remove()
        elif place + columns >= count:  # what shares its axis with a panel that is not there
            panel.tick_params(labelbottom=True)
    return figure, panels[:count]


def marked(block: Block) -> list[str]:
    """The labels drawn with a marker, family by family: the main table's but zero-shot."""
    places = {method: place for place, method in enumerate(order(block.methods))}
    names = [name for name in block.main if block.of(name, "method") != "zero-shot"]
    return sorted(names, key=lambda name: places[block.of(name, "method")])


def trained(block: Block) -> list[str]:
    """Those of `marked` that have shot counts."""
    having = set(block.scores.loc[block.scores["shots"] > 0, "label"])
    return [name for name in marked(block) if name in having]


def families(block: Block, names: Sequence[str]) -> dict[str, list[str]]:
    """The labels by family, no more than a panel takes; one panel without a name where it takes them all."""
    if len(names) <= MOST:
        return {"": list(names)}
    found: dict[str, list[str]] = {}
    for name in names:
        found.setdefault(family_of(block.of(name, "method")), []).append(name)
    parts = {f: [own[i : i + MOST] for i in range(0, len(own), MOST)] for f, own in found.items()}
    return {
        f if len(own) == 1 else f"{f}, {i} of {len(own)}": part
        for f, own in parts.items()
        for i, part in enumerate(own, 1)
    }


def leaders(block: Block, names: Sequence[str]) -> list[str]:
    """Of each family the label with the highest mean accuracy, where the labels are more than a panel takes."""
    if len(names) <= MOST:
        return list(names)
    means = block.scores[block.scores["label"].isin(names)].groupby("label")["mean"].mean()
    best: dict[str, str] = {}
    for name in names:
        family = family_of(block.of(name, "method"))
        if family not in best or means[name] > means[best[family]]:
            best[family] = name
    return list(best.values())


def style(block: Block, name: str, scale: float = 1, points: bool = False) -> dict[str, Any]:
    """A method's look as matplotlib takes it; its second row, with other settings, is hollow."""
    method = block.of(name, "method")
    look = looks(block.methods)[method]
    again = [label for label in block.main if block.of(label, "method") == method].index(name)
    return {
        "color": look.colour,
        "marker": look.marker,
        "markersize": scale * (8 if look.marker == "*" else 5.5),  # matplotlib's star is small for its size
        "linewidth": scale * 1.5,
        "linestyle": "" if points else (0, look.dash) if look.dash else "-",
        "markerfacecolor": "white" if again else look.colour,
        "markeredgecolor": look.colour if again else "white",
        "markeredgewidth": scale * (1.2 if again else 0.6),
    }


def bars(scores: pd.DataFrame) -> NDArray[np.float64]:
    """Lengths of the 95 % interval below and above each mean, [2, n]: it never passes 0 or 100 %."""
    mean, half = (scores[name].to_numpy(dtype=float) for name in ("mean", "half"))
    return np.stack([np.minimum(half, mean), np.minimum(half, 100 - mean)])


def over_shots(
    axes: Axes, block: Block, scores: pd.DataFrame, names: Sequence[str], behind: Sequence[str] = (), scale: float = 1
) -> dict[str, float]:
    """Lines over shots; methods stand a little apart on the axis, so that no bar hides another.

    behind : labels drawn in grey. Returns where each line ends, zero-shot's too.
    """
    by_label = {str(name): line.sort_values("shots") for name, line in scores[scores["shots"] > 0].groupby("label")}
    for name in behind:
        if name in by_label:
            axes.plot(by_label[name]["shots"], by_label[name]["mean"], color=GREY, linewidth=0.8, zorder=0.9)
    ends = {}
    for place, name in enumerate(names):
        if name in by_label:
            line = by_label[name]
            apart = 2 ** ((place - (len(names) - 1) / 2) * min(0.06, 0.25 / len(names)))
            look = {**style(block, name, scale), "elinewidth": 0.8 * scale, "capsize": 0}
            axes.errorbar(line["shots"] * apart, line["mean"], yerr=bars(line), **look)
            ends[name] = float(line["mean"].iloc[-1])
    for name, mean in scores.loc[scores["shots"] == 0, ["label", "mean"]].itertuples(index=False):
        if name in marked(block):  # another method than zero-shot that trains nothing
            axes.axhline(mean, color=style(block, name)["color"], linestyle=":", linewidth=1.2, zorder=1)
            ends[name] = float(mean)
    ends |= zero_line(axes, block, scores)
    axes.set_xscale("log", base=2)
    axes.set_xticks(block.shots, [str(n) for n in block.shots])
    axes.minorticks_off()
    axes.set_xlim(block.shots[0] / 1.25, block.shots[-1] * 1.25)
    return ends


def zero_line(
    axes: Axes, block: Block, scores: pd.DataFrame | None = None, label: str = "", upright: bool = False
) -> dict[str, float]:
    """Zero-shot has no shots, no cost and no parameters: a line over all of them. Returns where it is."""
    scores = block.scores if scores is None else scores
    ends = {}
    for mean in scores.loc[scores["method"] == "zero-shot", "mean"].head(1):
        (axes.axvline if upright else axes.axhline)(mean, **ZERO, zorder=1, label=label or None)
        ends["zero-shot"] = float(mean)
    return ends


def label_ends(figure: Figure, axes: Axes, block: Block, ends: dict[str, float]) -> None:
    """Names and markers at the lines' right ends, moved up or down as little as keeps them apart."""
    size, away = 7.5, 14  # points: of the letters, and from the panel to the marker
    figure.draw_without_rendering()  # for the panel's size
    width, height = (float(length) * 72 / figure.dpi for length in axes.get_window_extent().size)
    names = sorted(ends, key=lambda name: ends[name])
    to_panel = axes.transData + axes.transAxes.inverted()
    wanted = [to_panel.transform((1, ends[name]))[1] * height for name in names]
    for name, at, place in zip(names, wanted, spaced(wanted, 1.25 * size, height), strict=True):
        look: dict[str, Any] = {"color": "black"} if name == "zero-shot" else style(block, name, 0.75, points=True)
        leader = {**look, "linestyle": "-", "linewidth": 0.5, "markevery": [1]}
        outside: dict[str, Any] = {"transform": axes.transAxes, "clip_on": False}
        axes.plot([1, 1 + away / width], [at / height, place / height], **outside, **leader)
        axes.text(1 + (away + 6) / width, place / height, named(block, name), color=look["color"], fontsize=size,
                  va="center", **outside)  # fmt: skip


def spaced(wanted: Sequence[float], apart: float, height: float) -> list[float]:
    """Ascending places moved as little as possible (least squares) so that neighbours are at least `apart` and all lie
    between 0 and `height`; closer together where there is no room for that."""
    n = len(wanted)
    apart = min(apart, height / n)
    steps = apart * np.arange(n)
    places = isotonic_regression(np.asarray(wanted) - steps).x
    return list(np.clip(places, apart / 2, height - apart / 2 - steps[-1]) + steps)


def legend(
    figure: Figure,
    block: Block,
    names: Sequence[str],
    below: bool = False,
    points: bool = False,
    more: Sequence[Line2D] = (),
    title: str = "",
    zero: bool = True,
) -> None:
    """Beside the panels, or below them; the figure grows where names are many or long (inches, at 8 points).

    zero : whether zero-shot's line is among those drawn.
    """
    handles = [Line2D([], [], label=named(block, n), **style(block, n, points=points)) for n in names]
    if zero and "zero-shot" in {block.of(name, "method") for name in block.main}:
        handles.insert(0, Line2D([], [], **ZERO, label="zero-shot"))
    handles += more
    width, height = figure.get_size_inches()
    longest = max(len(str(handle.get_label())) for handle in handles)
    how: dict[str, Any] = {"handles": handles, "title": title or None, "frameon": False, "alignment": "left"}
    if below:
        columns = min(len(handles), max(1, int(width / (0.7 + 0.07 * longest))))
        figure.legend(loc="outside lower center", ncols=columns, **how)
    else:
        figure.set_size_inches(width + 0.07 * max(0, longest - 14), max(height, 0.5 + 0.18 * len(handles)))
        figure.legend(loc="outside right upper", **how)


def escaped(text: str) -> str:
    """Text from records shown as it is: a dollar sign would begin a formula."""
    return " ".join(text.split()).replace("$", r"\$")


def named(block: Block, label: str, width: int = NAME) -> str:
    """A label as figures print it, with the mark of those that used the labels of validation images."""
    return f"{short(label, width)} {DAGGER}" if label in block.searched else short(label, width)


def short(text: str, width: int) -> str:
    return escaped(text if len(text) <= width else text[: width - 1].rstrip() + "…")
