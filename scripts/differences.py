"""What one setting changes, cell by cell: paired differences over seeds, from records.csv files.

    python scripts/differences.py a.csv b.csv [--out differences.csv]

Pairs are cells of one suite, method, shot count and seed; a pair's difference is that of the means over tasks, second
file minus first. One line per suite, method and shot count, and one per suite and method for the average over shot
counts, of the seeds that have all of them: the mean over seeds and its 95 % interval (t).
"""

from __future__ import annotations

import argparse

import pandas as pd

from bench.reports.stats import spread

CELL = ["suite", "method", "shots", "seed"]


def differences(first: pd.DataFrame, second: pd.DataFrame) -> pd.DataFrame:
    """Columns suite, method, shots ("all": their mean), n (seeds), mean, low, high; points."""
    scores = [rows.groupby(CELL)["accuracy"].mean() for rows in (first, second)]
    for score, rows in zip(scores, (first, second), strict=True):
        if len(score) != len(rows[[*CELL, "key"]].drop_duplicates()):
            raise SystemExit("one file holds two cells of a suite, method, shot count and seed: take one setting each")
    moved = (scores[1] - scores[0]).dropna().rename("moved").reset_index()
    lines = []
    for (suite, method), own in moved.groupby(["suite", "method"]):
        whole = own.pivot(index="seed", columns="shots", values="moved").dropna().mean(axis=1)
        for shots, values in [*((str(n), g["moved"]) for n, g in own.groupby("shots")), ("all", whole)]:
            found = spread(values)
            low, high = found.mean - found.half, found.mean + found.half
            lines.append({"suite": suite, "method": method, "shots": shots, "n": found.n, "mean": found.mean,
                          "low": low, "high": high})  # fmt: skip
    return pd.DataFrame(lines).round(2)


if __name__ == "__main__":
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("first")
    p.add_argument("second")
    p.add_argument("--out")
    a = p.parse_args()
    table = differences(pd.read_csv(a.first), pd.read_csv(a.second))
    print(table.to_string(index=False))
    if a.out:
        table.to_csv(a.out, index=False)
