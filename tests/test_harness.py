"""The harness: one record a cell, the same numbers from the same seed, nothing run twice, nothing lost."""

from __future__ import annotations

import gzip
import inspect
import itertools
import json
import os
import pydoc
import random
import re
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
from PIL import Image
from safetensors.torch import load_file

import bench
from bench import numerics
from bench.cli import main
from bench.config import RunConfig
from bench.errors import UserError
from bench.features.encode import Encoder
from bench.methods import TaskData
from bench.methods.coop import CoOp
from bench.methods.zero_shot import ZeroShot
from bench.plan import prepare
from bench.protocols import Part
from bench.records import Record, RecordStore, cell_key
from bench.scoring import scored

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


# ---- records -------------------------------------------------------------------------------------------------


def test_every_cell_leaves_one_record_with_all_that_is_promised(tiny: Any, cache: Path, tmp_path: Path) -> None:
    tiny.run(tmp_path / "runs", tasks=["Colour", "Shade"])
    records = tiny.records(tmp_path / "runs")
    cells = [(r["cell"]["method"], r["cell"]["shots"], r["cell"]["seed"]) for r in records.values()]
    assert sorted(cells) == [("coop", 1, 1), ("coop", 1, 2), ("coop", 2, 1), ("coop", 2, 2), ("zero-shot", 0, 0)]
    for path, r in records.items():
        assert set(r) >= {
            "schema", "status", "key", "cell", "config", "tasks", "score", "n_params", "train_seconds", "test_seconds",
            "feature_seconds", "peak_memory_mb", "device", "processor", "demo", "note", "footnote", "versions",
            "fingerprints", "finished",
        }  # fmt: skip
        cell, config = r["cell"], r["config"]
        assert (r["schema"], r["status"], r["device"], r["demo"]) == (1, "done", "cpu", False)
        assert r["key"] == cell_key(config)
        assert path.startswith(f"tiny/tiny-clip/{cell['method']}/{cell['shots']}shot-seed{cell['seed']}")
        expected = {"suite": "tiny", "backbone": "tiny-clip", "protocol": "few-shot", "variant": ""}
        assert expected.items() <= cell.items()
        assert config["tasks"] == ["Colour", "Shade"]
        assert config["pretrained"] == "tiny-clip.safetensors"
        if cell["method"] == "coop":
            assert config["params"]["epochs"] == 2  # the suite's recipe
            assert config["views"] == 2  # as many as epochs
            assert r["n_params"] == 2 * 16 * 32  # T · L · w
        else:
            assert (config["views"], r["n_params"]) == (None, 0)
        assert [(t["task"], t["metric"], t["part"]) for t in r["tasks"]] == [
            ("Colour", "overall_acc", "all"),
            ("Shade", "mean_acc", "all"),
        ]
        for t in r["tasks"]:
            assert (t["n_test"], t["n_train"], t["n_classes"]) == (12, 3 * cell["shots"], 3)
            assert 0 <= t["accuracy"] <= 100
        assert r["score"] == pytest.approx(sum(t["accuracy"] for t in r["tasks"]) / 2)
        assert min(r["train_seconds"], r["test_seconds"], r["feature_seconds"]) >= 0
        assert r["peak_memory_mb"] > 10
        assert {"python", "torch", "open_clip_torch"} <= set(r["versions"])
        assert {"weights", "data"} <= set(r["fingerprints"])
        assert str(tiny.root) not in json.dumps(r)  # no paths of this machine


def test_returned_table_has_a_row_for_each_cell_and_task(tiny: Any, tmp_path: Path) -> None:
    table = tiny.run(tmp_path / "runs")
    assert len(table) == tiny.n_cells * 3
    record = next(r for r in tiny.records(tmp_path / "runs").values() if r["cell"]["shots"] == 2)
    rows = table[table["key"] == record["key"]]
    assert dict(zip(rows["task"], rows["accuracy"], strict=True)) == {t["task"]: t["accuracy"] for t in record["tasks"]}


def test_zero_shot_has_one_cell_whatever_the_shots_and_seeds(tiny: Any, tmp_path: Path) -> None:
    table = tiny.run(tmp_path / "runs", methods=["zero-shot"], shots=[1, 2, 4], seeds=[1, 2, 3])
    assert len(table) == 3  # tasks
    assert set(zip(table["shots"], table["seed"], strict=True)) == {(0, 0)}


def test_some_of_the_tasks_in_any_case_and_the_suites_order(tiny: Any, tmp_path: Path) -> None:
    table = tiny.run(tmp_path / "runs", methods=["zero-shot"], tasks=["stripes", "colour"])
    assert list(table["task"]) == ["Colour", "Stripes"]


# ---- the same numbers ----------------------------------------------------------------------------------------


def test_same_seed_in_fresh_folders_gives_identical_records(
    tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("first", "second"):
        monkeypatch.setenv("BENCH_CACHE", str(tmp_path / name / "cache"))
        torch.manual_seed(len(name))  # the state of global generators plays no part
        random.seed(name)
        tiny.run(tmp_path / name / "runs", methods=["zero-shot", "coop", "shared-coop", "softcpt"])
    first = tiny.numbers(tmp_path / "first/runs")
    assert len(first) == 13
    assert first == tiny.numbers(tmp_path / "second/runs")


def test_seeds_and_shots_change_what_is_learned(tiny: Any, tmp_path: Path, count_calls: CountCalls) -> None:
    fits = count_calls(CoOp, "fit")
    tiny.run(tmp_path / "runs", methods=["coop"])
    learned = [method.learned["context-0"] for method, *_ in fits]
    assert len(learned) == 4
    for i, a in enumerate(learned):
        assert all(not torch.equal(a, b) for b in learned[:i])


def test_a_task_trained_alone_gives_what_it_gives_within_the_suite(
    tiny: Any, tmp_path: Path, count_calls: CountCalls
) -> None:
    fits = count_calls(CoOp, "fit")
    together = tiny.run(tmp_path / "runs", methods=["coop"], shots=[2], seeds=[1])
    alone = tiny.run(tmp_path / "runs", methods=["coop"], shots=[2], seeds=[1], tasks=["Stripes"])
    (in_suite, *_), (by_itself, *_) = fits
    torch.testing.assert_close(in_suite.learned["context-2"], by_itself.learned["context-0"], rtol=1e-4, atol=1e-5)
    assert together.set_index("task").loc["Stripes", "accuracy"] == alone["accuracy"].item()


# ---- what a cell is ------------------------------------------------------------------------------------------


def test_finished_cells_are_never_run_twice(tiny: Any, tmp_path: Path, count_calls: CountCalls) -> None:
    fits = [count_calls(CoOp, "fit"), count_calls(ZeroShot, "fit")]
    first = tiny.run(tmp_path / "runs")
    before = tiny.records(tmp_path / "runs")
    assert [len(calls) for calls in fits] == [4, 1]
    second = tiny.run(tmp_path / "runs")
    assert [len(calls) for calls in fits] == [4, 1]
    assert tiny.records(tmp_path / "runs") == before  # times too: the files were left alone
    assert first.equals(second)
    tiny.run(tmp_path / "runs", shots=[1, 2, 3])  # a larger grid runs what is new
    assert [len(calls) for calls in fits] == [6, 1]


def keys(tiny: Any, **changes: Any) -> tuple[str, str]:
    """The cells of zero-shot and of CoOp with six shots: all training images."""
    arguments = {**tiny.arguments, "shots": [6], "seeds": [1], **changes}
    zero_shot, coop = prepare(RunConfig(results="unused", quiet=True, **arguments)).cells
    return zero_shot.key, coop.key


def image_of(tiny: Any, part: str) -> Path:
    """An image of a part of the Colour task."""
    return tiny.data / "colour" / tiny.division()[part][0][0]


def repaint(path: Path) -> None:
    Image.new("RGB", (40, 36), "white").save(path)


RENAMING = "{name: Shade, reader: {kind: folders, rename: {grey: gray}},"


def in_suite(tiny: Any, old: str, new: str) -> None:
    suite = Path(tiny.suite)
    assert old in suite.read_text()
    suite.write_text(suite.read_text().replace(old, new))


def in_model(tiny: Any, part: str = "", **settings: Any) -> None:
    config = json.loads(Path(tiny.backbone).read_text())
    changed = config[part] if part else config
    changed.update(settings)
    Path(tiny.backbone).write_text(json.dumps(config))


def other_vocabulary(tiny: Any) -> None:
    with gzip.open(tiny.root / "tiny-bpe.txt.gz", "wt", encoding="utf-8") as file:
        file.write("#version: tiny\no n</w>\ne d</w>")


@pytest.mark.parametrize(
    ("change", "zero_shot_too"),
    [
        pytest.param(lambda t: {"options": ["coop.epochs=3"]}, False, id="parameter"),
        pytest.param(lambda t: {"views": 1}, False, id="views"),
        pytest.param(lambda t: repaint(image_of(t, "train")), False, id="training image"),
        pytest.param(lambda t: repaint(image_of(t, "test")), True, id="test image"),
        pytest.param(lambda t: t.model("tiny-clip", seed=1), True, id="weights"),
        pytest.param(lambda t: in_model(t, quick_gelu=True), True, id="activation"),
        pytest.param(lambda t: in_model(t, "text_cfg", heads=4), True, id="heads"),
        pytest.param(other_vocabulary, True, id="vocabulary"),
        pytest.param(lambda t: in_suite(t, "{} things.", "a {} thing."), True, id="template"),
        pytest.param(lambda t: in_suite(t, "shade recognition", "tone recognition"), True, id="task name"),
        pytest.param(lambda t: in_suite(t, "mean_acc", "overall_acc"), True, id="metric"),
        pytest.param(lambda t: in_suite(t, "{name: Shade,", RENAMING), True, id="class name"),
        pytest.param(lambda t: {"tasks": ["Colour", "Shade"]}, True, id="tasks"),
    ],
)
def test_whatever_changes_the_numbers_makes_another_cell(
    own_tiny: Any, cache: Path, change: Callable[[Any], Any], zero_shot_too: bool
) -> None:
    before = keys(own_tiny)
    changes = change(own_tiny)
    after = keys(own_tiny, **changes) if isinstance(changes, dict) else keys(own_tiny)
    assert after[1] != before[1]
    assert (after[0] != before[0]) == zero_shot_too


@pytest.mark.parametrize(("what", "other"), [("method_code", "new"), ("numerics", "2")])
def test_other_code_makes_another_cell(tiny: Any, monkeypatch: pytest.MonkeyPatch, what: str, other: str) -> None:
    before = keys(tiny)
    monkeypatch.setattr(f"bench.cells.{what}", lambda *_: other)
    after = keys(tiny)
    assert after[0] != before[0] and after[1] != before[1]


def test_cells_of_other_code_run_again_their_records_stay_and_it_is_said(
    tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = tmp_path / "runs"
    tiny.run(runs)
    before = finished(runs)
    original = numerics.method_code
    monkeypatch.setattr("bench.cells.method_code", lambda m: "new" if m.name == "coop" else original(m))
    tiny.run(runs, options=["coop.epochs=1"])  # another setting: no cell of other code
    assert capsys.readouterr().err == ""
    assert main(tiny.command(runs, "--dry-run")) == 0
    assert "4 cells of this grid finished with other code" in capsys.readouterr().out
    assert main(tiny.command(runs)) == 0
    said = capsys.readouterr().err.splitlines()
    assert said[0] == (
        "4 cells of this grid finished with other code (of the method, or of what all methods share): run again; the "
        "old records stay as they are"
    )
    assert len(said) == 1 + 4
    assert before.items() <= finished(runs).items()
    assert main(tiny.command(runs)) == 0
    assert "other code" not in capsys.readouterr().err


def test_the_order_of_options_and_a_recipe_file_make_no_other_row(tiny: Any, tmp_path: Path) -> None:
    grid = {"methods": ["coop"], "shots": [1]}
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("coop: {context: 4, epochs: 1}\n")
    tiny.run(tmp_path / "runs", **grid, seeds=[1], options=["coop.epochs=1", "coop.context=4"])
    tiny.run(tmp_path / "runs", **grid, seeds=[2], options=["coop.context=4", "coop.epochs=1"])
    table = tiny.run(tmp_path / "runs", **grid, seeds=[1, 2, 3], recipe=str(recipe))
    assert set(table["variant"]) == {"epochs=1,context=4"}
    assert {r["cell"]["variant"] for r in tiny.records(tmp_path / "runs").values()} == {"epochs=1,context=4"}
    (record, *_) = tiny.records(tmp_path / "runs").values()
    assert (record["defaults"]["epochs"], record["defaults"]["context"]) == (2, 16)  # the suite's and the method's


def test_where_the_files_stand_makes_no_other_cell(own_tiny: Any, tmp_path: Path) -> None:
    before = keys(own_tiny)
    moved = type(own_tiny)(own_tiny.root.rename(tmp_path / "moved"))
    for path in moved.images():
        os.utime(path, (1, 1))
    assert keys(moved) == before


def test_sweep_makes_one_cell_a_value_and_names_it(tiny: Any, tmp_path: Path) -> None:
    grid = {"methods": ["coop"], "shots": [1], "seeds": [1]}
    table = tiny.run(tmp_path / "runs", **grid, options=["coop.epochs=1,2", "all.context=4"])
    assert list(dict.fromkeys(table["variant"])) == ["epochs=1,context=4", "context=4"]
    assert table["key"].nunique() == 2
    # The suite's own value is the same cell as no option.
    plain = tiny.run(tmp_path / "runs", **grid)
    again = tiny.run(tmp_path / "runs", **grid, options=["coop.epochs=2"])
    assert set(plain["key"]) == set(again["key"])


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (lambda text: text[: len(text) // 2], "truncated"),
        (lambda text: "", "empty"),
        (lambda text: "[]", "not a record"),
        (lambda text: text.replace('"key": "', '"key": "0'), "another cell's"),
        (lambda text: "\udcff", "not a text"),
    ],
)
def test_damaged_record_is_run_again(
    tiny: Any, tmp_path: Path, count_calls: CountCalls, content: Callable[[str], str], why: str
) -> None:
    grid = {"methods": ["coop"], "shots": [1]}
    tiny.run(tmp_path / "runs", **grid)
    before = tiny.numbers(tmp_path / "runs")
    file = next((tmp_path / "runs").rglob("1shot-seed2*.json"))
    file.write_bytes(content(file.read_text()).encode("utf-8", "surrogateescape"))
    fits = count_calls(CoOp, "fit")
    tiny.run(tmp_path / "runs", **grid)
    assert len(fits) == 1
    assert tiny.numbers(tmp_path / "runs") == before


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


def finished(results: Path) -> dict[str, bytes]:
    """The bytes of every record that stands under its final name."""
    return {str(p.relative_to(results)): p.read_bytes() for p in results.rglob("*.json")}


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


# ---- looking before running ----------------------------------------------------------------------------------


def test_dry_run_shows_cells_and_cache_and_runs_nothing(
    tiny: Any,
    cache: Path,
    tmp_path: Path,
    count_calls: CountCalls,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "160")  # no cell of the table is wrapped
    fits, runs = count_calls(CoOp, "fit"), tmp_path / "runs"
    assert main(tiny.command(runs, "--dry-run")) == 0
    shown = capsys.readouterr().out
    assert "5 cells, 0 done, 5 to run" in shown
    assert shown.partition("Estimated")[0].count("to encode") == 5
    assert not fits
    assert not runs.exists()
    assert not list(cache.rglob("*.safetensors"))

    tiny.run(runs, shots=[1])
    assert main(tiny.command(runs, "--dry-run")) == 0
    shown = capsys.readouterr().out
    assert "5 cells, 3 done, 2 to run" in shown
    lines = {line.split()[-1]: line for line in shown.splitlines() if " coop " in line}
    assert all("cached" in line for line in lines.values())
    plan = prepare(RunConfig(results=runs, quiet=True, **tiny.arguments)).overview()
    features = {(row.shots, row.seed): row.features for row in plan.itertuples()}
    assert features == {
        (0, 0): "cached", (1, 1): "cached", (1, 2): "cached", (2, 1): "9 of 15 cached", (2, 2): "9 of 15 cached",
    }  # fmt: skip
    changed = {**tiny.arguments, "shots": [1], "options": ["coop.epochs=12"]}
    more = prepare(RunConfig(results=runs, quiet=True, **changed)).overview()
    assert list(more["features"]) == ["cached", "6 of 9 cached", "6 of 9 cached"]  # 10 of 12 views are not all


def test_plan_and_table_of_nothing_run_are_empty_but_whole(tiny: Any, tmp_path: Path) -> None:
    run = prepare(RunConfig(results=tmp_path / "runs", quiet=True, **tiny.arguments))
    assert len(run.todo()) == tiny.n_cells
    assert run.table().empty
    assert "accuracy" in run.table().columns


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"shots": [0]}, "--shots '0': 0 is less than 1"),
        ({"shots": []}, "--shots: none given"),
        ({"shots": 0}, "--shots '0': 0 is less than 1"),
        ({"shots": [1.5]}, "--shots '1.5': write whole numbers"),
        ({"shots": "1;2"}, "--shots '1;2': write whole numbers, for example 1,2,4"),
        ({"seeds": [-1]}, "--seeds '-1': -1 is less than 0"),
        ({"methods": []}, "--methods: none given"),
        ({"tasks": []}, "--tasks: none given"),
        ({"views": 0}, "--views 0: at least 1"),
        ({"methods": ["coop"], "options": ["coop.epochs=0"]}, "epochs=0: at least 1"),
        ({"device": "tpu"}, "--device 'tpu': one of auto, cpu, cuda, cuda:N (N from 0), mps"),
        ({"suite": None}, "--data without --suite"),
        ({"data": None}, "needs images: give --data ROOT"),
    ],
)
def test_python_call_refuses_what_the_command_line_refuses(
    tiny: Any, tmp_path: Path, changes: dict[str, Any], says: str
) -> None:
    with pytest.raises(bench.UserError, match=re.escape(says)):
        tiny.run(tmp_path / "runs", **changes)
    assert not (tmp_path / "runs").exists()


# ---- where records stand -------------------------------------------------------------------------------------


def test_hostile_names_stay_below_the_results(tmp_path: Path) -> None:
    store = RecordStore(tmp_path / "runs")
    cell = {"suite": "../../up", "backbone": "hf-hub:a/b", "method": "..", "protocol": "p", "shots": 1, "seed": 1}
    path = store.write(Record("failed", "0", cell, {}))
    assert path.resolve().is_relative_to((tmp_path / "runs").resolve())
    assert len(path.relative_to(tmp_path / "runs").parts) == 4
    assert store.read(cell, "0") is not None
