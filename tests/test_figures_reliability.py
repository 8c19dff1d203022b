"""The reliability diagram: bins and calibration errors are read from the axes; values by hand."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from bench.predictions import SUFFIX, PartPredictions, write
from bench.reports import figures

sys.path.append(str(Path(__file__).parent))
from test_figures_data import a_block, draw
from test_reports import put


def said(record: Path, confidence: dict[str, float], right: dict[str, int], n: int = 20, key: str = "") -> None:
    """Put beside a record what it said of n images of every task: one confidence, so many right."""
    parts = []
    for task in confidence:
        rows = {
            "image": np.arange(n), "label": np.zeros(n, int), "predicted": (np.arange(n) >= right[task]).astype(int),
            "margin": np.ones(n), "confidence": np.full(n, confidence[task]),
        }  # fmt: skip
        parts.append(PartPredictions(task, "all", "overall_acc", ("cat", "dog"), "d", rows))
    write(record.with_suffix(SUFFIX), key or json.loads(record.read_text())["key"], parts)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """coop says 90 % of each image of task a and 50 % of task b; zero-shot 20 %, of nine images and never right."""
    zero = put(tmp_path, "zero-shot", 0, 0, {"a": 0.0, "b": 0.0})
    said(zero, {"a": 0.2, "b": 0.4}, {"a": 0, "b": 0}, 9)
    for seed, a, b in ((1, 15, 12), (2, 17, 10)):  # of 20
        record = put(tmp_path, "coop", 4, seed, {"a": 5.0 * a, "b": 5.0 * b})
        said(record, {"a": 0.9, "b": 0.5}, {"a": a, "b": b})
        put(tmp_path, "coop", 1, seed, {"a": 50.0, "b": 50.0})  # not the largest shot count: nothing is asked of it
    return tmp_path


def test_accuracy_stands_over_confidence_and_errors_are_means_of_tasks_over_seeds(root: Path) -> None:
    left, right = draw(a_block(root), "reliability").axes
    diagonal, coop, *nothing = (line for line in left.lines if len(line.get_xdata()))
    assert not nothing  # nine images are too few for a point
    assert list(diagonal.get_xdata()) == list(diagonal.get_ydata()) == [0, 100]
    assert list(coop.get_xdata()) == pytest.approx([50, 90], abs=1e-4)
    assert list(coop.get_ydata()) == pytest.approx([100 * 22 / 40, 100 * 32 / 40])
    assert [label.get_text() for label in right.get_yticklabels()] == ["zero-shot", "coop"]  # the smallest on top
    zero, own = (container.lines for container in right.containers)
    assert zero[0].get_xdata()[0] == pytest.approx((20 + 40) / 2, abs=1e-4)
    # Seed 1 is 15 points off in a and 10 in b, seed 2 is 5 and 0 off: 12.5 and 2.5.
    assert own[0].get_xdata()[0] == pytest.approx(7.5, abs=1e-4)
    ((low, _), (high, _)) = own[2][0].get_segments()[0]
    assert low == 0 and high == pytest.approx(7.5 + 63.53, abs=0.01)  # t(97.5 %, 1) = 12.706, times 7.071 / √2 = 5


def test_a_method_of_which_predictions_are_missing_is_named_instead_of_drawn(root: Path) -> None:
    said(put(root, "softcpt", 4, 1, {"a": 50.0, "b": 50.0}), {"a": 0.9, "b": 0.9}, {"a": 9, "b": 9})
    put(root, "softcpt", 4, 2, {"a": 50.0, "b": 50.0})
    stranger = put(root, "maple", 4, 1, {"a": 50.0, "b": 50.0})
    said(stranger, {"a": 0.9, "b": 0.9}, {"a": 9, "b": 9}, key="another")
    damaged = put(root, "cocoop", 4, 1, {"a": 50.0, "b": 50.0})
    damaged.with_suffix(SUFFIX).write_bytes(b"PAR1")
    with pytest.warns(UserWarning, match="the predictions of another cell|not what a run keeps") as warned:
        _, right = draw(a_block(root), "reliability").axes
    assert len([w for w in warned if "left out" in str(w.message)]) == 2
    assert [label.get_text() for label in right.get_yticklabels()] == ["zero-shot", "coop"]
    assert all(name in right.get_xlabel() for name in ("softcpt", "maple", "cocoop", "predictions missing"))


def test_records_without_predictions_have_no_diagram_and_it_is_said_why(root: Path) -> None:
    for file in root.glob(f"*{SUFFIX}"):
        file.unlink()
    (reason,) = (text for text in figures.not_drawn(a_block(root)) if "calibration" in text)
    assert "the predictions of test images are not beside the records" in reason and "run the cells again" in reason


def test_a_record_s_word_for_where_its_predictions_lie_is_not_followed(root: Path, tmp_path: Path) -> None:
    outside = put(tmp_path / "other", "coop", 4, 1, {"a": 50.0, "b": 50.0})
    said(outside, {"a": 0.9, "b": 0.9}, {"a": 9, "b": 9})
    for file in root.glob(f"*{SUFFIX}"):
        file.unlink()
    for record in root.glob("*.json"):
        content = json.loads(record.read_text()) | {"predictions": str(outside.with_suffix(SUFFIX))}
        record.write_text(json.dumps(content))
    outside.unlink()
    assert any("predictions of test images are not" in text for text in figures.not_drawn(a_block(root)))
