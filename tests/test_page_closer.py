"""The page's closer look at one row on one task: classes, confusion, calibration, training."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench import predictions
from bench.reports import groups
from bench.reports.config import ReportConfig
from bench.reports.payload import payload
from bench.reports.records import load

sys.path.append(str(Path(__file__).parent))
from pages import HOSTILE, browser, soon, visit
from test_reports import put

__all__ = ["browser", "visit"]


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    """Two seeds of coop with predictions on task a, among classes of hostile names; zero-shot without any.

    Class 0 was right 1 + 0 times of 2 + 2, class 1 2 + 1 of 2 + 2, class 2 1 + 1 of 1 + 1; class 3 has no image.
    """
    results, names = tmp_path / "runs", [HOSTILE["html"], HOSTILE["lines"], HOSTILE["long"], HOSTILE["end"]]
    put(results, "zero-shot", 0, 0, {"a": 30.0, "b": 50.0})
    for seed, predicted in ((1, [0, 1, 1, 1, 2]), (2, [1, 1, 1, 0, 2])):
        curves = {"epochs": [1, 2], "loss": {"a": [2.0 * seed, 1.0 * seed]},
                  "accuracy": {"a": [20.0 + 20 * seed, 60.0 + 20 * seed]}}  # fmt: skip
        path = put(results, "coop", 4, seed, {"a": 60.0, "b": 70.0}, curves=curves)
        columns = {"image": range(5), "label": [0, 0, 1, 1, 2], "predicted": predicted, "margin": [0.1] * 5,
                   "confidence": [0.5, 0.5, 0.5, 0.5, 0.9]}  # fmt: skip
        part = predictions.PartPredictions(
            "a", "all", "overall_acc", names, "images", {k: np.array(v) for k, v in columns.items()}
        )
        predictions.write(path.with_suffix(predictions.SUFFIX), json.loads(path.read_text())["key"], [part])
    return results


def closer(tab: Any, name: str) -> tuple[list[list[str]], str]:
    """The numbers of a figure of the closer look, and its note."""
    tab.locator(f"#look-{name} summary").click()
    lines = tab.locator(f"#look-{name} tbody tr")
    lines.first.wait_for()
    cells = [lines.nth(i).locator("th, td").all_text_contents() for i in range(lines.count())]
    return cells, tab.locator(f"#look-{name} .caption").first.inner_text()


def test_a_closer_look_sums_seeds_by_class_and_pair_and_draws_calibration_and_training(kept: Path, visit: Any) -> None:
    tab = visit(kept)
    html_, lines, long, end = (HOSTILE[name] for name in ("html", "lines", "long", "end"))
    cells, note = closer(tab, "classes")
    assert cells == [[html_, "25.00", "1", "4"], [lines, "75.00", "3", "4"], [long, "100.00", "2", "2"],
                     [end, "—", "0", "0"]]  # fmt: skip
    assert "1 without test images" in note
    cells, note = closer(tab, "confusion")
    assert cells == [[html_, lines, "3"], [lines, html_, "1"]]
    assert "4 of 4 wrong answers" in note and note.endswith("the table has all.")
    cells, note = closer(tab, "reliability")
    assert cells == [["0.53", "8", "50.00", "50.00"], ["0.93", "2", "90.00", "100.00"]]
    # Of seed 1: 4 images, 75 % right at 50 %, 1 right at 90 %: (4 · 25 + 10) / 5; of seed 2 the same with 25 %.
    assert note.startswith("Expected calibration error 22.00 points, the mean of 2 seeds.")
    cells, _ = closer(tab, "training")
    assert cells == [["1", "3.0000", "50.00"], ["2", "1.5000", "90.00"]]
    assert tab.locator("#closer-figures svg").count() == 4
    assert tab.errors == [] and tab.evaluate("window.hacked") is None
    assert tab.locator("main img, main script").count() == 0
    assert tab.evaluate("document.documentElement.scrollWidth") == 1200


def test_classes_of_one_name_are_not_counted_as_one(tmp_path: Path, visit: Any) -> None:
    """Classes 0 and 1 are both called "crane", bird and machine: 0 was once taken for 1, 1 twice for 2, 2 once for
    1."""
    path = put(tmp_path / "runs", "coop", 4, 1, {"a": 60.0})
    columns = {"image": range(6), "label": [0, 0, 1, 1, 1, 2], "predicted": [0, 1, 1, 2, 2, 1], "margin": [0.1] * 6,
               "confidence": [0.5] * 6}  # fmt: skip
    part = predictions.PartPredictions(
        "a", "all", "overall_acc", ["crane", "crane", "digger"], "i", {k: np.array(v) for k, v in columns.items()}
    )
    predictions.write(path.with_suffix(predictions.SUFFIX), json.loads(path.read_text())["key"], [part])
    tab = visit(tmp_path / "runs")
    cells, note = closer(tab, "confusion")
    first, second = "crane (class 0)", "crane (class 1)"
    assert cells == [[second, "digger", "2"], [first, second, "1"], ["digger", second, "1"]]
    assert "4 of 4 wrong answers" in note
    cells, _ = closer(tab, "classes")
    assert cells == [[first, "50.00", "1", "2"], [second, "33.33", "1", "3"], ["digger", "0.00", "0", "1"]]


def test_a_closer_look_says_what_a_cell_did_not_keep(kept: Path, visit: Any) -> None:
    tab = visit(kept)
    pick = tab.locator("#closer-controls")
    pick.locator("[data-name=task] select").select_option("b")
    notes = tab.locator("#closer-figures figure > .caption")
    without = "Its kept predictions do not have this task."
    curveless = "Its cells kept no training curves, or curves of different epochs."
    assert soon(notes.all_inner_texts, [without] * 3 + [curveless])
    pick.locator("[data-name=row] select").select_option("zero-shot")
    without = "Predictions of single images were kept by none of its cells (there are 1)."
    assert soon(notes.all_inner_texts, [without] * 3 + ["Nothing was trained."])


def test_where_nothing_was_kept_one_sentence_says_so(tmp_path: Path, visit: Any) -> None:
    put(tmp_path / "runs", "coop", 4, 1, {"a": 60.0})
    tab = visit(tmp_path / "runs")
    assert tab.locator("#closer-said").inner_text().startswith("No cell of this table kept predictions")
    assert tab.locator("#closer-figures figure:visible").count() == 0


def test_a_closer_look_is_bounded_and_says_what_it_left_out(kept: Path, visit: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr("bench.reports.closer.PAIRS", 1)
    cells, note = closer(visit(kept), "confusion")
    assert len(cells) == 1 and cells[0][2] == "3"
    assert "3 of 4 wrong answers" in note and note.endswith("the 1 most frequent of 2 pairs, 3 answers.")
    loaded = load(ReportConfig(results=kept))
    (block,) = payload(loaded, groups.split(loaded.rows))["blocks"]
    trained = [look for look in block["looks"] if look["shots"] == 4]
    room = len(json.dumps(trained, separators=(",", ":"))) + 1  # for coop's looks, which come first, alone
    monkeypatch.setattr("bench.reports.closer.MOST", room)
    (block,) = payload(loaded, groups.split(loaded.rows))["blocks"]
    assert {look["shots"] for look in block["looks"]} == {4} and block["looks_left_out"] == 1
    assert "1 row of this table at single shot counts" in visit(kept).locator("#closer-said").inner_text()
