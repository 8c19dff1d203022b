"""Where cells are computed: in this process, in workers of this machine (loky), or on a Ray or Dask cluster."""

from __future__ import annotations

import contextlib
import importlib
import itertools
import logging
import os
import socket
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch

from bench.cells import Cell
from bench.errors import UserError
from bench.features.hashes import usable_cores
from bench.guard import telling_interrupts
from bench.plan import Plan
from bench.progress import count
from bench.records import Record
from bench.workers import Around, Setup, compute, encode, encode_there, work

Groups = Iterable[Sequence[Cell]]
# What backends call the death of a worker: loky, Dask, Ray.
DIED = {"TerminatedWorkerError", "BrokenProcessPool", "KilledWorker", "WorkerCrashedError", "OutOfMemoryError",
        "NodeDiedError", "LocalRayletDiedError"}  # fmt: skip
PROBE = 5.0  # seconds until an address that does not answer is given up


class WorkerDied(Exception):
    """A worker process ended in the middle of a cell: killed, for its memory or by hand."""


class Serial:
    """This process, one group of cells after another."""

    jobs = 1

    def __init__(self, plan: Plan, around: Around) -> None:
        self.plan, self.around = plan, around

    @contextlib.contextmanager
    def started(self, cells: Sequence[Cell]) -> Iterator[None]:
        """Whatever has to be there while cells are computed. cells : those to compute."""
        yield

    def run(self, groups: Groups, before: Mapping[str, str]) -> Iterator[Record]:
        """The records of cells, as they end; of none that somebody else has claimed or computed.

        before : see `compute`.

        Raises
        ------
        WorkerDied : what was not computed may be tried again.
        """
        for group in groups:
            with telling_interrupts(), self.around():
                yield from compute(self.plan, group, before)


class Loky(Serial):
    """Processes of this machine, by joblib."""

    def __init__(self, plan: Plan, around: Around) -> None:
        super().__init__(plan, around)
        gpus = _gpus(plan)
        self.jobs = plan.config.jobs or usable_cores()
        if gpus and self.jobs > len(gpus):
            each = plan.config.cells_per_gpu
            raise UserError(
                f"--jobs {self.jobs}: {count(len(gpus) // each, 'GPU')} with {count(each, 'cell')} each; add "
                f"--cells-per-gpu {-(-self.jobs * each // len(gpus))}, or --device cpu"
            )
        threads = max(1, usable_cores() // self.jobs)
        self.setup = Setup.of(plan, around, threads, gpus)
        self.backend: dict[str, Any] = {"backend": "loky", "inner_max_num_threads": threads}

    @contextlib.contextmanager
    def started(self, cells: Sequence[Cell]) -> Iterator[None]:
        encode(self.plan, cells)  # here, where the model is loaded already and all cores are free
        yield

    def run(self, groups: Groups, before: Mapping[str, str]) -> Iterator[Record]:
        from joblib import Parallel, delayed, parallel_config

        warnings.filterwarnings("ignore", r"\d+ tasks which were still being processed", module="joblib")  # --fail-fast
        tasks = (delayed(work)(self.setup, *_given(group, before)) for group in groups)
        # Two at least, because joblib runs one in this process; a cell is long enough to travel alone.
        how: dict[str, Any] = {"return_as": "generator_unordered", "pre_dispatch": self.jobs, "batch_size": 1}
        with parallel_config(**self.backend), _deaths():
            for records in Parallel(max(self.jobs, 2), **how)(tasks):
                yield from records


class Cluster(Serial):
    """Tasks of a cluster, as many at once as it has places; what Dask and Ray have in common."""

    def run(self, groups: Groups, before: Mapping[str, str]) -> Iterator[Record]:
        pending: set[Any] = set()
        waiting = iter(groups)
        death: WorkerDied | None = None  # told once the other workers have ended their cells: it costs its own alone
        try:
            while True:
                for group in itertools.islice(waiting, 0 if death else self.jobs - len(pending)):
                    pending.add(self._submit(*_given(group, before)))
                if not pending:
                    break
                ended = self._first(pending)
                pending.discard(ended)
                try:
                    with _deaths():
                        records = self._result(ended)
                except WorkerDied as error:
                    death = error
                    continue
                yield from records
        finally:
            for left in pending:
                self._cancel(left)
        if death:
            raise death

    def _submit(self, keys: list[str], before: dict[str, str]) -> Any:
        """A task that does `work`."""
        raise NotImplementedError

    def _first(self, pending: set[Any]) -> Any:
        """A task that has ended, well or not; waits for it."""
        raise NotImplementedError

    def _result(self, ended: Any) -> list[Record]:
        """What a task returned; raises what it raised, or what the backend calls the death of its worker."""
        raise NotImplementedError

    def _cancel(self, left: Any) -> None:
        raise NotImplementedError


class Dask(Cluster):
    """The workers of a Dask cluster: one on this machine, or that of a scheduler's address.

    Not by joblib's backend, whose results never come when a worker dies.
    """

    def __init__(self, plan: Plan, around: Around) -> None:
        super().__init__(plan, around)
        self.distributed = _extra("distributed", "dask")
        if plan.config.address:
            _probe(plan.config.address, "Dask scheduler")
            self.setup = Setup.of(plan, around, None)
        else:
            here = Loky(plan, around)
            self.jobs, self.setup = here.jobs, here.setup

    @contextlib.contextmanager
    def started(self, cells: Sequence[Cell]) -> Iterator[None]:
        logging.getLogger("distributed").setLevel(logging.ERROR)  # comings and goings of its parts
        with contextlib.ExitStack() as stack:
            cluster: Any = self.plan.config.address
            if cluster is None:
                local = {"n_workers": self.jobs, "threads_per_worker": 1, "dashboard_address": None}
                once = {"distributed.scheduler.allowed-failures": 0}  # the runner counts the deaths of workers
                stack.enter_context(_extra("dask", "dask").config.set(once))
                cluster = stack.enter_context(self.distributed.LocalCluster(**local))
            try:
                client = stack.enter_context(self.distributed.Client(cluster, timeout=30))
            except (OSError, ValueError) as error:
                raise UserError(f"--address {cluster}: no Dask scheduler answers ({error})") from error
            self.jobs = self.plan.config.jobs or max(1, sum(client.ncores().values()))
            self.client = client
            client.submit(encode_there, self.setup, [cell.key for cell in cells], pure=False).result()
            yield

    def _submit(self, keys: list[str], before: dict[str, str]) -> Any:
        return self.client.submit(work, self.setup, keys, before, pure=False)

    def _first(self, pending: set[Any]) -> Any:
        return next(iter(self.distributed.wait(list(pending), return_when="FIRST_COMPLETED").done))

    def _result(self, ended: Any) -> list[Record]:
        records: list[Record] = ended.result()
        return records

    def _cancel(self, left: Any) -> None:
        left.cancel()


class Ray(Cluster):
    """Tasks of a Ray cluster: one on this machine, or a running one by its address."""

    def __init__(self, plan: Plan, around: Around) -> None:
        super().__init__(plan, around)
        self.ray = _extra("ray", "ray")
        if plan.config.address not in (None, "auto") and not self.ray.is_initialized():
            _probe(plan.config.address, "Ray cluster")  # Ray itself would try for minutes, and end the process

    @contextlib.contextmanager
    def started(self, cells: Sequence[Cell]) -> Iterator[None]:
        address, jobs = self.plan.config.address, self.plan.config.jobs
        with contextlib.ExitStack() as stack:
            if not self.ray.is_initialized():  # a program that uses Ray keeps its own
                cpus = jobs or usable_cores()
                local: dict[str, Any] = {"address": "local", "num_cpus": cpus, "include_dashboard": False}
                where: dict[str, Any] = {"address": address} if address else local
                stack.callback(self.ray.shutdown)
                try:
                    self.ray.init(**where, log_to_driver=False, logging_level="error")
                except (ConnectionError, ValueError, RuntimeError, SystemExit) as error:
                    said = str(error).partition("\n")[0]
                    what = f"--address {address}: no Ray cluster answers" if address else "--backend ray: no start"
                    raise UserError(f"{what} ({said})") from error
            there = self.ray.cluster_resources()
            self.jobs = jobs or max(1, int(there.get("CPU", 1)))
            gpu = 1 / self.plan.config.cells_per_gpu if there.get("GPU") and _wants_gpu(self.plan) else 0
            self.options = {"num_cpus": 1, "num_gpus": gpu, "max_retries": 0}  # the runner tries again
            self.setup = Setup.of(self.plan, self.around, None if address else max(1, usable_cores() // self.jobs))
            first = self.ray.remote(encode_there).options(**self.options)
            self.ray.get(first.remote(self.setup, [cell.key for cell in cells]))
            yield

    def _submit(self, keys: list[str], before: dict[str, str]) -> Any:
        return self.ray.remote(work).options(**self.options).remote(self.setup, keys, before)

    def _first(self, pending: set[Any]) -> Any:
        (ended,), _ = self.ray.wait(list(pending), num_returns=1)
        return ended

    def _result(self, ended: Any) -> list[Record]:
        records: list[Record] = self.ray.get(ended)
        return records

    def _cancel(self, left: Any) -> None:
        self.ray.cancel(left, force=True)


def executor(plan: Plan, around: Around) -> Serial:
    """What a run's settings ask for.

    Raises
    ------
    UserError : a library is missing, nobody answers at the address, or workers cannot have what this process has.
    """
    config = plan.config
    if config.backend == "loky" and config.jobs in (None, 1):
        return Serial(plan, around)
    for cell in plan.cells:
        if cell.variant.method.__module__ == "__main__":
            name = cell.variant.method.name
            raise UserError(f"--jobs: workers cannot import {name!r} from a script or notebook; put it into a module")
    kinds: dict[str, Callable[[Plan, Around], Serial]] = {"loky": Loky, "dask": Dask, "ray": Ray}
    return kinds[config.backend](plan, around)


def _wants_gpu(plan: Plan) -> bool:
    return plan.config.device in ("auto", "cuda")


def _gpus(plan: Plan) -> tuple[str, ...]:
    """The GPUs that workers take, each as often as cells may share it; none where one is named, or all are CPUs."""
    if not _wants_gpu(plan) or plan.backbone.device.type != "cuda":
        return ()
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = named.split(",") if named else [str(n) for n in range(torch.cuda.device_count())]
    return tuple(names) * plan.config.cells_per_gpu


def _given(group: Sequence[Cell], before: Mapping[str, str]) -> tuple[list[str], dict[str, str]]:
    """What `work` takes of cells."""
    keys = [cell.key for cell in group]
    return keys, {key: before[key] for key in keys if key in before}


def _extra(module: str, extra: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise UserError(f"--backend {extra}: {error.name} is missing; pip install 'prompt-bench[{extra}]'") from error


def _probe(address: str, what: str) -> None:
    """Refuse an address at which nobody listens."""
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if not host or not port.isdecimal():
        raise UserError(f"--address {address}: write HOST:PORT of a {what}")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=PROBE).close()
    except (OSError, OverflowError) as error:
        raise UserError(f"--address {address}: no {what} answers ({error})") from None


@contextlib.contextmanager
def _deaths() -> Iterator[None]:
    """Whatever a backend calls the death of a worker, as WorkerDied."""
    try:
        yield
    except Exception as error:
        if DIED & {kind.__name__ for kind in type(error).__mro__}:
            raise WorkerDied(f"{type(error).__name__}: {str(error).partition(chr(10))[0]}") from error
        raise
