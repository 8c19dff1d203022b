"""A pack gives back the records byte for byte, and the same report; a damaged or foreign file is named."""

from __future__ import annotations

import re
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import bench
from bench import packs
from bench.cli import main
from bench.errors import UserError
from bench.packs import SCHEMA, left_behind, pack, unpack
from bench.predictions import SUFFIX, PartPredictions, write
from bench.records import Record, RecordStore
from bench.reports import report
from bench.reports.calibration import predictions_of
from bench.reports.config import ReportConfig
from bench.reports.records import load
from bench.saved import find_record


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    for seed, accuracy in ((1, 50.0), (2, 62.5)):
        cell = {"suite": "s", "backbone": "b", "method": "coop", "protocol": "few-shot", "shots": 1, "seed": seed}
        task = {"task": "Colour", "part": "all", "metric": "overall_acc", "accuracy": accuracy}
        RecordStore(tmp_path / "runs").write(Record("done", f"k{seed}", cell, {}, tasks=[task], title="Süß"))
    return tmp_path / "runs"


def test_unpack_gives_the_records_back_byte_for_byte(runs: Path, tmp_path: Path) -> None:
    file, again = tmp_path / "p.parquet", tmp_path / "again"
    (runs / "s" / "odd.json").write_bytes(b'{"a":\r\n 1}\xff')
    assert main(["records", "pack", str(runs), "--out", str(file)]) == 0
    assert main(["records", "unpack", str(file), "--out", str(again)]) == 0
    before, after = ({p.relative_to(d): p.read_bytes() for p in d.rglob("*.json")} for d in (runs, again))
    assert len(before) == 3
    assert after == before


def test_a_report_from_a_pack_is_the_report_from_the_records(runs: Path, tmp_path: Path) -> None:
    folder = tmp_path / "packed"
    assert pack(runs, folder / "p.parquet") == 2
    for source, out in ((runs, "a"), (folder, "b")):
        report(source, tmp_path / out, format=["md", "csv"])
    for name in ("table.md", "table.csv", "records.csv"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert "56.2" in (tmp_path / "b" / "table.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["two words", "a\\b", "con", "a:b"])
def test_a_path_that_a_pack_cannot_hold_is_refused_not_lost(name: str, runs: Path, tmp_path: Path) -> None:
    odd = runs / name / "record.json"
    odd.parent.mkdir()
    odd.write_bytes(next(runs.rglob("*.json")).read_bytes())
    with pytest.raises(UserError, match=rf"no pack can hold {re.escape(repr(f'{name}/record.json'))}.*rename it"):
        pack(runs, tmp_path / "p.parquet")
    assert not (tmp_path / "p.parquet").exists()


def test_what_stays_behind_is_said(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("1shot-seed1-k1.safetensors", "1shot-seed1-k1.predictions.parquet", "1shot-seed2-k2.safetensors"):
        (runs / "s" / name).touch()
    (runs / "stability.csv").touch()
    assert main(["records", "pack", str(runs), "--out", str(tmp_path / "p.parquet")]) == 0
    said = "2 .safetensors, 1 .predictions.parquet, 1 stability.csv. Keep them beside it"
    assert said in capsys.readouterr().out
    assert left_behind(tmp_path / "empty") == {}


@pytest.fixture
def packed(runs: Path, tmp_path: Path) -> Path:
    """The pack alone, with the predictions of seed 2 where its record was."""
    folder = tmp_path / "packed"
    pack(runs, folder / "p.parquet")
    rows = {"image": [0], "label": [1], "predicted": [1], "margin": [0.5], "confidence": [0.75]}
    part = PartPredictions("Colour", "all", "overall_acc", ["x", "y"], "i", {k: np.array(v) for k, v in rows.items()})
    write(folder / "s" / "b" / "coop" / f"1shot-seed2-k2{SUFFIX}", "k2", [part])
    return folder


def test_the_record_of_a_packed_cell_is_found_by_its_key(packed: Path, runs: Path) -> None:
    assert find_record("k2", packed).tasks[0]["accuracy"] == 62.5
    (packed / "again.json").write_bytes(next(runs.rglob("*seed2*.json")).read_bytes())
    shutil.copytree(runs, packed / "copy")
    assert find_record("k2", packed).key == "k2"  # in the pack and in a file: one cell
    with pytest.raises(UserError, match="--cell k: 2 keys begin with it"):
        find_record("k", packed)
    with pytest.raises(UserError, match="--cell k3: no records below"):
        find_record("k3", packed)


def test_what_a_packed_cell_kept_is_read_from_beside_it(packed: Path) -> None:
    assert bench.load_predictions("k2", packed)["confidence"].tolist() == [0.75]
    loaded = load(ReportConfig(packed))
    assert predictions_of(loaded.cells, "k2") is not None


@pytest.mark.parametrize(
    ("command", "cell", "what"),
    [("predictions", "k1", "predictions"), ("words", "k2", "learned parameters"),
     ("predict", "k2", "learned parameters")],
)  # fmt: skip
def test_of_a_packed_cell_it_is_said_what_was_not_kept(
    command: str, cell: str, what: str, packed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ["x.jpg"] if command == "predict" else []
    assert main([command, *more, "--cell", cell, "--results", str(packed)]) == 2
    said = capsys.readouterr().err
    assert f"--cell {cell}: no {what} were kept of the cell (1shot-seed{cell[1]}-{cell}; nothing" in said


def test_stability_finds_a_packed_cell(tiny: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tiny.run(tmp_path / "runs", methods=["coop"], shots=[1], seeds=[1], options=["coop.epochs=2"])
    key = next((tmp_path / "runs").rglob("*.json")).stem.rpartition("-")[2]
    pack(tmp_path / "runs", tmp_path / "packed" / "p.parquet")
    where = ["--data", str(tiny.data), "--suite", tiny.suite, "--backbone", tiny.backbone]
    asked = ["stability", "--cell", key[:10], "--perturb", "0", "--results", str(tmp_path / "packed"), *where]
    assert main(asked) == 0
    assert set(pd.read_csv(tmp_path / "packed" / "stability.csv")["key"]) == {key}


def test_a_damaged_file_is_named_and_a_foreign_one_is_no_pack(runs: Path, tmp_path: Path) -> None:
    foreign, damaged = runs / "foreign.parquet", runs / "damaged.parquet"
    pq.write_table(pa.table({"a": [1]}), str(foreign))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(load(ReportConfig(runs)).rows) == 2
    pack(runs, damaged)
    damaged.write_bytes(damaged.read_bytes()[:-9])
    with pytest.warns(UserWarning, match=r"damaged\.parquet is not a readable pack of records"):
        assert len(load(ReportConfig(runs)).rows) == 2
    for file in (foreign, damaged):
        with pytest.raises(UserError, match=rf"{file.name}: not a readable pack"):
            unpack(file, tmp_path / "out")


@pytest.mark.parametrize(
    ("names", "says"),
    [
        ([], "0 records"),
        (["a.json", "a.json/b.json"], "'a.json' is a record's path, and a folder of another's"),
        (["a" * 196 + ".json"], "is no record's path"),  # a disk takes 255 bytes; being written, 38 more
    ],
)
def test_paths_that_no_disk_takes_are_refused_before_anything_is_written(
    names: list[str], says: str, tmp_path: Path
) -> None:
    table = pa.table([names, [b"{}"] * len(names)], schema=SCHEMA)
    pq.write_table(table, str(tmp_path / "p.parquet"))
    with pytest.raises(UserError, match=rf"p\.parquet: not a readable pack of records \(.*{says}"):
        unpack(tmp_path / "p.parquet", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_folder_in_the_way_of_a_pack_is_named(runs: Path, tmp_path: Path) -> None:
    pack(runs, tmp_path / "p.parquet")
    (tmp_path / "out").write_text("a file")
    with pytest.raises(UserError, match=r"out: cannot be written \("):
        unpack(tmp_path / "p.parquet", tmp_path / "out")


def test_no_flipped_bit_in_a_pack_changes_a_number(runs: Path, tmp_path: Path) -> None:
    """Every seventh bit: what is read of it is what was packed, or nothing; also of records without checksums."""
    file = tmp_path / "p.parquet"
    pack(runs, file)
    whole = file.read_bytes()
    expected = list(packs.packed(file))
    refused = 0
    for bit in range(0, 8 * len(whole), 7):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        file.write_bytes(damaged)
        try:
            assert list(packs.packed(file)) == expected, bit
        except (OSError, ValueError):
            refused += 1
    assert refused > 1000


@pytest.mark.parametrize("name", ["../x.json", "/x.json", "a/../x.json", "..\\x.json", "a//x.json", "x.txt"])
def test_a_path_out_of_the_folder_is_refused(name: str, tmp_path: Path) -> None:
    pq.write_table(pa.table([[name], [b"{}"]], schema=SCHEMA), str(tmp_path / "p.parquet"))
    with pytest.raises(UserError, match="is no record's path"):
        unpack(tmp_path / "p.parquet", tmp_path / "out")
    assert not (tmp_path / "out").exists()
