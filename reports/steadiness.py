"""What `bench stability` measured of the cells in a report, in sentences."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from bench.progress import count
from bench.records import STABILITY

MEASURED = {"start": "max", "end": "max", "limit": "min", "range": "max"}  # of a cell's trainings, the least steady


def with_stability(rows: pd.DataFrame, results: Path) -> pd.DataFrame:
    """Add what every `stability.csv` below `results` says of the rows' cells: columns of `MEASURED`, else empty."""
    files = sorted(results.rglob(STABILITY))
    if not files:
        return rows.assign(**dict.fromkeys(MEASURED, float("nan")))
    trainings = pd.concat([pd.read_csv(file) for file in files])
    return rows.merge(trainings.groupby("key").agg(MEASURED), on="key", how="left")


def sentences(name: str, cells: pd.DataFrame) -> list[str]:
    """A sentence for each shot count at which cells of a row were measured. cells : of the row, one line each."""
    said = []
    for shots, found in cells[cells["end"].notna()].groupby("shots"):
        most = found.agg(MEASURED)
        within = "within" if (found["end"] <= found["limit"]).all() else "beyond"
        text = (
            f"Curvature of the loss, of {name} at {count(int(shots), 'shot')} ({count(len(found), 'cell')}): largest "
            f"eigenvalue {most['start']:.3g} before and {most['end']:.3g} after training, {within} the "
            f"{most['limit']:.3g} up to which the recipe is stable."
        )
        noise = f" Accuracy's range under noise of 1e-7: {most['range']:.2f}." if pd.notna(most["range"]) else ""
        said.append(text + noise)
    return said
