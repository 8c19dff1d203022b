"""Many cells at once: runs that share a grid give the numbers of one process, and no cell is computed twice."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import threading
import time
import uuid
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import bench
from bench import claims, executors, workers
from bench.cells import shard_of, work_of
from bench.claims import Claims
from bench.cli import main
from bench.config import RunConfig
from bench.errors import UserError
from bench.features import ImageFeatures, View
from bench.features.encode import Encoder
from bench.plan import Plan, prepare
from bench.runner import longest_first

pytestmark = pytest.mark.usefixtures("one_thread")


# Methods of a user's own that log each training, and what else they do to a cell's life.
METHODS = '''
import os, signal, time
from pathlib import Path
from bench.methods.coop import CoOp

HERE = Path(__file__).parent

def log(what, cell):
    with open(HERE / "log.txt", "a") as file:
        file.write(f"{what} {os.getpid()} {cell}\\n")

def processes():
    return {line.split()[1] for line in (HERE / "log.txt").read_text().splitlines()}

class Logged(CoOp):
    """Cells are told by their shots and seed; there are 3 classes. A folder `killed` is the end of one training; while
    there is a folder `meet`, the first training goes on when a third process has begun one."""
    name, seconds = "logged", 0.0
    def fit(self, clip, tasks, seed, report):
        try:
            os.rmdir(HERE / "killed")
        except OSError:
            pass
        else:
            os.kill(os.getpid(), signal.SIGKILL)
        cell = f"{len(tasks[0].labels) // 3}-{seed}"
        log("begun", cell)
        until = time.monotonic() + 60
        while (HERE / "meet").exists() and len(processes()) < 3 and time.monotonic() < until:
            time.sleep(0.05)
        time.sleep(self.seconds)
        super().fit(clip, tasks, seed, report)
        log("ended", cell)

class Slow(Logged):
    name, seconds = "slow", 0.4

class Deadly(Logged):
    """Of seed 2, each training is the end of its process."""
    name = "deadly"
    def fit(self, clip, tasks, seed, report):
        if seed == 2:
            log("begun", "deadly")
            os.kill(os.getpid(), signal.SIGKILL)
        super().fit(clip, tasks, seed, report)

class Broken(Logged):
    name = "broken"
    def fit(self, clip, tasks, seed, report):
        log("begun", seed)
        raise RuntimeError("always")
'''


class User:
    """A user's folder with these methods in it."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.folder, self.log = folder, folder / "log.txt"
        # Another name for each test: workers live on, and keep the modules that they have imported.
        self.module = f"logged_{uuid.uuid4().hex[:8]}"
        (folder / f"{self.module}.py").write_text(METHODS)

    def method(self, name: str) -> str:
        """A method of the folder, as --methods takes it."""
        return f"{self.module}:{name}"

    def trained(self, what: str = "ended") -> Counter[str]:
        """How often each cell was trained, "shots-seed"."""
        lines = [line.split() for line in self.log.read_text().splitlines()]
        return Counter(cell for said, _, cell in lines if said == what)

    def processes(self) -> set[int]:
        return {int(line.split()[1]) for line in self.log.read_text().splitlines()}


@pytest.fixture
def user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> User:
    """The current folder, with methods of a user's own."""
    made = User(tmp_path / "user")
    monkeypatch.syspath_prepend(made.folder)
    monkeypatch.chdir(made.folder)
    return made


def plan_of(tiny: Any, results: Path, **changes: Any) -> Plan:
    return prepare(RunConfig(**{**tiny.arguments, **changes}, results=results, quiet=True))


# ---- runs that know nothing of each other --------------------------------------------------------------------


def test_two_runs_share_a_grid_and_no_cell_is_trained_twice(tiny: Any, user: User, own_cache: Path, forks: Any) -> None:
    runs, cells = user.folder / "runs", [f"{n}-{seed}" for n in (1, 2, 4) for seed in (1, 2)]
    command = tiny.command(runs, "--methods", user.method("Slow"), "--shots", "1,2,4", "--seeds", "1,2")
    outputs = [user.folder / "one.txt", user.folder / "other.txt"]
    started = [forks.start(command, own_cache, output) for output in outputs]
    assert [forks.wait(pid) for pid in started] == [0, 0], [output.read_text() for output in outputs]
    assert user.trained() == user.trained("begun") == dict.fromkeys(cells, 1)
    assert user.processes() == set(started)
    said = [output.read_text() for output in outputs]
    for text in said:  # each ends with the whole grid, and tells its own cells
        assert "slow" in text.partition("percent:")[2]
    assert sum(text.count(", key ") for text in said) == 6
    assert not list(runs.rglob("*.claim"))


def test_a_run_takes_over_what_a_killed_one_was_at(tiny: Any, user: User, own_cache: Path, forks: Any) -> None:
    runs = user.folder / "runs"
    command = tiny.command(runs, "--methods", user.method("Slow"), "--shots", "1,2", "--seeds", "1,2")
    outputs = [user.folder / "killed.txt", user.folder / "other.txt"]
    killed = forks.start(command, own_cache, outputs[0])
    while not user.log.exists():
        time.sleep(0.01)
    other = forks.start(command, own_cache, outputs[1])
    os.kill(killed, signal.SIGKILL)
    assert forks.wait(killed) == -9
    assert forks.wait(other) == 0, outputs[1].read_text()
    assert user.trained() == dict.fromkeys(["1-1", "1-2", "2-1", "2-2"], 1)  # to their ends
    assert [record["status"] for record in tiny.records(runs).values()] == ["done"] * 4
    assert not list(runs.rglob("*.claim"))


def test_what_another_run_computes_is_shown(tiny: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = plan_of(tiny, tmp_path)
    with Claims().taking([plan.claim(plan.cells[0])]):
        assert main(tiny.command(tmp_path, "--dry-run")) == 0
    shown = capsys.readouterr().out
    assert shown.count(f"running, process {os.getpid()} on ") == 1
    assert "5 cells, 0 done, 5 to run" in shown


# ---- failed cells --------------------------------------------------------------------------------------------


def test_failed_cells_run_again_unless_they_are_to_be_left(tiny: Any, user: User) -> None:
    grid: dict[str, Any] = {"methods": [user.method("Broken")], "shots": 1}
    for retry, times in ((True, 1), (False, 1), (True, 2)):
        with pytest.warns(UserWarning, match=r"2 of 2 cells failed.*RuntimeError: always \(2 cells\)"):
            table = tiny.run(Path("runs"), **grid, retry_failed=retry)
        assert user.trained("begun") == {"1": times, "2": times}
        assert len(table.attrs["failed"]) == 2  # those that are left are told, too


def test_the_command_says_which_failed_cells_it_leaves(
    tiny: Any, user: User, capsys: pytest.CaptureFixture[str]
) -> None:
    command = tiny.command(Path("runs"), "--methods", user.method("Broken"), "zero-shot", "--shots", "1")
    assert main(command) == 1
    assert main([*command, "--no-retry-failed"]) == 1
    assert "2 cells failed before and stay as they are (--no-retry-failed)" in capsys.readouterr().err
    assert main([*command, "--no-retry-failed", "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert shown.count("failed, left as it is") == 2
    assert "3 cells, 1 done, 0 to run, 2 left as they are" in shown
    assert user.trained("begun") == {"1": 1, "2": 1}
    assert main([*command, "--retry-failed"]) == 1
    assert user.trained("begun") == {"1": 2, "2": 2}


def test_a_cell_that_failed_in_another_run_meanwhile_is_not_run_again(tiny: Any, user: User) -> None:
    grid = {"methods": [user.method("Broken")]}
    plan = plan_of(tiny, Path("runs"), **grid)
    before = plan.failed_before()
    with pytest.warns(UserWarning, match="4 of 4"):
        tiny.run(Path("runs"), **grid)
    assert [plan.is_open(cell, before) for cell in plan.cells] == [False] * 4
    assert [plan.is_open(cell, plan.failed_before()) for cell in plan.cells] == [True] * 4


# ---- workers of this machine ---------------------------------------------------------------------------------


def learned(results: Path) -> dict[str, dict[str, Any]]:
    files = sorted(results.rglob("*.safetensors"))
    return {file.name: {name: value.tolist() for name, value in load_file(file).items()} for file in files}


def test_two_workers_give_what_one_process_gives(
    tiny: Any, user: User, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Scores and all that was learned, to the last bit; by relative paths, with a plug-in and failing cells."""
    grid = {"methods": ["zero-shot", "softcpt", "linear-probe", user.method("Logged"), user.method("Broken")]}
    tables = []
    with pytest.warns(UserWarning, match=r"4 of 17 cells failed.*RuntimeError: always \(4 cells\)"):
        tables.append(tiny.run(Path("serial"), **grid))
    shutil.rmtree(cache)
    with pytest.warns(UserWarning, match=r"4 of 17 cells failed.*RuntimeError: always \(4 cells\)"):
        (user.folder / "meet").mkdir()  # so that neither worker does all the work, however busy the machine is
        tables.append(bench.run(results="parallel", jobs=2, **{**tiny.arguments, **grid}))
    assert tiny.numbers(Path("parallel")) == tiny.numbers(Path("serial"))
    assert learned(Path("parallel")) == learned(Path("serial"))
    assert len(learned(Path("parallel"))) == 13  # zero-shot, and three methods of four cells
    exact = ["method", "shots", "seed", "task", "accuracy"]
    assert tables[1][exact].equals(tables[0][exact])
    assert user.trained() == dict.fromkeys(["1-1", "1-2", "2-1", "2-2"], 2)
    assert os.getpid() in user.processes() and len(user.processes()) == 3
    assert not list(Path("parallel").rglob("*.claim"))
    said = capsys.readouterr().err.splitlines()  # no terminal: a line a finished cell
    told = re.compile(r"logged, [12] shots?, seed [12]: \d+\.\d % in .*, key \w{6}.* \(\d+ of 17\)$")
    assert sum(told.match(line) is not None for line in said) == 4
    assert sum("failed: broken" in line for line in said) == 4
    # Features are encoded once, before any training: no block is newer than the first of the workers' trainings.
    begun = min(path.stat().st_mtime for path in Path("parallel").rglob("*.json"))
    blocks = list(cache.rglob("*.safetensors"))
    assert blocks and all(block.stat().st_mtime <= begun for block in blocks)


def test_a_cell_that_kills_its_workers_fails_and_the_others_do_not(
    tiny: Any, user: User, capsys: pytest.CaptureFixture[str]
) -> None:
    grid = {"methods": [user.method("Deadly")], "shots": 1, "seeds": [1, 2, 3]}
    with pytest.warns(UserWarning, match=r"1 of 3 cells failed.*its worker died 2 times"):
        table = bench.run(results="runs", jobs=2, **{**tiny.arguments, **grid})
    assert set(table["seed"]) == {1, 3}
    assert [cell["seed"] for cell in table.attrs["failed"]] == [2]
    assert capsys.readouterr().err.count("a worker died") == 2
    assert user.trained("begun")["deadly"] == 2
    assert user.trained() == {"1-1": 1, "1-3": 1}
    assert not list(Path("runs").rglob("*.claim"))


def test_fail_fast_ends_the_workers(tiny: Any, user: User) -> None:
    methods = [user.method("Broken"), user.method("Slow")]
    with pytest.raises(bench.CellFailed, match="always"):
        tiny.run(Path("runs"), methods=methods, jobs=2, fail_fast=True)
    assert not [claim for claim in Path("runs").rglob("*.claim") if not Claims().is_free(claim)]
    assert len(tiny.records(Path("runs"))) < 8


def test_the_longest_cells_are_first_as_finished_ones_of_their_method_tell(tiny: Any, tmp_path: Path) -> None:
    grid: dict[str, Any] = {"methods": ["coop", "softcpt"], "seeds": [1]}
    plan = plan_of(tiny, tmp_path, **grid, shots=[1, 2, 4])
    order = named([cell for (cell,) in longest_first(plan, [[cell] for cell in plan.cells])])
    assert [shots for _, shots, _ in order] == [4, 4, 2, 2, 1, 1]
    tiny.run(tmp_path, **grid, shots=[1])
    for record in plan.records():  # softcpt is said to take ten times as long
        seconds = {"coop": 1.0, "softcpt": 10.0}[record.cell["method"]]
        plan.store.write(replace(record, train_seconds=seconds))
    order = named([cell for (cell,) in longest_first(plan, [[cell] for cell in plan.cells])])
    assert order == [("softcpt", n, 1) for n in (4, 2, 1)] + [("coop", n, 1) for n in (4, 2, 1)]


def test_a_search_is_as_long_as_all_its_trainings(tiny: Any, tmp_path: Path) -> None:
    """RLA's search trains 49 settings: an epoch on 1 image a class counts as 49, CoOp's two on 4 as 8."""
    options = ["coop.epochs=2", "rla.epochs=1", "rla.search=val"]
    plan = plan_of(tiny, tmp_path, methods=["coop", "rla"], shots=[1, 4], seeds=[1], options=options)
    assert [work_of(cell) for cell in plan.cells] == [2, 49, 8, 196]
    order = named([cell for (cell,) in longest_first(plan, [[cell] for cell in plan.cells])])
    assert order == [("rla", 4, 1), ("rla", 1, 1), ("coop", 4, 1), ("coop", 1, 1)]


def test_each_worker_takes_a_gpu_of_its_own(tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With names of pretended GPUs, and a process that has each: what another holds is not taken."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    plan = plan_of(tiny, tmp_path, jobs=3, cells_per_gpu=2)
    plan.backbone = SimpleNamespace(device=torch.device("cuda"))  # type: ignore[assignment]
    gpus = executors._gpus(plan)
    assert gpus == ("3", "5", "3", "5")
    setup = workers.Setup.of(plan, contextlib.nullcontext, 1, gpus)
    taken = []
    for _ in range(5):
        monkeypatch.setattr(workers, "_slots", [])
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
        workers._take_gpu(setup)
        taken.append((os.environ.get("CUDA_VISIBLE_DEVICES"), *workers._slots))
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert [gpu for gpu, *_ in taken] == ["3", "5", "3", "5", None]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    with pytest.raises(UserError, match=r"--jobs 5: 2 GPUs with 2 cells each; add --cells-per-gpu 3, or --device cpu"):
        executors.Loky(SimpleNamespace(config=replace(plan.config, jobs=5), backbone=plan.backbone), None)  # type: ignore[arg-type]


def test_workers_that_see_other_data_are_refused(tiny: Any, tmp_path: Path) -> None:
    plan = plan_of(tiny, tmp_path)
    assert workers._cells(plan, [plan.cells[2].key]) == [plan.cells[2]]
    with pytest.raises(UserError, match="plans other cells than this run: its data, its code"):
        workers._cells(plan, ["0" * 24])


def test_what_two_encode_at_the_same_time_is_encoded_once(
    tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As jobs of an array do, which all begin with the same test images."""
    plan, views, encoded, found = plan_of(tiny, tmp_path), View(1, 0, 2), [], []
    original = Encoder.features

    def slowly(self: Encoder, blocks: Any, *args: Any) -> Any:
        for block, features in original(self, blocks, *args):
            encoded.append(len(block.paths))
            time.sleep(0.3)
            yield block, features

    monkeypatch.setattr(Encoder, "features", slowly)
    monkeypatch.setattr(claims, "POLL", 0.05)
    images, both = plan.images.tests["Colour"], [ImageFeatures(plan.backbone, tmp_path / "cache") for _ in range(2)]
    threads = [threading.Thread(target=lambda f=f: found.append(f.get(images, views))) for f in both]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert encoded == [12]  # 3 classes of 4 images
    assert found[0].shape == (2, 12, 16) and torch.equal(found[0], found[1])
    assert not list((tmp_path / "cache").rglob("*.claim"))


# ---- shards --------------------------------------------------------------------------------------------------


def named(cells: Sequence[Any]) -> list[tuple[str, int, int]]:
    return [(cell.name["method"], cell.shots, cell.seed) for cell in cells]


@pytest.mark.parametrize("together", [False, True])
def test_shards_divide_a_grid_into_parts_of_about_equal_work(tiny: Any, tmp_path: Path, together: bool) -> None:
    grid: dict[str, Any] = {"methods": ["zero-shot", "coop", "softcpt"], "shots": [1, 2, 4], "seeds": [1, 2, 3, 4]}
    whole = plan_of(tiny, tmp_path, **grid, seeds_at_once=together).cells
    assert len(whole) == 25
    shards = [shard_of(whole, f"{k}/3", together) for k in (1, 2, 3)]
    assert sorted(cell.key for shard in shards for cell in shard) == sorted(cell.key for cell in whole)
    for method in ("coop", "softcpt"):  # each: 4 seeds of 1, 2 and 4 shots for 2 epochs
        work = [sum(work_of(cell) for cell in shard if cell.name["method"] == method) for shard in shards]
        assert sum(work) == 4 * (1 + 2 + 4) * 2
        assert max(work) - min(work) <= 4 * 2 * (4 if together else 1)  # the longest that is trained together
    if together:  # seeds of a setting stay with each other
        for shard in shards:
            assert all(n == 4 for (_, shots), n in Counter(c[:2] for c in named(shard)).items() if shots)


def test_shards_run_their_cells_alone_and_make_the_grid_together(tiny: Any, tmp_path: Path) -> None:
    tiny.run(tmp_path / "whole")
    for k, there in ((1, 3), (2, 5)):
        tiny.run(tmp_path / "parts", shard=f"{k}/2")
        assert len(tiny.records(tmp_path / "parts")) == there
    assert tiny.numbers(tmp_path / "parts") == tiny.numbers(tmp_path / "whole")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"shard": "0/4"}, "--shard '0/4': write K/N, such as 1/4"),
        ({"shard": "5/4"}, "--shard '5/4': write K/N"),
        ({"jobs": 0}, "--jobs 0: at least 1"),
        ({"backend": "slurm"}, "--backend 'slurm': one of loky, ray, dask"),
        ({"address": "tcp://x:1"}, "--address tcp://x:1: of a cluster; add --backend ray or --backend dask"),
        ({"cells_per_gpu": 0}, "--cells-per-gpu 0: at least 1"),
        ({"cells_per_gpu": 2}, "--cells-per-gpu 2: one cell runs at a time; add --jobs N"),
        (
            {"cells_per_gpu": 2, "backend": "dask", "address": "tcp://x:1"},
            "--cells-per-gpu 2: Dask does not divide a cluster's GPUs; leave it out",
        ),
        ({"shard": "half"}, "--shard 'half': write K/N"),
        ({"shard": "²/4"}, "--shard '²/4': write K/N"),
    ],
)
def test_settings_that_no_run_can_have_are_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError) as caught:
        RunConfig(**settings)
    assert str(caught.value).startswith(said)
