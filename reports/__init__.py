"""Records in, report out: tables, figures and tidy CSV files. Reads records only, never a model."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from bench.config import as_arguments
from bench.reports.config import ReportConfig

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
    `table.tex`, and in `figures` what the records allow.
    """
    return write(config).records


report = as_arguments(ReportConfig, _report)


def write(config: ReportConfig) -> Written:
    """`report`, with all there is to say about it."""
    # Imported here: the harness shares this folder's columns and should not wait for matplotlib.
    from bench.files import user_path, write_whole
    from bench.records import COLUMNS
    from bench.reports import figures, tables
    from bench.reports.groups import split
    from bench.reports.records import BLOCK, ROW, load

    loaded = load(config)
    folder = user_path(config.out)
    blocks = split(loaded.rows)
    drawn = {block.slug: figures.draw(block, folder / "figures", config.pictures, config.title) for block in blocks}
    built = tables.build(blocks)
    cells = len(loaded.rows[[*BLOCK, *ROW, "shots", "seed"]].drop_duplicates())
    files = []
    for kind, make in {
        "md": lambda: tables.markdown_report(built, cells, drawn, loaded.failed),
        "tex": lambda: tables.latex_report(built),
    }.items():
        if kind in config.format:
            write_whole(folder / f"table.{kind}", make())
            files.append(f"table.{kind}")
    for name, frame in {"records": loaded.rows[COLUMNS], "table": tables.tidy(blocks)}.items():
        if "csv" in config.format:
            write_whole(folder / f"{name}.csv", frame.to_csv(index=False))
            files.append(f"{name}.csv")
        if "parquet" in config.format:
            write_whole(folder / f"{name}.parquet", partial(frame.to_parquet, index=False))
            files.append(f"{name}.parquet")
    pngs = [name for names in drawn.values() for name in names]
    return Written(loaded.rows, files, pngs, [reason for block in blocks for reason in figures.not_drawn(block)])


__all__ = ["report"]
