"""The check of a user's disk: one row a task, and what to do next."""

import json
import os
import time
from pathlib import Path

import pytest

from bench.datasets import Item, load_suite
from bench.datasets.check import check_suite
from bench.datasets.items import list_folder, missing_images

SUITE = """
defaults: {template: "a {}.", task_name: things}
tasks:
  - {name: Ready, classes: 2}
  - {name: Few, classes: 3, sources: [{what: few.zip, url: "https://example.org/few.zip", size: 3 MB}]}
  - {name: Gaps}
  - {name: Absent, sources: [{url: "https://example.org/absent"}]}
  - {name: Own, folder: own}
  - {name: Broken}
"""


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))


def class_folders(root: Path) -> None:
    for name in ("a", "b"):
        (root / name).mkdir(parents=True)
        for number in range(5):
            (root / name / f"{number}.jpg").touch()


def test_every_state_with_what_to_do_next(tmp_path: Path) -> None:
    (tmp_path / "suite.yaml").write_text(SUITE)
    for name in ("Ready", "Few", "Gaps", "Broken"):
        class_folders(tmp_path / name)
    rows = {
        part: [[f"{c}/{n}.jpg", label, c] for label, c in enumerate("ab")]
        for part, n in (("train", 0), ("val", 1), ("test", 7))
    }
    rows["test"] = [["a/2.jpg", 0, "a"], ["a/8.jpg", 0, "a"]]
    (tmp_path / "Gaps" / "split_zhou_Gaps.json").write_text(json.dumps({**rows, "val": []}))
    (tmp_path / "Broken" / "split_zhou_Broken.json").write_text("{")
    before = sorted(path for path in tmp_path.rglob("*"))
    table = check_suite(load_suite(str(tmp_path / "suite.yaml")), tmp_path).set_index("task")
    assert table["state"].to_dict() == {
        "Ready": "ready",
        "Few": "partial",
        "Gaps": "partial",
        "Absent": "missing",
        "Own": "missing",
        "Broken": "broken",
    }
    assert table["images"].to_dict() == {"Ready": 10, "Few": 10, "Gaps": 3, "Absent": 0, "Own": 0, "Broken": 0}
    assert list(table.loc["Few", ["classes", "classes_expected", "split"]]) == [2, 3, "folders, 2 of 3 classes"]
    assert table.loc["Ready", "next"] == ""
    assert "few.zip (3 MB): https://example.org/few.zip" in table.loc["Few", "next"]
    assert "1 images that split_zhou_Gaps.json lists" in table.loc["Gaps", "next"]
    assert "https://example.org/absent" in table.loc["Absent", "next"]
    assert f"put the images into {tmp_path / 'own'}" in table.loc["Own", "next"]
    assert "split_zhou_Broken.json: not JSON" in table.loc["Broken", "next"]
    assert sorted(path for path in tmp_path.rglob("*")) == before  # nothing written


def test_the_table_goes_to_json(tmp_path: Path) -> None:
    rows = json.loads(check_suite(load_suite("rs8"), tmp_path).to_json(orient="records"))
    assert len(rows) == 8 and rows[0]["task"] == "AID" and rows[0]["classes_expected"] == 30
    assert rows[0]["images_expected"] == 10000 and rows[3]["images_expected"] is None  # WHU-RS19's versions differ
    fashion = check_suite(load_suite("fashion20"), tmp_path)
    assert fashion["classes_expected"].isna().all() and fashion["images_expected"].isna().all()


def test_a_hundred_thousand_images_are_listed_in_seconds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SUN397's size, without its files: the listing may ask each folder once and each file never."""

    class Entry:
        def __init__(self, name: str) -> None:
            self.name = name

        def is_dir(self) -> bool:
            return False

        def stat(self) -> os.stat_result:
            raise AssertionError("a file was asked for its size")

    class Folder:
        def __init__(self, folder: object) -> None:
            self.entries = [Entry(f"sun_{number}.jpg") for number in range(1000)]

        def __enter__(self) -> list[Entry]:
            return self.entries

        def __exit__(self, *_: object) -> None:
            return None

    monkeypatch.setattr(os, "scandir", Folder)
    start = time.perf_counter()
    items = [Item(f"{c}/{name}", c) for c in range(100) for name in list_folder(tmp_path / str(c))[1]]
    assert len(items) == 100_000 and missing_images(tmp_path, items) == set()
    assert time.perf_counter() - start < 10
