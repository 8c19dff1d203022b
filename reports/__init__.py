"""Records in, report out: tables, figures and tidy CSV files. Reads records only, never a model."""

from __future__ import annotations

from pathlib import Path

import pandas as pd


def report(results: Path | str, out: Path | str) -> pd.DataFrame:
    """Read every record below `results`, write the report into `out`, return the records.

    Written: `records.csv` (one row a cell, task and part; columns: `bench.reports.records.COLUMNS`), `table.csv` (one
    row a suite, backbone, method, variant, shots and part), `table.md`, `table.tex`, and `figures` as PNG and SVG.
    """
    # Imported here: the harness shares this folder's columns and should not wait for matplotlib.
    from bench.files import write_whole
    from bench.reports import figures, tables
    from bench.reports.blocks import split
    from bench.reports.records import BLOCK, COLUMNS, ROW, load

    loaded = load(Path(results))
    folder = Path(out)
    blocks = split(loaded.rows)
    drawn = {block.slug: figures.draw(block, folder / "figures") for block in blocks}
    write_whole(folder / "records.csv", loaded.rows[COLUMNS].to_csv(index=False))
    write_whole(folder / "table.csv", tables.tidy(blocks).to_csv(index=False))
    built = tables.build(blocks)
    cells = len(loaded.rows[[*BLOCK, *ROW, "shots", "seed"]].drop_duplicates())
    write_whole(folder / "table.md", tables.markdown_report(built, cells, drawn, loaded.failed))
    write_whole(folder / "table.tex", tables.latex_report(built))
    return loaded.rows


__all__ = ["report"]
