"""What the tests of readers, lists and splits share: trees of empty files, and tasks that are read from them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench.datasets import Split, Suite, Task, load_suite, load_tasks


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def touch(*files: Path) -> None:
    """Empty files: readers and splits look at names only."""
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()


def lines(file: Path, *rows: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("\n".join(rows) + "\n", encoding="utf-8")


def task(suite: str, name: str, root: Path) -> Task:
    """A task of a suite whose tree holds only some of its classes."""
    (found,) = load_tasks(load_suite(suite), root, names=[name], allow_missing=True)
    return found


def own_task(root: Path, reader: str) -> Task:
    file = root / "own.yaml"
    file.write_text(f"tasks: [{{name: T, folder: t, reader: {reader}, template: 'a {{}}.', task_name: t}}]\n")
    (found,) = load_tasks(load_suite(str(file)), root)
    return found


def labelled(split: Split, part: str) -> list[tuple[str, str]]:
    return [(item.path, split.class_names[item.label]) for item in split.parts[part]]


# Folders and split files of one task ----------------------------------------------------------------------------


def class_folders(root: Path, counts: dict[str, int]) -> Path:
    for name, count in counts.items():
        touch(*(root / name / f"{number}.jpg" for number in range(count)))
    return root


def birds_suite(folder: Path, reader: str = "{kind: folders}", more: str = "") -> Suite:
    file = folder / "birds.yaml"
    task = f"name: Birds, folder: birds, reader: {reader}, template: 'a photo of a {{}}.', task_name: birds{more}"
    file.write_text(f"tasks:\n  - {{{task}}}\n")
    return load_suite(str(file))


def load(folder: Path, reader: str = "{kind: folders}", more: str = "", allow_missing: bool = False) -> Split:
    (task,) = load_tasks(birds_suite(folder, reader, more), folder, allow_missing=allow_missing)
    return task.split


GOOD: dict[str, Any] = {
    "train": [["a/1.jpg", 0, "crow"], ["b/1.jpg", 1, "blue_jay"]],
    "val": [["a/2.jpg", 0, "crow"]],
    "test": [["a/3.jpg", 0, "crow"], ["b/3.jpg", 1, "blue_jay"]],
}


def write(folder: Path, content: object, name: str = "split_zhou_Birds.json") -> Path:
    file = folder / "birds" / name
    file.parent.mkdir(exist_ok=True)
    file.write_text(content if isinstance(content, str) else json.dumps(content))
    return file


def changed(change: Callable[[dict[str, Any]], object], content: dict[str, Any] = GOOD) -> dict[str, Any]:
    copy: dict[str, Any] = json.loads(json.dumps(content))
    change(copy)
    return copy


def images_of(folder: Path, content: dict[str, Any] = GOOD) -> None:
    touch(*(folder / "birds" / row[0] for part in ("train", "val", "test") for row in content[part]))
