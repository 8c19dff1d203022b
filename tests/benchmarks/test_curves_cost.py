"""What training curves cost a step (`bench.methods.log.Log`), of the smallest steps that the bench takes: the demo's.

Both times are of one training in one process, on one thread: the whole loop, and within it the calls that note losses
and what was right. Processor time, so that what else the machine does is not counted.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench.config import RunConfig
from bench.evaluate import evaluate
from bench.methods import prompt
from bench.methods.log import Log
from bench.plan import prepare

sys.path.append(str(Path(__file__).parent))
from store import store

MOST = 500  # microseconds a step; with one step an epoch, the epoch's sums are among them


@pytest.mark.usefixtures("one_thread")
def test_curves_cost_less_than_half_a_millisecond_a_step(
    benchmark: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if benchmark.disabled:
        pytest.skip("timed by make benchmark only")
    spent = {"log": 0.0, "train": 0.0, "steps": 0.0}

    def timed(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            start = time.thread_time()
            try:
                return call(*args, **kwargs)
            finally:
                spent[name] += time.thread_time() - start
                spent["steps"] += call is steps

        return run

    steps = Log.start_step
    for name in ("start_step", "note", "end_epoch", "close"):
        monkeypatch.setattr(Log, name, timed("log", getattr(Log, name)))
    monkeypatch.setattr(prompt, "train", timed("train", prompt.train))

    def cell(method: str, shots: int) -> dict[str, float]:
        plan = prepare(RunConfig(methods=[method], shots=[shots], seeds=[1], results=str(tmp_path), keep=False))
        (record,) = evaluate(plan, plan.cells)  # encodes what is not there yet, outside the training
        assert record.done, record.error
        spent.update(log=0.0, train=0.0, steps=0.0)
        list(evaluate(plan, plan.cells))
        return {
            "microseconds_a_step": 1e6 * spent["log"] / spent["steps"],
            "step_milliseconds": 1e3 * spent["train"] / spent["steps"],
            "share": spent["log"] / spent["train"],
        }

    figures = {f"{method}-{shots}-shot": cell(method, shots) for method in ("coop", "softcpt") for shots in (1, 16)}
    benchmark.pedantic(lambda: None)
    print(*(f"\n{name}: {own}" for name, own in figures.items()))
    store("curves-cost", {"what": "the demo, one training", **figures})
    assert max(own["microseconds_a_step"] for own in figures.values()) < MOST
