"""What docs/architecture.md promises a parallel runner: a cell and its configuration go to any process as a pickle."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

from bench.config import RunConfig
from bench.evaluate import evaluate
from bench.plan import prepare

WORKER = """
import pickle, sys
from bench.evaluate import evaluate
from bench.plan import prepare
config, cells = pickle.load(sys.stdin.buffer)
sys.stdout.buffer.write(pickle.dumps(list(evaluate(prepare(config), cells))))
"""


def test_a_cell_evaluated_in_another_process_scores_what_it_scores_here(tiny: Any, cache: Path, tmp_path: Path) -> None:
    arguments = {**tiny.arguments, "methods": ["softcpt"], "shots": [1], "seeds": [1]}
    config = RunConfig(results=tmp_path, quiet=True, **arguments)
    plan = prepare(config)
    (here,) = evaluate(plan, plan.cells)
    given = pickle.dumps((config, plan.cells))
    worker = subprocess.run([sys.executable, "-c", WORKER], input=given, capture_output=True, check=True)
    (there,) = pickle.loads(worker.stdout)
    assert there["status"] == "done" and there["key"] == here["key"]
    assert there["tasks"] == here["tasks"] and there["score"] == here["score"]
