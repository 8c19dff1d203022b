"""Changed inputs are read or refused in a line: some of each reader here, 100 000 in `make fuzz`; and its findings."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import bench
from bench.claims import Claims, _host
from bench.config import RunConfig
from bench.datasets.spec import load_suite
from bench.datasets.splitfiles import read_split
from bench.errors import UserError
from bench.records import read_record

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))
import fuzz

QUICK = (
    "packed records",
    "MATLAB lists",
    "descriptions",
    "splits",
    "packed splits",
    "draws",
    "images",
    "zip archives",
    "tar archives",
    "lists and tables",
    "taxa",
)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("name", QUICK)
def test_changed_inputs_are_read_or_refused(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    reader = fuzz.made(name, tmp_path / "world")
    said = [fuzz.try_input(reader, fuzz.make_input(reader, name, number, seed=1), None) for number in range(40)]
    assert set(said) <= {"read", "refused"} and "refused" in said


def test_the_rule_is_seen_to_be_broken(tmp_path: Path) -> None:
    class Breaks:
        file = tmp_path / "x"
        refuses = (UserError,)

        def read(self) -> Any:
            return {}["missing"]

    assert fuzz.try_input(Breaks(), b"", None).startswith("KeyError: 'missing'")


@pytest.mark.parametrize("text", ["[" * 100_000, "{a: " * 100_000, "tasks: " + "[" * 101 + "]" * 101, "- " * 100_000])
def test_a_suite_file_nested_too_deeply_is_refused_at_once(text: str, tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text(text)
    start = time.process_time()
    with pytest.raises(UserError, match=r"x\.yaml: (not YAML .*more than 100 brackets|cannot be read)"):
        load_suite(str(tmp_path / "x.yaml"))
    assert time.process_time() - start < 5


@pytest.mark.parametrize("option", ["strip", "exclude", "rename", "parts", "images"])
def test_an_option_of_a_reader_that_is_null_is_not_given(option: str, tmp_path: Path) -> None:
    task = {"name": "A", "task_name": "x", "template": "{}", "reader": {"kind": "folders", option: None}}
    (tmp_path / "suite.yaml").write_text(json.dumps({"tasks": [task]}))
    assert load_suite(str(tmp_path / "suite.yaml")).tasks[0].reader == {"kind": "folders"}


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000])
def test_a_record_nested_too_deeply_is_no_record(text: str, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(ValueError, match="nested too deeply"):
        read_record(tmp_path / "x.json")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"tasks": [7]}, "a row of the tasks is 7"),
        ({"tasks": [{"task": "a", "part": {}, "accuracy": 1.0}]}, "part is {}"),
        ({"config": {"params": "text"}}, "params is 'text'"),
        ({"fingerprints": {"weights": []}}, "weights is \\[\\]"),
        ({"splits": {"a": 7}}, "a is 7"),
        ({"config": {"fold": "1 of 2"}}, "tasks is None"),
    ],
)
def test_a_record_with_parts_of_another_kind_is_no_record(changes: dict[str, Any], says: str, tmp_path: Path) -> None:
    cell = {"suite": "s", "backbone": "b", "method": "m", "protocol": "few-shot", "shots": 1, "seed": 1}
    record = {"schema": 1, "status": "done", "key": "k", "cell": cell, "config": {}, **changes}
    (tmp_path / "x.json").write_text(json.dumps(record))
    with pytest.raises(ValueError, match=says):
        read_record(tmp_path / "x.json")


def test_a_task_s_name_too_long_for_a_file_is_refused(tmp_path: Path) -> None:
    task = {"name": "a" * 201, "folder": "x", "template": "{}", "task_name": "y", "reader": {"kind": "folders"}}
    (tmp_path / "suite.yaml").write_text(json.dumps({"tasks": [task]}))
    with pytest.raises(UserError, match="at most 200 bytes"):
        load_suite(str(tmp_path / "suite.yaml"))


# ---- half a surrogate pair --------------------------------------------------------------------------------------

NO_TEXT = "half a surrogate pair"


def with_half(tmp_path: Path, name: str, content: Any) -> Path:
    file = tmp_path / name
    file.write_text(json.dumps(content))  # JSON is YAML, too
    return file


def test_a_record_with_half_a_surrogate_pair_is_left_out_of_the_report(tiny: Any, tmp_path: Path) -> None:
    tiny.run(tmp_path / "runs", methods=["zero-shot"])
    (file,) = (tmp_path / "runs").rglob("*.json")
    record = json.loads(file.read_text())
    record["tasks"][0]["task"] = "\ud800"
    with_half(file.parent, "odd.json", record)
    with pytest.warns(UserWarning, match=rf"odd\.json is not a readable record and is left out .*{NO_TEXT}"):
        table = bench.report(str(tmp_path / "runs"), str(tmp_path / "report"), format=["csv", "parquet"])
    assert len(table) == 3  # the sound record's tasks


@pytest.mark.parametrize(
    "change", [{"title": "\ud800"}, {"tasks": [{"name": "A", "task_name": "\udc80", "template": "{}"}]}]
)
def test_a_suite_file_with_half_a_surrogate_pair_is_refused(change: dict[str, Any], tmp_path: Path) -> None:
    task = {"name": "A", "task_name": "x", "template": "{}"}
    with pytest.raises(UserError, match=rf"suite\.yaml: not YAML .*{NO_TEXT}"):
        load_suite(str(with_half(tmp_path, "suite.yaml", {"tasks": [task], **change})))


def test_a_whole_surrogate_pair_in_a_suite_file_is_a_character(tmp_path: Path) -> None:
    file = with_half(
        tmp_path, "suite.yaml", {"title": "\U0001f426", "tasks": [{"name": "A", "task_name": "x", "template": "{}"}]}
    )
    assert "\\ud83d\\udc26" in file.read_text() and load_suite(str(file)).title == "\U0001f426"


def test_descriptions_with_half_a_surrogate_pair_are_refused(tmp_path: Path) -> None:
    with_half(tmp_path, "words.json", {"dark": ["a \ud800 one"]})
    task = {"name": "A", "task_name": "x", "template": "{}", "descriptions": "words.json"}
    with pytest.raises(UserError, match=rf"words\.json: 'a \\ud800 one' holds {NO_TEXT}"):
        load_suite(str(with_half(tmp_path, "suite.yaml", {"tasks": [task]})))


@pytest.mark.parametrize("form", ["coop", "authors"])
def test_a_class_name_of_a_split_file_with_half_a_surrogate_pair_is_refused(form: str, tmp_path: Path) -> None:
    coop = {part: [[f"{part}.jpg", 0, "\ud800"]] for part in ("train", "val", "test")}
    authors = {"meta": {"taskid2cname": [["\ud800"]]}, **{part: [[f"{part}.jpg", [0], [0]]] for part in coop}}
    says = {"coop": "is not text", "authors": "a list of class names"}[form]
    with pytest.raises(UserError, match=says):
        read_split(with_half(tmp_path, "split.json", {"coop": coop, "authors": authors}[form]), tmp_path)


@pytest.mark.parametrize(
    "setting",
    [
        {"methods": ["\ud800"]},
        {"options": ["coop.words=\ud800"]},
        {"options": {"coop.words": "\udcff"}},
        {"suite": "x/\udcff.yaml"},
    ],
)
def test_an_option_that_no_record_could_hold_is_refused(setting: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=rf"^--?\w.*{NO_TEXT}"):
        RunConfig(**setting)
    RunConfig(data="x/\udcff", results="\udcff")  # folders are never recorded


@pytest.mark.parametrize("content", ["[" * 100_000, '{"host": 1, "pid": Infinity, "started": "1"}', "\udcff", "7", ""])
def test_a_claim_that_says_nothing_sound_is_somebody_s_until_its_lease_ends(content: str, tmp_path: Path) -> None:
    file = tmp_path / "cell.claim"
    file.write_bytes(content.encode("utf-8", "surrogateescape"))
    claims = Claims()
    assert not claims.is_free(file) and claims.owner(file).startswith("process ")
    monkey = json.dumps({"host": _host(), "pid": float("inf"), "started": "1"})
    file.write_text(monkey)  # of this host, of no process
    assert claims.is_free(file)
