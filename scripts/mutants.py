"""Plant faults, one at a time, in a copy of the code, and see which test notices: `make mutants`.

The faults stand in mutants.yaml beside this file, each a text to be replaced by another and what that would do to the
numbers people read. The tests named there run first; where they pass, all other quick tests run before a fault counts
as a survivor. Exit code 1: fewer than 95 % were noticed, or a survivor has no reason in the list.
"""

from __future__ import annotations

import argparse
import importlib
import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from itertools import groupby
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
LIST = Path(__file__).with_name("mutants.yaml")
WANTED = 0.95  # share that must be noticed
UNSOUND = "without a fault "  # before the id of a test that fails then, too
NO_TESTS = "no tests"  # instead of an id, where pytest collected none: that notices nothing
SECONDS = 1500  # of one run of tests; a hang is told, and does not count as noticed
PACKAGES = ("methods", "datasets", "reports")  # stand beside bench/ and are imported from within it
# Not run: they are slow, need photographs or a card, build wheels, look at documents and this list itself, or start
# workers that import the installed bench in place of the copy.
LEFT_OUT = {
    "test_clusters.py", "test_cuda.py", "test_datasets_fetch.py", "test_datasets_real.py", "test_datasets_transfer.py",
    "test_demo.py",
    "test_docs.py", "test_heap.py", "test_mutants.py", "test_names.py", "test_photographs.py",
}  # fmt: skip
# Tests of the quick files that take long and are about something else than numbers.
# Whole ids: a word such as `killed` is in the names of other tests, too.
DESELECTED = (
    "tests/test_cli.py::test_python_m_bench_gives_the_exit_code",
    "tests/test_cli.py::test_typos_are_answered_before_torch_is_loaded",
    "tests/test_cli.py::test_without_suite_and_data_the_demo_runs_and_says_so_in_one_line",
    "tests/test_datasets_check.py::test_a_hundred_thousand_images_are_listed_in_seconds",
    "tests/test_faults.py::test_killed_damaged_and_set_back_a_grid_ends_like_an_undisturbed_one",
    "tests/test_cells_fail.py::test_killed_at_random_times_a_run_ends_like_an_uninterrupted_one",
    "tests/test_cells_fail.py::test_killed_before_every_new_file_a_run_ends_like_an_uninterrupted_one",
    "tests/test_cells_fail.py::test_two_processes_at_once_end_with_the_same_complete_records",
)
# Imported once, before a process is forked for every fault. Never `bench`: each process imports its own copy.
SLOW_IMPORTS = (
    "hypothesis", "matplotlib.figure", "open_clip", "pandas", "pytest", "safetensors.torch", "seaborn",
    "sklearn.linear_model", "torch", "torchvision.transforms", "torchvision.transforms.functional",
)  # fmt: skip


@dataclass(frozen=True)
class Mutant:
    """One fault.

    file : from the repository's root. old : a text that stands there once. new : what takes its place.
    does : what it would do to the numbers. tests : files or test ids that should notice. survives : why none can.
    """

    id: str
    file: str
    old: str
    new: str
    does: str
    tests: tuple[str, ...]
    survives: str = ""

    def planted(self) -> str:
        """The file's text with the fault.

        Raises
        ------
        ValueError : `old` does not stand there exactly once.
        """
        text = (ROOT / self.file).read_text(encoding="utf-8")
        if (n := text.count(self.old)) != 1:
            raise ValueError(f"{LIST.name}: {self.id}: {self.old!r} stands {n} times in {self.file}; make it once")
        return text.replace(self.old, self.new)


def load() -> list[Mutant]:
    """All faults of the list."""
    entries = yaml.safe_load(LIST.read_text(encoding="utf-8"))
    return [Mutant(**{**entry, "tests": tuple(entry["tests"])}) for entry in entries]


def lay_out(tree: Path) -> None:
    """Copy the repository as its import names are: methods, datasets and reports within bench."""
    no_bytecode = shutil.ignore_patterns("__pycache__")
    for name in ("bench", "tests", "results", "docs", "scripts"):
        shutil.copytree(ROOT / name, tree / name, ignore=no_bytecode)
    for name in PACKAGES:
        shutil.copytree(ROOT / name, tree / "bench" / name, ignore=no_bytecode)
        (tree / name).symlink_to(tree / "bench" / name)
    for name in ("pyproject.toml", "README.md", "Makefile"):
        shutil.copy(ROOT / name, tree / name)


def place(tree: Path, file: str) -> Path:
    """Where a file of the repository stands in a copy."""
    return tree / "bench" / file if file.split("/")[0] in PACKAGES else tree / file


def quick_tests() -> list[str]:
    return [f"tests/{file.name}" for file in sorted((ROOT / "tests").glob("test_*.py")) if file.name not in LEFT_OUT]


class Failures:
    """A pytest plug-in that writes down the first failure."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def pytest_runtest_logreport(self, report: Any) -> None:
        self._note(report)

    def pytest_collectreport(self, report: Any) -> None:
        self._note(report)

    def _note(self, report: Any) -> None:
        if report.failed and not self.file.exists():
            self.file.write_text(report.nodeid)


def run_tests(tree: Path, tests: Sequence[str]) -> str:
    """The id of the first test that fails in a copy, "" when none does within SECONDS, or NO_TESTS.

    In a process of its own.
    """
    failure = tree / "failure"
    failure.unlink(missing_ok=True)
    pid = os.fork()
    if pid == 0:
        code = 3
        try:
            code = _pytest(tree, tests, Failures(failure))
        finally:
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if failure.exists():
        return failure.read_text()
    if code == -signal.SIGALRM:
        print(f"{tree.name}: stopped after {SECONDS} s", file=sys.stderr)
    if code == 5:
        return NO_TESTS
    return "" if code in (0, -signal.SIGALRM) else f"(pytest ended with code {code})"


def _pytest(tree: Path, tests: Sequence[str], plugin: Any) -> int:
    signal.alarm(SECONDS)
    output = os.open(tree / "output", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(output, stream)
    os.chdir(tree)
    sys.dont_write_bytecode = True  # two faults of one size within a second would share it
    os.environ |= {"PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
    sys.path.insert(0, str(tree))
    import pytest
    import torch

    import bench

    torch.set_num_threads(1)
    if not str(bench.__file__).startswith(str(tree)):
        print(f"bench is {bench.__file__}, not the copy's")
        return 4
    slow = [f"--deselect={test}" for test in DESELECTED]
    options = ["-x", "-q", "-p", "no:cacheprovider", f"--basetemp={tree / 'tmp'}", *slow]
    return int(pytest.main([*options, *tests], plugins=[plugin]))


def noticed(tree: Path, mutant: Mutant) -> str:
    """The first test that notices a fault, "", or NO_TESTS; after UNSOUND one that also fails without the fault."""
    file = place(tree, mutant.file)
    file.write_text(mutant.planted(), encoding="utf-8")
    try:
        if failed := run_tests(tree, mutant.tests):
            return failed  # that these tests pass without a fault is known
        failed = run_tests(tree, [name for name in quick_tests() if name not in mutant.tests])
    finally:
        shutil.copy(ROOT / mutant.file, file)
    return f"{UNSOUND}{failed}" if "::" in failed and run_tests(tree, [failed]) else failed


Tests = tuple[str, ...]
"""Files or test ids, to be run without a fault."""


def outcomes(trees: Sequence[Path], jobs: Sequence[Mutant | Tests]) -> Iterator[tuple[Mutant | Tests, str, float]]:
    """Each job, the first test that failed in it ("": none) and its seconds; one process a copy takes job after job."""
    fork = multiprocessing.get_context("fork")
    todo, done = fork.SimpleQueue(), fork.SimpleQueue()
    for index in [*range(len(jobs)), *[None] * len(trees)]:
        todo.put(index)

    def work(tree: Path) -> None:
        while (index := todo.get()) is not None:
            start, job = time.monotonic(), jobs[index]
            failed = noticed(tree, job) if isinstance(job, Mutant) else run_tests(tree, job)
            done.put((index, failed, time.monotonic() - start))

    workers = [fork.Process(target=work, args=(tree,), daemon=True) for tree in trees]
    for worker in workers:
        worker.start()
    for _ in jobs:
        index, failed, seconds = done.get()
        yield jobs[index], failed, seconds


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=2, help="copies that are tested at once (default 2)")
    parser.add_argument("--only", default="*", metavar="PATTERN", help="ids or files, such as 'figure-*,reports/*'")
    parser.add_argument("--list", action="store_true", help="print the faults and run nothing")
    args = parser.parse_args()
    patterns = args.only.split(",")
    mutants = [m for m in load() if any(fnmatch(text, pattern) for text in (m.id, m.file) for pattern in patterns)]
    if not mutants:
        print(f"--only {args.only}: no fault of {LIST.name} fits", file=sys.stderr)
        return 2
    try:
        for mutant in mutants:
            mutant.planted()
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    if args.list:
        for m in mutants:
            print(f"{m.id}  {m.file}: {m.does}")
        return 0
    for name in SLOW_IMPORTS:
        importlib.import_module(name)
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        trees = [Path(folder) / str(job) for job in range(min(args.jobs, len(mutants)))]
        for tree in trees:
            lay_out(tree)
        return _judge(trees, mutants)


def _judge(trees: Sequence[Path], mutants: Sequence[Mutant]) -> int:
    survivors = []
    named = sorted({name for mutant in mutants for name in mutant.tests})
    unharmed = [tuple(tests) for _, tests in groupby(named, key=lambda name: name.partition("::")[0])]
    for job, failed, seconds in outcomes(trees, [*unharmed, *mutants]):
        if failed == NO_TESTS:
            tests = job.tests if isinstance(job, Mutant) else job
            whose = [job] if isinstance(job, Mutant) else [m for m in mutants if {*m.tests} & {*tests}]
            ids = ", ".join(mutant.id for mutant in whose)
            print(f"{LIST.name}: {ids}: pytest collects none of {', '.join(tests)}; name others", file=sys.stderr)
            return 2
        if isinstance(job, Mutant) and not failed.startswith(UNSOUND):
            print(f"{job.id:34} {failed or 'SURVIVED'} ({seconds:.0f} s)", flush=True)
            survivors += [] if failed else [job]
        elif failed:
            print(f"{failed.removeprefix(UNSOUND)} fails without a fault: mend it first", file=sys.stderr)
            return 2
        elif isinstance(job, tuple):
            print(f"{'(no fault)':34} {job[0].partition('::')[0]} passes ({seconds:.0f} s)", flush=True)
    n = len(mutants) - len(survivors)
    print(f"\n{n} of {len(mutants)} faults were noticed ({100 * n / len(mutants):.1f} %)")
    for mutant in survivors:
        print(f"SURVIVED {mutant.id} ({mutant.file}): {mutant.does}; {mutant.survives or 'NO REASON GIVEN'}")
    return int(n < WANTED * len(mutants) or not all(mutant.survives for mutant in survivors))


if __name__ == "__main__":
    sys.exit(main())
