"""Two methods on the same test images of a task: differences by hand, intervals over images."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import bench
from bench.predictions import SUFFIX, PartPredictions, write

sys.path.append(str(Path(__file__).parent))
from test_reports import no_figures, put, row

__all__ = ["no_figures"]


def keep(
    record: Path, answers: dict[str, list[int]], labels: list[int], metric: str = "overall_acc", images: str = "i"
) -> None:
    """Put a cell's answers, by task, beside its record."""
    n = len(labels)
    parts = []
    for task, predicted in answers.items():
        rows = {"image": range(n), "label": labels, "predicted": predicted, "margin": [1] * n, "confidence": [0.5] * n}
        columns = {name: np.array(values) for name, values in rows.items()}
        parts.append(PartPredictions(task, "all", metric, ("cat", "dog"), images, columns))
    write(record.with_suffix(SUFFIX), json.loads(record.read_text())["key"], parts)


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """40 images of each class. coop is right on all in both seeds, softcpt misses ten dogs in both; zero-shot, one
    cell, misses forty."""
    labels = [0] * 40 + [1] * 40
    root = tmp_path / "runs"
    zero = put(root, "zero-shot", 0, 0, {"a": 50.0})
    keep(zero, {"a": [0] * 80}, labels)
    for seed in (1, 2):
        keep(put(root, "coop", 4, seed, {"a": 100.0}), {"a": labels}, labels)
        softcpt = [0] * 50 + [1] * 30
        keep(put(root, "softcpt", 4, seed, {"a": 87.5}), {"a": softcpt}, labels)
        put(root, "coop", 1, seed, {"a": 60.0})  # not the largest shot count: nothing is asked of it
    return root


def images(runs: Path, out: Path) -> pd.DataFrame:
    bench.report(runs, out, format="md,csv")
    return pd.read_csv(out / "images.csv").set_index("a")


def test_every_method_stands_against_the_best_on_the_same_images(runs: Path, tmp_path: Path) -> None:
    """softcpt: 10 of 80 images lost, −12.5 points, standard error 100 · √(0.125 · 0.875 / 80) = 3.70."""
    found = images(runs, tmp_path / "out")
    assert list(found.index) == ["zero-shot", "softcpt"] and set(found["b"]) == {"coop"}
    soft = found.loc["softcpt"]
    assert (soft["difference"], soft["images"], soft["seeds"]) == (-12.5, 80, 2)
    assert soft["low"] == pytest.approx(-12.5 - 1.96 * 3.70, abs=1.3)
    assert soft["high"] == pytest.approx(-12.5 + 1.96 * 3.70, abs=1.3)
    assert found.loc["zero-shot", "difference"] == -50 and found.loc["zero-shot", "seeds"] == 2
    told = row(tmp_path / "out", "softcpt", "toy · tiny · on the same test images")["a"]
    assert re.fullmatch(r"−12\.50 \(−\d\d\.\d\d to −\d\.\d\d\)\\\*", told)
    assert row(tmp_path / "out", "coop", "toy · tiny · on the same test images")["a"] == "100.00"


def test_seeds_are_averaged_image_by_image(runs: Path, tmp_path: Path) -> None:
    """A method loses ten cats in seed 1 and ten dogs in seed 2: a quarter of the images are lost by half, −12.5 points;
    standard error 100 · 0.5 · √(0.25 · 0.75 / 80) = 2.42."""
    labels = [0] * 40 + [1] * 40
    keep(put(runs, "own", 4, 1, {"a": 87.5}), {"a": [1] * 10 + [0] * 30 + [1] * 40}, labels)
    keep(put(runs, "own", 4, 2, {"a": 87.5}), {"a": [0] * 50 + [1] * 30}, labels)
    own = images(runs, tmp_path / "out").loc["own"]
    assert own["difference"] == -12.5
    assert own["high"] - own["low"] == pytest.approx(2 * 1.96 * 2.42, rel=0.12)


def test_where_classes_count_alike_the_difference_is_of_that_metric(tmp_path: Path) -> None:
    """One dog and four cats: the dog lost is half of mean_acc, a fifth of the images."""
    labels = [1, 0, 0, 0, 0]
    for method, predicted in (("coop", labels), ("softcpt", [0] * 5)):
        record = put(tmp_path / "runs", method, 4, 1, {"a": 100.0 if method == "coop" else 50.0})
        keep(record, {"a": predicted}, labels, "mean_acc")
    assert images(tmp_path / "runs", tmp_path / "out").loc["softcpt", "difference"] == -50


def test_a_single_seed_is_not_the_reference_of_three(runs: Path, tmp_path: Path) -> None:
    labels = [0] * 40 + [1] * 40
    for path in runs.glob("4-*"):  # coop is now worse than a method of one seed
        if path.suffix == ".json" and json.loads(path.read_text())["cell"]["method"] == "coop":
            content = json.loads(path.read_text())
            content["tasks"][0]["accuracy"] = 90.0
            path.write_text(json.dumps(content))
    keep(put(runs, "own", 4, 1, {"a": 95.0}), {"a": labels}, labels)
    assert set(images(runs, tmp_path / "out")["b"]) == {"coop"}


def test_other_images_are_not_paired_and_what_kept_none_is_named(runs: Path, tmp_path: Path) -> None:
    labels = [0] * 40 + [1] * 40
    keep(put(runs, "own", 4, 1, {"a": 50.0}), {"a": labels}, labels, images="others")
    put(runs, "plot", 4, 1, {"a": 50.0})
    found = images(runs, tmp_path / "out")
    assert "own" not in found.index and "plot" not in found.index
    assert row(tmp_path / "out", "own", "toy · tiny · on the same test images")["a"] == "—"
    assert "Without plot: not every cell has kept its predictions." in (tmp_path / "out" / "table.md").read_text()


def test_without_predictions_there_is_no_table(tmp_path: Path) -> None:
    put(tmp_path / "runs", "coop", 4, 1, {"a": 50.0})
    put(tmp_path / "runs", "softcpt", 4, 1, {"a": 50.0})
    bench.report(tmp_path / "runs", tmp_path / "out", format="md,csv")
    assert not (tmp_path / "out" / "images.csv").exists()
    assert "same test images" not in (tmp_path / "out" / "table.md").read_text()


def test_the_folds_of_a_seed_are_one_set_of_answers(tmp_path: Path) -> None:
    """softcpt scores each task in a cell of its own: it misses 10 of 80 images of a, and none of b. Of lasp one fold
    kept nothing."""
    labels, missed = [0] * 40 + [1] * 40, [0] * 50 + [1] * 30
    runs, out = tmp_path / "runs", tmp_path / "out"
    cell = {"protocol": "unseen-task"}
    zero = put(runs, "zero-shot", 0, 0, {"a": 100.0, "b": 100.0}, cell=cell)
    keep(zero, {"a": labels, "b": labels}, labels)
    for task, predicted, accuracy in (("a", missed, 87.5), ("b", labels, 100.0)):
        config = {"tasks": ["a", "b"], "scored": [task], "fold": f"{task} of 2"}
        keep(put(runs, "softcpt", 4, 1, {task: accuracy}, cell=cell, config=config), {task: predicted}, labels)
        lasp = put(runs, "lasp", 4, 1, {task: 90.0}, cell=cell, config=config)
        if task == "a":
            keep(lasp, {task: labels}, labels)
    found = images(runs, out).reset_index().set_index(["a", "task"])["difference"]
    assert found.to_dict() == {("softcpt", "a"): -12.5, ("softcpt", "b"): 0}
    assert "Without lasp: not every cell has kept its predictions." in (out / "table.md").read_text()
