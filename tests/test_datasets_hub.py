"""Readers of Hugging Face's library and torchvision: rows become files once, and a run never downloads."""

import io
import sys
import types
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from bench.datasets import Split, load_suite, load_tasks, open_image
from bench.datasets.hub import can_fetch, fetch
from bench.errors import UserError

COLOURS = ["red", "green", "blue"]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))


def jpeg(colour: str, number: int) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (8 + number, 8), colour).save(stream, "JPEG", quality=100)
    return stream.getvalue()


def rows(count: int) -> list[dict[str, Any]]:
    return [
        {"picture": {"bytes": jpeg(colour, number), "path": None}, "colour": label}
        for number in range(count)
        for label, colour in enumerate(COLOURS)
    ]


def load(root: Path, reader: str, allow_missing: bool = False) -> Split:
    return load_tasks(load_suite(str(suite_file(root, reader))), root, allow_missing=allow_missing)[0].split


def suite_file(root: Path, reader: str) -> Path:
    file = root / "own.yaml"
    file.write_text(f"tasks: [{{name: T, folder: t, reader: {reader}, template: 'a {{}}.', task_name: t}}]\n")
    (root / "t").mkdir(exist_ok=True)
    return file


def check_colours(split: Split) -> None:
    assert split.class_names == ("red", "green", "blue")
    for item in [item for items in split.parts.values() for item in items]:
        pixel = open_image(split.root / item.path).getpixel((2, 2))
        assert isinstance(pixel, tuple) and pixel.index(max(pixel)) == item.label


# Hugging Face ------------------------------------------------------------------------------------------------


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
def library(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
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
    monkeypatch.setitem(sys.modules, "datasets", fake)
    return calls


HUB = "kind: huggingface, hub: someone/colours, revision: abc, image: picture, label: colour"


def test_a_hub_id_is_fetched_by_fetch_alone(tmp_path: Path, library: list[dict[str, Any]]) -> None:
    reader = f"{{{HUB}, parts: {{trainval: train, test: test}}}}"
    with pytest.raises(UserError, match="someone/colours is not fetched yet; `python -m bench data fetch`"):
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
        assert list((tmp_path / "t").iterdir()) == []
    finally:
        (tmp_path / "t").chmod(0o755)


@pytest.mark.parametrize(
    ("reader", "said"),
    [
        (HUB.replace("label: colour", "label: color"), "no column 'color'; did you mean 'colour'"),
        (HUB.replace("image: picture", "image: image"), "no column 'image'"),
        (f"{HUB}, parts: {{train: train, test: test}}", "must be all, or trainval and test"),
        (f"{HUB}, parts: {{all: nowhere}}", r"cannot read part 'nowhere' \(Unknown split\)"),
        (f"{HUB}, names: [red, green]", "label 2 in 'all' has no name"),
        ("kind: huggingface, hub: a/b, imagefolder: x", "needs one of `hub`, `files`, `imagefolder`"),
    ],
)
def test_mistakes_of_a_hub_reader_are_named(
    tmp_path: Path, library: list[dict[str, Any]], reader: str, said: str
) -> None:
    options = load_suite(str(suite_file(tmp_path, f"{{{reader}}}"))).tasks[0].reader
    with pytest.raises(UserError, match=said):
        fetch(tmp_path / "t", options)
        load(tmp_path, f"{{{reader}}}")
    assert not [path for path in (tmp_path / "t").iterdir() if path.name.startswith(".")]


def test_an_image_that_is_none_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, library: list[Any]) -> None:
    broken = rows(2)
    broken[4]["picture"]["bytes"] = b"no image"
    monkeypatch.setattr(sys.modules["datasets"], "load_dataset", lambda **_: FakeData(broken, COLOURS))
    with pytest.raises(UserError, match="image 4 of 'all' cannot be read"):
        fetch(tmp_path / "t", load_suite(str(suite_file(tmp_path, f"{{{HUB}}}"))).tasks[0].reader)
    assert list((tmp_path / "t").iterdir()) == []  # nothing half done


def test_without_the_library_the_error_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    (tmp_path / "t" / "x").mkdir(parents=True)
    with pytest.raises(UserError, match="install it with `pip install datasets`"):
        load(tmp_path, "{kind: huggingface, imagefolder: x}")


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


def test_local_imagefolder_and_labels_as_text(tmp_path: Path) -> None:
    real_library()
    for number in range(4):
        for colour in COLOURS:
            file = tmp_path / "t" / "pictures" / colour / f"{number}.jpg"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(jpeg(colour, number))
    split = load(tmp_path, "{kind: huggingface, imagefolder: pictures}")
    assert split.class_names == ("blue", "green", "red")  # the library sorts them
    assert sum(len(items) for items in split.parts.values()) == 12


# torchvision -------------------------------------------------------------------------------------------------


class PicturesInMemory:
    """Like CIFAR10: parts by `train`, arrays in memory."""

    classes = COLOURS

    def __init__(self, root: str, train: bool = True, download: bool = False) -> None:
        assert download and root.endswith("torchvision")
        self.held = [(Image.new("RGB", (8, 8), c), n) for _ in range(4 if train else 2) for n, c in enumerate(COLOURS)]

    def __len__(self) -> int:
        return len(self.held)

    def __getitem__(self, number: int) -> tuple[Image.Image, int]:
        return self.held[number]


class PicturesInFiles:
    """Like Flowers102: parts by `split`, a list of files."""

    classes = COLOURS

    def __init__(self, root: str, split: str = "train", download: bool = False) -> None:
        if split not in ("train", "test"):
            raise ValueError(f"Unknown value {split!r}")
        folder = Path(root) / "pictures"
        folder.mkdir(parents=True, exist_ok=True)
        self._labels = [label for _ in range(4) for label in range(3)]
        self._image_files = []
        for number, label in enumerate(self._labels):
            (folder / f"{split}{number}.jpg").write_bytes(jpeg(COLOURS[label], number))
            self._image_files.append(folder / f"{split}{number}.jpg")

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, number: int) -> tuple[Image.Image, int]:
        return Image.open(self._image_files[number]).convert("RGB"), self._labels[number]


@pytest.mark.parametrize("kind", [PicturesInMemory, PicturesInFiles])
def test_torchvision_class_is_fetched_and_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: type) -> None:
    torchvision = pytest.importorskip("torchvision")
    monkeypatch.setattr(torchvision.datasets, kind.__name__, kind, raising=False)
    reader = f"{{kind: torchvision, class: {kind.__name__}, parts: {{trainval: train, test: test}}}}"
    with pytest.raises(UserError, match="is not fetched yet"):
        load(tmp_path, reader)
    fetch(tmp_path / "t", load_suite(str(suite_file(tmp_path, reader))).tasks[0].reader)
    split = load(tmp_path, reader)
    check_colours(split)
    if kind is PicturesInFiles:
        assert (split.root / split.test[0].path).read_bytes() == jpeg("red", 0)  # the file itself


def test_unknown_torchvision_class_and_part_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torchvision = pytest.importorskip("torchvision")
    monkeypatch.setattr(torchvision.datasets, "PicturesInFiles", PicturesInFiles, raising=False)

    def fetched(reader: str) -> Path:
        return fetch(
            tmp_path / "t", load_suite(str(suite_file(tmp_path, f"{{kind: torchvision, {reader}}}"))).tasks[0].reader
        )

    with pytest.raises(UserError, match="torchvision has no data set 'Flower102'; did you mean 'Flowers102'"):
        fetched("class: Flower102")
    with pytest.raises(UserError, match="cannot get part 'dev' of PicturesInFiles"):
        fetched("class: PicturesInFiles, parts: {all: dev}")
