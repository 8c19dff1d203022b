"""Where a training step's time goes: torch's profiler over a few steps of a cell."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from torch.profiler import ProfilerActivity, profile, schedule, supported_activities

SKIPPED, STEPS = 3, 5  # the first steps plan and allocate; five more show all there is


@contextmanager
def profiled(trace: Path | None, report: Callable[[int, int], None]) -> Iterator[Callable[[int, int], None]]:
    """`report`, which every training step calls, such that steps 4 to 8 are written to `trace` (Chrome's format).

    A training of fewer steps is written as far as it goes, one of three or fewer not at all.
    trace : None leaves `report` as it is.
    """
    if trace is None:
        yield report
        return
    trace.parent.mkdir(parents=True, exist_ok=True)
    activities = set(supported_activities()) & {ProfilerActivity.CPU, ProfilerActivity.CUDA}
    plan = schedule(skip_first=SKIPPED - 1, wait=0, warmup=1, active=STEPS, repeat=1)
    with profile(
        activities=activities, schedule=plan, on_trace_ready=lambda done: done.export_chrome_trace(str(trace))
    ) as steps:

        def stepped(done: int, total: int) -> None:
            steps.step()
            report(done, total)

        yield stepped
