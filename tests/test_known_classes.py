"""How much of an unseen task is not new: class names that were trained on, and the accuracy without them."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
import torch

from bench.protocols import Part
from bench.reports import report
from bench.scoring import Scored, known_classes

sys.path.append(str(Path(__file__).parent))
from test_reports import put


def task_of(*class_names: str, metric: str = "overall_acc") -> Any:
    return SimpleNamespace(class_names=class_names, metric=metric)


@pytest.mark.parametrize(
    ("metric", "accuracy"),
    # Of the images of forest, road, road, road the first and the last are right: 2 of 4; by class 1 and 1/3.
    [("overall_acc", 50.0), ("mean_acc", 200 / 3)],
)
def test_classes_with_a_name_that_was_trained_on_are_counted_and_left_out(metric: str, accuracy: float) -> None:
    """River and lake are trained on, whatever the case; an image of road that is taken for a river is wrong."""
    labels = torch.tensor([0, 1, 2, 3, 3, 3])
    said = Scored(torch.tensor([0, 0, 2, 0, 2, 3]), torch.zeros(6), torch.zeros(6))
    task = task_of("River", "lake", "forest", "road", metric=metric)
    trained = [task_of("river", "sea"), task_of("Lake")]
    found = known_classes(task, trained, [(Part("all", torch.arange(6), labels, 4), said)])
    assert found == {"known": 2, "accuracy": pytest.approx(accuracy)}


def test_a_task_whose_classes_are_all_known_has_no_accuracy_on_new_ones() -> None:
    part = Part("all", torch.arange(1), torch.tensor([0]), 1)
    said = Scored(torch.tensor([0]), torch.zeros(1), torch.zeros(1))
    assert known_classes(task_of("river"), [task_of("river")], [(part, said)]) == {"known": 1, "accuracy": None}


def test_a_record_counts_the_names_that_the_fold_trained_on(tiny, tmp_path) -> None:
    """Shade's class "light" is Stripes' "Light" here."""
    renamed = "folder: stripes, reader: {kind: folders, rename: {lying: Light}},"
    suite = Path(tiny.suite).read_text().replace("folder: stripes,", renamed)
    (tmp_path / "own.yaml").write_text(suite)
    grid: dict[str, Any] = {"methods": ["shared-coop"], "shots": [1], "seeds": [1], "protocol": "unseen-task"}
    tiny.run(tmp_path / "runs", suite=str(tmp_path / "own.yaml"), **grid)
    found = {}
    for record in tiny.records(tmp_path / "runs").values():
        found |= {task: overlap["known"] for task, overlap in record["overlap"].items()}
    assert found == {"Colour": 0, "Shade": 1, "Stripes": 1}


def put_unseen(root: Path, overlap: dict[str, dict[str, Any]]) -> None:
    config = {"trained": ["s"], "scored": ["a", "b"]}
    put(root, "softcpt", 4, 1, {"a": 60.0, "b": 70.0}, cell={"protocol": "source-task:s"}, config=config,
        overlap=overlap)  # fmt: skip


def test_the_table_says_which_classes_are_not_new(tmp_path) -> None:
    put_unseen(tmp_path / "runs", {"a": {"known": 2, "accuracy": 50.0}, "b": {"known": 0, "accuracy": 70.0}})
    report(tmp_path / "runs", tmp_path / "out")
    rows = pd.read_csv(tmp_path / "out" / "unseen.csv").set_index("task")
    assert rows["classes trained on"].to_dict() == {"a": 2, "b": 0}
    assert rows["new classes"].to_dict() == {"a": 50, "b": 70}
    text = (tmp_path / "out" / "table.md").read_text()
    assert "Class names that were trained on, too: a 2 of 5." in text
    line = next(line for line in text[text.index("# Tasks never") :].splitlines() if line.startswith("| softcpt"))
    assert line.split("|")[-2].strip() == "60.00"  # of 50 and 70


def test_the_table_says_that_all_classes_are_new(tmp_path) -> None:
    put_unseen(tmp_path / "runs", {"a": {"known": 0, "accuracy": 60.0}, "b": {"known": 0, "accuracy": 70.0}})
    report(tmp_path / "runs", tmp_path / "out")
    text = (tmp_path / "out" / "table.md").read_text()
    assert "None of the tasks has the name of a class that was trained on." in text and "new classes" not in text
