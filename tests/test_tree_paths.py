"""A suite file's tree of tasks: who is told where a task stands, and whose cells depend on it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import bench
from bench.cli import main
from bench.config import RunConfig
from bench.errors import UserError
from bench.methods.shared_coop import SharedCoOp
from bench.plan import prepare

TREE = {"Colour": ("paint",), "Shade": ("paint",), "Stripes": ()}


@pytest.fixture
def reads_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SharedCoOp, "reads_path", True)


def other_tree(tiny: Any) -> None:
    suite = Path(tiny.suite)
    assert suite.read_text().count("path: [paint]") == 2
    suite.write_text(suite.read_text().replace("metric: mean_acc, path: [paint]", "metric: mean_acc, path: [light]"))


def keys(tiny: Any, **changes: Any) -> dict[str, list[str]]:
    arguments = {**tiny.arguments, "methods": ["coop", "shared-coop"], "shots": [6], "seeds": [1], **changes}
    cells = prepare(RunConfig(results="unused", quiet=True, **arguments)).cells
    return {m: [cell.key for cell in cells if cell.name["method"] == m] for m in ("coop", "shared-coop")}


def test_a_task_s_place_is_in_the_keys_of_methods_that_read_it_and_of_no_other(own_tiny: Any, reads_path: None) -> None:
    before = keys(own_tiny)
    other_tree(own_tiny)
    after = keys(own_tiny)
    assert before["coop"] == after["coop"] and before["shared-coop"] != after["shared-coop"]


def test_a_fold_s_key_holds_the_places_of_its_tasks(own_tiny: Any, reads_path: None) -> None:
    """The unseen task's own place counts, too: it is scored from there."""
    grid: dict[str, Any] = {"methods": ["shared-coop"], "protocol": "unseen-task"}
    before = keys(own_tiny, **grid)["shared-coop"]
    other_tree(own_tiny)
    after = keys(own_tiny, **grid)["shared-coop"]
    assert len(before) == 3 and not set(before) & set(after)


def test_methods_are_told_the_places_of_seen_and_unseen_tasks(
    tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[dict[str, tuple[str, ...]]] = []
    fit, predict_new = SharedCoOp.fit, SharedCoOp.predict_new

    def seen(self: Any, clip: Any, tasks: Any, *rest: Any) -> None:
        told.append({task.name: task.path for task in tasks})
        fit(self, clip, tasks, *rest)

    def unseen(self: Any, task: Any, features: torch.Tensor) -> torch.Tensor:
        told.append({task.name: task.path})
        return predict_new(self, task, features)

    monkeypatch.setattr(SharedCoOp, "fit", seen)
    monkeypatch.setattr(SharedCoOp, "predict_new", unseen)
    tiny.run(tmp_path, methods=["shared-coop"], shots=[1], seeds=[1], protocol="unseen-task")
    assert {len(one) for one in told} == {1, 2}
    assert all(path == TREE[name] for one in told for name, path in one.items())


def test_a_kept_cell_knows_the_places(tiny: Any, tmp_path: Path) -> None:
    tiny.run(tmp_path, methods=["shared-coop"], shots=[1], seeds=[1])
    (record,) = tiny.records(tmp_path).values()
    kept = bench.load_cell(record["key"], tmp_path, tiny.backbone)
    assert {task.name: task.path for task in kept.tasks} == TREE


def test_the_list_of_tasks_shows_where_they_stand() -> None:
    found = bench.listing("tasks", "general10").set_index("task")["path"]
    assert found["StanfordCars"] == "objects / vehicles" and found["DTD"] == ""


def test_without_any_place_methods_that_read_them_are_refused(own_tiny: Any, reads_path: None) -> None:
    suite = Path(own_tiny.suite)
    suite.write_text(suite.read_text().replace("path: [paint]", "path: "))
    said = "shared-coop reads tasks' places in a tree: none of suite tiny has a `path`"
    with pytest.raises(UserError, match=f"--methods: {said}"):
        keys(own_tiny)


def test_of_all_methods_those_that_read_places_are_left_out_with_the_reason(
    own_tiny: Any, reads_path: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Stripes stands outside the tree: alone, it has none."""
    command = [*own_tiny.command(tmp_path), "--methods=all", "--tasks=Stripes", "--dry-run"]
    assert main(command) == 0
    said = "Left out, shared-coop reads tasks' places in a tree: none of suite tiny has a `path` (docs/data.md)"
    assert said in capsys.readouterr().out


def test_folds_of_some_of_the_tasks_are_one_row_and_another_tree_is_a_row_of_its_own(
    own_tiny: Any, reads_path: None, tmp_path: Path
) -> None:
    """Trained on one task each, two folds have other tasks' places; a row of one fold alone would be no mean over the
    three tasks."""
    grid: dict[str, Any] = {"methods": ["shared-coop"], "shots": [1], "seeds": [1], "protocol": "unseen-task"}
    own_tiny.run(tmp_path / "some", train_tasks=[1], **grid)
    rows = bench.report(tmp_path / "some", tmp_path / "out", format=["csv"])
    assert len(rows) == 3 and rows.groupby("setting")["task"].apply(set).tolist() == [{"Colour", "Shade", "Stripes"}]
    own_tiny.run(tmp_path / "all", **grid)
    other_tree(own_tiny)
    own_tiny.run(tmp_path / "all", **grid)
    rows = bench.report(tmp_path / "all", tmp_path / "out", format=["csv"])
    assert rows.groupby("setting").size().to_dict() == {'Shade=["light"]': 3, 'Shade=["paint"]': 3}


def test_cells_on_fewer_tasks_of_the_same_tree_give_gains_and_those_of_another_tree_none(
    own_tiny: Any, tmp_path: Path
) -> None:
    grid: dict[str, Any] = {"methods": ["coop-tree"], "shots": [1], "seeds": [1]}
    asked = {"results": str(tmp_path / "runs"), "data": str(own_tiny.data), "method": "coop-tree", "quiet": True}
    for tasks in (None, ["Shade"]):
        own_tiny.run(tmp_path / "runs", tasks=tasks, **grid)
    found = bench.relate(suite=own_tiny.suite, **asked)
    scored = {}
    for record in own_tiny.records(tmp_path / "runs").values():
        scored |= {len(record["tasks"]): row["accuracy"] for row in record["tasks"] if row["task"] == "Shade"}
    (gained,) = found["gains"].to_dict("records")
    assert gained["task"] == "Shade" and gained["gain"] == pytest.approx(scored[3] - scored[1])
    other_tree(own_tiny)
    with pytest.raises(UserError, match="its backbone, names or images are others"):
        bench.relate(suite=own_tiny.suite, **asked)
