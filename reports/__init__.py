"""Records in, report out: tables, figures and tidy CSV files. Reads records only, never a model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pandas as pd


@dataclass(frozen=True)
class Written:
    """A report: the records it was made from, the figures that were drawn, and why others were not."""

    records: pd.DataFrame  # one row per cell, task and part; columns: `bench.records.COLUMNS`
    figures: list[str]  # the PNGs, relative to the report's folder; beside each stands an SVG
    not_drawn: list[str]


def report(results: Path | str, out: Path | str) -> pd.DataFrame:
    """Read every record below `results`, write the report into `out`, return the records.

    Written: `records.csv` (one row per cell, task and part; columns: `bench.records.COLUMNS`), `table.csv` (one
    row per suite, backbone, method, variant, shots and part), `table.md`, `table.tex`, and in `figures` what the
    records allow, as PNG and SVG.
    """
    return write(results, out).records


def write(results: Path | str, out: Path | str) -> Written:
    """`report`, with all there is to say about it."""
    # Imported here: the harness shares this folder's columns and should not wait for matplotlib.
    from bench.files import user_path, write_whole
    from bench.records import COLUMNS
    from bench.reports import figures, tables
    from bench.reports.groups import split
    from bench.reports.records import BLOCK, ROW, load

    loaded = load(user_path(results))
    folder = user_path(out)
    blocks = split(loaded.rows)
    drawn = {block.slug: figures.draw(block, folder / "figures") for block in blocks}
    write_whole(folder / "records.csv", loaded.rows[COLUMNS].to_csv(index=False))
    write_whole(folder / "table.csv", tables.tidy(blocks).to_csv(index=False))
    built = tables.build(blocks)
    cells = len(loaded.rows[[*BLOCK, *ROW, "shots", "seed"]].drop_duplicates())
    write_whole(folder / "table.md", tables.markdown_report(built, cells, drawn, loaded.failed))
    write_whole(folder / "table.tex", tables.latex_report(built))
    pngs = [name for names in drawn.values() for name in names]
    return Written(loaded.rows, pngs, [reason for block in blocks for reason in figures.not_drawn(block)])


__all__ = ["report"]
