"""The harness: one record a cell, the same numbers from the same seed, nothing run twice, nothing lost."""

from __future__ import annotations

import gzip
import json
import os
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import bench
from bench import numerics
from bench.cli import main
from bench.config import RunConfig
from bench.methods.coop import CoOp
from bench.methods.zero_shot import ZeroShot
from bench.plan import prepare
from bench.records import Record, RecordStore, cell_key

pytestmark = pytest.mark.usefixtures("one_thread")

CountCalls = Callable[[Any, str], list[tuple[Any, ...]]]

def finished(results: Path) -> dict[str, bytes]:
    """The bytes of every record that stands under its final name."""
    return {str(p.relative_to(results)): p.read_bytes() for p in results.rglob("*.json")}


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


# ---- looking before running ----------------------------------------------------------------------------------


def test_dry_run_shows_cells_and_cache_and_runs_nothing(
    tiny: Any, cache: Path, tmp_path: Path, count_calls: CountCalls, capsys: pytest.CaptureFixture[str]
) -> None:
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
