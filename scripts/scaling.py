"""What many workers bring: `--jobs 2` against one process, measured, and more workers on the paper's grid, simulated.

    python scripts/scaling.py measure --data ROOT --backbone lite-clip.json   # results/benchmarks/jobs.json
    python scripts/scaling.py simulate                                        # results/benchmarks/workers.json

`measure` wants an idle machine; it writes how busy it was. docs/running-at-scale.md shows both files.
"""

from __future__ import annotations

import argparse
import heapq
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

ROOT = Path(__file__).parents[1]
OUT = ROOT / "results" / "benchmarks"
RECORDS, GPU = "results/photographs/records.csv", "results/benchmarks/gpu-h200.json"
SHOTS, WORKERS = (1, 2, 4, 8, 16), (1, 8, 64)
ROUNDS = {"demo": "112", "photographs": "112"}  # numbers of jobs; the first fills the cache and is not counted
GRIDS = {
    "demo": ["--methods", "zero-shot,coop,shared-coop,softcpt", "--shots", "1,2,4,8,16"],
    "photographs": ["--suite", "rs8", "--tasks", "RSSCN7", "--methods", "coop,softcpt,prograd",
                    "--shots", "1,4", "--seeds", "1,2", "--views", "10", "--allow-missing"],
}  # fmt: skip


def makespan(seconds: Sequence[float], workers: int) -> float:
    """When the last cell ends, if each goes to the worker that is free first, in the order given."""
    free = [0.0] * workers
    for cell in seconds:
        heapq.heappush(free, heapq.heappop(free) + cell)
    return max(free)


def cells(records: pd.DataFrame) -> list[float]:
    """Seconds of each cell of the paper's grid: by suite, method, shots and seed as measured, or between the shots that
    were, along the line that joins them."""
    one = records.drop_duplicates("key")
    one = one.assign(seconds=one["train_seconds"] + one["test_seconds"])
    found = []
    for (_, _, _), group in one.groupby(["suite", "method", "variant"], dropna=False, sort=False):
        means = group.groupby("shots")["seconds"].mean()
        if list(means.index) == [0]:
            found.append(float(means[0]))
            continue
        at = np.interp(SHOTS, means.index, means.to_numpy())
        found += [float(seconds) for seconds in at for _ in range(3)]  # seeds
    return found


def cells_on_gpu(file: Path) -> list[float]:
    """Seconds of the cells of three methods on General-10 in bfloat16, from those of a training at 16 shots: steps, and
    so seconds, are in proportion to shots."""
    measured = json.loads(file.read_text())
    size = sum(measured["classes"])
    whole = [r for r in measured["results"] if (r["precision"], r["classes"], r["seeds"]) == ("bfloat16", size, 1)]
    return [r["seconds_a_training"] * n / measured["shots"] for r in whole for n in SHOTS for _ in range(3)]


def simulate() -> dict[str, Any]:
    """Grids on 1, 8 and 64 workers, longest cells first, as `run --jobs` does once each method has finished cells."""
    grids = {
        "three suites, 17 methods, lite-clip, two shared CPU cores": (RECORDS, cells(pd.read_csv(ROOT / RECORDS))),
        "General-10, three methods, RN50's text tower, an H200": (GPU, cells_on_gpu(ROOT / GPU)),
    }
    out: dict[str, Any] = {
        "what": "a simulation: list scheduling of measured times; starts, reading and encoding are left out",
        "grids": {},
    }
    for name, (source, found) in grids.items():
        drawn = np.random.default_rng(0)
        out["grids"][name] = {
            "from": source,
            "cells": len(found),
            "longest_cell_hours": max(found) / 3600,
            "hours_by_workers": {str(n): makespan(sorted(found, reverse=True), n) / 3600 for n in WORKERS},
            "hours_by_workers_worst_of_20_random_orders": {
                str(n): max(makespan(drawn.permutation(found), n) for _ in range(20)) / 3600 for n in WORKERS
            },
        }
    return out


def measure(data: str, backbone: str) -> dict[str, Any]:
    """Wall seconds of each grid with one process and with `--jobs 2`, in turns, features cached before."""
    out: dict[str, Any] = {"cores": len(os.sched_getaffinity(0)), "nice": os.nice(0), "grids": {}}
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "BENCH_CACHE": f"{folder}/cache"}
        for name, grid in GRIDS.items():
            more = ["--data", data, "--backbone", backbone] if name != "demo" else []
            command = [sys.executable, "-m", "bench", "run", *grid, *more, "--quiet"]
            rounds: dict[str, list[float]] = {"1": [], "2": []}
            loads, scores = [], []
            for n, jobs in enumerate(ROUNDS[name]):
                loads.append(os.getloadavg()[0])
                start = time.monotonic()
                here = [*command, "--results", f"{folder}/{name}-{n}", "--jobs", jobs]
                subprocess.run(here, check=True, env=environment, stdout=subprocess.DEVNULL)  # noqa: S603 - our own words
                if n:
                    rounds[jobs].append(time.monotonic() - start)
                scores.append(_scores(Path(folder, f"{name}-{n}")))
            out["grids"][name] = {
                "command": " ".join(grid),
                "cells": len({key for key, _ in scores[0]}),
                "seconds": rounds,
                "speed_up": sum(rounds["1"]) / sum(rounds["2"]),
                "load_before_each": loads,
                "largest_difference_of_an_accuracy": max(
                    abs(accuracy - scores[0][place]) for other in scores for place, accuracy in other.items()
                ),
            }
            print(json.dumps(out["grids"][name], indent=1))
    return out


def _scores(results: Path) -> dict[tuple[str, str], float]:
    records = [json.loads(path.read_text()) for path in results.rglob("*.json")]
    return {(record["key"], row["task"]): row["accuracy"] for record in records for row in record["tasks"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["measure", "simulate"])
    parser.add_argument("--data", help="measure: the folder with RS-8's AID and RSSCN7")
    parser.add_argument("--backbone", help="measure: a model JSON")
    a = parser.parse_args()
    found, name = (simulate(), "workers") if a.what == "simulate" else (measure(a.data, a.backbone), "jobs")
    (OUT / f"{name}.json").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
