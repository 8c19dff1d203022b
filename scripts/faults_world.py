"""A small grid in a folder of its own, which faults are injected into, and what came of them (faults.py)."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

ROOT = Path(__file__).parents[1]
os.environ.setdefault("OMP_NUM_THREADS", "1")

GRID = ["run", "--suite=demo", "--task=Colour,Count", "--method=zero-shot,protonet,coop,shared-coop", "--shots=1,2",
        "--seeds=1,2", "-o", "all.epochs=4", "-o", "all.batch=8", "--views=2", "--quiet"]  # fmt: skip
QUICK = [*GRID[:3], "--method=zero-shot,protonet", *GRID[4:6], "--views=2", "--quiet"]
MEASURED = ("run", "finished", "peak_memory_mb", "train_seconds", "test_seconds", "feature_seconds", "checksum")
CHANGES = ("open", "os.rename", "os.mkdir", "os.remove", "os.utime", "sqlite3.connect")  # audit events of files
PATIENCE = 300  # seconds until a process counts as hanging


@dataclass
class Tally:
    """What came of one kind of fault.

    injected : faults. refused : runs or readers that said why they cannot go on, in one line.
    lost : cells of the undisturbed run without a record. doubled : computed again although they were finished.
    wrong : other numbers than the undisturbed run's. crashed : tracebacks and hangs.
    """

    injected: int = 0
    refused: int = 0
    lost: int = 0
    doubled: int = 0
    wrong: int = 0
    crashed: int = 0
    seconds: float = 0.0
    notes: list[str] = field(default_factory=list)

    @property
    def broken(self) -> int:
        return self.lost + self.doubled + self.wrong + self.crashed


# ---- processes -------------------------------------------------------------------------------------------------


def start(job: Callable[[], int], said: Path) -> int:
    """A fork that does a job and ends with its exit code; what it says goes into a file. Returns its number."""
    sys.stdout.flush()
    pid = os.fork()
    if pid:
        return pid
    code = 99
    try:
        stream = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(stream, 1)
        os.dup2(stream, 2)
        code = job()
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def end(pid: int) -> int:
    """Wait for a process; its exit code, negative for a signal. One that hangs is killed and counts as a crash."""
    limit = time.monotonic() + PATIENCE
    while time.monotonic() < limit:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return 98


def kill(pid: int) -> None:
    """SIGKILL; it may have ended meanwhile."""
    os.kill(pid, signal.SIGKILL)  # nobody has waited for it: the number is still its own


class World:
    """A folder with the demo's images, records and features, and what is asked of them."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder, self.random = folder, Random(seed)  # noqa: S311 - for faults
        self.runs, self.cache, self.written = folder / "runs", folder / "cache", folder / "written"
        self.said = folder / "said"
        self.said.mkdir()
        os.environ["BENCH_CACHE"] = str(self.cache)
        self.pids, self.usual = 0, 0.0  # processes so far; seconds of an undisturbed run
        self.until = 0.0  # when no further kills begin

    def clear(self, features: bool = True) -> None:
        """As before the first run; the demo's images stay."""
        shutil.rmtree(self.runs, ignore_errors=True)
        if features:
            shutil.rmtree(self.cache / "features", ignore_errors=True)
        self.written.unlink(missing_ok=True)

    def job(
        self, grid: list[str], runs: Path, before: Callable[[], None] = lambda: None, change: int = 0
    ) -> Callable[[], int]:
        """`python -m bench run`. before : what else is different in that process. change : it kills itself at so many
        changes of files; 0: never."""

        def work() -> int:
            import torch

            from bench.checkpoints import Checkpoint
            from bench.cli import main
            from bench.records import RecordStore

            torch.set_num_threads(1)
            due = property(lambda own: own._path is not None and time.monotonic() - own._last > 0.02)
            Checkpoint.due = due  # type: ignore[method-assign, assignment]
            write = RecordStore.write

            def told(store: Any, record: Any) -> Path:
                path = write(store, record)
                with self.written.open("a") as file:
                    file.write(f"{record.key}\n" if record.done else "")
                return path

            RecordStore.write = told  # type: ignore[method-assign]
            seen = 0

            def hook(event: str, args: tuple[Any, ...]) -> None:
                nonlocal seen
                if event in CHANGES and (event != "open" or (isinstance(args[1], str) and set(args[1]) & set("wax+"))):
                    seen += 1
                    if seen == change:
                        os.kill(os.getpid(), signal.SIGKILL)

            if change:
                sys.addaudithook(hook)
            before()
            return main([*grid, f"--results={runs}"])

        return work

    def begin(self, grid: list[str] = GRID, runs: Path | None = None, **how: Any) -> int:
        self.pids += 1
        return start(self.job(grid, runs or self.runs, **how), self.said / f"{self.pids}.txt")

    def run(self, grid: list[str] = GRID, runs: Path | None = None, **how: Any) -> tuple[int, str]:
        """Exit code, and the last that was said."""
        code = end(self.begin(grid, runs, **how))
        return code, (self.said / f"{self.pids}.txt").read_text(errors="replace")

    def ask(self, question: Callable[[], Any]) -> Any:
        """What a function returns in a fork (readers start threads, and this process must not have any)."""
        out = self.folder / "answer.json"

        def work() -> int:
            out.write_text(json.dumps(question()))
            return 0

        self.pids += 1
        said = self.said / f"{self.pids}.txt"
        if end(start(work, said)):
            raise RuntimeError(said.read_text(errors="replace")[-2000:])
        return json.loads(out.read_text())

    def found(self, runs: Path | None = None) -> dict[str, str]:
        """Every cell's numbers, what it learned and what it said of each image, by the record's path."""
        return self.ask(lambda: cells(runs or self.runs))

    def compare(self, tally: Tally, expected: dict[str, str], runs: Path | None = None, may_write: int = -1) -> None:
        """may_write : how many cells may have been computed since `written` was cleared; default: each once."""
        found = self.found(runs)
        tally.lost += len(expected.keys() - found.keys())
        tally.wrong += sum(found[path] != text for path, text in expected.items() if path in found)
        tally.wrong += len(found.keys() - expected.keys())
        keys = Counter(self.written.read_text().split() if self.written.exists() else [])
        tally.doubled += sum(n - 1 for n in keys.values()) if may_write < 0 else max(0, keys.total() - may_write)

    def settle(self, tally: Tally, grid: list[str] = GRID, runs: Path | None = None, **how: Any) -> None:
        """Run to the end. What is refused is refused in a line, and the same command, or what it says, then works."""
        code, said = self.run(grid, runs, **how)
        if code == 2 and "Traceback" not in said and len(said.strip().splitlines()) <= 2:
            tally.refused += 1
            if "delete it" in said:
                for file in (self.cache / "features").glob("hashes.sqlite*"):
                    file.unlink()
            code, said = self.run(grid, runs)
        if code:
            tally.crashed += 1
            tally.notes.append(f"exit code {code}: {said[-1500:]}")


def cells(runs: Path) -> dict[str, str]:
    """For `World.found`: a text per record that holds every number of its cell but times."""
    import hashlib

    from safetensors.torch import load_file

    from bench.checkpoints import content_hash
    from bench.predictions import read
    from bench.records import read_record

    found = {}
    for path in sorted(runs.rglob("*.json")):
        record = read_record(path).to_json()
        numbers = {name: value for name, value in record.items() if name not in MEASURED}
        beside = path.with_suffix(".safetensors")
        learned = content_hash([], load_file(beside)) if record["learned"] else ""
        predictions = read(path.with_suffix(".predictions.parquet"))
        rows = hashlib.sha256(predictions.to_csv().encode()).hexdigest()
        found[str(path.relative_to(runs))] = json.dumps([numbers, learned, rows], sort_keys=True)
    return found
