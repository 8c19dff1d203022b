"""Few-shot draws as files: written for others to use, and read instead of drawing.

The form is CoOp's split form without "test": {"train": [[path, label, class name], ...], "val": [...]}. CoOp itself
keeps draws as pickles (split_fewshot/shot_16-seed_1.pkl). A pickle can run code, so they are not read: docs/data.md
shows how to turn one into this form where it is trusted.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from pathlib import Path

from bench.datasets.fewshot import few_shot
from bench.datasets.splitfiles import read_json, safe_path, write_json
from bench.datasets.splits import Task
from bench.datasets.types import Item, Split
from bench.errors import UserError

VAL_SHOTS = 4  # validation few-shot: at most so many images a class


def write_draw(task: Task, folder: Path, shots: int, seed: int) -> tuple[Path, list[Item], list[Item]]:
    """Write the draw of a task to `folder`/<task>/shot_<shots>-seed_<seed>.json.

    Returns that file and what it holds: the images to train and to validate on.
    """
    split = task.split
    parts = {
        "train": few_shot(split.train, shots, seed),
        "val": few_shot(split.val, min(shots, VAL_SHOTS), seed) if split.val else [],
    }
    content = {
        part: [[item.path, item.label, split.class_names[item.label]] for item in items]
        for part, items in parts.items()
    }
    file = Path(folder) / task.name / f"shot_{shots}-seed_{seed}.json"
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_json(file, content)
    except OSError as error:
        raise UserError(f"{file}: cannot be written ({error})") from None
    return file, parts["train"], parts["val"]


def find_draw(task: Task, folder: Path, shots: int, seed: int) -> Path | None:
    """The file in `folder` that fixes the draw of a task, if there is one."""
    stem = f"shot_{shots}-seed_{seed}"
    files = [Path(folder) / task.name / f"{stem}{end}" for end in (".json", ".json.gz")]
    return next((file for file in files if file.is_file()), None)


def read_draw(file: Path, split: Split) -> tuple[list[Item], list[Item]]:
    """The training and validation images a file fixes, checked against the split they are drawn from."""
    if file.suffix == ".pkl":
        raise UserError(f"{file}: a pickle can run code and is not read; docs/data.md shows how to turn it into JSON")
    rows = _json_rows(file, {item.path for item in (*split.train, *split.val)})
    train = _known_items(file, "train", rows["train"], split.train, split)
    val = _known_items(file, "val", rows["val"], split.val, split)
    absent = set(range(len(split.class_names))) - {item.label for item in train}
    if absent:
        raise UserError(f"{file}: no training image of class {split.class_names[min(absent)]!r}")
    return train, val


def _json_rows(file: Path, known: Container[str]) -> dict[str, list[tuple[str, int]]]:
    content = read_json(file)
    if not isinstance(content, dict) or not isinstance(content.get("train"), list):
        raise UserError(f"{file}: a few-shot file is an object with the list 'train' (and 'val')")
    rows: dict[str, list[tuple[str, int]]] = {}
    for part in ("train", "val"):
        rows[part] = []
        entries = content.get(part, [])
        if not isinstance(entries, list):
            raise UserError(f"{file}: {part!r} must be a list of [path, label, class name], not {repr(entries)[:80]}")
        for row in entries:
            if not isinstance(row, list) or len(row) < 2 or type(row[1]) is not int:  # true is no label
                said = repr(row)[:80]
                raise UserError(f"{file}: an entry of {part!r} must be [path, label, class name], not {said}")
            rows[part].append((safe_path(file, row[0], known), row[1]))
    return rows


def _known_items(
    file: Path, part: str, rows: Sequence[tuple[str, int]], items: Sequence[Item], split: Split
) -> list[Item]:
    known = {item.path: item for item in items}
    drawn: dict[str, Item] = {}
    for path, label in rows:
        if path not in known:
            raise UserError(f"{file}: {path!r} is not among the {part} images of {split.source}")
        if known[path].label != label:
            raise UserError(f"{file}: {path!r} has label {label}, in {split.source} it is {known[path].label}")
        if path in drawn:
            raise UserError(f"{file}: {path!r} stands twice in {part!r}")
        drawn[path] = known[path]
    return list(drawn.values())
