"""source-task and suite-to-suite: what is trained on is not what is scored, and nothing else of either counts."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

from bench.draws import _copies_of_others
from bench.errors import UserError
from bench.features.hashes import Images
from bench.protocols import Fold, find_protocol
from bench.reports import report

sys.path.append(str(Path(__file__).parent))
from test_reports import put
from test_unseen_task import tasks_called

GRID: dict[str, Any] = {"methods": ["zero-shot", "softcpt", "shared-coop"], "shots": [1], "seeds": [1]}


def write_split(tiny: Any, data: Path, task: str, **parts: list[Any]) -> None:
    """Divide a task's images as the rule does, but for the parts given."""
    rows = {**tiny.division(task), **parts}
    (data / task / f"split_zhou_{task.capitalize()}.json").write_text(json.dumps(rows))


# source-task -----------------------------------------------------------------------------------------------


def test_one_task_is_trained_on_and_every_other_one_is_scored() -> None:
    three = tasks_called("Colour", "Shade", "Stripes")
    protocol = find_protocol("source-task:shade").of(three)
    assert protocol.name == "source-task:Shade"  # as the suite writes it
    assert protocol.folds(three) == [Fold(("Shade",), ("Colour", "Stripes"))]


@pytest.mark.parametrize(
    ("name", "n_tasks", "said"),
    [
        ("source-task", 3, "source-task: write source-task:NAME"),
        ("source-task:", 3, "source-task: write source-task:NAME"),
        ("source-task:shape", 3, r"no task of this run \(--tasks names the source, too\); did you mean 'shade'"),
        ("source-task:colour", 1, "source-task:colour: needs another task, to score"),
        ("few-shot:3", 3, "'few-shot:3': write few-shot, without a colon"),
    ],
)
def test_a_source_that_cannot_be_is_refused(name: str, n_tasks: int, said: str) -> None:
    with pytest.raises(UserError, match=said):
        find_protocol(name).of(tasks_called("colour", "shade", "stripes")[:n_tasks])


def test_of_the_other_tasks_nothing_but_names_and_test_images_counts(tiny, tmp_path) -> None:
    """Without a single image to train or validate on, the scored tasks give the same cells and the same numbers."""
    data = tmp_path / "data"
    shutil.copytree(tiny.data, data)
    grid = {**GRID, "data": str(data), "protocol": "source-task:Colour"}
    tiny.run(tmp_path / "a", **grid)
    for task in ("shade", "stripes"):
        rows = tiny.division(task)
        write_split(tiny, data, task, train=[], val=[])
        for path, *_ in rows["train"] + rows["val"]:
            (data / task / path).unlink()
    tiny.run(tmp_path / "b", **grid)
    one, other = tiny.numbers(tmp_path / "a"), tiny.numbers(tmp_path / "b")
    assert len(one) == 3 and one.keys() == other.keys()  # keys are in the names
    for name in one:
        assert {**one[name], "splits": 0} == {**other[name], "splits": 0}


def test_training_on_a_task_without_training_images_is_refused(tiny, tmp_path) -> None:
    data = tmp_path / "data"
    shutil.copytree(tiny.data, data)
    write_split(tiny, data, "shade", train=[], val=[])
    with pytest.raises(UserError, match="few-shot: trains on Shade, of which there are test images alone"):
        tiny.run(tmp_path / "runs", **{**GRID, "data": str(data)})
    found = tiny.run(tmp_path / "runs", **{**GRID, "data": str(data), "methods": ["zero-shot"]})
    assert set(found["task"]) == {"Colour", "Shade", "Stripes"}


@pytest.fixture(scope="module")
def from_colour(tiny, tmp_path_factory) -> Any:
    results = tmp_path_factory.mktemp("source")
    tiny.run(results, **GRID, protocol="source-task:colour")
    return results


def test_records_of_a_source_hold_the_other_tasks_alone(tiny, from_colour) -> None:
    for record in tiny.records(from_colour).values():
        method, config = record["cell"]["method"], record["config"]
        assert record["cell"]["protocol"] == "source-task:Colour"
        assert [(row["task"], row["n_train"]) for row in record["tasks"]] == [("Shade", 0), ("Stripes", 0)]
        if method == "zero-shot":  # which knows nothing of a source
            assert config["tasks"] == ["Shade", "Stripes"] and "trained" not in config
        else:
            assert config["trained"] == ["Colour"] and config["scored"] == ["Shade", "Stripes"]
            assert set(record["under_names"]) == ({"Shade", "Stripes"} if method == "softcpt" else set())


def test_a_source_and_its_targets_share_a_table_with_zero_shot(from_colour, tmp_path) -> None:
    report(from_colour, tmp_path)
    rows = pd.read_csv(tmp_path / "unseen.csv")
    assert set(rows["task"]) == {"Shade", "Stripes"} and rows["zero-shot"].notna().all()
    text = (tmp_path / "table.md").read_text()
    assert "Trained on 1 image per class of Colour; each task scored under its own name" in text


def test_two_sources_are_two_tables(tmp_path) -> None:
    for source, scored, accuracy in (("a", "b", 60.0), ("b", "a", 40.0)):
        more = {"cell": {"protocol": f"source-task:{source}"}, "config": {"trained": [source], "scored": [scored]}}
        more["under_names"] = {scored: {"": 1.0, source: 2.0}}
        put(tmp_path / "runs", "softcpt", 4, 1, {scored: accuracy}, **more)
    report(tmp_path / "runs", tmp_path / "out")
    rows = pd.read_csv(tmp_path / "out" / "unseen.csv")
    assert rows.groupby("block")["own name"].first().sort_values().tolist() == [40, 60]


# suite-to-suite --------------------------------------------------------------------------------------------

OTHER = """\
title: Other
note: Of our own making.
defaults:
  reader: {kind: folders}
tasks:
  - {name: Shade, folder: shade, template: "{} things.", task_name: shade recognition}
  - {name: Lines, folder: stripes, template: "lines, {}.", task_name: Pattern recognition}
  - {name: Hue, folder: colour, template: "a {}.", task_name: hue recognition}
"""


def other_suite(tiny: Any, folder: Path) -> str:
    """Shade stands in the tiny suite by its name, Lines by its images, Hue by its images, too."""
    file = folder / "other.yaml"
    file.write_text(OTHER)
    return str(file)


def across(tiny: Any, folder: Path, **more: Any) -> dict[str, Any]:
    return {**GRID, "tasks": ["Stripes"], "protocol": "suite-to-suite", "target": other_suite(tiny, folder), **more}


@pytest.fixture(scope="module")
def to_other(tiny, tmp_path_factory) -> Any:
    """From Stripes alone to Shade and Hue: Lines has the images of Stripes."""
    folder = tmp_path_factory.mktemp("across")
    tiny.run(folder / "runs", **across(tiny, folder))
    return folder / "runs"


def test_one_suite_is_trained_on_and_what_only_the_other_has_is_scored(tiny, to_other) -> None:
    for record in tiny.records(to_other).values():
        config = record["config"]
        assert record["cell"]["suite"] == "tiny" and record["cell"]["protocol"] == "suite-to-suite:other"
        assert [row["task"] for row in record["tasks"]] == ["Shade", "Hue"]
        assert record["run"]["target"] == "other.yaml"  # no path of this machine
        assert record["note"] == "Of our own making."
        if record["cell"]["method"] != "zero-shot":
            assert (config["trained"], config["scored"]) == (["Stripes"], ["Shade", "Hue"])


def test_a_task_of_both_suites_is_left_out_and_told(tiny, tmp_path, capsys) -> None:
    tiny.run(tmp_path / "runs", **across(tiny, tmp_path, methods=["zero-shot"], quiet=False))
    assert "suite-to-suite:other: not scored, because tiny has the same: Lines" in capsys.readouterr().err
    with pytest.raises(UserError, match="--target other: all of its tasks are trained on"):
        tiny.run(tmp_path / "runs", **across(tiny, tmp_path, tasks=None))


@pytest.mark.parametrize(
    ("source", "target", "twice"), [("general10", "rs8", ["EuroSAT"]), ("rs8", "general10", ["EuroSAT"]),
                                    ("general10", "plant6", []), ("general10", "imagenet", [])],
)  # fmt: skip
def test_what_the_bench_s_suites_have_in_common_is_not_scored(source: str, target: str, twice: list[str]) -> None:
    from bench.datasets.spec import load_suite

    other = load_suite(target)
    protocol, left_out = find_protocol("suite-to-suite").towards(other, load_suite(source).tasks)
    assert left_out == twice and protocol.name == f"suite-to-suite:{target}"
    assert protocol.scored == {task.name for task in other.tasks} - set(twice)


def test_nothing_of_the_target_but_names_and_test_images_counts(tiny, to_other, tmp_path) -> None:
    """Its images to train and validate on are gone; the cells and their numbers are the same."""
    data = tmp_path / "data"
    shutil.copytree(tiny.data, data)
    for task in ("shade", "colour"):
        rows = tiny.division(task)
        write_split(tiny, data, task, train=[], val=[])
        name = {"shade": "Shade", "colour": "Hue"}[task]
        (data / task / f"split_zhou_{task.capitalize()}.json").rename(data / task / f"split_zhou_{name}.json")
        for path, *_ in rows["train"] + rows["val"]:
            (data / task / path).unlink()
    tiny.run(tmp_path / "runs", **across(tiny, tmp_path, data=str(data)))
    one, other = tiny.numbers(to_other), tiny.numbers(tmp_path / "runs")
    assert len(one) == 3 and one.keys() == other.keys()
    for name in one:
        assert {**one[name], "splits": 0} == {**other[name], "splits": 0}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"protocol": "suite-to-suite"}, "--protocol suite-to-suite: name the suite to test with --target"),
        ({"target": "rs8"}, "--target rs8: has no effect with --protocol few-shot; add --protocol suite-to-suite"),
        ({"protocol": "suite-to-suite", "target": "rs9"}, "--target: 'rs9' is neither a suite's name nor a suite file"),
        ({"protocol": "suite-to-suite:rs8"}, "write --protocol suite-to-suite --target rs8"),
    ],
)
def test_half_of_what_suite_to_suite_needs_is_refused(tiny, tmp_path, changes: dict[str, str], said: str) -> None:
    with pytest.raises(UserError, match=said):
        tiny.run(tmp_path, **{**GRID, **changes})


def test_an_experiment_file_names_its_target_beside_itself(tiny, tmp_path) -> None:
    from bench.config import RunConfig, load_experiment

    other_suite(tiny, tmp_path)
    file = tmp_path / "experiment.yaml"
    file.write_text("{suite: demo, protocol: suite-to-suite, target: other.yaml}")
    config = RunConfig(**load_experiment(file))
    assert config.target == str(tmp_path / "other.yaml") and config.recorded()["target"] == "other.yaml"


def test_a_task_name_and_images_that_were_trained_on_are_told(tiny, tmp_path, capsys) -> None:
    """Lines is Stripes under another name and in another folder, and is tested on what Stripes trains on."""
    data = tmp_path / "data"
    shutil.copytree(tiny.data, data)
    shutil.copytree(data / "stripes", data / "lines")
    rows = {"train": [], "val": [], "test": tiny.division("stripes")["train"]}
    (data / "lines" / "split_zhou_Lines.json").write_text(json.dumps(rows))
    more = {"data": str(data), "methods": ["shared-coop"], "quiet": False}
    asked = across(tiny, tmp_path, **more)
    (tmp_path / "other.yaml").write_text(OTHER.replace("folder: stripes", "folder: lines"))
    tiny.run(tmp_path / "runs", **asked)
    said = capsys.readouterr().err
    assert "Lines is called 'Pattern recognition', as is Stripes, which is trained on" in said
    told = "Lines: among its test images, never to be seen, are few-shot images of tasks trained on: Stripes 3"
    assert told in said  # one of each class
    (record,) = tiny.records(tmp_path / "runs").values()
    assert record["copies"] == {"Shade": 0, "Lines": 3, "Hue": 0}


def test_an_unseen_tasks_test_images_that_others_train_on_are_told_in_a_line() -> None:
    """Of new's four test images three are among a's few-shot images and one among b's; c has none, and d, which is
    never trained on beside it, does not count. A second fold of fewer tasks says nothing new."""
    few = {"a": ("1", "2", "3"), "b": ("3", "8"), "c": ("9",), "d": ("4",), "new": ("4",)}
    images = {name: Images(Path(), (), digests) for name, digests in few.items()}
    tests = {"new": Images(Path(), (), ("1", "2", "3", "4")), "d": Images(Path(), (), ("7",))}
    folds = [Fold(("b", "a", "c"), ("new", "d")), Fold(("b", "a"), ("new", "d"))]
    protocol: Any = SimpleNamespace(folds=lambda tasks: folds)
    told = list(_copies_of_others(protocol, tasks_called(*few), images, tests))
    assert told == ["new: among its test images, never to be seen, are few-shot images of tasks trained on: a 3, b 1"]
