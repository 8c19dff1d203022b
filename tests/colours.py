"""What the tests of library readers share: pictures of three colours, and a suite of one task that reads them."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from PIL import Image

from bench.datasets import Split, load_suite, load_tasks, open_image

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
