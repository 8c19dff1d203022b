"""Splits made here, which hang on file names alone, and what is missing."""

import json
import os
import random
import re
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import bench
from bench.datasets import Item, load_suite, load_tasks
from bench.datasets.cache_paths import cache_place
from bench.datasets.splitfiles import coop_form, read_split, write_json
from bench.datasets.splits import divide
from bench.datasets.types import Listing
from bench.errors import UserError

sys.path.append(str(Path(__file__).parent))
from trees import GOOD, birds_suite, cache, changed, class_folders, images_of, load, write

__all__ = ["cache"]

# Time says nothing on a shared machine.
unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


# Where others keep it ----------------------------------------------------------------------------------------


def test_the_authors_folder_and_split_file_of_kaggle_flower_are_found(tmp_path: Path) -> None:
    """As in datasets/kaggle_flower.py of github.com/kding1225/softcpt."""
    names = ["daisy", "dandelion", "rose", "sunflower", "tulip"]
    folder = tmp_path / "kaggle_flower_recognition"
    class_folders(folder / "flowers", dict.fromkeys(names, 3))
    numbered = {"train": 0, "val": 1, "test": 2}
    parts = {part: [[f"{n}/{i}.jpg", [c], [0]] for c, n in enumerate(names)] for part, i in numbered.items()}
    meta = {"taskid2cname": [names], "taskid2tname": ["flowers, said by the file"]}
    (folder / "split_dk_kaggle_flower.json").write_text(json.dumps({**parts, "meta": meta}))
    suite = load_suite("plant6")
    (task,) = load_tasks(suite, tmp_path, ["KaggleFlower"])
    assert task.split.source == "split_dk_kaggle_flower.json" and task.split.root == folder / "flowers"
    assert [item.path for item in task.split.val] == [f"{n}/1.jpg" for n in names]
    report = bench.check("plant6", str(tmp_path)).set_index("task")
    assert report.loc["KaggleFlower", "state"] == "ready"
    class_folders(tmp_path / "kaggle_flower" / "flowers", dict.fromkeys(names, 10))  # ours stands above theirs
    (task,) = load_tasks(suite, tmp_path, ["KaggleFlower"])
    assert task.split.root == tmp_path / "kaggle_flower" / "flowers"


def test_a_folder_outside_the_root_is_refused_in_a_list_too(tmp_path: Path) -> None:
    file = tmp_path / "birds.yaml"
    file.write_text("tasks: [{name: Birds, folder: [birds, ../x], template: 'a {}.', task_name: birds}]")
    with pytest.raises(UserError, match=r"`folder` must be a path below the data root, not '\.\./x'"):
        load_suite(str(file))


# Divisions made here -----------------------------------------------------------------------------------------


def test_folders_rule_gives_half_a_fifth_and_the_rest_of_each_class(tmp_path: Path) -> None:
    class_folders(tmp_path / "birds", {"Blue_Jay": 10, "crow": 7, "wren": 3})
    split = load(tmp_path)
    assert split.class_names == ("Blue Jay", "crow", "wren")

    def count(items: tuple[Item, ...]) -> list[int]:
        return [sum(item.label == label for item in items) for label in range(3)]

    assert (count(split.train), count(split.val), count(split.test)) == ([5, 4, 1], [2, 1, 1], [3, 2, 1])


def test_folders_rule_is_pinned_by_value(tmp_path: Path) -> None:
    class_folders(tmp_path / "birds", {"crow": 5, "wren": 4})
    split = load(tmp_path)
    assert [item.path for item in split.train] == ["crow/2.jpg", "crow/4.jpg", "wren/1.jpg", "wren/3.jpg"]
    assert [item.path for item in split.val] == ["crow/1.jpg", "wren/2.jpg"]
    assert [item.path for item in split.test] == ["crow/0.jpg", "crow/3.jpg", "wren/0.jpg"]


listings = st.dictionaries(
    st.integers(0, 3), st.sets(st.text(min_size=1, max_size=6), min_size=3, max_size=30), min_size=1
)


@unhurried
@given(listings, st.randoms(use_true_random=False))
def test_division_keeps_every_image_once_and_ignores_order(files: dict[int, set[str]], shuffler: random.Random) -> None:
    items = [Item(f"{label}/{name}", label) for label, names in files.items() for name in names]
    names = tuple("abcd")
    split = divide(Listing(Path(), names, {"all": sorted(items)}, "folders"))
    assert sorted(split.train + split.val + split.test) == sorted(items)
    for part in split.parts.values():
        assert {item.label for item in part} == set(files)
    shuffler.shuffle(items)
    assert divide(Listing(Path(), names, {"all": items}, "folders")) == split


def test_a_class_too_small_to_divide_is_named(tmp_path: Path) -> None:
    class_folders(tmp_path / "birds", {"crow": 5, "wren": 2})
    with pytest.raises(UserError, match="class 'wren' has 2 images"):
        load(tmp_path)


def test_nothing_is_written_and_the_division_follows_the_images_that_are_there(tmp_path: Path) -> None:
    birds = class_folders(tmp_path / "birds", {"crow": 5, "wren": 4})
    before = sorted(tmp_path.rglob("*"))
    split = load(tmp_path)
    assert load(tmp_path) == split and sorted(tmp_path.rglob("*")) == [*before, tmp_path / "birds.yaml"]
    class_folders(birds, {"crow": 10})
    assert sum(len(items) for items in load(tmp_path).parts.values()) == 14
    class_folders(birds, {"others": 6})
    assert load(tmp_path, "{kind: folders, exclude: [others]}").class_names == ("crow", "wren")  # one folder,
    assert load(tmp_path).class_names == ("crow", "others", "wren")  # two suites


@pytest.mark.parametrize("where", ["data", "cache"])
def test_a_division_kept_by_an_earlier_version_is_never_passed_over(tmp_path: Path, cache: Path, where: str) -> None:
    birds = class_folders(tmp_path / "birds", {"crow": 5, "wren": 4})
    split = load(tmp_path)
    file = (birds if where == "data" else cache_place(birds)) / "split_bench_Birds.json"
    write_json(file, coop_form(split))
    assert load(tmp_path) == split  # the same one
    content = coop_form(split)
    content["train"], content["test"] = content["test"], content["train"]  # edited
    write_json(file, content)
    given = birds / "split_zhou_Birds.json"
    said = rf"split_bench_Birds\.json: holds another division .* move it to {re.escape(str(given))}"
    with pytest.raises(UserError, match=said):
        load(tmp_path)
    file.rename(given)
    assert load(tmp_path).train == split.test
    file.write_text("{")
    given.unlink()
    with pytest.raises(UserError, match=r"split_bench_Birds\.json: not JSON"):
        load(tmp_path)


@unhurried
@given(listings)
def test_what_is_written_reads_back_the_same(
    tmp_path_factory: pytest.TempPathFactory, files: dict[int, set[str]]
) -> None:
    folder = tmp_path_factory.mktemp("split")
    numbered = enumerate(files.values())
    items = [Item(f"{label}/{n}.jpg", label) for label, names in numbered for n, _ in enumerate(names)]
    names = tuple(f"name {label}" for label in range(len(files)))
    split = divide(Listing(folder, names, {"all": items}, "folders"))
    write_json(folder / "split.json", coop_form(split))
    again, _ = read_split(folder / "split.json", folder)
    assert (again.parts, again.class_names) == (split.parts, split.class_names)


# Missing data ------------------------------------------------------------------------------------------------


def test_missing_tasks_are_named_together_with_folder_and_link(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        bench.write_draws("plant6", str(tmp_path), str(tmp_path / "draws"), [1], [1])
    said = str(caught.value)
    for task in load_suite("plant6").tasks:
        assert task.name in said and str(tmp_path / task.folder) in said and task.sources[0].url in said
    assert f"`python -m bench data fetch --suite plant6 --data {tmp_path}`" in said


def test_allow_missing_leaves_tasks_out_but_not_all(tmp_path: Path) -> None:
    file = tmp_path / "two.yaml"
    file.write_text(
        "defaults: {template: '{}.'}\ntasks:\n- {name: Birds, folder: birds, task_name: b}\n"
        "- {name: Fish, folder: fish, task_name: f}\n"
    )
    class_folders(tmp_path / "birds", {"crow": 5, "wren": 4})
    suite = load_suite(str(file))
    with pytest.raises(UserError, match=r"(?s)1 of 2 tasks is missing below .*:\n  Fish: .*/fish: no such folder$"):
        load_tasks(suite, tmp_path)
    assert [task.name for task in load_tasks(suite, tmp_path, allow_missing=True)] == ["Birds"]
    assert [task.name for task in load_tasks(suite, tmp_path, names=["BIRDS"])] == ["Birds"]
    with pytest.raises(UserError, match="1 of 1 tasks is missing"):
        load_tasks(suite, tmp_path, names=["fish"], allow_missing=True)


def test_missing_images_are_counted_and_dropped_when_allowed(tmp_path: Path) -> None:
    write(tmp_path, GOOD)
    images_of(tmp_path)
    (tmp_path / "birds" / "a" / "3.jpg").unlink()
    with pytest.raises(UserError, match=r"/birds: 1 image that split_zhou_Birds\.json lists is not there, .*'a/3.jpg'"):
        load(tmp_path)
    split = load(tmp_path, allow_missing=True)
    assert [item.path for item in split.test] == ["b/3.jpg"] and split.source.endswith("1 image missing")


def test_classes_without_any_image_close_up_when_allowed(tmp_path: Path) -> None:
    content = {part: [[f"{n}/{part}.jpg", n, f"class {n}"] for n in range(4)] for part in ("train", "val", "test")}
    write(tmp_path, content)
    images_of(tmp_path, changed(lambda s: [part.pop(1) for part in s.values()], content))
    split = load(tmp_path, allow_missing=True)
    assert split.class_names == ("class 0", "class 2", "class 3")
    assert [(item.path, item.label) for item in split.train] == [
        ("0/train.jpg", 0),
        ("2/train.jpg", 1),
        ("3/train.jpg", 2),
    ]


def test_a_class_without_training_image_is_named(tmp_path: Path) -> None:
    write(tmp_path, changed(lambda s: s["train"].pop(1)))
    images_of(tmp_path)
    with pytest.raises(UserError, match="class 'blue jay' has no training image"):
        load(tmp_path)


def test_fewer_classes_than_the_suite_says_is_missing_data(tmp_path: Path) -> None:
    class_folders(tmp_path / "birds", {"crow": 5, "wren": 4})
    with pytest.raises(UserError, match="holds 2 of 3 classes"):
        load(tmp_path, more=", classes: 3")
    assert len(load(tmp_path, more=", classes: 3", allow_missing=True).class_names) == 2


def test_more_classes_than_the_suite_says_is_an_error(tmp_path: Path) -> None:
    class_folders(tmp_path / "birds", {"crow": 5, "wren": 4, "README": 3})
    with pytest.raises(UserError, match="3 classes where the suite says 2"):
        load(tmp_path, more=", classes: 2", allow_missing=True)


def test_task_name_file_stands_above_the_suite(tmp_path: Path) -> None:
    birds = class_folders(tmp_path / "birds", {"crow": 5, "wren": 4})
    (birds / "task_name.txt").write_text("bird species\nrecognition\n")
    (task,) = load_tasks(birds_suite(tmp_path), tmp_path)
    assert task.task_name == "bird species recognition"
    (birds / "task_name.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match=r"task_name\.txt"):
        load_tasks(birds_suite(tmp_path), tmp_path)


def test_file_system_order_plays_no_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class_folders(tmp_path / "birds", {"crow": 9, "wren": 8})
    split = load(tmp_path)
    real = os.scandir

    class Reversed:
        def __init__(self, folder: Path) -> None:
            self.entries = sorted(real(folder), key=lambda entry: entry.name, reverse=True)

        def __enter__(self) -> list[os.DirEntry[str]]:
            return self.entries

        def __exit__(self, *_: object) -> None:
            return None

    monkeypatch.setattr(os, "scandir", Reversed)
    assert load(tmp_path) == split
