"""Real photographs under a real backbone: RS-8 as far as it is there, and the twenty tasks of Fashion-20."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import bench
from bench.cli import main
from bench.clip.backbone import load_backbone
from bench.datasets.spec import load_suite
from bench.datasets.splits import load_tasks
from bench.features import ImageFeatures, View

SHARED = Path(__file__).parents[2] / "shared"
DATA, BACKBONE = SHARED / "data", SHARED / "weights" / "lite-clip.json"

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.skipif(
        not (DATA.is_dir() and BACKBONE.is_file()), reason="no photographs and no lite-clip in ../shared"
    ),
]


@pytest.fixture(scope="module")
def rs8(one_thread: None, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """RS-8's tasks that are there: four methods, one shot, one seed, two views, two epochs."""
    results = tmp_path_factory.mktemp("photographs")
    table = bench.run(
        suite="rs8",
        data=DATA,
        backbone=str(BACKBONE),
        methods=["zero-shot", "coop", "shared-coop", "softcpt"],
        shots=[1],
        seeds=[1],
        views=2,
        options=["all.epochs=2"],
        allow_missing=True,
        results=results,
        quiet=True,
    )
    return {"table": table, "results": results}


def test_rs8_runs_on_the_tasks_that_are_there(rs8: dict[str, Any]) -> None:
    table = rs8["table"]
    assert list(dict.fromkeys(table["task"])) == ["AID", "RSSCN7"]
    assert table.groupby("method").size().to_dict() == {"zero-shot": 2, "coop": 2, "shared-coop": 2, "softcpt": 2}
    assert table["n_classes"].drop_duplicates().tolist() == [30, 7]
    assert table.set_index("task")["n_test"].to_dict() == {"AID": 30 * 12, "RSSCN7": 7 * 18}
    trained = table[table["method"] != "zero-shot"]
    assert trained.set_index("task")["n_train"].to_dict() == {"AID": 30, "RSSCN7": 7}
    assert set(trained["views"]) == {2}
    assert not table["demo"].any()
    # d = 256, w = 192, L = 16, M = 4, T = 2
    params = dict(zip(table["method"], table["params"], strict=True))
    assert params == {
        "zero-shot": 0, "coop": 2 * 16 * 192, "shared-coop": 16 * 192, "softcpt": 256 * 16 * 192 + 4 * 192,
    }  # fmt: skip


def test_zero_shot_is_well_above_chance_and_below_all_right(rs8: dict[str, Any]) -> None:
    table = rs8["table"]
    zero_shot = table[table["method"] == "zero-shot"].set_index("task")["accuracy"]
    assert 5 * 100 / 30 < zero_shot["AID"] < 99
    assert 2 * 100 / 7 < zero_shot["RSSCN7"] < 99


def test_rerun_reads_what_is_finished(rs8: dict[str, Any]) -> None:
    files = {path: path.read_bytes() for path in rs8["results"].rglob("*.json")}
    assert len(files) == 4
    arguments = ["--suite", "rs8", "--data", str(DATA), "--backbone", str(BACKBONE), "--allow-missing"]
    arguments += ["--shots", "1", "--seeds", "1", "--views", "2", "-o", "all.epochs=2"]
    assert main(["run", *arguments, "--results", str(rs8["results"])]) == 0
    assert {path: path.read_bytes() for path in rs8["results"].rglob("*.json")} == files


def test_missing_tasks_are_an_error_that_says_what_to_put_where(tmp_path: Path, capsys: Any) -> None:
    command = ["run", "--suite", "rs8", "--data", str(DATA), "--backbone", str(BACKBONE)]
    assert main([*command, "--results", str(tmp_path / "runs")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: suite rs8: data of 6 of 8 tasks is missing")
    *lines, last = error.splitlines()[1:]
    assert f"data fetch --suite rs8 --data {DATA}" in last and "`--allow-missing`" in last
    assert [line.split(":")[0].strip() for line in lines] == [
        "NWPU-RESISC45", "UCMerced", "WHU-RS19", "OPTIMAL-31", "RSI-CB128", "EuroSAT",
    ]  # fmt: skip
    folders = {task.name: task.folder for task in load_suite("rs8").tasks}
    for line in lines:
        assert str(DATA / folders[line.split(":")[0].strip()]) in line
        assert "get it from http" in line
    assert not (tmp_path / "runs").exists()


def test_fashion20_loads_its_twenty_tasks() -> None:
    tasks = load_tasks(load_suite("fashion20"), DATA)
    assert len(tasks) == 20
    assert sum(len(task.class_names) for task in tasks) == 86
    for task in tasks:
        assert task.task_name
        assert task.metric == "mean_acc"
        for part in task.split.parts.values():
            assert {item.label for item in part} == set(range(len(task.class_names)))
        assert (task.split.root / task.split.test[0].path).is_file()


def test_features_of_photographs_equal_a_plain_loop(tmp_path: Path) -> None:
    """Odd sizes, grey levels and JPEG: what real collections hold."""
    backbone = load_backbone(str(BACKBONE))
    tasks = load_tasks(load_suite("rs8"), DATA, ["AID", "RSSCN7"])
    paths = [task.split.root / item.path for task in tasks for item in task.split.test[::90]]
    paths += sorted((DATA / "fashion20/images").rglob("*.jpg"))[::800]
    features = ImageFeatures(backbone, tmp_path).get(paths, View())[0]
    with torch.no_grad():
        for path, feature in zip(paths, features, strict=True):
            expected = backbone.model.encode_image(backbone.preprocess(Image.open(path).convert("RGB"))[None])[0]
            torch.testing.assert_close(feature, expected, rtol=1e-5, atol=1e-5)
