"""What `python -m bench relate` found, as tables (Markdown, CSV) and as a picture of its matrices."""

from __future__ import annotations

import math
import textwrap
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Drawing

from bench.files import file_name, write_whole
from bench.reports import fonts
from bench.reports.figures import save
from bench.reports.figures.common import LOOK, escaped, grid
from bench.reports.figures.matrices import CELL, branches, grown, heat, name_rows
from bench.reports.markup import Cell, Table, markdown

if TYPE_CHECKING:
    from bench.relations import Relations

COLUMNS = 4  # matrices in a row of the picture
ORDER = "tasks stand in the order of a dendrogram of their functional shifts (average linkage)"
GAINS = {"swap": "context swap", "pair gain": "gain in pairs", "left-out gain": "gain by one more"}
COSINES = {
    "text": "task names (centred)",
    "kernel": "task features (K)",
    "gradients": "gradients",
    "kernel × gradients": "K × gradients",
    "affinity": "task affinity",
    "contexts": "contexts",
    "contexts change": "contexts, change since start",
    "functional": "functional shifts",
    "visual": "few-shot images",
    "class names": "class names shared",
}
ANY_SIZE = ("gradients", "kernel × gradients", "affinity")
CHANGES = ("contexts change", "affinity")  # the picture shows percent, above and below 0
PRODUCTS = ("kernel", "gradients", "kernel × gradients")  # the picture shows cosines of these
ABOUT = {
    "swap": "points over zero-shot; row: whose context; column: whose images",
    "pair gain": "points over alone; row: who gains; column: by whom",
    "left-out gain": "points over all the others; row: who gains; column: by whom",
    "kernel": "K itself; the picture shows cosines",
    "gradients": "inner products of the losses' gradients by the tasks' contexts; the picture shows cosines",
    "kernel × gradients": "inner products of the losses' gradients by P; the picture shows cosines",
    "affinity": "share of a task's loss that a step takes away; row: whose step; column: whose loss; the picture shows "
    "percent",
}
TABLES = {
    "spectrum": "Spectrum of K = F Fᵀ: shares of its trace, and effective rank",
    "gains": "Gain of joint training: percent with all tasks, percent alone, points",
    "association": "Which likeness goes with which gain: Spearman's rho over pairs of tasks, Mantel's one-sided p",
}


def write(found: Relations, folder: Path) -> list[str]:
    """Write relations.md, a CSV file for each of the frames, and relations.png and .svg; returns their names."""
    files = ["relations.md"]
    write_whole(folder / "relations.md", page(found))
    for name, frame in found.frames.items():
        files.append(f"{file_name(name)}.csv")
        write_whole(folder / files[-1], frame.to_csv(index=name in GAINS or name in COSINES))
    texts = " ".join([found.about, *map(str, found.frames["swap"].columns)])
    with matplotlib.rc_context({**LOOK, "font.family": fonts.families(texts)}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")
        drawing = drawn(found)
        for form in ("png", "svg"):
            files.append(f"relations.{form}")
            save(drawing, folder / files[-1])
    return files


def page(found: Relations) -> str:
    """All of it as Markdown."""
    parts = ["# How tasks relate\n", f"![All matrices: {ORDER}](relations.png)\n", f"{ORDER.capitalize()}.\n"]
    for name, title in {**TABLES, **GAINS, **COSINES}.items():
        if name in found.frames and len(found.frames[name]):
            matrix = name in GAINS or name in COSINES
            frame = found.frames[name].reset_index() if matrix else found.frames[name]
            form = ".1f" if name in GAINS or name == "gains" else ".4f" if name == "association" else ".3f"
            form = ".3g" if name in ANY_SIZE else form
            header = [Cell(str(column)) for column in frame.columns]
            rows = [[Cell(_text(value, form)) for value in row] for row in frame.itertuples(index=False)]
            caption = [f"{found.about}.", *([f"{ABOUT[name]}."] if name in ABOUT else [])]
            caption += found.notes if name == "association" else []
            parts.append(markdown(Table(title[0].upper() + title[1:], caption, header, rows, demo=found.demo)))
    return "\n".join(parts)


def _text(value: object, form: str) -> str:
    if isinstance(value, (float, np.floating)):
        text = "" if math.isnan(value) else f"{value:{form}}"
        return text if text.strip("-0.") else text.lstrip("-")  # no "-0.0"
    return str(value)


def drawn(found: Relations) -> Drawing:
    """The matrices side by side (shared class names where there are any); tasks stand in the order of the dendrogram of
    their functional shifts."""
    tree = grown(found.frames["functional"])
    tasks = [str(found.frames["functional"].columns[leaf]) for leaf in tree["leaves"]]
    names = [name for name in (*GAINS, *COSINES) if name in found.frames]
    if "class names" in names and not (found.frames["class names"].to_numpy() > np.eye(len(tasks))).any():
        names.remove("class names")
    lines = math.ceil(len(names) / COLUMNS)
    columns = math.ceil(len(names) / lines)
    side = max(1.7, CELL * len(tasks))
    widths = [0.25 * side, *[side] * columns]
    size = (1.9 + sum(widths), 0.7 + lines * (side + 1.35))
    figure, panels = grid(lines * len(widths), len(widths), size, sharey=True, width_ratios=widths)
    for place, panel in enumerate(panels):
        line, column = divmod(place, len(widths))
        at = line * columns + column - 1
        if not column:
            branches(panel, tree)
        elif at < len(names):
            _panel(panel, names[at], found.frames, tasks)
            if column == 1:
                name_rows(panel, tasks)
        else:
            panel.set_axis_off()
    panels[0].set_ylim(len(tasks), 0)
    title = f"{'DEMO: ' * found.demo}how tasks relate: {found.about}; {ORDER}"
    figure.suptitle(textwrap.fill(escaped(title), int(12 * size[0])), x=0.02, ha="left")
    return figure


def _panel(axes: Axes, name: str, frames: Mapping[str, pd.DataFrame], tasks: list[str]) -> None:
    matrix = frames[name].loc[tasks, tasks]
    if name in PRODUCTS:
        lengths = np.sqrt(np.diag(matrix))
        matrix = matrix / np.outer(lengths, lengths)
    change = name in CHANGES
    heat(axes, 100 * matrix if change else matrix, gains=name in GAINS or change)
    axes.set_title(GAINS.get(name) or COSINES[name])
    unit = "share × 100" if name in ("class names", "affinity") else "cosine × 100"
    axes.set_xlabel(ABOUT[name].replace("; ", ";\n") if name in GAINS else unit)
