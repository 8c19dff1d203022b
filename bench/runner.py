"""A run: the cells of a plan in order. Finished ones are read, failures are reported, Ctrl-C loses one cell."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pandas as pd
from tqdm.auto import tqdm

from bench.cells import Cell
from bench.config import RunConfig, as_arguments
from bench.errors import CellFailed
from bench.evaluate import evaluate
from bench.guard import frames, telling_interrupts
from bench.plan import Plan, prepare
from bench.progress import count, duration, has_bars, note
from bench.records import KEY_SHOWN, Record
from bench.track import track

OTHER_CODE = (
    "{} of this grid finished with other code (of the method, or of what all methods share): run again; the old "
    "records stay as they are"
)


class Interrupted(KeyboardInterrupt):
    """Ctrl-C between or inside cells; says how many cells are finished."""


def _run(config: RunConfig) -> pd.DataFrame:
    """Run a grid of cells and return its results; what is finished already is read, not run again.

    The parameters are the fields of `bench.config.RunConfig`; `python -m bench run --help` describes each.

    Returns
    -------
    DataFrame : one row a finished cell and task (columns as in a report's records.csv). Cells that fail are recorded
        with their reason, left out here, summed up in a warning, and listed in `.attrs["failed"]`: one dict each, with
        suite, backbone, method, variant, protocol, shots, seed, key, error and traceback (from its own code on).

    Raises
    ------
    UserError : something given does not fit; nothing was run. Interrupted : Ctrl-C; finished cells are kept.
    CellFailed : with `fail_fast`, at the first cell that fails.
    """
    plan = prepare(config)
    failed = execute(plan)
    table = plan.table()
    table.attrs["failed"] = [record.failure for record in failed]
    if failed:
        warnings.warn(_summary(failed, len(plan.cells)), stacklevel=3)
    return table


run = as_arguments(RunConfig, _run)


def _summary(failed: Sequence[Record], n_cells: int) -> str:
    """How many cells failed, for which reasons."""
    reasons = Counter(record.reason for record in failed)
    said = "; ".join(f"{reason} ({count(n, 'cell')})" for reason, n in reasons.most_common())
    return f"{len(failed)} of {count(n_cells, 'cell')} failed, see .attrs['failed'] of the table: {said}"


def execute(
    plan: Plan, around: Callable[[], AbstractContextManager[None]] = nullcontext
) -> list[Record]:
    """Run what is not finished; returns the records of cells that failed.

    around : what each training and its test happen within.

    Raises
    ------
    CellFailed : with `fail_fast`, at the first of them.
    """
    todo = plan.todo()
    failed: list[Record] = []
    hide = plan.hide
    plan.store.folder.mkdir(parents=True, exist_ok=True)  # better now than after the first training
    other = plan.of_other_code()
    if other:
        note(OTHER_CODE.format(count(other, "cell")), hide)
    finished = len(plan.cells) - len(todo)
    bars = not hide and has_bars()
    with tqdm(total=len(plan.cells), initial=finished, unit="cell", disable=not bars) as cells:
        for group in _groups(plan, todo):
            left = [cell for cell in group if not plan.is_done(cell)]  # another process may have done some meanwhile
            finished += len(group) - len(left)
            cells.update(len(group) - len(left))
            if not left:
                continue
            cells.set_description(_described(left))
            try:
                with telling_interrupts(), around():
                    for cell, record in zip(left, evaluate(plan, left), strict=True):
                        if record.done or not plan.is_done(cell):
                            plan.store.write(record)
                            if plan.config.track and (trouble := track(plan.config.track, plan.store.folder, record)):
                                note(trouble, False)  # told even where progress is hidden
                        finished += 1
                        note(f"{_outcome(cell, record)} ({finished} of {len(plan.cells)})", hide)
                        cells.update()
                        if not record.done:
                            _tell(record, failed, hide)
                            failed.append(record)
                            if plan.config.fail_fast:
                                raise CellFailed(record.failure)
            except KeyboardInterrupt as stop:
                done = len(plan.cells) - len(plan.todo())  # without those that failed
                raise Interrupted(f"{done} of {len(plan.cells)} cells are finished") from stop
    return failed


def _described(cells: Sequence[Cell]) -> str:
    """ "coop context=4, 2 shots, seeds 1, 2"; cells differ in the seed alone."""
    name = f"{cells[0].config['method']} {cells[0].variant.label}".strip()
    if not cells[0].shots:
        return name
    seeds = f"seed{'s' * (len(cells) > 1)} {', '.join(str(c.seed) for c in cells)}"
    return f"{name}, {count(cells[0].shots, 'shot')}, {seeds}"


def _outcome(cell: Cell, record: Record) -> str:
    """How a cell ended: its score and what it took, or why it failed."""
    if not record.done:
        return f"failed: {_described([cell])}: {record.reason}"
    seconds = sum(getattr(record, f"{what}_seconds") for what in ("feature", "train", "test"))
    marks = "".join(f"; {mark}" for mark in record.marks)
    return f"{_described([cell])}: {record.score:.1f} % in {duration(seconds)}, key {record.key[:KEY_SHOWN]}{marks}"


def _tell(record: Record, before: Sequence[Record], hide: bool | None) -> None:
    """Where a method's code broke; once for all cells that break there."""
    where = frames(record.traceback)
    if where and where not in [frames(other.traceback) for other in before]:
        note(where, hide)


def _groups(plan: Plan, todo: Sequence[Cell]) -> list[list[Cell]]:
    """Cells that are trained together: one, or those that differ in the seed alone."""
    groups: dict[Any, list[Cell]] = {}
    for cell in todo:
        same = (cell.variant.method, cell.variant.label, cell.shots) if plan.config.seeds_at_once else cell.key
        groups.setdefault(same, []).append(cell)
    return list(groups.values())


