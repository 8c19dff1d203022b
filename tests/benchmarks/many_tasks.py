"""What thousands of tasks cost outside training: python tests/benchmarks/many_tasks.py [--tasks 300,3000]

Made-up records of zero-shot and three methods at 1 and 16 shots with two seeds, as a run would leave them: seconds to
write one and to read it, its megabytes; then seconds, megabytes and peak memory of a report on all of them. Writes
many-tasks.json.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from datetime import date
from itertools import product
from pathlib import Path
from typing import Any

METHODS = ("coop", "shared-coop", "softcpt")  # coop has a curve for each task


def record(method: str, shots: int, seed: int, n_tasks: int) -> Any:
    """A finished cell of tasks with 10 classes and made-up accuracies."""
    from bench.records import Record, cell_key

    rng = random.Random(f"{method}/{shots}/{seed}")  # noqa: S311 - a seeded draw, no secret
    names = [f"task number {t}" for t in range(n_tasks)]
    cell = {"suite": "made-up", "backbone": "none", "method": method, "protocol": "few-shot", "variant": ""}
    cell |= {"shots": shots, "seed": seed}
    config = {**cell, "params": {"epochs": 50} if shots else {}, "views": 50 if shots else None, "tasks": names}
    counts = {"metric": "mean_acc", "n_test": 100, "n_train": 10 * shots, "n_classes": 10, "part": "all"}
    rows = [{"task": name, **counts, "accuracy": rng.uniform(40, 90), "val_accuracy": 50.0} for name in names]
    trainings = names if method == "coop" else ["all"]
    curve: dict[str, Any] = {"epochs": list(range(1, 51))} if shots else {}
    for what in ("loss", "accuracy") if shots else ():
        curve[what] = {name: [round(rng.uniform(0, 4), 3) for _ in range(50)] for name in trainings}
    return Record(
        "done", cell_key(config), cell, config, finished="2026-01-01T00:00:00+00:00", tasks=rows, n_params=1000,
        score=65.0, train_seconds=1.0, feature_seconds=1.0, test_seconds=1.0, device="cpu", curves=curve,
        fingerprints={"weights": "w", "data": "d", "draw": f"{shots}-{seed}"}, splits=dict.fromkeys(names, "made up"),
        copies=dict.fromkeys(names, 0),
    )  # fmt: skip


def measure(n_tasks: int) -> dict[str, Any]:
    from bench.records import RecordStore, read_record
    from bench.reports import report

    with tempfile.TemporaryDirectory() as folder:
        store = RecordStore(Path(folder, "runs"))
        cells = [("zero-shot", 0, 0), *product(METHODS, (1, 16), (1, 2))]
        made = {cell: record(*cell, n_tasks) for cell in cells}
        found: dict[str, Any] = {"tasks": n_tasks, "cells": len(cells)}
        for method in ("coop", "softcpt"):
            start = time.perf_counter()
            path = store.write(made[method, 16, 1])
            found[f"{method}_write_seconds"] = time.perf_counter() - start
            start = time.perf_counter()
            read_record(path)
            found[f"{method}_read_seconds"] = time.perf_counter() - start
            found[f"{method}_record_mb"] = path.stat().st_size / 1e6
        for one in made.values():
            store.write(one)
        start = time.perf_counter()
        report(store.folder, Path(folder, "out"))
        found["report_seconds"] = time.perf_counter() - start
        out = {path.suffix: 0.0 for path in Path(folder, "out").rglob("*.*")}
        for path in Path(folder, "out").rglob("*.*"):
            out[path.suffix] += path.stat().st_size / 1e6
        found["report_mb"] = out
    found["peak_memory_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
    return found


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--tasks", default="30,300,3000", help="default: %(default)s")
    p.add_argument("--out", default="results/benchmarks", help="folder of what is written (default: %(default)s)")
    p.add_argument("--one", type=int, help=argparse.SUPPRESS)
    a = p.parse_args()
    if a.one:
        print(json.dumps(measure(a.one)))
        return
    results = []
    for n in a.tasks.split(","):
        command = [sys.executable, __file__, "--one", n]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)  # noqa: S603 - our own words
        results.append(json.loads(done.stdout.splitlines()[-1]))
        print(results[-1], flush=True)
    from bench.records import processor, versions

    about = {"name": "many-tasks", "date": date.today().isoformat(), "processor": processor(), "versions": versions()}
    path = Path(a.out, "many-tasks.json")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**about, "results": results}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
