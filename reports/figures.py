"""The report's figures. One colour and marker per method in all of them; zero-shot is a dashed line."""

from __future__ import annotations

import io
import math
import re
import textwrap
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from bench.files import write_whole
from bench.progress import count
from bench.records import PARTS
from bench.reports import fonts
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


def draw(block: Block, folder: Path) -> list[str]:
    """Draw what the block's records allow, as PNG and SVG; return the PNGs' names from where table.md stands."""
    if not block.shots:
        return []
    figures: list[tuple[str, Callable[[Block], Figure | None]]] = [
        ("accuracy", accuracy), ("tasks", tasks), ("gain", gain), ("time", time), ("params", params),
    ]  # fmt: skip
    figures = [("new-over-base", new_over_base)] if block.halves else figures
    figures += [(f"ablation-{method}-{name}", partial(ablation, method, name)) for method, name in sweeps(block)]
    names = []
    with matplotlib.rc_context(LOOK), matplotlib.rc_context({"font.family": fonts.families(_texts(block))}):
        for kind, make in figures:
            figure = make(block) if _marked(block) or kind.startswith("ablation") else None
            if figure is not None:
                name = f"{block.slug}-{re.sub(r'[^a-z0-9]+', '-', kind.lower())}"
                while f"{folder.name}/{name}.png" in names:  # of methods whose names differ in other letters
                    name += "-2"
                _save(figure, folder / name)
                names.append(f"{folder.name}/{name}.png")
    return names


def not_drawn(block: Block) -> list[str]:
    """Figures that a reader might miss, and why they were not drawn."""
    if not block.shots:
        return [f"{block.title}: no method that trains"]
    reasons = []
    for method, names in block.ablations.items():
        drawn = [parameter for of, parameter in sweeps(block) if of == method]
        changed = dict.fromkeys(parameter for name in names for parameter in block.changed(name))
        undrawn = ", ".join(parameter for parameter in changed if parameter not in drawn)
        if undrawn:
            why = "a figure takes two or more numbers for it, with every other parameter as it is by default"
            reasons.append(f"{block.title}: {method} over {undrawn}; {why}")
    return reasons


def accuracy(block: Block) -> Figure:
    """Suite accuracy over shots, mean and standard deviation over seeds."""
    figure, (axes,) = _grid(block, 1, 1, (6.4, 4.0), "accuracy over shots")
    _over_shots(axes, block, block.scores)
    axes.set(xlabel="shots per class", ylabel=f"accuracy (%), mean of {block.n_tasks}")
    _legend(figure, block)
    return figure


def tasks(block: Block) -> Figure | None:
    """Accuracy over shots, a panel per task; every panel has its own range. One task alone is `accuracy`."""
    names = block.tasks
    if len(names) == 1:
        return None
    columns = min(len(names), 5 if len(names) > 9 else 3)
    rows = math.ceil(len(names) / columns)
    legend = 0.2 * math.ceil(len(block.main) / 3)  # below, in three columns: it must not eat the panels' height
    size = (max(6.4, 1.0 + 2.1 * columns), 0.9 + legend + 1.75 * rows)
    figure, panels = _grid(block, len(names), columns, size, "accuracy over shots, every task")
    for panel, task in zip(panels, names, strict=True):
        _over_shots(panel, block, block.task_scores[block.task_scores["task"] == task], small=True)
        panel.set_title(_short(task, 26))
    for panel in panels[-columns:]:
        panel.set_xlabel("shots per class")
    figure.supylabel("accuracy (%)", fontsize=10)
    _legend(figure, block, below=True)
    return figure


def gain(block: Block) -> Figure | None:
    """What each method adds to zero-shot on every task, at the largest shot count."""
    scores = block.at(max(block.shots), block.task_scores)
    means = scores.pivot(index="task", columns="label", values="mean")
    names = [name for name in _marked(block) if name in means]
    zero = [name for name in means if block.of(name, "method") == "zero-shot"]
    if not zero or not names:
        return None
    gains = means[names].sub(means[zero[0]], axis=0)
    gains = gains.loc[gains.mean(axis=1).sort_values().index]
    size = (7.2, 1.3 + 0.37 * len(gains))
    figure, (axes,) = _grid(block, 1, 1, size, f"gain over zero-shot at {count(max(block.shots), 'shot')}")
    axes.axvline(0, **ZERO_SHOT)
    for place, name in enumerate(names):
        apart = 0.5 * ((place + 0.5) / len(names) - 0.5)  # equal gains stay visible beside each other
        heights = [y - apart for y in range(len(gains))]
        axes.plot(gains[name], heights, **_style(block, name, points=True))
    axes.set_yticks(range(len(gains)), [_short(str(task), 32) for task in gains.index])
    axes.set(xlabel="gain over zero-shot (points)", ylim=(-0.6, len(gains) - 0.4))
    _legend(figure, block, points=True)
    return figure


def new_over_base(block: Block) -> Figure:
    """Accuracy on new classes over that on base classes, a panel per shot count, with lines of equal harmonic mean."""
    count = len(block.shots)
    columns = math.ceil(math.sqrt(count))
    size = (6.4, 4.6) if count == 1 else (1 + 3.2 * columns, 1.6 + 3 * math.ceil(count / columns))
    figure, panels = _grid(block, count, columns, size, f"means of {block.n_tasks}")
    for panel, shots in zip(panels, block.shots, strict=True):
        scores = block.at(shots, block.scores[block.scores["label"].isin(block.main)])
        found = scores.pivot(index="label", columns="part", values=["mean", "std"])
        for name in found.index:
            x, y, wide, high = (found.at[name, (value, part)] for value in ("mean", "std") for part in ("base", "new"))
            if block.of(name, "method") == "zero-shot":
                panel.axvline(x, **ZERO_SHOT)
                panel.axhline(y, **ZERO_SHOT)
            else:
                look = _style(block, name, points=True)
                panel.errorbar(x, y, xerr=wide, yerr=high, elinewidth=0.7, **look)
        if count > 1:
            panel.set_title(f"{shots}-shot")
    x, y = (np.array([limits(panel) for panel in panels]) for limits in (Axes.get_xlim, Axes.get_ylim))
    x, y = (np.linspace(max(1, ends.min()), min(100.5, ends.max()), 200) for ends in (x, y))
    for panel in panels:  # the same range in all, and the lines of equal H instead of a grid
        panel.grid(False)
        lines = panel.contour(x, y, 2 * x * y[:, None] / (x + y[:, None]), colors="0.85", linewidths=0.8, zorder=0)
        panel.clabel(lines, fmt="%g", fontsize=8, colors="0.6")
    for panel in panels[-columns:]:
        panel.set_xlabel("accuracy on base classes (%)")
    for panel in panels[::columns]:
        panel.set_ylabel("accuracy on new classes (%)")
    equal = Line2D([], [], color="0.85", linewidth=0.8, label="equal harmonic mean")
    _legend(figure, block, below=count > 1, points=True, more=[equal])
    return figure


def time(block: Block) -> Figure | None:
    """Accuracy against training time; the devices are named, because times on different ones do not compare."""
    devices = ", ".join(sorted(filter(None, block.rows["device"].unique())))
    return _against(block, "train_seconds", f"training time, seconds{f' ({devices})' if devices else ''}")


def params(block: Block) -> Figure | None:
    """Accuracy against the number of learned parameters."""
    return _against(block, "params", "learned parameters")


def _against(block: Block, column: str, what: str) -> Figure | None:
    """Accuracy at the largest shot count against a cost, on a log axis with a place for a cost of 0."""
    scores = block.at(max(block.shots), block.scores)
    scores = scores[scores["label"].isin(_marked(block)) & scores[column].notna()]
    costs = scores.loc[scores[column] > 0, column].astype(float)
    if costs.empty:
        return None
    nothing = costs.min() / 10
    figure, (axes,) = _grid(block, 1, 1, (6.4, 3.8), f"accuracy at {count(max(block.shots), 'shot')}")
    for name, cost, mean, std in scores[["label", column, "mean", "std"]].itertuples(index=False):
        style = _style(block, name, points=True)
        axes.errorbar(float(cost) or nothing, mean, yerr=std, capsize=2, elinewidth=1, **style)
    _zero_line(axes, block)
    axes.set_xscale("log")
    steps = (1,) if costs.max() / costs.min() > 100 else (1, 2, 5)
    decades = range(math.floor(math.log10(costs.min())) - 1, math.ceil(math.log10(costs.max())) + 1)
    ticks = [step * 10.0**decade for decade in decades for step in steps]
    ticks = [tick for tick in ticks if costs.min() / 2 < tick < costs.max() * 2]
    free = [nothing] if (scores[column] == 0).any() else []
    axes.set_xticks([*free, *ticks], [*("0" for _ in free), *map(_amount, ticks)])
    axes.minorticks_off()
    axes.set(xlabel=_escaped(what), ylabel="accuracy (%)")
    _legend(figure, block, points=True)
    return figure


def sweeps(block: Block) -> list[tuple[str, str]]:
    """(method, parameter) where only this parameter was varied, over numbers."""
    found = []
    for method, names in block.ablations.items():
        for parameter in dict.fromkeys(p for name in names for p in block.changed(name)):
            values = [block.of(name, "parameters").get(parameter) for name in _alone(block, names, parameter)]
            numbers = [v for v in values if isinstance(v, (int, float)) and not isinstance(v, bool)]
            if len(values) > 1 and len(numbers) == len(values):
                found.append((method, parameter))
    return found


def ablation(method: str, parameter: str, block: Block) -> Figure:
    """Accuracy over the values of a parameter, a line per shot count, a panel per part."""
    names = _alone(block, block.ablations[method], parameter)
    values = {name: float(block.of(name, "parameters")[parameter]) for name in names}
    scores = block.scores[block.scores["label"].isin(names)]
    scores = scores.assign(value=scores["label"].map(values)).sort_values("value")
    size = (4.2 + 2.2 * len(block.parts), 3.8)
    figure, panels = _grid(block, len(block.parts), len(block.parts), size, f"{method}, {parameter} varied")
    for axes, part in zip(panels, block.parts, strict=True):
        for shots, colour in zip(block.shots, sns.color_palette("viridis", len(block.shots)), strict=True):
            line = scores[(scores["shots"] == shots) & (scores["part"] == part)]
            look = {"marker": "o", "capsize": 2, "elinewidth": 1, "color": colour, "label": f"{shots}-shot"}
            axes.errorbar(line["value"], line["mean"], yerr=line["std"], **look)
        ticks = sorted(set(values.values()))
        if ticks[0] > 0 and ticks[-1] / ticks[0] >= 8:
            axes.set_xscale("log", base=2)
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.minorticks_off()
        _zero_line(axes, block, block.scores[block.scores["part"] == part], label="zero-shot")
        axes.set(xlabel=_escaped(parameter), ylabel=f"accuracy (%){f', {PARTS[part]}' * block.halves}")
    figure.legend(*axes.get_legend_handles_labels(), loc="outside right upper", frameon=False)
    return figure


def _alone(block: Block, names: list[str], parameter: str) -> list[str]:
    """The labels in which only this parameter was changed, or none."""
    return [n for n in names if not block.of(n, "setting") and block.changed(n) in ([], [parameter])]


def _over_shots(axes: Axes, block: Block, scores: pd.DataFrame, small: bool = False) -> None:
    """Lines over shots; methods stand a little apart on the axis, so that no error bar hides another."""
    trained = scores[scores["shots"] > 0]
    names = [name for name in _marked(block) if name in set(trained["label"])]
    for place, name in enumerate(names):
        line = trained[trained["label"] == name].sort_values("shots")
        apart = 2 ** ((place - (len(names) - 1) / 2) * min(0.06, 0.25 / len(names)))
        look = {"capsize": 0 if small else 2, "elinewidth": 0.9, **_style(block, name, 0.65 if small else 1)}
        axes.errorbar(line["shots"] * apart, line["mean"], yerr=line["std"], **look)
    for name, mean in scores.loc[scores["shots"] == 0, ["label", "mean"]].itertuples(index=False):
        if name in _marked(block):  # another method than zero-shot that trains nothing
            axes.axhline(mean, color=_style(block, name)["color"], linestyle=":", linewidth=1.2, zorder=1)
    _zero_line(axes, block, scores)
    axes.set_xscale("log", base=2)
    axes.set_xticks(block.shots, [str(n) for n in block.shots])
    axes.minorticks_off()
    axes.set_xlim(block.shots[0] / 1.35, block.shots[-1] * 1.35)


def _zero_line(axes: Axes, block: Block, scores: pd.DataFrame | None = None, label: str = "") -> None:
    """Zero-shot has no shots, no cost and no parameters: a line over all of them."""
    scores = block.scores if scores is None else scores
    for mean in scores.loc[scores["method"] == "zero-shot", "mean"].head(1):
        axes.axhline(mean, **ZERO_SHOT, zorder=1, label=label or None)


def _marked(block: Block) -> list[str]:
    """The labels drawn with a marker: the main table's but zero-shot."""
    return [name for name in block.main if block.of(name, "method") != "zero-shot"]


def _style(block: Block, name: str, scale: float = 1, points: bool = False) -> dict[str, Any]:
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


def _legend(
    figure: Figure, block: Block, below: bool = False, points: bool = False, more: Sequence[Line2D] = ()
) -> None:
    """Beside the panels, or below them; the figure grows where names are many or long (inches, at 9 points)."""
    handles = [Line2D([], [], label=_escaped(n), **_style(block, n, points=points)) for n in _marked(block)]
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


def _grid(
    block: Block, count: int, columns: int, size: tuple[float, float], what: str
) -> tuple[Figure, list[Axes]]:
    """Panels, row by row, in a figure with a title; no pyplot: a notebook's figures and backend are left alone."""
    figure = Figure(figsize=size)
    FigureCanvasAgg(figure)
    panels = list(figure.subplots(math.ceil(count / columns), columns, squeeze=False).flat)
    for panel in panels[count:]:
        panel.remove()
    title = _escaped(("DEMO · " if block.demo else "") + f"{block.title}: {what}")
    if count == 1:  # above its axes, where it leaves the legend beside them alone
        panels[0].set_title(textwrap.fill(title, 58), loc="left", fontsize=11)
    else:
        figure.suptitle(textwrap.fill(title, int(11 * size[0])))
    return figure, panels[:count]


def _amount(value: float) -> str:
    """20000 as "20k"."""
    unit, name = next(((u, n) for u, n in ((1e9, "G"), (1e6, "M"), (1e3, "k")) if value >= u), (1, ""))
    return f"{value / unit:g}{name}"


def _escaped(text: str) -> str:
    """Text from records shown as it is: a dollar sign would begin a formula."""
    return " ".join(text.split()).replace("$", r"\$")


def _short(text: str, width: int) -> str:
    return _escaped(text if len(text) <= width else text[: width - 1].rstrip() + "…")


def _texts(block: Block) -> str:
    """All that records may have letters for in a figure."""
    return " ".join([block.title, *block.tasks, *block.labels, *map(str, block.rows["device"].unique())])


def _save(figure: Figure, path: Path) -> None:
    """PNG and SVG without dates or version numbers: the same records give the same bytes."""
    for kind, metadata in (("png", {"Software": None}), ("svg", {"Date": None, "Creator": None})):
        buffer = io.BytesIO()
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Glyph .* missing")  # said once by `fonts.families`
            figure.savefig(buffer, format=kind, metadata=metadata)
        write_whole(path.with_name(f"{path.name}.{kind}"), buffer.getvalue())
