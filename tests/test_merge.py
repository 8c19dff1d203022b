"""Folders of records as one: nothing is lost, conflicts are named, and what records say is never a path."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import bench
from bench.cli import main
from bench.errors import UserError
from bench.packs import pack
from bench.records import Record, RecordStore, read_record

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def shards(tiny: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """a/, b/: 3 and 2 cells of a grid of 5 (zero-shot, and CoOp with 1 and 2 shots of seeds 1 and 2)."""
    folder = tmp_path_factory.mktemp("shards")
    tiny.run(folder / "a", shard="1/2")
    tiny.run(folder / "b", shard="2/2")
    return folder


@pytest.fixture
def here(shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(shards, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def files(folder: str) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in Path(folder).rglob("*") if f.is_file()}


def change(folder: str, **values: Any) -> Record:
    """The first CoOp record of a folder with other values."""
    path = min(Path(folder).rglob("coop/*.json"))
    record = replace(read_record(path), **values)
    RecordStore(Path(folder)).write(record)
    return record


def test_two_shards_become_the_whole_grid_byte_for_byte(
    tiny: Any, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["merge", "a", "b", "--into", "c"]) == 0
    assert capsys.readouterr().out == "5 cells of 2 folders in c: 5 new, 0 replaced, 0 there already\n"
    assert files("c") == {**files("a"), **files("b")}
    for suffix in (".json", ".safetensors", ".predictions.parquet"):
        assert len(list(Path("c").rglob(f"*{suffix}"))) == 5
    tiny.run(Path("c"))  # finds all of its cells there
    assert files("c") == {**files("a"), **files("b")}
    assert bench.merge(["a", "b"], "c") == {"new": 0, "replaced": 0, "there": 5}
    assert bench.merge(["b"], "a") == {"new": 2, "replaced": 0, "there": 0}
    assert files("a") == files("c")


def test_packed_records_are_merged_like_files(here: Path) -> None:
    Path("packed").mkdir()
    pack("a", "packed/a.parquet")
    assert bench.merge(["packed", "b"], "c")["new"] == 5
    records = {name: text for name, text in {**files("a"), **files("b")}.items() if name.endswith(".json")}
    assert {name: text for name, text in files("c").items() if name.endswith(".json")} == records


def test_other_numbers_of_one_cell_are_named_and_nothing_is_merged(here: Path) -> None:
    shutil.copytree("a", "other")
    tasks = [dict(row) for row in change("a").tasks]
    tasks[1]["accuracy"] = 12.5
    change("other", tasks=tasks)
    said = r"1 of 5 cells have other numbers.*: a/tiny/.*/coop/1shot-.* and other/tiny/.* \(Shade: [\d.]+ and 12.5 %\)"
    with pytest.raises(UserError, match=said + r".*--prefer DIR"):
        bench.merge(["a", "b", "other"], "c")
    assert not Path("c").exists()
    assert bench.merge(["a", "b", "other"], "c", prefer="other")["new"] == 5
    assert read_record(min(Path("c").rglob("coop/*.json"))).tasks[1]["accuracy"] == 12.5
    with pytest.raises(UserError, match=r"1 of 3 cells have other numbers.*c/tiny.* and a/tiny"):
        bench.merge(["a"], "c")  # the folder that is there already counts
    with pytest.raises(UserError, match="--prefer d: not one of the folders"):
        bench.merge(["a"], "c", prefer="d")


def test_the_same_numbers_in_other_times_are_no_conflict(here: Path) -> None:
    shutil.copytree("a", "other")
    change("other", train_seconds=99.0)
    bench.merge(["a", "other"], "c")
    assert files("c") == files("a")


def test_a_finished_record_stands_above_a_failed_one_and_a_later_failure_above_an_earlier(here: Path) -> None:
    failed = {"status": "failed", "error": "RuntimeError: early", "finished": "2026-01-01T00:00:00+00:00"}
    done = change("a")
    change("a", **failed)
    assert bench.merge(["a"], "c")["new"] == 3
    shutil.copytree("a", "later")
    change("later", **{**failed, "error": "late", "finished": "2026-01-02T00:00:00+00:00"})
    for order in (["a", "later"], ["later", "a"]):
        shutil.rmtree("c")
        bench.merge(order, "c")
        assert read_record(min(Path("c").rglob("coop/*.json"))).error == "late"
    RecordStore(Path("a")).write(done)
    assert bench.merge(["later", "a"], "c") == {"new": 0, "replaced": 1, "there": 2}
    assert files("c") == files("a")


def test_what_is_damaged_is_named_and_left_out(here: Path) -> None:
    path = min(Path("a").rglob("coop/*.json"))
    path.write_text(path.read_text()[:-40])
    with pytest.warns(UserWarning, match=rf"left out, no sound records: {path} \("):
        assert bench.merge(["a", "b"], "c")["new"] == 4


def test_a_key_that_is_a_path_leads_nowhere(here: Path) -> None:
    path = min(Path("a").rglob("coop/*.json"))
    content = {**json.loads(path.read_text()), "key": "../../../../outside"}
    content.pop("checksum", None)
    path.write_text(json.dumps(content))
    with pytest.warns(UserWarning, match=r"its key is '\.\./"):
        bench.merge(["a"], "deep/er/c")
    assert not [p for p in here.rglob("*outside*")]


def test_tables_of_stability_are_joined(here: Path) -> None:
    Path("a/stability.csv").write_text("key,end\nx,1\ny,2\n")
    Path("b/stability.csv").write_text("key,end\ny,2\nz,3\n")
    bench.merge(["a", "b"], "c")
    assert Path("c/stability.csv").read_text() == "key,end\nx,1\ny,2\nz,3\n"
    Path("b/stability.csv").write_text("key,start,end\ny,2,1\n")
    with pytest.raises(UserError, match=r"stability\.csv has other columns"):
        bench.merge(["a", "b"], "d")
    assert not Path("d").exists()


@pytest.mark.parametrize(("folder", "said"), [("nowhere", "no such folder"), ("empty", "no records in it")])
def test_a_folder_without_records_is_named(here: Path, folder: str, said: str) -> None:
    Path("empty").mkdir()
    with pytest.raises(UserError, match=f"merge {folder}: {said}"):
        bench.merge(["a", folder], "c")
    assert not Path("c").exists()
