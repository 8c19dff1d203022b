"""`--track`: what each tool reads back, in its own form, of records whose numbers are written here."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

import bench
from bench.cli import main
from bench.errors import UserError
from bench.records import Record
from bench.track import NEEDED, TRACKERS, track

NAME = "coop context=4 2shot seed3 abcdef01"


def record(**changes: Any) -> Record:
    cell = {
        "suite": "s",
        "backbone": "b",
        "method": "coop",
        "variant": "context=4",
        "protocol": "all",
        "shots": 2,
        "seed": 3,
    }
    row = {"task": "Pets & co", "part": "all", "accuracy": 62.5, "val_accuracy": 50.0}
    values = {
        "status": "done", "key": "abcdef0123", "cell": cell, "config": {"params": {"lr": 0.5, "words": None}},
        "finished": "2026-11-27T00:00:00+00:00", "tasks": [row], "score": 62.5,
        "curves": {"epochs": [1, 5], "loss": {"all": [2.0, 0.5]}, "accuracy": {"all": [25.0, 75.0]}},
    }  # fmt: skip
    return Record(**{**values, **changes})


def failed() -> Record:
    return record(status="failed", error="ValueError: too odd\nmore", tasks=[], score=None, curves={})


def events(folder: Path) -> Any:
    module = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator", reason="no tensorboard")
    found = module.EventAccumulator(str(folder))
    found.Reload()
    return found


def test_tensorboard_reads_back_the_loss_curve_and_the_final_accuracy(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    assert track("tensorboard", tmp_path / "runs", record()) is None
    (folder,) = (tmp_path / "runs-tensorboard").iterdir()
    found = events(folder)
    assert [(e.step, e.value) for e in found.Scalars("loss/all")] == [(1, 2.0), (5, 0.5)]
    assert [(e.step, e.value) for e in found.Scalars("accuracy/all")] == [(1, 25.0), (5, 75.0)]
    assert [e.value for e in found.Scalars("test/Pets _ co")] == [62.5]
    assert [e.value for e in found.Scalars("val/Pets _ co")] == [50.0]
    assert [e.value for e in found.Scalars("score")] == [62.5]


def test_a_cell_that_failed_and_then_finished_leaves_both_tensorboard_runs(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    assert track("tensorboard", tmp_path / "runs", failed()) is None
    (first,) = (tmp_path / "runs-tensorboard").iterdir()
    before = {file: file.read_bytes() for file in first.iterdir()}
    assert track("tensorboard", tmp_path / "runs", record()) is None
    assert {file: file.read_bytes() for file in first.iterdir()} == before
    said = events(first)
    assert said.Tensors("error/text_summary")[0].tensor_proto.string_val[0] == b"ValueError: too odd"
    assert said.Tensors("status/text_summary")[0].tensor_proto.string_val[0] == b"failed"
    found = events(first.with_name(f"{first.name} (2)"))
    assert "error/text_summary" not in found.Tags()["tensors"] and found.Scalars("score")[0].value == 62.5


def test_mlflow_reads_back_the_loss_curve_and_the_final_accuracy_and_keeps_an_earlier_run_of_the_cell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("mlflow", "sqlalchemy", "alembic"):
        pytest.importorskip(name, reason=f"{name} is not installed")
    from mlflow import MlflowClient

    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.delenv(name, raising=False)
    before = dict(os.environ)
    for tried in (failed(), record()):
        assert track("mlflow", tmp_path / "runs", tried) is None
    assert dict(os.environ) == before
    client = MlflowClient(f"sqlite:///{tmp_path}/runs-mlflow/mlflow.db")
    runs = client.search_runs([client.get_experiment_by_name("bench").experiment_id], order_by=["start_time DESC"])
    assert [run.info.status for run in runs] == ["FINISHED", "FAILED"]
    assert [run.data.tags.get("error") for run in runs] == [None, "ValueError: too odd"]
    assert {run.info.run_name for run in runs} == {NAME} and {run.data.tags["key"] for run in runs} == {"abcdef0123"}
    history = client.get_metric_history(runs[0].info.run_id, "loss/all")
    assert [(m.step, m.value) for m in history] == [(1, 2.0), (5, 0.5)]
    assert runs[0].data.metrics["test/Pets _ co"] == runs[0].data.metrics["score"] == 62.5
    assert runs[0].data.params["params.lr"] == "0.5" and runs[0].data.params["seed"] == "3"


def logged_in(file: Path) -> Iterator[bytes]:
    """The messages in an offline run's file: after 7 bytes, chunks (4 bytes checksum, 2 length, 1 kind) in blocks of
    32 KB, as LevelDB's log has them."""
    content, at, message = file.read_bytes(), 7, b""
    while at + 7 <= len(content):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
        length, kind = struct.unpack_from("<HB", content, at + 4)
        message += content[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield message
            message = b""


def test_wandb_reads_back_the_loss_curve_and_the_final_accuracy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wandb = pytest.importorskip("wandb", reason="wandb is not installed")
    from wandb.proto import wandb_internal_pb2 as proto

    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.delenv("WANDB_PROJECT", raising=False)
    assert track("wandb", tmp_path / "runs", record()) is None
    wandb.teardown()  # `run.finish()` does not wait until the file is written
    (file,) = (tmp_path / "runs-wandb").glob("wandb/offline-run-*/*.wandb")
    steps, summary, names = [], {}, []
    for data in logged_in(file):
        message = proto.Record()
        message.ParseFromString(data)
        if message.HasField("run"):
            names.append((message.run.project, message.run.display_name))
        if message.HasField("history"):
            steps.append({i.key or "/".join(i.nested_key): json.loads(i.value_json) for i in message.history.item})
        summary.update({i.key or "/".join(i.nested_key): json.loads(i.value_json) for i in message.summary.update})
    assert names[0] == ("bench", NAME)
    assert [(s["_step"], s["loss/all"], s["accuracy/all"]) for s in steps] == [(1, 2.0, 25.0), (5, 0.5, 75.0)]
    assert summary["score"] == summary["test/Pets _ co"] == 62.5


@pytest.mark.parametrize("folder", [False, True])
def test_a_missing_package_is_a_line_that_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: bool
) -> None:
    monkeypatch.setitem(NEEDED, "mlflow", ("json", "no_such_package"))
    monkeypatch.syspath_prepend(tmp_path)
    if folder:
        (tmp_path / "no_such_package").mkdir()  # `import` takes any folder for a package
    said = r"^--track mlflow: package no_such_package is missing; pip install 'prompt-bench\[mlflow\]'$"
    with pytest.raises(UserError, match=said):
        bench.run(track="mlflow")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["run", "--perturb", "2"], "--perturb 2: does not go with --track, because it trains cell by cell"),
        (["stability"], "stability: does not go with --track, because it trains cell by cell and records none"),
    ],
)
def test_commands_that_write_no_records_refuse_to_track(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    monkeypatch.setitem(NEEDED, "wandb", ())
    assert main([*arguments, "--track", "wandb"]) == 2
    assert said in capsys.readouterr().err


def test_an_unknown_tracker_is_told_with_the_known_ones() -> None:
    with pytest.raises(UserError, match="--track 'comet': one of tensorboard, mlflow, wandb"):
        bench.run(track="comet")


def test_every_cell_is_logged_once_after_its_record_and_seeds_at_once_each_their_own(
    tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(NEEDED, "wandb", ())
    logged = []

    def note(folder: Path, cell: Any, finished: datetime) -> None:
        assert folder == tmp_path / "runs-wandb"
        assert [path for path in tiny.records(tmp_path / "runs") if str(cell.about["key"]) in path]  # written before
        logged.append(cell.name)

    monkeypatch.setitem(TRACKERS, "wandb", note)
    tiny.run(tmp_path / "runs", track="wandb", seeds_at_once=True)
    keys = {r["key"][:8] for r in tiny.records(tmp_path / "runs").values()}
    assert len(logged) == 5 and {name.split()[-1] for name in logged} == keys
    tiny.run(tmp_path / "runs", track="wandb", seeds_at_once=True)
    assert len(logged) == 5


def test_a_tracker_that_fails_is_a_warning_and_the_grid_goes_on(
    tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(NEEDED, "wandb", ())

    def broken(folder: Path, cell: Any, finished: datetime) -> None:
        raise OSError("disk is full\nmore")

    monkeypatch.setitem(TRACKERS, "wandb", broken)
    table = tiny.run(tmp_path / "runs", track="wandb", methods=["zero-shot"])
    assert len(table) == 3 and not table.attrs["failed"]
    said = capsys.readouterr().err.splitlines()
    assert said == ["warning: --track wandb: not logged, its record is kept: disk is full"]


def test_nothing_of_a_tracker_is_among_the_results(tiny: Any, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="tensorboard is not installed")
    tiny.run(tmp_path / "runs", track="tensorboard", methods=["zero-shot"])
    assert {p.name for p in tmp_path.iterdir()} == {"runs", "runs-tensorboard"}
    assert not list((tmp_path / "runs").rglob("events*"))
