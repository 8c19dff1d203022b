"""The simulation of many workers, by hand; and docs/running-at-scale.md shows what the committed files hold."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

ROOT = Path(__file__).parents[1]
BENCHMARKS = ROOT / "results" / "benchmarks"


@pytest.fixture(scope="module")
def scaling() -> Any:
    spec = importlib.util.spec_from_file_location("scaling", ROOT / "scripts" / "scaling.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_each_cell_goes_to_the_worker_that_is_free_first(scaling: Any) -> None:
    assert scaling.makespan([3, 3, 2, 4], 2) == 7  # 3 + 2 beside 3 + 4
    assert scaling.makespan([4, 3, 3, 2], 2) == 6  # 4 + 2 beside 3 + 3
    assert scaling.makespan([4, 3, 3, 2], 1) == 12
    assert scaling.makespan([4, 3, 3, 2], 64) == 4


def test_cells_of_shots_that_were_not_run_lie_between_those_that_were(scaling: Any) -> None:
    rows = []
    for method, shots, seconds in (("zero-shot", 0, 5.0), ("coop", 1, 10.0), ("coop", 4, 40.0), ("coop", 16, 160.0)):
        for task in ("one", "two"):  # a row a task: a cell's seconds stand in each
            common = {"suite": "s", "method": method, "variant": None, "shots": shots, "task": task}
            rows.append({**common, "key": f"{method}{shots}", "train_seconds": seconds - 1, "test_seconds": 1.0})
    found = scaling.cells(pd.DataFrame(rows))
    assert sorted(found) == [5, *[10] * 3, *[20] * 3, *[40] * 3, *[80] * 3, *[160] * 3]


def test_on_a_gpu_fewer_shots_cost_in_proportion(scaling: Any, tmp_path: Path) -> None:
    training = {"precision": "bfloat16", "classes": 5, "seeds": 1, "seconds_a_training": 160}
    others = [{**training, "precision": "float32"}, {**training, "classes": 3}, {**training, "seeds": 3}]
    (tmp_path / "gpu.json").write_text(json.dumps({"classes": [2, 3], "shots": 16, "results": [training, *others]}))
    assert scaling.cells_on_gpu(tmp_path / "gpu.json") == [n for n in (10, 20, 40, 80, 160) for _ in range(3)]


def test_the_docs_show_what_the_simulation_gave(scaling: Any) -> None:
    text = (ROOT / "docs" / "running-at-scale.md").read_text(encoding="utf-8")
    kept = json.loads((BENCHMARKS / "workers.json").read_text())
    again = scaling.simulate()["grids"]
    for name, grid in kept["grids"].items():
        assert again[name]["hours_by_workers"] == pytest.approx(grid["hours_by_workers"])
        hours = [grid["longest_cell_hours"], *grid["hours_by_workers"].values()]
        shown = [f"{60 * h:.0f} min" if h < 1.5 else f"{h:.1f} h" for h in hours]
        assert f"| {grid['cells']} | {' | '.join(shown)} |" in text
    hours = kept["grids"][next(iter(kept["grids"]))]["hours_by_workers_worst_of_20_random_orders"]
    eight, many = (round(60 * hours[n]) for n in ("8", "64"))
    assert f"first grid takes {eight} min on 8 workers and {many} on 64" in " ".join(text.split())


def test_the_docs_show_what_was_measured() -> None:
    text = (ROOT / "docs" / "running-at-scale.md").read_text(encoding="utf-8")
    for name, grid in json.loads((BENCHMARKS / "jobs.json").read_text())["grids"].items():
        one, two = (sum(grid["seconds"][jobs]) / len(grid["seconds"][jobs]) for jobs in "12")
        assert f"{grid['cells']} | {one:.0f} s | {two:.0f} s | {one / two:.2f} |" in text, name
        assert grid["speed_up"] == pytest.approx(one / two)
