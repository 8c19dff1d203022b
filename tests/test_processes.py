"""A cell says all that it takes to evaluate it: another process gets the same numbers."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from bench.config import RunConfig
from bench.evaluate import evaluate
from bench.plan import prepare
from bench.records import Record

sys.path.append(str(Path(__file__).parent))
import elsewhere

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def another_process() -> Iterator[Executor]:
    """One that is started when it is asked for something, and shares nothing with this one."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        yield pool

def parameters(runs: Path) -> dict[tuple[str, str], list[Any]]:
    """All that the methods of a run learned, by file and name."""
    files = {path.name: load_file(path) for path in runs.rglob("*.safetensors")}
    return {(file, name): value.tolist() for file, state in files.items() for name, value in state.items()}


@pytest.mark.parametrize("protocol", ["few-shot", "base2new"])
def test_a_cell_is_evaluated_in_a_fresh_process_to_the_last_digit(
    protocol: str, tiny: Any, tmp_path: Path, another_process: Executor, monkeypatch: pytest.MonkeyPatch
) -> None:
    methods, changes = ["zero-shot", "softcpt", "cocoop"], {"shots": 2, "seeds": 1, "protocol": protocol}
    options = ["cocoop.words=", "softcpt.lr=0.1"]
    arguments = {**tiny.arguments, "methods": methods, "options": options, **changes}
    config = RunConfig(quiet=True, results=tmp_path / "runs", **arguments)
    plan = prepare(config)
    here = [record for cell in plan.cells for record in evaluate(plan, [cell])]
    learned = parameters(plan.store.folder)
    shutil.rmtree(plan.store.folder)
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))  # nothing of this process's features
    found = another_process.submit(elsewhere.evaluated, config, plan.cells).result()
    there = [Record.from_json(record) for record in found]
    assert [record.status for record in there] == ["done"] * 3
    assert [(r.key, r.cell, r.config, r.tasks, r.score, r.fingerprints) for r in there] == [
        (r.key, r.cell, r.config, r.tasks, r.score, r.fingerprints) for r in here
    ]
    assert len({file for file, _ in learned}) == 2  # and all that was learned, bit for bit
    assert parameters(plan.store.folder) == learned


def test_a_cell_comes_back_from_another_process_as_it_was(
    tiny: Any, tmp_path: Path, another_process: Executor
) -> None:
    """Parameters, their defaults and the method's class among the rest."""
    config = RunConfig(quiet=True, results=tmp_path, **tiny.arguments)
    cells = prepare(config).cells
    assert another_process.submit(elsewhere.unchanged, config, cells).result() == (config, cells)
