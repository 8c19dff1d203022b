"""Cells that fail, and runs that are stopped and go on: nothing else is lost, and nothing is run twice."""

from __future__ import annotations

import inspect
import itertools
import json
import os
import pydoc
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import bench
from bench.cli import main
from bench.config import RunConfig
from bench.errors import UserError
from bench.features.encode import Encoder
from bench.methods import TaskData
from bench.methods.zero_shot import ZeroShot
from bench.plan import prepare
from bench.protocols import Part
from bench.scoring import scored

sys.path.append(str(Path(__file__).parent))
from test_harness import finished, image_of

pytestmark = pytest.mark.usefixtures("one_thread")

CountCalls = Callable[[Any, str], list[tuple[Any, ...]]]

FLAKY = """
import os
from bench.methods import Method
import torch

class Flaky(Method):
    '''Fails at two shots of seed 1 until FLAKY_WORKS is set.'''
    name = "flaky"
    fits = 0

    def fit(self, clip, tasks, seed, report):
        type(self).fits += 1
        if seed == 1 and len(tasks[0].labels) == 6 and "FLAKY_WORKS" not in os.environ:
            raise RuntimeError("the images are\\ntoo beautiful")

    def predict(self, task, features, class_names=None):
        return torch.eye(3)[torch.zeros(len(features), dtype=torch.long)]
"""


@pytest.fixture
def flaky(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A user's method outside the package, by its name on the command line."""
    folder = tmp_path / "user"
    folder.mkdir()
    (folder / "flaky_method.py").write_text(FLAKY)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.delitem(sys.modules, "flaky_method", raising=False)
    return "flaky_method:Flaky"


# ---- cells that fail -----------------------------------------------------------------------------------------


def test_failed_cell_is_recorded_the_others_go_on_and_a_rerun_retries_only_it(
    tiny: Any, flaky: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = tmp_path / "runs"
    command = [*tiny.command(runs), "--methods", f"{flaky},zero-shot"]
    assert main(command) == 1
    shown = capsys.readouterr()
    assert "failed: flaky, 2 shots, seed 1: RuntimeError: the images are" in shown.err
    assert "Traceback" not in shown.err
    states = {(r["cell"]["shots"], r["cell"]["seed"]): r for r in tiny.records(runs).values()}
    assert {cell: r["status"] for cell, r in states.items()} == {
        (0, 0): "done", (1, 1): "done", (1, 2): "done", (2, 1): "failed", (2, 2): "done",
    }  # fmt: skip
    failed = states[2, 1]
    assert failed["error"] == "RuntimeError: the images are\ntoo beautiful"
    assert {"schema", "key", "cell", "config", "finished"} <= set(failed)
    assert "flaky_method.py" in failed["traceback"]

    fits = sys.modules["flaky_method"].Flaky
    assert fits.fits == 4
    assert main(command) == 1  # fails again, alone
    assert fits.fits == 5
    monkeypatch.setenv("FLAKY_WORKS", "1")
    assert main(command) == 0
    assert fits.fits == 6
    assert {r["status"] for r in tiny.records(runs).values()} == {"done"}
    assert "failed" not in capsys.readouterr().err.splitlines()[-1:]


def test_seeds_at_once_learn_what_they_learn_alone_and_say_so(tiny: Any, tmp_path: Path) -> None:
    options = ["coop.lr=0.01"]  # the tiny suite's steep recipe would enlarge the rounding of sums
    tiny.run(tmp_path / "alone", options=options)
    tiny.run(tmp_path / "at-once", options=options, seeds_at_once=True)
    alone, together = tiny.numbers(tmp_path / "alone"), tiny.numbers(tmp_path / "at-once")
    assert alone.keys() == together.keys()
    for path, record in together.items():
        assert record.pop("trained_together", None) == ([1, 2] if "coop" in path else None)
        assert record == alone[path]
    for path in (tmp_path / "alone").rglob("*.safetensors"):
        one, other = load_file(path), load_file(tmp_path / "at-once" / path.relative_to(tmp_path / "alone"))
        for name, value in one.items():
            assert (value - other[name]).norm() < 1e-4 * value.norm()


@pytest.mark.parametrize("size", [1, 5, 64])
def test_predictions_do_not_depend_on_how_test_features_are_kept(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    class Nearest(ZeroShot):
        def predict(self, task: TaskData, features: Any, class_names: Any = None) -> Any:
            return features

    monkeypatch.setattr("bench.scoring.SCORE_CHUNK", 3)
    features = torch.randn(20, 4, generator=torch.Generator().manual_seed(0))
    rows = torch.tensor([0, 1, 2, 7, 8, 9, 10, 19])
    task = TaskData("task", "", tuple("abcd"), "{}", torch.zeros(1, 0, 4), rows[:0])
    part = Part("some", rows, torch.zeros(8, dtype=torch.long), 4)
    found = scored(Nearest(), task, features.split(size), part, torch.device("cpu"))
    assert found.predicted.tolist() == features[rows].argmax(dim=1).tolist()


def test_seeds_at_once_of_which_one_fails_are_run_one_by_one(tiny: Any, flaky: str, tmp_path: Path) -> None:
    tiny.run(tmp_path / "runs", methods=[flaky], shots=[1, 2], seeds=[1, 2], seeds_at_once=True)
    states = {Path(p).name[:11]: record["status"] for p, record in tiny.records(tmp_path / "runs").items()}
    assert states == {"1shot-seed1": "done", "1shot-seed2": "done", "2shot-seed1": "failed", "2shot-seed2": "done"}


def test_failed_cells_are_left_out_of_the_returned_table_warned_of_and_listed_with_it(
    tiny: Any, flaky: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = {**tiny.arguments, "results": tmp_path / "runs", "methods": [flaky], "shots": 2}
    with pytest.warns(UserWarning) as caught:
        table = bench.run(**arguments)
    assert [str(warning.message) for warning in caught] == [
        "1 of 2 cells failed, see .attrs['failed'] of the table: RuntimeError: the images are (1 cell)"
    ]
    assert caught[0].filename == __file__  # the caller's line
    assert set(table["seed"]) == {2}
    (failed,) = table.attrs["failed"]
    assert failed.pop("traceback").endswith("RuntimeError: the images are\ntoo beautiful\n")
    assert failed.pop("key") in {key.stem.rpartition("-")[2] for key in (tmp_path / "runs").rglob("*.json")}
    assert failed == {
        "suite": "tiny", "backbone": "tiny-clip", "method": "flaky", "protocol": "few-shot", "shots": 2, "seed": 1,
        "variant": "", "error": "RuntimeError: the images are\ntoo beautiful",
    }  # fmt: skip
    first, *trace, done = capsys.readouterr().err.splitlines()
    assert first == "failed: flaky, 2 shots, seed 1: RuntimeError: the images are (1 of 2)"
    assert trace[0].startswith('  File "')
    assert trace[-1].strip() == 'raise RuntimeError("the images are\\ntoo beautiful")'
    assert done.startswith("flaky, 2 shots, seed 2: ") and done.endswith("(2 of 2)")
    monkeypatch.setenv("FLAKY_WORKS", "1")
    assert bench.run(**arguments, quiet=True).attrs["failed"] == []
    assert capsys.readouterr().err == ""


def test_seeds_at_once_share_their_seconds(tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Read at: start, all is encoded, all is trained; then start and end of the test of each seed.
    clock = iter([100.0, 110.0, 140.0, 200.0, 201.0, 300.0, 303.0])
    monkeypatch.setattr("bench.evaluate.time", SimpleNamespace(perf_counter=lambda: next(clock)))
    table = tiny.run(tmp_path / "runs", methods="coop", shots=1, seeds=[1, 2], seeds_at_once=True)
    seconds = table.drop_duplicates("seed").set_index("seed")[["feature_seconds", "train_seconds", "test_seconds"]]
    assert seconds.loc[1].tolist() == [5.0, 15.0, 1.0]  # half of 10 and of 30
    assert seconds.loc[2].tolist() == [5.0, 15.0, 3.0]


def test_the_python_call_takes_one_of_what_may_be_several(tiny: Any, tmp_path: Path) -> None:
    table = tiny.run(tmp_path / "runs", methods="coop", tasks="Colour", shots=1, seeds=2, options="coop.epochs=1")
    assert table[["method", "task", "shots", "seed", "variant"]].to_numpy().tolist() == [
        ["coop", "Colour", 1, 2, "epochs=1"]
    ]
    table = tiny.run(tmp_path / "runs", methods="zero-shot, coop", tasks="Colour,Shade", shots="1,2", seeds=np.int64(2))
    assert set(zip(table["method"], table["task"], table["shots"], strict=True)) == {
        ("zero-shot", "Colour", 0), ("zero-shot", "Shade", 0), ("coop", "Colour", 1), ("coop", "Shade", 1),
        ("coop", "Colour", 2), ("coop", "Shade", 2),
    }  # fmt: skip


def test_the_python_call_has_its_arguments_in_its_signature() -> None:
    arguments = inspect.signature(bench.run).parameters
    assert list(arguments)[:5] == ["suite", "tasks", "methods", "shots", "seeds"]
    assert arguments["shots"].default == (1, 2, 4, 8, 16)
    assert not any(p.kind in (p.VAR_KEYWORD, p.VAR_POSITIONAL) for p in arguments.values())


def test_the_front_door_can_be_discovered() -> None:
    assert {"run", "report", "load_cell", "words", "predict", "UserError"} <= set(dir(bench))
    shown = pydoc.render_doc(bench, renderer=pydoc.plaintext)
    assert "run(suite:" in shown and "seeds_at_once" in shown and "load_cell(cell:" in shown
    with pytest.raises(AttributeError, match="no attribute 'rum'"):
        bench.rum  # noqa: B018


def test_broken_images_of_all_tasks_are_named_before_anything_is_encoded(
    own_tiny: Any, cache: Path, tmp_path: Path, count_calls: CountCalls
) -> None:
    prepare(RunConfig(results=tmp_path / "runs", quiet=True, **own_tiny.arguments))  # divides the images
    broken = [image_of(own_tiny, "train"), image_of(own_tiny, "test"), own_tiny.images("shade")[0]]
    for path in broken:
        path.write_bytes(b"not a picture")
    encoded = count_calls(Encoder, "through")
    with pytest.raises(UserError, match=r"^3 images cannot be read") as caught:
        own_tiny.run(tmp_path / "runs", shots=[6])
    lines = str(caught.value).splitlines()[1:]
    assert [line.strip().partition(":")[0] for line in lines] == ["Colour", "Shade"]
    assert str(broken[0]) in lines[0] and str(broken[1]) in lines[0] and str(broken[2]) in lines[1]
    assert not encoded and not own_tiny.records(tmp_path / "runs")


def test_damage_that_shows_only_when_images_are_encoded_is_named_whole(
    own_tiny: Any, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Images that look sound until they are decoded: the cell's error names all, and the next run does at once."""
    monkeypatch.setattr("bench.features.hashes.looks_whole", lambda data: True)
    own_tiny.run(tmp_path / "first", methods=["zero-shot"])
    broken = [own_tiny.data / "colour" / row[0] for row in own_tiny.division()["train"][::4]]
    for path in broken:
        path.write_bytes(b"not a picture")
    grid = {"methods": ["coop"], "shots": [6], "seeds": [1]}
    own_tiny.run(tmp_path / "runs", **grid)
    (record,) = own_tiny.records(tmp_path / "runs").values()
    assert record["status"] == "failed" and "\n" not in record["error"]
    assert record["error"].startswith("5 images cannot be read: ")  # of 18, each fourth
    assert all(str(path) in record["error"] for path in broken)
    with pytest.raises(UserError, match=r"^5 images cannot be read"):
        own_tiny.run(tmp_path / "runs", **grid)


def test_copies_of_few_shot_images_in_the_test_set_are_told_and_counted(
    own_tiny: Any, cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prepare(RunConfig(results=tmp_path / "runs", quiet=True, **own_tiny.arguments))
    content = own_tiny.division()
    folder = own_tiny.data / "colour"
    one, other = [row[0] for row in content["train"]][:2]
    copies = [row[0] for row in content["test"]][:3]
    for copy, original in zip(copies, [one, one, other], strict=True):
        (folder / copy).write_bytes((folder / original).read_bytes())
    capsys.readouterr()
    own_tiny.run(tmp_path / "runs", shots=[1, 6], seeds=[1])  # six are all images to train on
    said = capsys.readouterr().err
    assert said.count("warning:") == 1
    assert "warning: Colour: of the test images, 3 images have the same bytes as few-shot images: " in said
    assert f"{copies[0]} = {one}; {copies[1]} = {one}; {copies[2]} = {other}" in said
    records = own_tiny.records(tmp_path / "runs").values()
    counted = {r["cell"]["method"] + str(r["cell"]["shots"]): r["copies"] for r in records}
    assert counted["coop6"] == {"Colour": 3, "Shade": 0, "Stripes": 0}
    assert counted["zero-shot0"] == {"Colour": 0, "Shade": 0, "Stripes": 0}  # it learns from none


def test_two_methods_of_one_name_are_refused(tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "their_coop.py").write_text(
        "from bench.methods.coop import CoOp\nclass Theirs(CoOp):\n    name = 'coop'\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError, match="'coop'"):
        tiny.run(tmp_path / "runs", methods=["coop", "their_coop:Theirs"])


# ---- stopping and going on -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def uninterrupted(tiny: Any, forks: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The grid's records, and how long they take, from a run that nobody disturbs."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    start = time.perf_counter()
    assert forks.run(tiny.command(folder / "runs"), folder / "cache", folder / "output") == 0
    return {"numbers": tiny.numbers(folder / "runs"), "seconds": time.perf_counter() - start}


def go_on_until_done(
    tiny: Any, forks: Any, folder: Path, stop: Callable[[list[str]], int], expected: dict[str, Any]
) -> int:
    """Start the grid again and again, each time stopped; check after each stop; returns the number of stops."""
    runs, seen, stops = folder / "runs", {}, 0
    while stop(tiny.command(runs)) != 0:
        stops += 1
        now = finished(runs)
        assert all(json.loads(text)["status"] == "done" for text in now.values())  # whole, or not there
        assert all(now[name] == text for name, text in seen.items())  # nothing is run twice
        seen = now
        assert stops < 100
    now = finished(runs)
    assert all(now[name] == text for name, text in seen.items())
    assert tiny.numbers(runs) == expected["numbers"]
    return stops


def test_killed_before_every_new_file_a_run_ends_like_an_uninterrupted_one(
    tiny: Any, forks: Any, tmp_path: Path, uninterrupted: dict[str, Any]
) -> None:
    kill_at = itertools.cycle((2, 3, 4))  # a cell writes three files, its record last: before the fourth it is finished

    def stop(command: list[str]) -> int:
        return forks.run(command, tmp_path / "cache", tmp_path / "output", kill_at=next(kill_at))

    stops = go_on_until_done(tiny, forks, tmp_path, stop, uninterrupted)
    blocks = list((tmp_path / "cache").rglob("*.safetensors"))
    # Test sets; shards of 1 and 2 shots for two seeds, to train on and to validate on.
    assert len(blocks) == 3 + 3 * 2 * 2 + 3 * 2 * 2
    assert stops > len(blocks)
    learned = {p.with_suffix(".json") for p in (tmp_path / "runs").rglob("*.safetensors")}
    assert learned == set((tmp_path / "runs").rglob("*.json"))
    parts = list(tmp_path.rglob("*.part"))
    assert len(parts) == stops  # what the kills left behind, and nobody read


def test_killed_at_random_times_a_run_ends_like_an_uninterrupted_one(
    tiny: Any, forks: Any, tmp_path: Path, uninterrupted: dict[str, Any]
) -> None:
    rng, kills = random.Random(), [0]  # noqa: S311 - moments of kills, no secret

    def stop(command: list[str]) -> int:
        pid = forks.start(command, tmp_path / "cache", tmp_path / "output")
        if kills[0] < 6:
            kills[0] += 1
            time.sleep(rng.uniform(0, uninterrupted["seconds"]))
            os.kill(pid, signal.SIGKILL)  # not waited for yet: the id is still its own
        return forks.wait(pid)

    go_on_until_done(tiny, forks, tmp_path, stop, uninterrupted)


def test_ctrl_c_stops_cleanly_and_says_how_to_go_on(
    tiny: Any, forks: Any, tmp_path: Path, uninterrupted: dict[str, Any]
) -> None:
    runs, output = tmp_path / "runs", tmp_path / "output"
    command = tiny.command(runs, "-o", "coop.epochs=400")
    pid = forks.start(command, tmp_path / "cache", output)
    while not list(runs.rglob("zero-shot/*.json")):
        time.sleep(0.02)
    time.sleep(0.1)
    os.kill(pid, signal.SIGINT)
    assert forks.wait(pid) == 130
    text = output.read_text()
    assert "1 of 5 cells are finished" in text
    assert text.rstrip().endswith("Type the same command to go on.")
    assert "Traceback" not in text
    assert not list(tmp_path.rglob("*.part"))
    # Going on, with less to do: the finished cell is kept.
    before = finished(runs)
    assert forks.run(tiny.command(runs), tmp_path / "cache", output) == 0
    assert before.items() <= finished(runs).items()
    assert tiny.numbers(runs) == uninterrupted["numbers"]


def test_two_processes_at_once_end_with_the_same_complete_records(
    tiny: Any, forks: Any, tmp_path: Path, uninterrupted: dict[str, Any]
) -> None:
    pids = [forks.start(tiny.command(tmp_path / "runs"), tmp_path / "cache", tmp_path / f"out{i}") for i in range(2)]
    assert [forks.wait(pid) for pid in pids] == [0, 0], (tmp_path / "out0").read_text()
    assert tiny.numbers(tmp_path / "runs") == uninterrupted["numbers"]
    assert not list(tmp_path.rglob("*.part"))


def test_cell_that_another_process_finishes_meanwhile_is_not_run(
    tiny: Any, flaky: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = {"methods": [flaky], "shots": [2, 1], "seeds": [1, 2]}
    monkeypatch.setenv("FLAKY_WORKS", "1")
    tiny.run(tmp_path / "theirs", **arguments)
    module = sys.modules["flaky_method"]
    module.Flaky.fits = 0

    def fit(self: Any, *_: Any) -> None:
        module.Flaky.fits += 1
        shutil.copytree(tmp_path / "theirs", tmp_path / "ours", dirs_exist_ok=True)
        raise RuntimeError("this process fails where the other did not")

    monkeypatch.setattr(module.Flaky, "fit", fit)
    table = tiny.run(tmp_path / "ours", **arguments)
    assert module.Flaky.fits == 1
    assert len(table) == 4 * 3  # the failure has not replaced the finished record
    assert finished(tmp_path / "ours") == finished(tmp_path / "theirs")
