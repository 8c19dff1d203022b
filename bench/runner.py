"""A run: the cells of a plan in order. Finished ones are read, failures are reported, Ctrl-C loses one cell."""

from __future__ import annotations

import time
import warnings
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, nullcontext

import pandas as pd
from tqdm.auto import tqdm

from bench.cells import Cell, together, work_of
from bench.claims import CLAIMS
from bench.config import RunConfig
from bench.errors import CellFailed, UserError
from bench.evaluate import failure_record
from bench.executors import Serial, WorkerDied, executor
from bench.guard import frames
from bench.plan import Plan, prepare
from bench.progress import count, duration, has_bars, note
from bench.records import KEY_SHOWN, Record
from bench.settings import as_arguments
from bench.track import track

OTHER_CODE = (
    "{} of this grid finished with other code (of the method, or of what all methods share): run again; the old "
    "records stay as they are"
)
LEFT_FAILED = "{} failed before and stay as they are (--no-retry-failed)"
POLL = 1.0  # seconds between looks at cells that other runs compute
DEATHS = 2  # of workers at one cell, the second at it alone, until it has failed
IN_A_ROW = 8  # deaths of workers without a record between them, until the run is given up
FEWER = "Try fewer --jobs; the log of the system or of the cluster tells more"


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
    before, todo = plan.failed_before(), plan.todo()
    failed = plan.failures_left()
    hide = plan.hide
    plan.store.folder.mkdir(parents=True, exist_ok=True)  # better now than after the first training
    other = plan.of_other_code()
    if other:
        note(OTHER_CODE.format(count(other, "cell")), hide)
    if failed:
        note(LEFT_FAILED.format(count(len(failed), "cell")), hide)
    finished = len(plan.cells) - len(todo)
    bars = not hide and has_bars()
    workers = executor(plan, around) if todo else Serial(plan, around)
    with tqdm(total=len(plan.cells), initial=finished, unit="cell", disable=not bars) as shown:
        try:
            with closing(_settled(plan, todo, before, workers, shown.set_description)) as settled:
                for cell, record, here in settled:
                    finished += 1
                    shown.update()
                    if here:
                        if plan.config.track and (trouble := track(plan.config.track, plan.store.folder, record)):
                            note(trouble, False)  # told even where progress is hidden
                        note(f"{_outcome(cell, record)} ({finished} of {len(plan.cells)})", hide)
                    if not record.done:
                        if here:
                            _tell(record, failed, hide)
                        failed.append(record)
                        if plan.config.fail_fast:
                            raise CellFailed(record.failure)
        except KeyboardInterrupt as stop:
            done = sum(map(plan.is_done, plan.cells))  # without those that failed
            raise Interrupted(f"{done} of {len(plan.cells)} cells are finished") from stop
    return failed


def _settled(
    plan: Plan,
    todo: Sequence[Cell],
    before: Mapping[str, str],
    workers: Serial,
    say: Callable[[str], object],
) -> Generator[tuple[Cell, Record, bool], None, None]:
    """Each of the cells with its record, and whether it was computed here: other runs may share the grid.

    before : as from `plan.failed_before`. say : shows which cells are in work.
    """
    left = {cell.key: cell for cell in todo}
    in_work: dict[str, Cell] = {}  # handed to workers
    suspects: Counter[str] = Counter()  # how often a worker died while it may have been at a cell
    deaths = 0  # of workers since the last record

    def begun(groups: Sequence[list[Cell]]) -> Iterator[list[Cell]]:
        for group in groups:
            in_work.update((cell.key, cell) for cell in group)
            say(_described(group))
            yield group

    with workers.started(todo):
        while left:
            n = len(left)
            free = [cell for cell in left.values() if CLAIMS.clear(plan.claim(cell))]
            groups = together(free, plan.config.seeds_at_once)
            if workers.jobs > 1:
                groups = longest_first(plan, groups)
            alone = [group for group in groups if any(suspects[cell.key] for cell in group)]
            in_work.clear()
            try:
                for record in workers.run(begun(alone[:1] or groups), before):
                    yield left.pop(record.key), record, True
                    deaths = 0
            except WorkerDied as death:
                deaths += 1
                if deaths == IN_A_ROW:
                    raise UserError(f"{deaths} workers died in a row ({death}): out of memory? {FEWER}") from None
                note(f"a worker died ({death}); the cells in work run again, one by one", plan.hide)
                for cell in [c for c in in_work.values() if c.key in left and plan.is_open(c, before)]:
                    suspects[cell.key] += 1
                    if suspects[cell.key] == DEATHS:
                        record = failure_record(cell, UserError(f"its worker died {DEATHS} times: out of memory?"))
                        plan.store.write(record)
                        CLAIMS.clear(plan.claim(cell))
                        yield left.pop(cell.key), record, True
            for cell in [c for c in left.values() if not plan.is_open(c, before)]:
                if theirs := plan.record(cell):
                    yield left.pop(cell.key), theirs, False
            if len(left) == n:
                whose = CLAIMS.owner(plan.claim(next(iter(left.values()))))
                say(f"waiting for {count(len(left), 'cell')} of {whose or 'another run'}")
                time.sleep(POLL)


def longest_first(plan: Plan, groups: Sequence[list[Cell]]) -> list[list[Cell]]:
    """Groups by the time that they will take, as finished cells of their methods tell: no long one comes last."""
    rates: dict[str, list[float]] = {}
    for cell in plan.cells:
        if (record := plan.record(cell)) and record.train_seconds is not None:
            rates.setdefault(cell.config["method"], []).append(record.train_seconds / work_of(cell))
    means = {method: sum(known) / len(known) for method, known in rates.items()}
    usual = max(means.values(), default=1.0)

    def seconds(group: list[Cell]) -> float:
        return sum(work_of(cell) * means.get(cell.config["method"], usual) for cell in group)

    return sorted(groups, key=seconds, reverse=True)


def _described(cells: Sequence[Cell]) -> str:
    """ "coop context=4, 2 shots, seeds 1, 2"; cells differ in the seed alone."""
    name = f"{cells[0].config['method']} {cells[0].variant.label}".strip()
    if not cells[0].shots:
        return name
    seeds = f"seed{'s' * (len(cells) > 1)} {', '.join(str(c.seed) for c in cells)}"
    fold = f", fold {cells[0].config['fold']}" if "fold" in cells[0].config else ""
    few = cells[0].config.get("train_tasks")
    trained = f", trained on {count(few, 'task')}" if few else ""
    return f"{name}, {count(cells[0].shots, 'shot')}, {seeds}{fold}{trained}"


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
