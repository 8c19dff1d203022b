"""Several task names for a task: `task_name: [a, b]` in a suite file, `--task-names K`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import bench
from bench.config import RunConfig
from bench.datasets.spec import load_suite
from bench.errors import UserError
from bench.plan import prepare

pytestmark = pytest.mark.usefixtures("one_thread")

WORDINGS = {
    "colour recognition": "[colour recognition, kinds of paint]",
    "shade recognition": "[shade recognition, light or dark]",
    "pattern recognition": "[pattern recognition, which way the lines go]",
}


@pytest.fixture
def worded(own_tiny: Any) -> Any:
    """The tiny suite with two names for each task."""
    suite = Path(own_tiny.suite)
    text = suite.read_text()
    for one, both in WORDINGS.items():
        assert text.count(f"task_name: {one}") == 1
        text = text.replace(f"task_name: {one}", f"task_name: {both}")
    suite.write_text(text)
    return own_tiny


def cells(tiny: Any, **more: Any) -> list[dict[str, Any]]:
    given = {**tiny.arguments, "methods": ["softcpt"], "shots": [1], "seeds": [1], "quiet": True, **more}
    return [cell.config for cell in prepare(RunConfig(**given)).cells]


def test_the_first_name_is_the_same_cell_as_one_name(own_tiny: Any) -> None:
    suite = Path(own_tiny.suite)
    before = cells(own_tiny)
    suite.write_text(suite.read_text().replace("task_name: colour recognition", "task_name: [colour recognition, x]"))
    assert cells(own_tiny) == before and cells(own_tiny, task_names=1) == before


def test_another_name_is_another_cell_of_the_same_tests(worded: Any) -> None:
    (first,), (second,) = cells(worded), cells(worded, task_names=2)
    differing = {name for name in {*first, *second} if first.get(name) != second.get(name)}
    assert differing == {"draw", "task_names"} and second["task_names"] == 2


def test_the_report_shows_the_spread_over_names(worded: Any, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    given = {**worded.arguments, "methods": ["softcpt"], "shots": [1], "seeds": [1], "results": runs, "quiet": True}
    bench.run(**given)
    bench.run(**given, task_names=2)
    assert bench.load_cell(_key(runs, 2), runs, worded.backbone).tasks[0].task_name == "kinds of paint"
    assert bench.load_cell(_key(runs, None), runs, worded.backbone).tasks[0].task_name == "colour recognition"
    table = bench.report(runs, tmp_path / "out")
    assert set(table["setting"]) == {"task_names=—", "task_names=2"}  # in one table, told apart
    assert (tmp_path / "out" / "table.md").read_text().count("# Every task alone") == 1
    assert table["data"].nunique() == 1


def _key(runs: Path, number: int | None) -> str:
    from bench.records import read_record

    found = [read_record(path) for path in runs.rglob("*.json")]
    (record,) = [r for r in found if r.config.get("task_names") == number]
    return record.key


def test_a_name_that_is_not_there_is_an_error(worded: Any) -> None:
    said = r"--task-names 3: task Colour has 2 task names \('colour recognition', 'kinds of paint'\); a suite file"
    with pytest.raises(UserError, match=said):
        cells(worded, task_names=3)


def test_the_user_s_own_name_is_the_only_one(worded: Any) -> None:
    (worded.data / "colour" / "task_name.txt").write_text("hues")
    with pytest.raises(UserError, match=r"task Colour has 1 task name \('hues'\)"):
        cells(worded, task_names=2)


@pytest.mark.parametrize("names", ["[]", "[a, 3]", "[a, a]", "3"])
def test_names_that_make_no_sense_are_refused(own_tiny: Any, names: str) -> None:
    suite = Path(own_tiny.suite)
    suite.write_text(suite.read_text().replace("task_name: colour recognition", f"task_name: {names}"))
    with pytest.raises(UserError, match="`task_name`"):
        load_suite(str(suite))


def test_the_bench_s_own_suites_have_three_names_where_ours_moved_scores() -> None:
    for name in ("rs8", "plant6"):
        assert {len(task.task_names) for task in load_suite(name).tasks} == {3}
