"""Records in, report out: tables, figures and tidy CSV files. Reads records only, never a model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from bench.reports.config import ReportConfig
from bench.settings import as_arguments

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Written:
    """A report: the records it was made from, the files that were written, and why some figures were not drawn."""

    records: pd.DataFrame  # one row per cell, task and part; columns: `bench.records.COLUMNS`
    files: list[str]  # tables and data, relative to the report's folder
    figures: list[str]  # one file a figure, relative to the report's folder; beside it stand the other formats
    not_drawn: list[str]


def _report(config: ReportConfig) -> pd.DataFrame:
    """Read every record below `results`, write the report into `out`, return the records.

    The parameters are the fields of `bench.reports.config.ReportConfig`; `python -m bench report --help` describes
    each. Written, by `format`: `records.csv` (one row per cell, task and part; columns: `bench.records.COLUMNS`),
    `table.csv` (one row per suite, backbone, method, variant, shots and part), both also as Parquet, `table.md`,
    `table.tex`, `index.html` (all of it in one page), and in `figures` what the records allow.
    """
    if config.watch:
        from bench.reports.watch import follow

        return follow(config).records
    return write(config).records


report = as_arguments(ReportConfig, _report)


def write(config: ReportConfig) -> Written:
    """`report`, with all there is to say about it."""
    # Imported here: the harness shares this folder's columns and should not wait for matplotlib.
    from bench.files import user_path, write_whole
    from bench.records import COLUMNS
    from bench.reports import figures, tables
    from bench.reports.elements import Contents
    from bench.reports.groups import split
    from bench.reports.records import load

    loaded = load(config)
    other = load(replace(config, results=config.compare, compare=None)) if config.compare else None
    folder = user_path(config.out)
    blocks = split(loaded.rows, loaded.cells)
    contents = Contents(blocks, loaded.failed, loaded.rows, other.rows if other else None, _folders(config))
    drawn = {block.slug: figures.draw(block, folder / "figures", config.pictures, config.title) for block in blocks}
    built = tables.build(contents)
    files = []

    def put(name: str, content: str | Callable[[Path], object]) -> None:
        write_whole(folder / name, content)
        files.append(name)

    if "html" in config.format:
        from bench.reports.page import page  # its libraries take a second to load

        put("index.html", page(loaded, contents, built, live=config.watch))
    if "md" in config.format:
        cells = loaded.rows["key"].nunique()  # each fold is one
        for name, text in tables.markdown_files(contents, built, cells, drawn).items():
            put(f"{name}.md", text)
    if "tex" in config.format:
        put("table.tex", tables.latex_report(built))
    as_data = {"csv", "parquet"} & {*config.format}
    for name, frame in {"records": loaded.rows[COLUMNS], **(tables.data(contents) if as_data else {})}.items():
        if "csv" in config.format:
            put(f"{name}.csv", frame.to_csv(index=False))
        if "parquet" in config.format:
            put(f"{name}.parquet", partial(frame.to_parquet, index=False))
    pngs = [name for names in drawn.values() for name in names]
    not_drawn = [reason for block in blocks for reason in figures.not_drawn(block)] if config.pictures else []
    return Written(loaded.rows, files, pngs, not_drawn)


def _folders(config: ReportConfig) -> tuple[str, str]:
    """What the two folders of --compare are called: the last parts of their paths that differ."""
    if config.compare is None:
        return "", ""
    paths = [Path(folder).resolve().parts for folder in (config.results, config.compare)]
    for n in range(1, max(map(len, paths)) + 1):
        first, second = ("/".join(parts[-n:]) for parts in paths)
        if first != second:
            return first, second
    return "results", "compare"


__all__ = ["report"]
