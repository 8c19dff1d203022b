"""A cell says all that it takes to evaluate it: another process gets the same numbers."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from bench.cells import Cell
from bench.config import RunConfig
from bench.evaluate import evaluate
from bench.plan import prepare
from bench.records import Record

pytestmark = pytest.mark.usefixtures("one_thread")

ELSEWHERE = """
import json, pickle, sys
import torch
from bench.evaluate import evaluate
from bench.plan import prepare

torch.set_num_threads(1)
config, cells = pickle.loads(sys.stdin.buffer.read())  # made by the test itself; the bench reads no pickles
plan = prepare(config)
print(json.dumps([record.to_json() for cell in cells for record in evaluate(plan, [cell])]))
"""


def parameters(runs: Path) -> dict[tuple[str, str], list[Any]]:
    """All that the methods of a run learned, by file and name."""
    files = {path.name: load_file(path) for path in runs.rglob("*.safetensors")}
    return {(file, name): value.tolist() for file, state in files.items() for name, value in state.items()}


@pytest.mark.parametrize("protocol", ["few-shot", "base2new"])
def test_a_pickled_cell_is_evaluated_in_a_fresh_process_to_the_last_digit(
    protocol: str, tiny: Any, tmp_path: Path
) -> None:
    methods, changes = ["zero-shot", "softcpt", "cocoop"], {"shots": 2, "seeds": 1, "protocol": protocol}
    options = ["cocoop.words=", "softcpt.lr=0.1"]
    arguments = {**tiny.arguments, "methods": methods, "options": options, **changes}
    config = RunConfig(quiet=True, results=tmp_path / "runs", **arguments)
    plan = prepare(config)
    here = [record for cell in plan.cells for record in evaluate(plan, [cell])]
    learned = parameters(plan.store.folder)
    shutil.rmtree(plan.store.folder)
    given = pickle.dumps((config, plan.cells))
    environment = {**os.environ, "BENCH_CACHE": str(tmp_path / "cache")}  # nothing of this process's features
    command = [sys.executable, "-c", ELSEWHERE]
    done = subprocess.run(command, input=given, capture_output=True, env=environment, check=True)  # noqa: S603 - a list of our own words, and no shell
    there = [Record.from_json(record) for record in json.loads(done.stdout)]
    assert [record.status for record in there] == ["done"] * 3, done.stderr
    assert [(r.key, r.cell, r.config, r.tasks, r.score, r.fingerprints) for r in there] == [
        (r.key, r.cell, r.config, r.tasks, r.score, r.fingerprints) for r in here
    ]
    assert len({file for file, _ in learned}) == 2  # and all that was learned, bit for bit
    assert parameters(plan.store.folder) == learned


def test_a_cell_comes_out_of_a_pickle_as_it_was(tiny: Any, tmp_path: Path) -> None:
    """Parameters, their defaults and the method's class among the rest."""
    config = RunConfig(quiet=True, results=tmp_path, **tiny.arguments)
    cells = prepare(config).cells
    again: tuple[RunConfig, list[Cell]] = pickle.loads(pickle.dumps((config, cells)))  # noqa: S301 - what this line itself pickled
    assert again == (config, cells)
