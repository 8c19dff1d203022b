"""Few-shot draws as files: written for others to use, and read instead of drawing.

The form is CoOp's split form without "test": {"train": [[path, label, class name], ...], "val": [...]}. CoOp itself
keeps draws as pickles (split_fewshot/shot_16-seed_1.pkl); these are read too, without running anything in them.
"""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.datasets.fewshot import few_shot
from bench.datasets.items import Item, Split
from bench.datasets.splitfiles import read_json, safe_path, write_json
from bench.datasets.splits import Task
from bench.errors import UserError

VAL_SHOTS = 4  # validation few-shot: at most so many images a class
MAX_PICKLE_BYTES = 64 * 2**20


def write_draw(task: Task, folder: Path, shots: int, seed: int) -> Path:
    """Write the draw of a task to `folder`/<task>/shot_<shots>-seed_<seed>.json and return that file."""
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
    return file


def find_draw(task: Task, folder: Path, shots: int, seed: int) -> Path | None:
    """The file in `folder` that fixes the draw of a task, if there is one."""
    stem = f"shot_{shots}-seed_{seed}"
    files = [Path(folder) / task.name / f"{stem}{end}" for end in (".json", ".json.gz", ".pkl")]
    return next((file for file in files if file.is_file()), None)


def read_draw(file: Path, split: Split, task: int = 0) -> tuple[list[Item], list[Item]]:
    """The training and validation images a file fixes, checked against the split they are drawn from.

    `task` selects one of several tasks in a pickle of the SoftCPT authors.
    """
    rows = _pickled_rows(file, split, task) if file.suffix == ".pkl" else _json_rows(file)
    train = _known_items(file, "train", rows["train"], split.train, split)
    val = _known_items(file, "val", rows["val"], split.val, split)
    absent = set(range(len(split.class_names))) - {item.label for item in train}
    if absent:
        raise UserError(f"{file}: no training image of class {split.class_names[min(absent)]!r}")
    return train, val


def _json_rows(file: Path) -> dict[str, list[tuple[str, int]]]:
    content = read_json(file)
    if not isinstance(content, dict) or not isinstance(content.get("train"), list):
        raise UserError(f"{file}: a few-shot file is an object with the list 'train' (and 'val')")
    rows: dict[str, list[tuple[str, int]]] = {}
    for part in ("train", "val"):
        rows[part] = []
        for row in content.get(part, []):
            if not isinstance(row, list) or len(row) < 2 or not isinstance(row[1], int):
                raise UserError(f"{file}: an entry of {part!r} must be [path, label, class name], not {row!r}")
            rows[part].append((safe_path(file, row[0]), row[1]))
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


# CoOp's pickles ----------------------------------------------------------------------------------------------


class _Datum:
    """Stands in for Dassl's `Datum` and `DatumMT`: a bag of `_impath`, `_label` and more."""


class _DatumUnpickler(pickle.Unpickler):
    """An unpickler that knows one harmless class; any other name in the file is refused, so nothing is run."""

    def find_class(self, module: str, name: str) -> type:
        if name in ("Datum", "DatumMT") and module.startswith("dassl."):
            return _Datum
        raise pickle.UnpicklingError(f"it asks for {module}.{name}, which a few-shot file does not need")


def _pickled_rows(file: Path, split: Split, task: int) -> dict[str, list[tuple[str, int]]]:
    if file.stat().st_size > MAX_PICKLE_BYTES:
        raise UserError(f"{file}: larger than any few-shot file ({MAX_PICKLE_BYTES // 2**20} MB)")
    try:
        with open(file, "rb") as stream:
            content = _DatumUnpickler(stream).load()
        return {part: _datum_rows(content.get(part) or [], split, task) for part in ("train", "val")}
    except Exception as error:  # a broken pickle fails in any way
        raise UserError(f"{file}: not one of CoOp's few-shot files ({error})") from None


def _datum_rows(data: Sequence[Any], split: Split, task: int) -> list[tuple[str, int]]:
    """(path, label) of Dassl's records. Their paths are another machine's: the end that we know is taken."""
    known = {item.path for items in split.parts.values() for item in items}
    rows = []
    for datum in data:
        path, label = datum._impath.replace("\\", "/"), datum._label
        if isinstance(label, list):  # the SoftCPT authors' records hold lists of labels and tasks
            if datum._task != [task]:
                continue
            (label,) = label
        parts = path.split("/")
        ends = ("/".join(parts[start:]) for start in range(len(parts)))
        rows.append((next((end for end in ends if end in known), path), int(label)))
    return rows
