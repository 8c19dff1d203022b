"""The reader of torchvision's classes: rows become files once, and what is on disk is not downloaded."""

import sys
from pathlib import Path

import pytest
from PIL import Image

from bench.datasets import Split, load_suite
from bench.datasets.hub import fetch
from bench.errors import UserError

sys.path.append(str(Path(__file__).parent))
from colours import COLOURS, cache, check_colours, jpeg, load, suite_file

__all__ = ["cache"]


def pictures(root: Path, **counts: int) -> None:
    """So many images in each folder of colours below t/pictures; "__" in a name stands for "/"."""
    for folder, count in counts.items():
        for number in range(count):
            file = root / "t" / "pictures" / folder.replace("__", "/") / f"{number}.jpg"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(jpeg(file.parent.name if file.parent.name in COLOURS else "red", number))


def n_images(split: Split) -> int:
    return sum(len(items) for items in split.parts.values())


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
        if not folder.is_dir() and not download:
            raise RuntimeError("Dataset not found. You can use download=True to download it")
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


@pytest.mark.parametrize("place", ["t/torchvision", "t", "."])  # below the task's folder, in it, beside it
def test_torchvision_data_on_disk_is_read_without_download(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    torchvision = pytest.importorskip("torchvision")
    asked = []

    class Watched(PicturesInFiles):
        def __init__(self, root: str, split: str = "train", download: bool = False) -> None:
            asked.append(download)
            super().__init__(root, split, download)

    monkeypatch.setattr(torchvision.datasets, "Watched", Watched, raising=False)
    (tmp_path / place / "pictures").mkdir(parents=True)
    reader = "{kind: torchvision, class: Watched, parts: {trainval: train, test: test}}"
    fetch(tmp_path / "t", load_suite(str(suite_file(tmp_path, reader))).tasks[0].reader)
    check_colours(load(tmp_path, reader))
    assert asked and not any(asked)


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


def test_a_torchvision_class_that_cannot_download_reads_what_is_there(tmp_path: Path) -> None:
    pytest.importorskip("torchvision")
    reader = "{kind: torchvision, class: ImageFolder}"
    with pytest.raises(UserError, match="data of 1 of 1 tasks is missing"):
        load(tmp_path, reader)
    options = load_suite(str(suite_file(tmp_path, reader))).tasks[0].reader
    with pytest.raises(UserError, match="torchvision cannot get part 'train' of ImageFolder"):
        fetch(tmp_path / "t", options)
    pictures(tmp_path, red=4, green=4)
    (tmp_path / "t" / "pictures").rename(tmp_path / "t" / "torchvision")
    fetch(tmp_path / "t", options)
    split = load(tmp_path, reader)
    assert split.class_names == ("green", "red") and n_images(split) == 8


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
