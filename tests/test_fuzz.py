"""Changed inputs are read or refused in a line: some of each reader here, 100 000 in `make fuzz`; and its findings."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from bench.datasets.spec import load_suite
from bench.errors import UserError
from bench.records import read_record

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))
import fuzz

QUICK = (
    "descriptions",
    "splits",
    "packed splits",
    "draws",
    "images",
    "zip archives",
    "tar archives",
    "lists and tables",
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
