"""The check of a user's disk: one row a task, and what to do next."""

import json
import os
import shlex
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import bench
from bench.cli import main
from bench.datasets import Item, load_suite, load_tasks
from bench.datasets.check import check_suite
from bench.datasets.types import list_folder, missing_images
from bench.errors import UserError

SUITE = """
defaults: {template: "a {}.", task_name: things}
tasks:
  - {name: Ready, classes: 2}
  - name: Few
    classes: 3
    sources:
      - {what: few.zip, url: "https://example.org/few.zip", size: 3 MB, licence: CC0}
      - {what: names, url: "https://example.org/names", licence: CC0}
      - {what: more.zip, url: "https://example.org/more", fetch: "https://example.net/m", licence: ask its authors}
      - {what: notes, url: "https://example.org/names", licence: as above}
      - {what: split_zhou_Few.json, url: "https://example.org/split", licence: another}
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
    assert table["notes"].str.contains("no validation images", regex=False).to_dict() == {
        name: name == "Gaps" for name in table.index
    }
    assert table.loc["Few", "next"] == (
        f"{tmp_path}/Few: holds 2 of 3 classes; from https://example.org/few.zip, https://example.org/names (licence: "
        "CC0); from https://example.org/more (licence: ask its authors); `data fetch` gets it, or says how"
    )
    assert "; from https://example.org/absent (licence: the suite file does not say); " in table.loc["Absent", "next"]
    assert "1 image that split_zhou_Gaps.json lists is not there" in table.loc["Gaps", "next"]
    assert table.loc["Own", "next"].startswith(f"{tmp_path}/own: no such folder; `data fetch`")
    assert "split_zhou_Broken.json: not JSON" in table.loc["Broken", "next"]
    assert sorted(path for path in tmp_path.rglob("*")) == before  # nothing written


def test_fewer_images_than_expected_are_partial_where_no_list_names_them(tmp_path: Path) -> None:
    suite = """
defaults: {template: "a {}.", task_name: things, classes: 2, images: 12}
tasks:
  - {name: Folders, sources: [{what: all.zip, url: "https://example.org/all.zip"}]}
  - {name: Enough, images: 10}
  - {name: Listed}
"""
    (tmp_path / "suite.yaml").write_text(suite)
    for name in ("Folders", "Enough", "Listed"):
        class_folders(tmp_path / name)
    rows = [[[f"{c}/{n}.jpg", label, c] for label, c in enumerate("ab")] for n in range(3)]
    split = dict(zip(("train", "val", "test"), rows, strict=True))
    (tmp_path / "Listed" / "split_zhou_Listed.json").write_text(json.dumps(split))
    suite_of = load_suite(str(tmp_path / "suite.yaml"))
    table = check_suite(suite_of, tmp_path).set_index("task")
    assert list(table["state"]) == ["partial", "ready", "ready"]  # who gives a list says what belongs to it
    assert list(table["images"]) == [10, 10, 6] and list(table["images_expected"]) == [12, 10, 12]
    assert "holds 10 of 12 images; a run uses these, or `data fetch` says how" in table.loc["Folders", "next"]
    assert list(table["next"][1:]) == ["", ""]
    assert len(load_tasks(suite_of, tmp_path)) == 3  # a run takes them all
    assert check_suite(suite_of, tmp_path)["state"][0] == "partial"  # also once the division is written


def test_the_command_prints_found_and_expected_and_what_to_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "suite.yaml").write_text(
        SUITE.replace("{name: Ready, classes: 2}", "{name: Ready, classes: 2, images: 10}")
    )
    for name in ("Ready", "Few", "Gaps"):
        class_folders(tmp_path / name)
    command = ["data", "check", "--suite", str(tmp_path / "suite.yaml"), "--data", str(tmp_path)]
    assert main(command) == 1  # not all are ready
    lines = capsys.readouterr().out.splitlines()
    assert "images found / expected" in lines[0] and "classes found / expected" in lines[0]
    ready, few = (next(line for line in lines if line.startswith(name)) for name in ("Ready", "Few"))
    assert "10 / 10" in ready and "2 / 2" in ready and "10 / ?" in few and "2 / 3" in few
    assert any(line.startswith("- Few: ") and "`python -m bench data fetch --suite" in line for line in lines)
    assert main([*command, "--json"]) == 1
    rows = json.loads(capsys.readouterr().out)
    keys = ("images", "images_expected", "classes", "classes_expected")
    assert [rows[0][key] for key in keys] == [10, 10, 2, 2]


def picture(file: Path, seed: int) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (20, 20, 3), dtype=np.uint8)).save(file)


def test_the_exit_code_is_0_only_when_every_task_is_ready(tmp_path: Path) -> None:
    text = "tasks:\n  - {name: A, template: 'a {}.', task_name: things, images: 10}\n"
    (tmp_path / "suite.yaml").write_text(text)
    command = ["data", "check", "--suite", str(tmp_path / "suite.yaml"), "--data", str(tmp_path)]
    assert main(command) == 1  # missing
    class_folders(tmp_path / "A")
    assert main(command) == 0
    (tmp_path / "suite.yaml").write_text(text.replace("images: 10", "images: 11"))
    assert main(command) == 1  # partial
    (tmp_path / "A" / "split_zhou_A.json").write_text("{")
    assert main(command) == 1  # broken


def test_open_finds_broken_images_and_copies_in_two_parts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "suite.yaml").write_text("tasks:\n  - {name: A, template: 'a {}.', task_name: things}\n")
    for label, name in enumerate("ab"):
        for number in range(5):
            picture(tmp_path / "A" / name / f"{number}.png", 10 * label + number)
    command = ["data", "check", "--suite", str(tmp_path / "suite.yaml"), "--data", str(tmp_path), "--open"]
    assert main(command) == 0
    assert "Worth knowing" not in capsys.readouterr().out
    split = load_tasks(load_suite(str(tmp_path / "suite.yaml")), tmp_path)[0].split
    train, test = split.train[0].path, split.test[0].path
    shutil.copy(tmp_path / "A" / train, tmp_path / "A" / test)
    assert main(command) == 0  # worth knowing, but a run can use it
    assert f"- A: 1 image has the same bytes as images of another part: {test} = {train}" in capsys.readouterr().out
    for path in (split.val[0].path, split.test[1].path):
        (tmp_path / "A" / path).write_bytes((tmp_path / "A" / path).read_bytes()[:-300])
    assert main(command) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[2].split()[:2] == ["A", "broken"]
    (step,) = (line for line in lines if line.startswith("- A: 2 images cannot be read: "))
    assert split.val[0].path in step and split.test[1].path in step
    assert main(command[:-1]) == 0  # without --open nobody looks into the images


def test_some_of_the_tasks_are_checked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert list(bench.check("rs8", str(tmp_path), tasks=["aid"])["task"]) == ["AID"]
    assert main(["data", "check", "--suite", "rs8", "--data", str(tmp_path), "--tasks", "AID,RSSCN7"]) == 1
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()[2:4]] == ["AID", "RSSCN7"]
    with pytest.raises(UserError, match="no task 'AIDS'; did you mean 'AID'"):
        bench.check("rs8", str(tmp_path), tasks=["AIDS"])


def test_the_demo_is_made_at_first_use(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "check", "--suite", "demo", "--tasks", "Colour"]) == 0  # no --data
    shown = capsys.readouterr().out
    assert "at first use" in shown and "- Colour: its images are rendered on first use" in shown
    bench.listing("classes", suite="demo", task="Colour")  # renders it
    assert list(bench.check("demo")["state"]) == ["ready"] * 5


def test_the_command_can_be_typed_as_it_stands(tmp_path: Path) -> None:
    root = tmp_path / "my data; rm"
    root.mkdir()
    next_step = bench.check("rs8", str(root)).set_index("task").loc["RSSCN7", "next"]
    command = next_step.split("`")[1]
    assert shlex.split(command)[3:] == ["data", "fetch", "--suite", "rs8", "--data", str(root), "--tasks", "RSSCN7"]


def test_folders_of_any_name_can_be_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "suite.yaml").write_text(SUITE)
    root = tmp_path / os.fsdecode(b"not-\xff-text")
    class_folders(root / "Ready")
    for number in range(5):
        (root / "Ready" / "a\x1b[2J").mkdir(exist_ok=True)
        (root / "Ready" / "a\x1b[2J" / f"{number}.jpg").touch()
    command = ["data", "check", "--suite", str(tmp_path / "suite.yaml"), "--data", str(root)]
    for more in ([], ["--json"]):
        assert main([*command, *more]) == 1
        shown = capsys.readouterr().out
        shown.encode()  # all of it is text
        assert "udcff-text" in shown and "\x1b" not in shown and "\\u001b" not in shown


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
    start = time.process_time()  # this process's own: others may be busy
    items = [Item(f"{c}/{name}", c) for c in range(100) for name in list_folder(tmp_path / str(c))[1]]
    assert len(items) == 100_000 and missing_images(tmp_path, items) == set()
    assert time.process_time() - start < 10
