"""One definition of a report: the command line and `bench.report` agree with it; filters; the files asked for."""

from __future__ import annotations

import inspect
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import bench
from bench.cli import main
from bench.errors import UserError
from bench.reports.config import ReportConfig
from bench.settings import option_of

sys.path.append(str(Path(__file__).parent))
from test_reports import no_figures, put, row, table, toy

__all__ = ["no_figures", "toy"]


def test_the_signature_of_report_is_the_config_s() -> None:
    parameters = inspect.signature(bench.report).parameters
    assert [(name, p.default) for name, p in parameters.items()] == [(f.name, f.default) for f in fields(ReportConfig)]
    assert list(parameters)[:2] == ["results", "out"]


def test_every_field_of_a_report_is_an_option_with_its_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["report", "--help"])
    shown = " ".join(capsys.readouterr().out.split())
    for f in fields(ReportConfig):
        assert option_of(f) in shown and " ".join(f.metadata["help"].split())[:12] in shown


def test_an_argument_that_no_report_has_is_named_with_the_nearest() -> None:
    with pytest.raises(TypeError, match=r"bench\.report\(\) has no argument 'method'; did you mean 'methods'\?"):
        bench.report(method="coop")  # type: ignore[call-arg]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"format": "md,docx"}, "--format 'docx': one of md, tex, csv"),
        ({"best_on": "test"}, "--best-on 'test': one of val"),
        ({"shots": 0}, "--shots '0': 0 is less than 1"),
        ({"title": "no"}, "--no-title 'no': write true or false"),
        ({"compare": "runs"}, "--compare runs: the same folder as --results"),
        ({"methods": "copo"}, "--methods copo: no finished cell has it; did you mean 'coop'?"),
        ({"tasks": "c"}, "--tasks c: no finished cell has it; valid: a, b"),
        ({"shots": 2}, "--shots 2: no finished cell has it; valid: 0, 1, 4"),
    ],
)
def test_a_value_that_no_report_can_have_is_refused(
    toy: Path, tmp_path: Path, given: dict[str, Any], says: str
) -> None:
    with pytest.raises(UserError) as error:
        bench.report(**{"results": "runs" if "compare" in given else toy, "out": tmp_path / "out", **given})
    assert str(error.value).startswith(says)
    assert not (tmp_path / "out").exists()


def test_only_the_methods_tasks_and_shots_named_are_in_the_report(toy: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    records = bench.report(toy, out, methods="coop,zero-shot", tasks="a", shots=4)
    assert [cells[0] for cells in table(out)] == ["method", "zero-shot", "coop"]
    assert row(out, "coop")["4-shot"] == "62.00 ± 2.00"  # a alone: 60, 62, 64
    assert "1-shot" not in table(out)[0]
    assert set(records["task"]) == {"a"} and not records["complete"].any()
    assert "1 task (not the whole suite): a." in (out / "table.md").read_text()


def test_cells_of_unlike_task_lists_stand_in_one_table_for_the_tasks_they_share(toy: Path, tmp_path: Path) -> None:
    put(toy, "kgcoop", 4, 1, {"a": 70.0})
    bench.report(toy, tmp_path / "out", tasks=["a"], shots=4)
    assert row(tmp_path / "out", "kgcoop")["4-shot"] == "70.00 (n=1)"
    assert row(tmp_path / "out", "zero-shot")["0-shot"] == "30.00"


def test_only_the_files_asked_for_are_written(toy: Path, tmp_path: Path) -> None:
    bench.report(toy, tmp_path / "out", format=["tex", "parquet"])
    data = {"table", "records", "comparisons", "profiles"}
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"table.tex", *(f"{name}.parquet" for name in data)}
    bench.report(toy, tmp_path / "csv", format="csv")
    assert {path.name for path in (tmp_path / "csv").iterdir()} == {f"{name}.csv" for name in data}
    stored = pd.read_parquet(tmp_path / "out" / "table.parquet")
    assert stored["mean"].tolist() == pd.read_csv(tmp_path / "csv" / "table.csv")["mean"].tolist()
