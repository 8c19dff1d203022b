"""The reader of Hugging Face's library: rows become files once, and a run never downloads."""

import json
import os
import shutil
import sys
import threading
import time
import types
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from bench.datasets import load_suite, load_tasks, open_image
from bench.datasets.check import check_suite
from bench.datasets.hub import can_fetch, fetch
from bench.errors import UserError

sys.path.append(str(Path(__file__).parent))
from colours import COLOURS, cache, check_colours, jpeg, load, suite_file

__all__ = ["cache"]


def rows(count: int) -> list[dict[str, Any]]:
    return [
        {"picture": {"bytes": jpeg(colour, number), "path": None}, "colour": label}
        for number in range(count)
        for label, colour in enumerate(COLOURS)
    ]


class FakeData:
    """What the reader uses of the library's data set."""

    def __init__(self, held: list[dict[str, Any]], names: list[str] | None) -> None:
        self.held, self.column_names = held, list(held[0])
        self.features = {"picture": object(), "colour": types.SimpleNamespace(names=names)}

    def __getitem__(self, column: str) -> list[Any]:
        return [row[column] for row in self.held]

    def __iter__(self) -> Any:
        return iter(self.held)

    def cast_column(self, column: str, feature: Any) -> "FakeData":
        assert column == "picture" and feature == "bytes"
        return self


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """A stand-in for the library that records how it is called."""
    calls: list[dict[str, Any]] = []

    def load_dataset(**arguments: Any) -> FakeData:
        calls.append(arguments)
        if arguments["split"] == "nowhere":
            raise ValueError("Unknown split\nlong text")
        return FakeData(rows(4 if arguments["split"] == "train" else 2), None if "names" in arguments else COLOURS)

    fake = types.ModuleType("datasets")
    fake.load_dataset = load_dataset  # type: ignore[attr-defined]
    fake.Image = lambda decode: "bytes"  # type: ignore[attr-defined]
    fake.config = types.SimpleNamespace(HF_DATASETS_CACHE=str(tmp_path / "hf"))  # type: ignore[attr-defined]
    hub = types.ModuleType("huggingface_hub.constants")
    hub.HF_HUB_CACHE = str(tmp_path / "downloads")  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "huggingface_hub.constants", hub)
    monkeypatch.setitem(sys.modules, "datasets", fake)
    return calls


HUB = "kind: huggingface, hub: someone/colours, revision: abc, image: picture, label: colour"


def test_a_hub_id_is_fetched_by_fetch_alone(tmp_path: Path, library: list[dict[str, Any]]) -> None:
    reader = f"{{{HUB}, parts: {{trainval: train, test: test}}}}"
    with pytest.raises(UserError, match="someone/colours is not fetched yet"):
        load(tmp_path, reader)
    assert library == []
    options = load_suite(str(suite_file(tmp_path, reader))).tasks[0].reader
    assert can_fetch(options)
    place = fetch(tmp_path / "t", options)
    assert library[0] == {"path": "someone/colours", "revision": "abc", "split": "train"}
    split = load(tmp_path, reader)
    assert split.root == place and [len(items) for items in split.parts.values()] == [9, 3, 6]
    check_colours(split)
    assert (place / split.test[0].path).read_bytes() == jpeg("red", 0)  # bytes unchanged
    assert fetch(tmp_path / "t", options) == place and len(library) == 2  # not again


def test_a_read_only_data_root_fetches_to_the_users_cache(tmp_path: Path, library: list[dict[str, Any]]) -> None:
    reader = f"{{{HUB}}}"
    options = load_suite(str(suite_file(tmp_path, reader))).tasks[0].reader
    (tmp_path / "t").chmod(0o555)
    try:
        assert (tmp_path / "cache") in fetch(tmp_path / "t", options).parents
        check_colours(load(tmp_path, reader))
        assert stands(tmp_path / "t") == []
    finally:
        (tmp_path / "t").chmod(0o755)


@pytest.mark.parametrize(
    ("reader", "said"),
    [
        (HUB.replace("label: colour", "label: color"), "no column 'color'; did you mean 'colour'"),
        (HUB.replace("image: picture", "image: image"), "no column 'image'"),
        (f"{HUB}, parts: {{train: train, test: test}}", "must be all, or test, or trainval and test"),
        (f"{HUB}, parts: {{all: nowhere}}", r"cannot read part 'nowhere' \(Unknown split\)"),
        (f"{HUB}, names: [red, green]", "label 2 in 'all' has no name"),
        ("kind: huggingface, hub: a/b, files: {train: x}", "needs one of `hub` and `files`"),
    ],
)
def test_mistakes_of_a_hub_reader_are_named(
    tmp_path: Path, library: list[dict[str, Any]], reader: str, said: str
) -> None:
    options = load_suite(str(suite_file(tmp_path, f"{{{reader}}}"))).tasks[0].reader
    with pytest.raises(UserError, match=said):
        fetch(tmp_path / "t", options)
        load(tmp_path, f"{{{reader}}}")
    assert not [path for path in stands(tmp_path / "t") if path.name.startswith(".")]


def test_an_image_that_is_none_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, library: list[Any]) -> None:
    broken = rows(2)
    broken[4]["picture"]["bytes"] = b"no image"
    monkeypatch.setattr(sys.modules["datasets"], "load_dataset", lambda **_: FakeData(broken, COLOURS))
    with pytest.raises(UserError, match="image 4 of 'all' cannot be read"):
        fetch(tmp_path / "t", load_suite(str(suite_file(tmp_path, f"{{{HUB}}}"))).tasks[0].reader)
    assert stands(tmp_path / "t") == []  # nothing half done


def stands(folder: Path) -> list[Path]:
    """What stands in a folder, but for the lock file, which stays."""
    return [path for path in folder.iterdir() if path.name != ".fetch.lock"]


def hub_options(root: Path) -> dict[str, Any]:
    return load_suite(str(suite_file(root, f"{{{HUB}}}"))).tasks[0].reader


def hold(monkeypatch: pytest.MonkeyPatch, held: list[dict[str, Any]], names: list[str] | None = COLOURS) -> None:
    """Let the stand-in hold these rows."""
    monkeypatch.setattr(sys.modules["datasets"], "load_dataset", lambda **_: FakeData(held, names))


HOSTILE_ROWS: dict[str, tuple[dict[str, Any], str]] = {
    "no image": ({"picture": None}, "image 3 of 'all' is none: neither bytes nor a path"),
    "neither bytes nor path": ({"picture": {"bytes": None, "path": None}}, "image 3 of 'all' is none"),
    "image as text": ({"picture": "x"}, "image 3 of 'all' is none"),
    "bytes as text": ({"picture": {"bytes": "x", "path": None}}, "image 3 of 'all' is none"),
    "path with NUL": ({"picture": {"bytes": None, "path": "a\0.png"}}, "image 3 of 'all' is none"),
    "path elsewhere": ({"picture": {"bytes": None, "path": "/any.png"}}, "its path '/any.png' is no file of the data"),
    "name too long": ({"picture": {"bytes": None, "path": "x" * 999}}, "image 3 of 'all'"),
    "label as list": ({"colour": [1]}, r"label \[1\] in 'all' has no name"),
    "no label": ({"colour": None}, "label None in 'all' has no name"),
    "label true": ({"colour": True}, "label True in 'all' has no name"),
    "unknown label": ({"colour": "pink"}, "label 'pink' in 'all' has no name"),
}


@pytest.mark.parametrize("kind", HOSTILE_ROWS)
def test_a_hostile_row_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, library: list[Any], kind: str) -> None:
    change, said = HOSTILE_ROWS[kind]
    held = rows(2)
    held[3].update(change)
    hold(monkeypatch, held)
    with pytest.raises(UserError, match=said) as caught:
        fetch(tmp_path / "t", hub_options(tmp_path))
    assert "\n" not in str(caught.value)
    assert stands(tmp_path / "t") == []  # nothing half done


def test_labels_of_mixed_kinds_and_names_that_stand_twice_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, library: list[Any]
) -> None:
    options = hub_options(tmp_path)
    for label in (None, ["red"], 3):
        held = rows(2)
        for row in held:
            row["colour"] = COLOURS[row["colour"]]
        held[3]["colour"] = label
        hold(monkeypatch, held, None)
        with pytest.raises(UserError, match="column 'colour' holds numbers without names"):
            fetch(tmp_path / "t", options)
    hold(monkeypatch, rows(2), [["red"], ["green"], ["blue"]])  # type: ignore[list-item]
    with pytest.raises(UserError, match="column 'colour' holds numbers without names"):
        fetch(tmp_path / "t", options)
    with pytest.raises(UserError, match="have the same class name 'red'"):
        fetch(tmp_path / "t", {**options, "names": ["red", "green", "red"]})


def test_rows_that_break_while_they_are_read_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, library: list[Any]
) -> None:
    class Damaged(FakeData):
        def __iter__(self) -> Any:
            yield self.held[0]
            raise RuntimeError("page 2 is damaged\nlong text")

    monkeypatch.setattr(sys.modules["datasets"], "load_dataset", lambda **_: Damaged(rows(2), COLOURS))
    with pytest.raises(UserError, match=r"the rows of 'all' cannot be read \(page 2 is damaged\)"):
        fetch(tmp_path / "t", hub_options(tmp_path))


def test_the_cause_of_a_failure_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, library: list[Any]) -> None:
    def load_dataset(**_: Any) -> None:
        raise RuntimeError("An error occurred") from ValueError("no such column\nlong text")

    monkeypatch.setattr(sys.modules["datasets"], "load_dataset", load_dataset)
    with pytest.raises(UserError, match=r"cannot read part 'train' \(An error occurred: no such column\)"):
        fetch(tmp_path / "t", hub_options(tmp_path))


def test_loose_images_that_the_library_has_downloaded_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, library: list[Any]
) -> None:
    held = rows(4)
    for number, row in enumerate(held):
        file = tmp_path / "downloads" / f"{number}.jpg"
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(row["picture"]["bytes"])
        row["picture"] = {"bytes": None, "path": str(file)}
    hold(monkeypatch, held)
    fetch(tmp_path / "t", hub_options(tmp_path))
    check_colours(load(tmp_path, f"{{{HUB}}}"))


def test_an_image_bomb_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, library: list[Any]) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with pytest.raises(UserError, match="image 0 of 'all' cannot be read"):
        fetch(tmp_path / "t", hub_options(tmp_path))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ([], "damaged; remove"),
        ({"names": [1, 2]}, "damaged; remove"),
        ({"names": COLOURS}, "damaged; remove"),
        ({"names": COLOURS, "parts": {"train": []}}, "damaged; remove"),
        ({"names": COLOURS, "parts": {"all": None}}, "damaged; remove"),
        ({"names": COLOURS, "parts": {"all": [["a.jpg"]]}}, "damaged; remove"),
        ({"names": COLOURS, "parts": {"all": [["a.jpg", 3]]}}, "damaged; remove"),
        ({"names": COLOURS, "parts": {"all": [["a.jpg", True]]}}, "damaged; remove"),
        ({"names": COLOURS, "parts": {"all": [["../../a.jpg", 0]]}}, "leaves the image folder"),
        ({"names": COLOURS, "parts": {"all": [[3, 0]]}}, "3 is not an image path"),
        ({"names": COLOURS, "parts": {"all": []}, "left_out": [1]}, "damaged; remove"),
        ({"names": COLOURS, "parts": {"all": []}, "left_out": {"x": [[], "a"]}}, "damaged; remove"),
    ],
)
def test_a_damaged_index_is_named(tmp_path: Path, library: list[Any], content: object, said: str) -> None:
    place = fetch(tmp_path / "t", hub_options(tmp_path))
    (place / "index.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=said) as caught:
        load(tmp_path, f"{{{HUB}}}")
    assert str(place / "index.json") in str(caught.value)


def test_what_a_kill_left_is_cleared_away_by_the_next_export(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, library: list[Any]
) -> None:
    drafts = []

    class Watched(FakeData):
        def __iter__(self) -> Any:
            drafts.append([path for path in stands(tmp_path / "t") if path.name.startswith(".")])
            assert list(drafts[-1][0].iterdir()) == []
            return iter(self.held)

    monkeypatch.setattr(sys.modules["datasets"], "load_dataset", lambda **_: Watched(rows(4), COLOURS))
    options = hub_options(tmp_path)
    shutil.rmtree(fetch(tmp_path / "t", options))
    (draft,) = drafts[0]
    for old in (draft / "all" / "0" / "000000.jpg", draft / "index.json"):
        old.parent.mkdir(parents=True, exist_ok=True)
        old.write_text("of a killed run")
    place = fetch(tmp_path / "t", options)
    assert drafts == [[draft], [draft]]  # always the same name
    shutil.rmtree(place)
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "letter.txt").write_text("dear")
    draft.symlink_to(tmp_path / "own")  # a link that came with the data: what it points to is the user's
    assert fetch(tmp_path / "t", options) == place and (tmp_path / "own" / "letter.txt").is_file()
    assert stands(tmp_path / "t") == [place]
    check_colours(load(tmp_path, f"{{{HUB}}}"))


def test_two_exports_at_a_time_are_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, library: list[Any]) -> None:
    exports = []

    class Slow(FakeData):
        def __iter__(self) -> Any:
            exports.append(threading.get_ident())
            for row in self.held:
                time.sleep(0.02)
                yield row

    monkeypatch.setattr(sys.modules["datasets"], "load_dataset", lambda **_: Slow(rows(4), COLOURS))
    options = hub_options(tmp_path)
    with ThreadPoolExecutor(4) as pool:
        places = list(pool.map(lambda _: fetch(tmp_path / "t", options), range(4)))
    assert len(exports) == 1 and stands(tmp_path / "t") == [places[0]]
    check_colours(load(tmp_path, f"{{{HUB}}}"))


def test_a_file_in_a_draft_s_place_is_no_endless_wait(tmp_path: Path, library: list[Any]) -> None:
    options = hub_options(tmp_path)
    place = fetch(tmp_path / "t", options)
    place.rename(tmp_path / "elsewhere")
    place.with_name(f".{place.name}.draft").write_text("a file")
    assert fetch(tmp_path / "t", options).parent != tmp_path / "t"  # the cache takes it


PARQUET = "{kind: huggingface, files: {train: '*.parquet'}, image: picture, label: colour}"


def test_changed_local_files_are_read_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, library: list[Any]) -> None:
    (tmp_path / "t").mkdir()
    (tmp_path / "t" / "a.parquet").write_text("one")
    first = load(tmp_path, PARQUET)
    assert len(library) == 1 and load(tmp_path, PARQUET) == first and len(library) == 1  # written once
    for change in (
        lambda: (tmp_path / "t" / "a.parquet").write_text("other"),
        lambda: os.utime(tmp_path / "t" / "a.parquet", (1, 1)),
        lambda: (tmp_path / "t" / "b.parquet").write_text("more"),
    ):
        change()
        calls = len(library)
        assert load(tmp_path, PARQUET).root != first.root and len(library) == calls + 1


def test_check_writes_nothing_and_says_what_to_do(tmp_path: Path, library: list[Any]) -> None:
    suite = load_suite(str(suite_file(tmp_path, PARQUET)))
    (tmp_path / "t" / "a.parquet").write_text("one")
    before = sorted(tmp_path.rglob("*"))
    row = check_suite(suite, tmp_path).iloc[0]
    assert row.state == "at first use"
    assert row.next.endswith("its images are not written as files yet; the first run does so")
    assert library == [] and sorted(tmp_path.rglob("*")) == before
    split = load(tmp_path, PARQUET)
    row = check_suite(suite, tmp_path).iloc[0]
    assert (row.state, row.images) == ("ready", sum(len(items) for items in split.parts.values()))


def test_without_the_library_the_error_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    (tmp_path / "t").mkdir()
    (tmp_path / "t" / "a.parquet").write_text("one")
    with pytest.raises(UserError, match="install it with `pip install datasets`"):
        load(tmp_path, PARQUET)


def real_library() -> Any:
    return pytest.importorskip("datasets", reason="Hugging Face `datasets` is not installed")


def test_local_parquet_files(tmp_path: Path) -> None:
    real_library()
    import pyarrow
    from pyarrow import parquet

    (tmp_path / "t").mkdir()
    for part, count in (("train", 4), ("test", 2)):
        parquet.write_table(pyarrow.Table.from_pylist(rows(count)), tmp_path / "t" / f"{part}-0.parquet")
    reader = (
        "{kind: huggingface, files: {train: train-*.parquet, test: test-*.parquet}, image: picture, label: colour, "
        "names: [red, green, blue], parts: {trainval: train, test: test}}"
    )
    split = load(tmp_path, reader)
    assert [len(items) for items in split.parts.values()] == [9, 3, 6]
    check_colours(split)
    with pytest.raises(UserError, match=r"valid-\*\.parquet: no such file"):
        load(tmp_path, reader.replace("test: test-*", "test: valid-*"))


def test_a_parquet_row_names_no_file_of_the_users(tmp_path: Path) -> None:
    real_library()
    import pyarrow
    from pyarrow import parquet

    secret = tmp_path / "t" / "secret.png"  # not even one in the task's folder
    secret.parent.mkdir()
    Image.new("RGB", (8, 8)).save(secret)
    held = rows(4)
    held[5]["picture"] = {"bytes": None, "path": str(secret)}
    parquet.write_table(pyarrow.Table.from_pylist(held), tmp_path / "t" / "train.parquet")
    reader = PARQUET.replace("label: colour", "label: colour, names: [red, green, blue]")
    with pytest.raises(UserError, match=r"image 5 of 'all' has no bytes, and its path '.*secret\.png' is no file of"):
        load(tmp_path, reader)
    held[5]["picture"] = None
    parquet.write_table(pyarrow.Table.from_pylist(held), tmp_path / "t" / "train.parquet")
    with pytest.raises(UserError, match=r"image 5 of 'all' is none"):
        load(tmp_path, reader)


def test_a_column_of_no_images_is_named(tmp_path: Path) -> None:
    real_library()
    import pyarrow
    from pyarrow import parquet

    (tmp_path / "t").mkdir()
    table = pyarrow.Table.from_pylist([{"picture": number, "colour": number % 3} for number in range(9)])
    parquet.write_table(table, tmp_path / "t" / "train.parquet")
    (tmp_path / "t" / "test.parquet").write_bytes(b"PAR1 no parquet PAR1")
    with pytest.raises(UserError, match=r"cannot read part 'train' \(Parquet file size is 20 bytes") as caught:
        load(tmp_path, PARQUET.replace("label: colour", "label: colour, names: [red, green, blue]"))
    assert "\n" not in str(caught.value)
    (tmp_path / "t" / "test.parquet").unlink()
    with pytest.raises(UserError, match="the rows of 'all' cannot be read"):
        load(tmp_path, PARQUET.replace("label: colour", "label: colour, names: [red, green, blue]"))


def test_changed_parquet_gives_the_new_images(tmp_path: Path) -> None:
    real_library()
    import pyarrow
    from pyarrow import parquet

    (tmp_path / "t").mkdir()
    reader = PARQUET.replace("label: colour", "label: colour, names: [red, green, blue]")
    for shift in (0, 1):  # as many images of the same names, other pictures
        held = rows(4)
        for row in held:
            row["picture"] = {"bytes": jpeg(COLOURS[(row["colour"] + shift) % 3], 1), "path": None}
        parquet.write_table(pyarrow.Table.from_pylist(held), tmp_path / "t" / "train.parquet")
        split = load(tmp_path, reader)
        for item in split.train:
            pixel = open_image(split.root / item.path).getpixel((2, 2))
            assert isinstance(pixel, tuple) and pixel.index(max(pixel)) == (item.label + shift) % 3


def test_parts_of_a_hub_data_set_that_are_not_read_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, library: list[Any]
) -> None:
    def load_dataset(**_: Any) -> FakeData:
        data = FakeData(rows(4), COLOURS)
        sizes = {"train": 12, "validation": 5, "test": 7}
        splits = {name: types.SimpleNamespace(num_examples=size) for name, size in sizes.items()}
        data.info = types.SimpleNamespace(splits=splits)  # type: ignore[attr-defined]
        return data

    monkeypatch.setattr(sys.modules["datasets"], "load_dataset", load_dataset)
    reader = f"{{{HUB}, parts: {{all: 'train[:50%]'}}}}"
    fetch(tmp_path / "t", load_suite(str(suite_file(tmp_path, reader))).tasks[0].reader)
    (task,) = load_tasks(load_suite(str(suite_file(tmp_path, reader))), tmp_path)
    assert task.left_out == {"images in parts that the reader's `parts` does not name": (12, "test")}
