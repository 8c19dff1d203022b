"""The report's figures: one class and one file each."""

from __future__ import annotations

import io
import re
import sys
import textwrap
import warnings
from collections.abc import Sequence
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure as Drawing
from matplotlib.text import Text

from bench.files import write_whole
from bench.reports import fonts
from bench.reports.elements import Figure, find
from bench.reports.figures.common import LOOK, escaped
from bench.reports.groups import DAGGER, Block

SEARCHED = "chosen by accuracy on the few-shot validation images"

# No dates or version numbers: the same records give the same bytes.
METADATA = {
    "png": {"Software": None},
    "svg": {"Date": None, "Creator": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
}


def draw(block: Block, folder: Path, formats: Sequence[str] = ("png", "svg"), titles: bool = True) -> list[str]:
    """Draw what the block's records allow in every format; return the files' names in the first one, from where
    table.md stands."""
    names: list[str] = []
    for figure in drawable(block) if formats else []:
        name = f"{block.slug}-{re.sub(r'[^a-z0-9]+', '-', figure.slug.lower())}"
        while f"{folder.name}/{name}.{formats[0]}" in names:  # of methods whose names differ in other letters
            name += "-2"
        drawing = drawn(figure, block, titles)
        for form in formats:
            save(drawing, folder / f"{name}.{form}")
        names.append(f"{folder.name}/{name}.{formats[0]}")
    return names


def drawable(block: Block) -> list[Figure]:
    """The figures that the block's records allow, in their order."""
    return [figure for figure in _of(block) if not figure.why_not(block)]


def not_drawn(block: Block) -> list[str]:
    """Figures that a reader might miss, and why they were not drawn."""
    if not block.shots:
        return [f"{block.title}: no method that trains"]
    reasons = [(figure, figure.why_not(block)) for figure in _of(block)]
    return [f"{block.title}: {figure.heading(block)}; {reason}" for figure, reason in reasons if reason]


def drawn(figure: Figure, block: Block, titles: bool = True) -> Drawing:
    """A figure as it is printed: in the report's look and letters, with its heading."""
    look = {**LOOK, "font.family": fonts.families(_texts(block))}
    with matplotlib.rc_context(look), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # said once by `fonts.families`
        drawing = figure.draw(block)
        if titles:
            said = f"{_title(block)}: {figure.heading(block)}"
            if any(DAGGER in text.get_text() for text in drawing.findobj(Text)):
                said += f"; {DAGGER} {SEARCHED}"
            drawing.suptitle(textwrap.fill(escaped(said), int(12 * drawing.get_figwidth())), x=0.02, ha="left")
        return drawing


def save(drawing: Drawing, path: Path) -> None:
    """Write a figure in the format that the path ends in."""
    buffer, form = io.BytesIO(), path.suffix[1:]
    with matplotlib.rc_context(LOOK), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")
        drawing.savefig(buffer, format=form, metadata=METADATA[form])
    write_whole(path, buffer.getvalue())


def _of(block: Block) -> list[Figure]:
    """The figures that are about such a block; none where nothing was trained."""
    if not block.shots:
        return []
    kinds = find(sys.modules[__name__], Figure)  # type: ignore[type-abstract]
    return [figure for kind in kinds for figure in kind.each(block)]


def _title(block: Block) -> str:
    """A demo says so, and once: "DEMO", not "DEMO · Demo · demo-clip"."""
    names = [name for name in block.title.split(" · ") if not (block.demo and name.lower().startswith("demo"))]
    return " · ".join(["DEMO"] * block.demo + names)


def _texts(block: Block) -> str:
    """All that records may have letters for in a figure."""
    return " ".join([block.title, *block.tasks, *block.labels, *map(str, block.rows["device"].unique())])
