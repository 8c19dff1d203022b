"""In a worker process: a run is planned once, cells are claimed, computed and recorded, features are encoded.

A worker gets a run's configuration and the keys of cells, and makes the plan itself. It writes the records, so that
none is lost with another process than its own; what it returns is for the display.
"""

from __future__ import annotations

import contextlib
import io
import os
import socket
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import torch
from filelock import FileLock, Timeout

from bench.cells import Cell
from bench.claims import CLAIMS
from bench.config import RunConfig
from bench.errors import UserError
from bench.evaluate import evaluate, features_of
from bench.guard import telling_interrupts
from bench.plan import Plan, prepare
from bench.progress import count
from bench.records import Record

Around = Callable[[], AbstractContextManager[None]]
PASSED_ON = ("BENCH_CACHE", "BENCH_DATA", "HF_HUB_OFFLINE")


def compute(plan: Plan, cells: Sequence[Cell], before: Mapping[str, str]) -> Iterator[Record]:
    """Compute cells that are trained together and write their records; without those that others have or have done.

    before : when cells failed, by key, of those that failed before this run.
    """
    with CLAIMS.taking([plan.claim(cell) for cell in cells]) as taken:
        mine = [cell for cell, own in zip(cells, taken, strict=True) if own and plan.is_open(cell, before)]
        for record in evaluate(plan, mine) if mine else ():
            there = plan.store.read(record.cell, record.key)
            if there is None or not there.done:  # of a paused process's cell somebody else may have made one
                plan.store.write(record)
            yield record


def encode(plan: Plan, cells: Sequence[Cell]) -> None:
    """Make the features that cells need and the cache lacks, before several workers would make the same."""
    seen = set()
    for cell in cells:
        method = cell.variant.method
        wanted = (method.image, frozenset(method.needs), cell.shots, cell.seed, cell.views)
        if wanted not in seen and plan.cached(cell) != "cached":
            with contextlib.suppress(UserError):  # a broken image: the cells that need it say so
                features_of(plan, cell)
        seen.add(wanted)


@dataclass(frozen=True)
class Setup:
    """What a worker has to know of a run, the same for all its cells.

    Attributes
    ----------
    folder, imports, environment : the current folder, `sys.path` and some variables where the run was started.
    threads : of torch; None for as many as the worker has by itself.
    gpus : of which each worker of this machine takes one, if there are any. run : tells them from those of other runs.
    """

    config: RunConfig
    folder: str
    imports: tuple[str, ...]
    environment: tuple[tuple[str, str], ...]
    threads: int | None
    gpus: tuple[str, ...]
    run: int
    around: Around

    @classmethod
    def of(cls, plan: Plan, around: Around, threads: int | None, gpus: tuple[str, ...] = ()) -> Setup:
        passed = tuple((name, os.environ[name]) for name in PASSED_ON if name in os.environ)
        imports = tuple(os.path.abspath(entry) for entry in sys.path)
        config = replace(plan.config, quiet=True)
        return cls(config, os.getcwd(), imports, passed, threads, gpus, os.getpid(), around)


_BUSY = threading.Lock()  # a Dask worker may have several threads; what a cell sets for its process, one can at a time
_slots: list[FileLock] = []  # of the GPU that this process has taken


def work(setup: Setup, keys: Sequence[str], before: Mapping[str, str]) -> list[Record]:
    """Compute cells that are trained together."""
    with _BUSY, _as_there(setup), telling_interrupts(), setup.around():
        plan = _plan(setup)
        return list(compute(plan, _cells(plan, keys), before))


def encode_there(setup: Setup, keys: Sequence[str]) -> None:
    """`encode`, of the cells with these keys."""
    with _BUSY, _as_there(setup):
        plan = _plan(setup)
        encode(plan, _cells(plan, keys))


@lru_cache(maxsize=1)
def _plan(setup: Setup) -> Plan:
    _take_gpu(setup)
    with contextlib.redirect_stderr(io.StringIO()):  # the process that started the run has said it
        return prepare(setup.config)


def _cells(plan: Plan, keys: Sequence[str]) -> list[Cell]:
    known = {cell.key: cell for cell in plan.cells}
    missing = [key for key in keys if key not in known]
    if missing:
        raise UserError(
            f"the worker on {socket.gethostname()} plans other cells than this run: its data, its code or its "
            f"libraries differ ({len(missing)} of {count(len(keys), 'cell')}, {missing[0]} among them)"
        )
    return [known[key] for key in keys]


@contextlib.contextmanager
def _as_there(setup: Setup) -> Iterator[None]:
    """Folder, imports, environment and threads as in the process that started the run."""
    before, threads, imports = os.getcwd(), torch.get_num_threads(), list(sys.path)
    os.environ.update(setup.environment)
    if not os.path.isdir(setup.folder):
        host = socket.gethostname()
        raise UserError(f"the worker on {host} has no folder {setup.folder}: start the run in one that all share")
    os.chdir(setup.folder)
    sys.path += [entry for entry in setup.imports if entry not in sys.path]
    if setup.threads:
        torch.set_num_threads(setup.threads)
    try:
        yield
    finally:
        os.chdir(before)
        sys.path[:] = imports
        torch.set_num_threads(threads)


def _take_gpu(setup: Setup) -> None:
    """Have this process see one GPU alone: the first that no other worker of the run has, until it ends."""
    for place, gpu in enumerate(() if _slots else setup.gpus):
        lock = FileLock(Path(tempfile.gettempdir()) / f"prompt-bench-{setup.run}-{place}.lock", timeout=0)
        with contextlib.suppress(Timeout):
            lock.acquire()
            _slots.append(lock)
            os.environ["CUDA_VISIBLE_DEVICES"] = gpu
            return
