"""What is kept of each test image: counts, calibration and pairs worked out by hand, and files that are not sound."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

import bench
from bench.cli import main
from bench.errors import UserError
from bench.predictions import (
    SCHEMA,
    SUFFIX,
    PartPredictions,
    confused,
    confusion,
    ece,
    paired,
    per_class,
    read,
    reliability,
    write,
)
from bench.scoring import said

# Six images of two classes, and one class without any.
LABELS, PREDICTED = [0, 0, 0, 1, 1, 1], [0, 0, 1, 1, 2, 0]
CONFIDENCE = [0.9, 0.5, 0.6, 1.0, 0.4, 0.5]


def part(**changes: Any) -> PartPredictions:
    rows = {
        "image": np.arange(6), "label": np.array(LABELS), "predicted": np.array(PREDICTED),
        "margin": np.ones(6), "confidence": np.array(CONFIDENCE),
    }  # fmt: skip
    return replace(PartPredictions("Pets", "all", "overall_acc", ("cat", "dog", "emu"), "d1", rows), **changes)


def kept(tmp_path: Path, *parts: PartPredictions) -> pd.DataFrame:
    path = tmp_path / f"x{SUFFIX}"
    write(path, "k", parts or [part()])
    return read(path)


def test_margin_and_confidence_of_scores_worked_out_by_hand() -> None:
    scores = torch.tensor([[0.0, math.log(3), -math.inf], [math.log(2), 0.0, 0.0], [5.0, 5.0, 5.0]])
    found = said(scores)
    assert found.predicted.tolist() == [1, 0, 0]
    assert found.margin.tolist() == pytest.approx([math.log(3), math.log(2), 0])
    assert found.confidence.tolist() == pytest.approx([3 / 4, 2 / 4, 1 / 3])
    assert math.isnan(said(torch.ones(1, 1)).margin.item()) and said(torch.ones(1, 1)).confidence.item() == 1


def test_per_class_and_confusion_worked_out_by_hand(tmp_path: Path) -> None:
    frame = kept(tmp_path)
    table = per_class(frame).set_index("class")
    assert table["n"].to_dict() == {"cat": 3, "dog": 3, "emu": 0}
    assert table["accuracy"].tolist()[:2] == pytest.approx([200 / 3, 100 / 3]) and math.isnan(table["accuracy"]["emu"])
    assert table["predicted"].to_dict() == {"cat": 3, "dog": 2, "emu": 1}
    assert table["confidence"].tolist()[:2] == pytest.approx([200 / 3, 190 / 3])
    assert confusion(frame, "pets").to_numpy().tolist() == [[2, 1, 0], [1, 1, 1], [0, 0, 0]]
    assert confusion(frame, "Pets").loc["dog", "emu"] == 1
    assert confused(frame).values.tolist() == [
        ["Pets", "all", "cat", "dog", 1], ["Pets", "all", "dog", "emu", 1], ["Pets", "all", "dog", "cat", 1],
    ]  # fmt: skip
    with pytest.raises(UserError, match="did you mean 'Pets'"):
        confusion(frame, "Pet")


def test_calibration_error_worked_out_by_hand(tmp_path: Path) -> None:
    frame = kept(tmp_path)
    # Two bins. (0, 0.5]: 0.5 right, 0.4 and 0.5 wrong; (0.5, 1]: 0.9 and 1.0 right, 0.6 wrong.
    table = reliability(frame, bins=2)
    assert table["n"].tolist() == [3, 3]
    assert table["accuracy"].tolist() == pytest.approx([100 / 3, 200 / 3])
    assert table["confidence"].tolist() == pytest.approx([140 / 3, 250 / 3])
    assert ece(frame, bins=2) == pytest.approx((40 / 3 + 50 / 3) / 2)
    # Four bins. (0, ¼]: none; (¼, ½]: as before; (½, ¾]: 0.6 wrong; (¾, 1]: 0.9 and 1.0 right.
    assert reliability(frame, bins=4)["n"].tolist() == [0, 3, 1, 2]
    assert ece(frame, bins=4) == pytest.approx((3 * 40 / 3 + 60 + 2 * 5) / 6)


def test_paired_differences_are_of_the_same_images(tmp_path: Path) -> None:
    a = kept(tmp_path)
    backwards = {name: values[::-1] for name, values in part().rows.items()}
    better = kept(tmp_path, part(rows={**backwards, "predicted": np.array([1, 1, 1, 0, 1, 1])}))
    table = paired(better, a)
    # Images 0 … 5: the better is right on 3, 4, 5 and 2, wrong on 0 and 1.
    assert table.sort_values("image")["difference"].tolist() == [-1, -1, 1, 0, 1, 1]
    assert table["difference"].mean() == pytest.approx(4 / 6 - 3 / 6)
    for changes, why in (
        ({"images": "d2"}, "other images"),
        ({"class_names": ("cat", "dog", "owl")}, "other classes"),
        ({"task": "Birds"}, "no task in common"),
        ({"rows": {name: values[:5] for name, values in part().rows.items()}}, "of the same images"),
    ):
        with pytest.raises(UserError, match=why):
            paired(a, kept(tmp_path, part(**changes)))


def test_a_row_takes_few_bytes(tmp_path: Path) -> None:
    rng, n = np.random.default_rng(0), 50_000
    values = {"label": rng.integers(0, 100, n), "predicted": rng.integers(0, 100, n)}
    noise = {"margin": rng.random(n), "confidence": rng.random(n)}
    names = tuple(map(str, range(100)))
    write(tmp_path / "x", "k", [part(class_names=names, rows={"image": np.arange(n), **values, **noise})])
    assert (tmp_path / "x").stat().st_size < 10 * n


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"label": [0, 0, 0, 1, 1, 3]}, "label of .* is none of its 3 classes"),
        ({"predicted": [-1, 0, 0, 1, 1, 1]}, "predicted of .* is none of its 3 classes"),
        ({"confidence": [0.9, 0.5, 0.6, 1.0, 0.4, 1.5]}, "values that no prediction has"),
        ({"confidence": [0.9, 0.5, 0.6, 1.0, 0.4, math.nan]}, "values are missing"),
        ({"image": [0, 1, 2, 3, 4, 4]}, "stands there twice"),
        ({"image": [0, 1, 2, 3, 4, -5]}, "values that no prediction has"),
    ],
)
def test_values_that_no_prediction_has_are_refused(changes: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"not what a run keeps of its predictions .*{said}"):
        kept(tmp_path, part(rows={**part().rows, **{name: np.array(x) for name, x in changes.items()}}))


def test_files_that_are_not_sound_are_refused_in_a_line(tmp_path: Path) -> None:
    path = tmp_path / f"x{SUFFIX}"
    write(path, "k", [part()])
    whole, schema = path.read_bytes(), pq.read_schema(path)
    about = json.loads(schema.metadata[b"bench"])
    table = pq.read_table(path)
    for content in (b"", whole[: len(whole) // 2], b"PAR1" * 9, whole[:200] + bytes(50) + whole[250:]):
        path.write_bytes(content)
        _refused(path)
    for metadata in (None, {"bench": "["}, {"bench": "[]"}, {"bench": json.dumps({**about, "format": 2})},
                     {"bench": json.dumps({**about, "parts": []})}, {"bench": json.dumps({**about, "parts": 3})}):
        pq.write_table(table.replace_schema_metadata(metadata), path)
        _refused(path)
    for other in (table.drop_columns(["margin"]), table.set_column(3, "label", pa.array(["a"] * 6))):
        pq.write_table(other.replace_schema_metadata(schema.metadata), path)
        _refused(path)
    long = pa.table({f.name: pa.nulls(1, f.type) for f in SCHEMA}, SCHEMA.with_metadata(schema.metadata))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("bench.predictions.MOST_ROWS", 0)
        pq.write_table(long, path)
        _refused(path, "1 rows")
    pq.write_table(table.slice(0, 0), path)
    _refused(path, "0 rows")


def test_no_flipped_bit_in_a_file_of_predictions_goes_unnoticed(tmp_path: Path) -> None:
    """Every seventh bit, so that each place in a byte has its turn: refused, or read as it was written."""
    path = tmp_path / f"x{SUFFIX}"
    write(path, "k", [part()])
    whole, expected = path.read_bytes(), read(path)
    refused = 0
    for bit in range(0, 8 * len(whole), 7):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        try:
            frame = read(path)
        except UserError:
            refused += 1
            continue
        pd.testing.assert_frame_equal(frame, expected)
        assert frame.attrs == expected.attrs, bit
    assert refused > len(whole) // 2


def test_predictions_of_versions_without_checksums_are_read(tmp_path: Path) -> None:
    path = tmp_path / f"x{SUFFIX}"
    write(path, "k", [part()])
    expected, table = read(path), pq.read_table(path)
    about = json.loads(table.schema.metadata[b"bench"])
    for changes, damaged in (({}, False), ({"key": "other"}, True)):
        pq.write_table(table.replace_schema_metadata({"bench": json.dumps({**about, **changes})}), path)
        _refused(path, "damaged: its checksum does not fit") if damaged else read(path)
    del about["checksum"]
    pq.write_table(table.replace_schema_metadata({"bench": json.dumps(about)}), path)
    pd.testing.assert_frame_equal(read(path), expected)


def _refused(path: Path, said: str = "") -> None:
    with pytest.raises(UserError, match=f"not what a run keeps of its predictions .*{said}") as caught:
        read(path)
    assert "\n" not in str(caught.value)


# ---- beside a record -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def runs(tiny: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    tiny.run(folder, shots=[1], seeds=[1])
    return folder


def test_each_record_s_accuracies_follow_from_the_predictions_beside_it(runs: Path) -> None:
    paths = sorted(runs.rglob("*.json"))
    assert len(paths) == 2
    for path in paths:
        record = json.loads(path.read_text())
        assert record["predictions"] == path.with_suffix(SUFFIX).name
        frame = bench.load_predictions(record["key"][:8], runs)
        assert frame.attrs["key"] == record["key"]
        for row in record["tasks"]:
            own = frame[frame["task"] == row["task"]]
            assert own["image"].tolist() == list(range(row["n_test"]))
            assert frame.attrs["metrics"][row["task"], "all"] == row["metric"]
            # The tiny world has as many test images of each class: its two metrics are the same.
            assert 100 * (own["label"] == own["predicted"]).mean() == pytest.approx(row["accuracy"])
            assert per_class(own)["accuracy"].mean() == pytest.approx(row["accuracy"])
    assert frame.attrs["classes"]["Colour", "all"] == ["blue paint", "green paint", "red paint"]


def test_two_cells_of_a_run_can_be_paired(runs: Path) -> None:
    zero, coop = (bench.load_predictions(str(next(runs.rglob(f"{name}/*.json")))) for name in ("zero-shot", "coop"))
    assert len(paired(zero, coop)) == len(zero)


def test_base2new_keeps_both_halves_each_among_its_own_classes(tiny: Any, tmp_path: Path) -> None:
    tiny.run(tmp_path, methods=["zero-shot"], protocol="base2new")
    (path,) = tmp_path.rglob("*.json")
    frame = bench.load_predictions(str(path))
    assert frame.attrs["classes"]["Shade", "base"] == ["dark", "grey"]
    assert frame.attrs["classes"]["Shade", "new"] == ["light"]
    assert set(frame[frame["part"] == "new"]["label"]) == {0}
    assert list(confusion(frame, "Shade", "base").index) == ["dark", "grey"]
    with pytest.raises(UserError, match="has no part 'all'"):
        confusion(frame, "Shade")


def test_the_command_shows_classes_and_what_was_taken_for_what(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = next(runs.rglob("zero-shot/*.json"))
    assert main(["predictions", "--cell", str(path), "--task", "colour"]) == 0
    out = capsys.readouterr().out
    assert "red paint" in out and "Colour: expected calibration error" in out and "of 12 test images" in out
    assert main(["predictions", "--cell", str(path), "--confusion"]) == 0
    assert "images" in capsys.readouterr().out
    assert main(["predictions", "--cell", str(path), "--task", "colours"]) == 2
    assert "did you mean 'Colour'" in capsys.readouterr().err


def test_discard_keeps_no_predictions_and_says_so_later(tiny: Any, tmp_path: Path, capsys: Any) -> None:
    tiny.run(tmp_path, methods=["zero-shot"], keep=False)
    assert not list(tmp_path.rglob(f"*{SUFFIX}"))
    (path,) = tmp_path.rglob("*.json")
    assert main(["predictions", "--cell", str(path)]) == 2
    assert "its predictions were not kept" in capsys.readouterr().err
