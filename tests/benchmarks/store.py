"""Benchmarks' figures as JSON, kept only when asked for: BENCH_STORE=1 make benchmark."""

from __future__ import annotations

import json
import os
from datetime import date
from pathlib import Path
from typing import Any

import torch

from bench.records import processor, versions

FOLDER = Path(__file__).parents[2] / "results" / "benchmarks"


def store(name: str, figures: dict[str, Any]) -> None:
    """Write results/benchmarks/<name>.json: figures, machine, versions, date; nothing unless BENCH_STORE is set."""
    if not os.environ.get("BENCH_STORE"):
        return
    machine = {
        "processor": processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
    }
    written = {"name": name, "date": date.today().isoformat(), "machine": machine, "versions": versions(), **figures}
    FOLDER.mkdir(parents=True, exist_ok=True)
    (FOLDER / f"{name}.json").write_text(json.dumps(written, indent=1) + "\n", encoding="utf-8")
