"""A table once, written as Markdown and as LaTeX (latex.py); everything that comes from records is escaped here."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from tabulate import tabulate


@dataclass(frozen=True)
class Cell:
    """text: as it is read, not escaped; mark: "best", "second", "tie" (with the best) or ""; notes: numbers of
    footnotes."""

    text: str
    mark: str = ""
    notes: tuple[int, ...] = ()

    @property
    def full(self) -> str:
        return f"{self.text} ≈" if self.mark == "tie" else self.text


@dataclass(frozen=True)
class Table:
    """The first column names the rows.

    name : unlike any other table's of a report; letters, digits and hyphens. groups : of every column, what several
    columns that stand together share ("4-shot"), or "". caption : sentences. about, across : of every row and every
    column, what the page's filters go by, as far as it is one thing: label, or suite, backbone, protocol, method,
    settings; shots (-1: the average over all).
    """

    title: str
    caption: list[str]
    header: list[Cell]
    rows: list[list[Cell]]
    footnotes: dict[int, str] = field(default_factory=dict)
    demo: bool = False
    name: str = ""
    groups: tuple[str, ...] = ()
    about: tuple[Mapping[str, Any], ...] = ()
    across: tuple[Mapping[str, Any], ...] = ()

    @property
    def grouped(self) -> tuple[str, ...]:
        return self.groups or ("",) * len(self.header)


def turned(table: Table, corner: str) -> Table:
    """Rows as columns; the columns must be in no groups. corner : what the names of the new rows are."""
    first, *others = table.header
    columns = list(zip(*table.rows, strict=True))
    header = [replace(first, text=corner), *columns[0]]
    rows = [[name, *column] for name, column in zip(others, columns[1:], strict=True)]
    across = ({}, *table.about) if table.about else ()
    return replace(table, header=header, rows=rows, about=table.across[1:], across=across)


def escape_markdown(text: str) -> str:
    """Text that GitHub's Markdown shows as it is: no HTML, emphasis, link or new column or line."""
    return re.sub(r"([\\`*_\[\]|~#$])", r"\\\1", html.escape(" ".join(text.split()), quote=False))


def markdown(table: Table, level: int = 2) -> str:
    """Heading, table, caption and footnotes."""

    def cell(cell: Cell, group: str = "") -> str:
        before, after = {"best": ("**", "**"), "second": ("<u>", "</u>")}.get(cell.mark, ("", ""))
        notes = f"<sup>{','.join(map(str, cell.notes))}</sup>" if cell.notes else ""
        return f"{before}{escape_markdown(f'{group} {cell.full}')}{after}{notes}"

    body = tabulate(
        [[cell(c) for c in row] for row in table.rows],
        headers=[cell(name, group) for name, group in zip(table.header, table.grouped, strict=True)],
        tablefmt="pipe",
        colalign=["left", *["right"] * (len(table.header) - 1)],
        disable_numparse=True,
    )
    demo = f"{'#' * (level + 1)} DEMO: says nothing about real photographs\n\n" if table.demo else ""
    caption = escape_markdown(" ".join(table.caption))
    notes = "".join(f"\n\n<sup>{n}</sup> {escape_markdown(text)}" for n, text in table.footnotes.items())
    return f"{'#' * level} {escape_markdown(table.title)}\n\n{demo}{body}\n\n{caption}{notes}\n"
