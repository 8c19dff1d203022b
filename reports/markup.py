"""A table once, written as Markdown and as LaTeX; everything that comes from records is escaped here."""

from __future__ import annotations

import html
import re
from dataclasses import dataclass, field

from tabulate import tabulate

_LATEX = {
    "\\": r"\textbackslash{}",
    "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "±": r"$\pm$", "Δ": r"$\Delta$", "−": r"$-$", "–": "--", "—": "---",
    "·": r"$\cdot$", "“": "``", "”": "''",
    "[": "{[}", "*": "{*}",  # after the end of a line they would be read as its options
}  # fmt: skip


@dataclass(frozen=True)
class Cell:
    """text: as it is read, not escaped; mark: "best", "second" or ""; notes: numbers of footnotes."""

    text: str
    mark: str = ""
    notes: tuple[int, ...] = ()


@dataclass(frozen=True)
class Table:
    title: str
    caption: list[str]  # sentences
    header: list[Cell]
    rows: list[list[Cell]]
    footnotes: dict[int, str] = field(default_factory=dict)
    demo: bool = False


def escape_markdown(text: str) -> str:
    """Text that GitHub's Markdown shows as it is: no HTML, emphasis, link or new column or line."""
    return re.sub(r"([\\`*_\[\]|~#$])", r"\\\1", html.escape(" ".join(text.split()), quote=False))


def escape_latex(text: str) -> str:
    return "".join(_LATEX.get(character, character) for character in " ".join(text.split()))


def markdown(table: Table, level: int = 2) -> str:
    """Heading, table, caption and footnotes."""

    def cell(cell: Cell) -> str:
        before, after = {"best": ("**", "**"), "second": ("<u>", "</u>")}.get(cell.mark, ("", ""))
        notes = f"<sup>{','.join(map(str, cell.notes))}</sup>" if cell.notes else ""
        return f"{before}{escape_markdown(cell.text)}{after}{notes}"

    body = tabulate(
        [[cell(c) for c in row] for row in table.rows],
        headers=[cell(name) for name in table.header],
        tablefmt="pipe",
        colalign=_alignment(table),
        disable_numparse=True,
    )
    demo = f"{'#' * (level + 1)} DEMO: says nothing about real photographs\n\n" if table.demo else ""
    caption = escape_markdown(" ".join(table.caption))
    notes = "".join(f"\n\n<sup>{n}</sup> {escape_markdown(text)}" for n, text in table.footnotes.items())
    return f"{'#' * level} {escape_markdown(table.title)}\n\n{demo}{body}\n\n{caption}{notes}\n"


def latex(table: Table) -> str:
    r"""A `table*` that needs no package; the footnotes stand below it."""

    def cell(cell: Cell) -> str:
        command = {"best": r"\textbf", "second": r"\underline"}.get(cell.mark)
        text = f"{command}{{{escape_latex(cell.text)}}}" if command else escape_latex(cell.text)
        return text + (f"$^{{{','.join(map(str, cell.notes))}}}$" if cell.notes else "")

    body = tabulate(
        [[cell(c) for c in row] for row in table.rows],
        headers=[cell(name) for name in table.header],
        tablefmt="latex_raw",
        colalign=_alignment(table),
        disable_numparse=True,
    )
    demo = r"{\Large\textbf{DEMO}} " if table.demo else ""
    caption = escape_latex(" ".join([f"{table.title}.", *table.caption]))
    notes = "".join(f"\n\n$^{{{n}}}$ {escape_latex(text)}" for n, text in table.footnotes.items())
    return (
        "\\begin{table*}\n\\centering\\footnotesize\n"
        f"\\caption{{{demo}{caption}}}\n{body}{notes}\n\\end{{table*}}\n"
    )


def _alignment(table: Table) -> list[str]:
    return ["left", *["right"] * (len(table.header) - 1)]
