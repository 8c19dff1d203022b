"""One record: what is written is what is read; what is not sound is refused; old records stay readable."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from bench.packs import packed
from bench.records import COLUMNS, FAILED, Record, RecordStore, read_record
from bench.reports.config import ReportConfig
from bench.reports.records import load

PHOTOGRAPHS = Path(__file__).parents[1] / "results" / "photographs"
COMMITTED = PHOTOGRAPHS / "records" / "pack.parquet"

CELL = {"suite": "s", "backbone": "b", "method": "coop", "protocol": "few-shot", "shots": 1, "seed": 2, "variant": ""}
TASKS = [
    {"task": t, "part": "all", "metric": "overall_acc", "accuracy": a, "n_test": 8, "n_train": 2, "n_classes": 2}
    for t, a in (("Colour", 50.0), ("Shade", 62.5))
]
DONE = Record(
    "done", "k", CELL, {"params": {"epochs": 3}, "views": 3, "pretrained": "/home/me/clip.safetensors"},
    tasks=TASKS, score=56.25, n_params=7, trained_together=[1, 2], device="cpu", processor="Chip",
)  # fmt: skip


BROKEN = Record("failed", "k", CELL, {}, error="no")


@pytest.mark.parametrize("record", [DONE, replace(DONE, trained_together=None), BROKEN])
def test_a_record_that_is_written_is_read_as_it_was(record: Record, tmp_path: Path) -> None:
    store = RecordStore(tmp_path)
    path = store.write(record)
    assert store.read(CELL, "k") == record == read_record(path)
    written = json.loads(path.read_text())
    assert written["schema"] == 1
    assert written.get("trained_together") == record.trained_together
    if not record.done:
        assert set(written) == {"schema", *FAILED, "checksum"}


def test_every_committed_record_is_read(recwarn: pytest.WarningsRecorder) -> None:
    contents = [json.loads(text) for _, text in packed(COMMITTED)]
    assert len(contents) == 435
    for content in contents:
        record = Record.from_json(content)
        again = record.to_json()
        assert {name: again[name] for name in content if name != "draws"} == {
            name: value for name, value in content.items() if name != "draws"
        }
        assert record.draws == content.get("draws")
        assert Record.from_json(again) == record


def test_the_committed_table_comes_out_of_the_committed_records_byte_for_byte() -> None:
    written = (PHOTOGRAPHS / "records.csv").read_bytes()
    rows = load(ReportConfig(PHOTOGRAPHS / "records")).rows[COLUMNS]
    assert rows.to_csv(index=False).encode() == written


def test_a_record_s_rows_are_its_tasks() -> None:
    rows = pd.DataFrame(DONE.rows())[COLUMNS]
    assert rows[["task", "accuracy", "params", "epochs", "views", "device"]].values.tolist() == [
        ["Colour", 50.0, 7, 3, 3, "Chip"],
        ["Shade", 62.5, 7, 3, 3, "Chip"],
    ]
    assert set(rows["pretrained"]) == {"clip.safetensors"}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"schema": 2}, "schema 2, expected 1"),
        ({"key": None}, "'key' is missing"),
        ({"status": "maybe"}, "status 'maybe'"),
        ({"cell": []}, r"cell is \[\]"),
        ({"cell": {**CELL, "shots": "many"}}, "shots is 'many'"),
        ({"cell": {"suite": "s"}}, "its cell has no 'backbone'"),
        ({"tasks": []}, "no tasks"),
        ({"tasks": [{**TASKS[0], "accuracy": 101}]}, "accuracy 101 of task 'Colour' is no percentage"),
        ({"tasks": [{**TASKS[0], "accuracy": float("nan")}]}, "accuracy nan of task 'Colour' is no percentage"),
        ({"tasks": [{**TASKS[0], "accuracy": True}]}, "accuracy is True"),
        ({"tasks": [TASKS[0], TASKS[0]]}, "2 for 1 tasks"),
        ({"tasks": [{**TASKS[0], "part": "base"}]}, r"parts are \['base'\]"),
        ({"n_params": 1.5}, "n_params is 1.5"),
    ],
)
def test_what_is_no_sound_record_is_refused_with_the_reason(changes: dict[str, Any], said: str, tmp_path: Path) -> None:
    content = {**DONE.to_json(), **changes}
    with pytest.raises(ValueError, match=said):
        Record.from_json(content)
    store = RecordStore(tmp_path)
    store.write(DONE).write_text(json.dumps(content))
    assert store.read(CELL, "k") is None  # so the cell runs again


def test_no_flipped_bit_in_a_record_goes_unnoticed(tmp_path: Path) -> None:
    """Every bit of the file: it is refused, or says what it said before (a blank, or a letter of "checksum")."""
    path = RecordStore(tmp_path).write(DONE)
    whole = path.read_bytes()
    assert b'"score": 56.25' in whole
    refused = 0
    for bit in range(8 * len(whole)):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        try:
            assert read_record(path) == DONE, bit
        except ValueError:
            refused += 1
    assert refused > 7 * len(whole)


def test_what_is_no_text_is_replaced_and_the_record_read(tmp_path: Path) -> None:
    """The name of a folder of draws may be none, on Linux."""
    path = RecordStore(tmp_path).write(replace(DONE, draws="dr\udce4ws", title="Süß"))
    assert read_record(path) == replace(DONE, draws="dr?ws", title="Süß")


def test_records_of_versions_without_checksums_are_read(tmp_path: Path) -> None:
    content = DONE.to_json()
    del content["checksum"]
    assert Record.from_json(content) == DONE
    with pytest.raises(ValueError, match="damaged: its checksum does not fit; who edits a record by hand takes its"):
        Record.from_json({**DONE.to_json(), "score": 56.5})


def test_what_could_not_be_read_again_is_not_made() -> None:
    with pytest.raises(ValueError, match=r"n_params is 1\.5"):
        replace(DONE, n_params=1.5)  # type: ignore[arg-type]
