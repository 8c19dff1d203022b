"""The report's tables: one class and one file each."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from bench.progress import count
from bench.reports.elements import Contents, Overview, Table, find
from bench.reports.groups import Block
from bench.reports.latex import document
from bench.reports.markup import Table as Markup
from bench.reports.markup import escape_markdown, markdown
from bench.reports.tables.common import footnotes


@dataclass(frozen=True)
class Built:
    """One kind's tables, of a block or (block None) of the whole report."""

    kind: Table | Overview
    block: Block | None
    tables: list[Markup]

    @property
    def file(self) -> str:
        """The file they stand in as Markdown, without its ending."""
        return self.kind.file if isinstance(self.kind, Overview) else "table"


def build(contents: Contents) -> list[Built]:
    """All tables that the records allow, in the report's order."""
    texts = [text for block in contents.blocks for name in block.labels for text in footnotes(block, name)]
    notes = {text: number for number, text in enumerate(dict.fromkeys(texts), start=1)}
    built = []
    for kind in _kinds():
        if isinstance(kind, Overview):
            built += [] if kind.why_none(contents) else [Built(kind, None, kind.over(contents))]
        else:
            built += [
                Built(each, block, each.build(block, notes))
                for block in contents.blocks
                for each in kind.each(block)
                if not each.why_not(block)
            ]
    return built


def data(contents: Contents) -> dict[str, pd.DataFrame]:
    """The tables as data, by the files' names without ending."""
    frames: dict[str, list[pd.DataFrame]] = {}
    for kind in _kinds():
        if isinstance(kind, Overview):
            found = [] if kind.why_none(contents) else [kind.data(contents)]
        else:
            found = [each.data(block) for block in contents.blocks for each in kind.each(block)]
        for name, frame in (pair for one in found for pair in one.items()):
            frames.setdefault(name, []).append(frame)
    return {name: pd.concat(several, ignore_index=True) for name, several in frames.items()}


def markdown_files(
    contents: Contents, built: Sequence[Built], cells: int, drawn: dict[str, list[str]]
) -> dict[str, str]:
    """table.md and the others by name; `drawn` has the figures' files (relative to it) by block."""
    made = "Made by `python -m bench report` from the records."
    top = [f"# Results\n\n{count(cells, 'cell')} done, {len(contents.failed)} failed. {made}\n"]
    for one in built:
        said = one.kind.summary(contents) if isinstance(one.kind, Overview) else ""
        link = f" [{one.file}.md]({one.file}.md)" if one.file != "table" else ""
        top += [f"{escape_markdown(said)}{link}\n"] if said else []
    files = {"table": top}
    for block in contents.blocks:  # a block's first tables, which have no section of their own, then its figures
        own = [one for one in built if one.block is block and not one.kind.title]
        files["table"] += [markdown(table) for one in own for table in one.tables]
        files["table"] += [f"![{file.rpartition('/')[2]}]({file})\n" for file in drawn.get(block.slug, [])]
    sections = set()
    for one in (one for one in built if one.kind.title):
        parts = files.setdefault(one.file, [])
        if one.kind.title not in sections:
            parts.append(f"# {one.kind.title}\n")
            sections.add(one.kind.title)
        parts += map(markdown, one.tables)
    return {name: "\n".join(parts) for name, parts in files.items()}


def latex_report(built: Sequence[Built]) -> str:
    r"""table.tex: the tables of table.md but for the cells that failed, to be taken in by `\input`."""
    shown = [one for one in built if one.file == "table" and one.kind.name != "failed"]
    return document([table for one in shown for table in one.tables])


def _kinds() -> list[Table | Overview]:
    module = sys.modules[__name__]
    found: list[Table | Overview] = [*find(module, Table), *find(module, Overview)]  # type: ignore[type-abstract]
    return sorted(found, key=lambda kind: (kind.order, kind.name))
