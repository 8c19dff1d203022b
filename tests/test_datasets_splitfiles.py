"""Given split files: checked before they are believed."""

import gzip
import json
import os
import sys
import tracemalloc
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bench.datasets import Item
from bench.datasets.splitfiles import MAX_JSON, read_json, read_split
from bench.datasets.types import missing_images
from bench.errors import UserError

sys.path.append(str(Path(__file__).parent))
from trees import GOOD, cache, changed, class_folders, images_of, load, touch, write

__all__ = ["cache"]

# Time says nothing on a shared machine.
unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


AUTHORS: dict[str, Any] = {
    "train": [["a/1.jpg", [0], [0]], ["x/1.jpg", [0], [1]], ["b/1.jpg", [1], [0]], ["x/2.jpg", [1], [1]]],
    "val": [],
    "test": [["a/3.jpg", [0], [0]], ["b/3.jpg", [1], [0]], ["x/3.jpg", [1], [1]]],
    "meta": {
        "taskid2cname": [["crow", "blue_jay"], ["red", "green"]],
        "taskid2tname": ["bird_kind", "colour"],
    },
}


def test_coops_split_file_is_read(tmp_path: Path) -> None:
    write(tmp_path, GOOD)
    images_of(tmp_path)
    split = load(tmp_path)
    assert split.class_names == ("crow", "blue jay")
    assert split.train == (Item("a/1.jpg", 0), Item("b/1.jpg", 1)) and len(split.test) == 2
    assert split.source == "split_zhou_Birds.json"


def test_authors_split_file_is_read_task_by_task(tmp_path: Path) -> None:
    file = write(tmp_path, AUTHORS, "split_dk_Birds.json")
    first, first_name = read_split(file, tmp_path)
    second, second_name = read_split(file, tmp_path, task=1)
    assert (first.class_names, first_name) == (("crow", "blue jay"), "bird kind")
    assert (second.class_names, second_name) == (("red", "green"), "colour")
    assert [item.path for item in second.train] == ["x/1.jpg", "x/2.jpg"] and len(first.test) == 2
    images_of(tmp_path, AUTHORS)
    assert load(tmp_path).source == "split_dk_Birds.json"


@pytest.mark.parametrize("name", ["split_zhou_Birds.json.gz", "split_zhou_Birds.json"])
def test_a_bomb_is_refused_without_being_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """50 MB of blanks, 50 kB as gzip; the bound is lowered to 1 MB so that the test is quick."""
    monkeypatch.setattr("bench.datasets.splitfiles.MAX_JSON", 1_000_000)
    file = tmp_path / name
    file.write_bytes(gzip.compress(b" " * 50_000_000, 1) if name.endswith(".gz") else b" " * 50_000_000)
    tracemalloc.start()
    with pytest.raises(UserError, match=r"split_zhou_Birds\.json.*: holds more than 1 MB") as caught:
        read_json(file)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert str(file) in str(caught.value) and "\n" not in str(caught.value)
    assert peak < 5_000_000


def test_the_bound_leaves_room_for_the_largest_lists(tmp_path: Path) -> None:
    assert MAX_JSON >= 1_300_000 * 100  # ImageNet's images, a long row each
    file = tmp_path / "x.json"
    file.write_text(json.dumps(["x" * 1000]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("bench.datasets.splitfiles.MAX_JSON", file.stat().st_size)
        assert read_json(file) == ["x" * 1000]  # exactly the bound


def test_damaged_gzip_is_named(tmp_path: Path) -> None:
    file = tmp_path / "x.json.gz"
    whole = gzip.compress(json.dumps(list(range(1000))).encode())
    for content in (whole[:-20], whole[:20] + b"\xff" * 40 + whole[60:], whole[:-6] + b"\0" + whole[-5:]):
        file.write_bytes(content)
        with pytest.raises(UserError, match=r"x\.json\.gz: (not JSON|cannot be read)"):
            read_json(file)


def test_coops_file_goes_before_the_authors_and_gzip_is_read(tmp_path: Path) -> None:
    write(tmp_path, AUTHORS, "split_dk_Birds.json")
    images_of(tmp_path, AUTHORS)
    images_of(tmp_path)
    (tmp_path / "birds" / "split_zhou_Birds.json.gz").write_bytes(gzip.compress(json.dumps(GOOD).encode()))
    assert load(tmp_path).source == "split_zhou_Birds.json.gz"


def test_a_task_described_by_its_split_file_alone(tmp_path: Path) -> None:
    write(tmp_path, GOOD, "mine.json")
    images_of(tmp_path)
    assert load(tmp_path, "{kind: coop, split: mine.json}").source == "mine.json"
    with pytest.raises(UserError, match=r"yours\.json: no such file"):
        load(tmp_path, "{kind: coop, split: yours.json}")


HOSTILE = {
    "absolute path": (
        lambda s: s["train"][0].__setitem__(0, "/etc/passwd"),
        "'/etc/passwd' is an absolute path",
    ),
    "drive path": (lambda s: s["train"][0].__setitem__(0, "C:\\x.jpg"), "is an absolute path"),
    "path leaving the root": (
        lambda s: s["train"][0].__setitem__(0, "a/../../x.jpg"),
        "leaves the image folder",
    ),
    "path leaving by backslash": (
        lambda s: s["train"][0].__setitem__(0, "..\\x.jpg"),
        "leaves the image folder",
    ),
    "path that is no text": (lambda s: s["train"][0].__setitem__(0, 3), "3 is not an image path"),
    "path with NUL": (lambda s: s["train"][0].__setitem__(0, "a\0.jpg"), "is not an image path"),
    "empty path": (lambda s: s["train"][0].__setitem__(0, ""), "'' is not an image path"),
    "negative label": (lambda s: s["train"][0].__setitem__(1, -1), "label -1 is not a whole number"),
    "label as text": (lambda s: s["train"][0].__setitem__(1, "0"), "label '0' is not a whole number"),
    "label true": (lambda s: s["train"][1].__setitem__(1, True), "label True is not a whole number"),
    "fractional label": (lambda s: s["train"][0].__setitem__(1, 0.5), "label 0.5 is not a whole number"),
    "gap in labels": (
        lambda s: [row.__setitem__(1, 7) for part in s.values() for row in part if row[1] == 1],
        "without gaps; 1 are missing, e.g. 1 (highest label: 7)",
    ),
    "two names for a label": (lambda s: s["test"][0].__setitem__(2, "raven"), "label 0 has two class names"),
    "one name for two labels": (
        lambda s: [row.__setitem__(2, "crow") for part in s.values() for row in part],
        "labels [0, 1] have the same class name 'crow'",
    ),
    "name that is no text": (lambda s: s["train"][0].__setitem__(2, None), "class name None"),
    "empty name": (
        lambda s: [r.__setitem__(2, "_") for p in s.values() for r in p if r[1]],
        "empty class name",
    ),
    "image twice in a part": (lambda s: s["train"].append(s["train"][0]), "1 images stand twice in 'train'"),
    "image in train and test": (
        lambda s: s["test"].append(["./a//1.jpg", 0, "crow"]),
        "1 images stand in both 'train' and 'test', e.g. 'a/1.jpg'",
    ),
    "row too short": (
        lambda s: s["val"].append(["a.jpg", 0]),
        "an entry of 'val' must be [path, label, class name]",
    ),
    "row no list": (lambda s: s["val"].append("a.jpg"), "an entry of 'val' must be"),
    "part missing": (lambda s: s.pop("val"), "the lists 'train', 'val' and 'test'"),
    "part no list": (lambda s: s.__setitem__("val", {}), "the lists 'train', 'val' and 'test'"),
    "nothing in it": (lambda s: [part.clear() for part in s.values()], "holds no images"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_split_file_is_refused(tmp_path: Path, kind: str) -> None:
    change, said = HOSTILE[kind]
    file = write(tmp_path, changed(change))
    images_of(tmp_path)
    with pytest.raises(UserError) as caught:
        load(tmp_path)
    assert str(file) in str(caught.value) and said in str(caught.value)


HOSTILE_AUTHORS = {
    "label out of range": (
        lambda s: s["train"][0].__setitem__(1, [2]),
        "label 2 of 'a/1.jpg' is out of range",
    ),
    "two labels": (lambda s: s["train"][0].__setitem__(1, [0, 1]), "must have one label and one task"),
    "task as text": (lambda s: s["train"][0].__setitem__(2, ["0"]), "task '0' is not a whole number"),
    "label no list": (lambda s: s["train"][0].__setitem__(1, 0), "must have one label and one task"),
    "no class names": (lambda s: s["meta"].pop("taskid2cname"), "'meta' must hold 'taskid2cname'"),
    "class names no lists": (lambda s: s["meta"].__setitem__("taskid2cname", ["a"]), "'meta' must hold"),
    "meta no map": (lambda s: s.__setitem__("meta", []), "'meta' must hold"),
}


@pytest.mark.parametrize("kind", HOSTILE_AUTHORS)
def test_hostile_authors_file_is_refused(tmp_path: Path, kind: str) -> None:
    change, said = HOSTILE_AUTHORS[kind]
    file = write(tmp_path, changed(change, AUTHORS), "split_dk_Birds.json")
    with pytest.raises(UserError) as caught:
        read_split(file, tmp_path)
    assert str(file) in str(caught.value) and said in str(caught.value)


def test_authors_file_without_the_task_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds tasks 0 to 1, not task 2"):
        read_split(write(tmp_path, AUTHORS), tmp_path, task=2)


@pytest.mark.parametrize("content", [AUTHORS, GOOD])
def test_a_negative_task_does_not_count_from_the_end(tmp_path: Path, content: dict[str, Any]) -> None:
    write(tmp_path, content, "mine.json")
    images_of(tmp_path, content)
    with pytest.raises(UserError, match="reader coop: `task` must be a whole number from 0 up, not -1"):
        load(tmp_path, "{kind: coop, split: mine.json, task: -1}")


@pytest.mark.parametrize(
    "path",
    [
        "/".join(["x" * 200] * 30) + "/1.jpg",  # each name is short enough, the path is not
        *("a/" + "x" * 252 + ".jpg", "ü" * 128 + "/1.jpg", "\ud800/1.jpg", "a/\ud800.jpg"),
    ],
)
def test_paths_no_disk_would_take_are_missing_images(tmp_path: Path, path: str) -> None:
    write(tmp_path, changed(lambda s: s["val"].append([path, 0, "crow"])))
    images_of(tmp_path)
    with pytest.raises(UserError, match=r"1 image that split_zhou_Birds\.json lists is not there"):
        load(tmp_path)
    assert load(tmp_path, allow_missing=True).source.endswith("1 image missing")


def test_a_folder_of_listed_images_that_cannot_be_read_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, GOOD)
    images_of(tmp_path)

    def refuse(folder: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "scandir", refuse)  # the super-user, who may run this test, is refused nothing
    with pytest.raises(UserError, match=r"/birds/a: cannot be read; give yourself permission"):
        load(tmp_path)


@pytest.mark.parametrize("content", ["", "{", "\x00", "NaN", "[1, 2]", '"text"', "[" * 100_000])
def test_json_that_is_not_a_split_is_named(tmp_path: Path, content: str) -> None:
    file = write(tmp_path, content)
    with pytest.raises(UserError, match=file.name):
        load(tmp_path)


def test_bytes_that_are_not_text_are_named(tmp_path: Path) -> None:
    file = write(tmp_path, "")
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="not JSON"):
        load(tmp_path)
    file.unlink()
    (tmp_path / "birds" / "split_zhou_Birds.json.gz").write_bytes(b"not gzip")
    with pytest.raises(UserError, match="split_zhou_Birds"):
        load(tmp_path)


def test_a_leak_is_accepted_where_the_suite_file_says_so(tmp_path: Path) -> None:
    write(tmp_path, changed(lambda s: s["test"].append(["a/1.jpg", 0, "crow"])))
    images_of(tmp_path)
    assert len(load(tmp_path, "{kind: folders, allow_leak: true}").test) == 3


def test_names_are_kept_whatever_they_hold(tmp_path: Path) -> None:
    odd = ["<b>crow</b> & co", "jay, blue\n(Cyanocitta)", "🐦 ☃"]
    content = {part: [[f"{part}/{n}.jpg", n, name] for n, name in enumerate(odd)] for part in ("train", "val", "test")}
    write(tmp_path, content)
    images_of(tmp_path, content)
    # Line ends would break tables and logs: they become spaces. Nothing else is touched.
    assert load(tmp_path).class_names == ("<b>crow</b> & co", "jay, blue (Cyanocitta)", "🐦 ☃")


any_text = st.text(st.characters(exclude_categories=()), max_size=8)  # lone surrogates, too
values = st.none() | st.booleans() | st.integers(-1, 4) | st.floats() | any_text | st.just(["a"])


@st.composite
def split_files(draw: st.DrawFn) -> dict[str, Any]:
    """A split file as it should be, of which up to three entries are then changed to anything."""
    names = draw(st.lists(any_text, min_size=1, max_size=4, unique=True))
    stems = draw(st.lists(any_text, min_size=3, max_size=9, unique=True))
    content: dict[str, list[Any]] = {"train": [], "val": [], "test": []}
    for number, stem in enumerate(stems):
        label = number % len(names)
        row = [f"{draw(st.sampled_from('ab'))}/{number}{stem}.jpg", label, names[label]]
        content[draw(st.sampled_from(["train", "val", "test"]))].append(row)
    for _ in range(draw(st.integers(0, 3))):
        rows = content[draw(st.sampled_from(["train", "val", "test"]))]
        if rows:
            row = draw(st.sampled_from(rows))
            row[draw(st.integers(0, len(row) - 1))] = draw(values)
            draw(st.sampled_from([lambda: None, row.pop, lambda: rows.append(row)]))()  # noqa: B023 (called at once)
    return content


def test_a_split_file_is_read_whole_or_refused(tmp_path_factory: pytest.TempPathFactory) -> None:
    outcomes: Counter[str] = Counter()

    @unhurried
    @given(split_files())
    def read_whole_or_refused(content: dict[str, Any]) -> None:
        file = tmp_path_factory.mktemp("split") / "split_zhou_Birds.json"
        file.write_text(json.dumps(content))
        try:
            split, _ = read_split(file, file.parent)
        except UserError as error:
            outcomes["refused"] += 1
            assert str(file) in str(error) and "\n" not in str(error)
            return
        outcomes["read"] += 1
        assert [len(items) for items in split.parts.values()] == [len(content[part]) for part in split.parts]
        items = [item for items in split.parts.values() for item in items]
        assert all(0 <= item.label < len(split.class_names) for item in items)
        assert all((file.parent / item.path).resolve().is_relative_to(file.parent.resolve()) for item in items)
        assert missing_images(file.parent, items) == {item.path for item in items}  # the disk can be asked for them

    read_whole_or_refused()
    assert min(outcomes["read"], outcomes["refused"]) >= 10, outcomes


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)


@unhurried
@given(
    st.fixed_dictionaries(
        {"train": json_values, "val": json_values, "test": json_values}, optional={"meta": json_values}
    )
)
def test_any_json_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, content: dict) -> None:
    file = tmp_path_factory.mktemp("split") / "split_zhou_Birds.json"
    file.write_text(json.dumps(content))
    try:
        read_split(file, file.parent)
    except UserError as error:
        assert str(file) in str(error)


# Split files from Windows ------------------------------------------------------------------------------------


def windows(row: list[Any]) -> list[Any]:
    return [row[0].replace("/", "\\"), *row[1:]]


def test_split_files_with_backslashes_are_read(tmp_path: Path) -> None:
    images_of(tmp_path)
    write(tmp_path, GOOD)
    expected = load(tmp_path)
    write(tmp_path, {part: [windows(row) for row in rows] for part, rows in GOOD.items()})
    split = load(tmp_path)
    assert split == expected and split.train[0].path == "a/1.jpg"
    (tmp_path / "birds" / "split_zhou_Birds.json").unlink()
    authors = {part: [windows(row) for row in AUTHORS[part]] for part in ("train", "val", "test")}
    file = write(tmp_path, {**AUTHORS, **authors}, "split_dk_Birds.json")
    assert read_split(file, tmp_path)[0].train[0].path == "a/1.jpg"


@pytest.mark.parametrize("path", ["a\\..\\..\\x.jpg", "\\x.jpg", "\\\\host\\x.jpg", "a/..\\../x.jpg", "c:x.jpg"])
def test_backslashes_do_not_lead_out_of_the_image_folder(tmp_path: Path, path: str) -> None:
    file = write(tmp_path, changed(lambda s: s["train"][0].__setitem__(0, path)))
    with pytest.raises(UserError, match=r"leaves the image folder|is an absolute path"):
        read_split(file, tmp_path)


def test_an_image_twice_by_slash_and_backslash_is_refused(tmp_path: Path) -> None:
    file = write(tmp_path, changed(lambda s: s["test"].append(["a\\1.jpg", 0, "crow"])))
    with pytest.raises(UserError, match=r"1 images stand in both 'train' and 'test', e\.g\. 'a/1\.jpg'"):
        read_split(file, tmp_path)


@pytest.mark.skipif(os.sep == "\\", reason="no file's name holds a backslash there")
def test_names_with_a_backslash_keep_it_in_what_is_written(tmp_path: Path) -> None:
    birds = class_folders(tmp_path / "birds", {"crow": 4, "wren": 4})
    touch(birds / "crow" / "a\\b.jpg")
    split = load(tmp_path)
    assert "crow/a\\b.jpg" in {item.path for items in split.parts.values() for item in items}
    assert load(tmp_path).parts == split.parts  # as it was written
