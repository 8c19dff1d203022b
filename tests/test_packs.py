"""A pack gives back the records byte for byte, and the same report; a damaged or foreign file is named."""

from __future__ import annotations

import warnings
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bench.cli import main
from bench.errors import UserError
from bench.packs import SCHEMA, pack, unpack
from bench.records import Record, RecordStore
from bench.reports import report
from bench.reports.config import ReportConfig
from bench.reports.records import load


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


@pytest.mark.parametrize("name", ["../x.json", "/x.json", "a/../x.json", "..\\x.json", "a//x.json", "x.txt"])
def test_a_path_out_of_the_folder_is_refused(name: str, tmp_path: Path) -> None:
    pq.write_table(pa.table([[name], [b"{}"]], schema=SCHEMA), str(tmp_path / "p.parquet"))
    with pytest.raises(UserError, match="is no record's path"):
        unpack(tmp_path / "p.parquet", tmp_path / "out")
    assert not (tmp_path / "out").exists()
