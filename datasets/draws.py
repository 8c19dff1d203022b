"""Few-shot draws as files: written for others to use, and read instead of drawing.

The form is CoOp's split form without "test": {"train": [[path, label, class name], ...], "val": [...]}. CoOp itself
keeps draws as pickles (split_fewshot/shot_16-seed_1.pkl). A pickle can run code, so they are not read: docs/data.md
shows how to turn one into this form where it is trusted.
"""

from __future__ import annotations

from pathlib import Path

from bench.datasets.fewshot import few_shot
from bench.datasets.splitfiles import COOP_ROW, coop_rows, item_of, read_json, rows_of, write_json
from bench.datasets.splits import Task
from bench.datasets.types import Item, Split
from bench.errors import UserError

VAL_SHOTS = 4  # validation few-shot: at most so many images per class


def write_draw(task: Task, folder: Path, shots: int, seed: int) -> tuple[Path, list[Item], list[Item]]:
    """Write the draw of a task to `folder`/<task>/shot_<shots>-seed_<seed>.json.

    Returns that file and what it holds: the images to train and to validate on.
    """
    split = task.split
    train = few_shot(split.train, shots, seed)
    val = few_shot(split.val, min(shots, VAL_SHOTS), seed) if split.val else []
    file = Path(folder) / task.name / f"shot_{shots}-seed_{seed}.json"
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_json(file, {"train": coop_rows(train, split.class_names), "val": coop_rows(val, split.class_names)})
    except OSError as error:
        raise UserError(f"{file}: cannot be written ({error})") from None
    return file, train, val


def find_draw(task: Task, folder: Path, shots: int, seed: int) -> Path | None:
    """The file in `folder` that fixes the draw of a task, if there is one."""
    stem = f"shot_{shots}-seed_{seed}"
    files = [Path(folder) / task.name / f"{stem}{end}" for end in (".json", ".json.gz")]
    return next((file for file in files if file.is_file()), None)


def read_draw(file: Path, split: Split) -> tuple[list[Item], list[Item]]:
    """The training and validation images a file fixes, checked against the split they are drawn from."""
    if file.suffix == ".pkl":
        raise UserError(f"{file}: a pickle can run code and is not read; docs/data.md shows how to turn it into JSON")
    content = read_json(file)
    if not isinstance(content, dict) or not isinstance(content.get("train"), list):
        raise UserError(f"{file}: a few-shot file is an object with the list 'train' (and 'val')")
    train, val = (_drawn(file, part, content.get(part, []), split) for part in ("train", "val"))
    absent = set(range(len(split.class_names))) - {item.label for item in train}
    if absent:
        raise UserError(f"{file}: no training image of class {split.class_names[min(absent)]!r}")
    return train, val


def _drawn(file: Path, part: str, rows: object, split: Split) -> list[Item]:
    known = {item.path: item for item in split.parts[part]}
    drawn: dict[str, Item] = {}
    for path, label, *_ in rows_of(file, part, rows, COOP_ROW, lengths=(2, 3)):
        item = item_of(file, path, label, known)
        if item.path not in known:
            raise UserError(f"{file}: {path!r} is not among the {part} images of {split.source}")
        if item != known[item.path]:
            is_label = known[item.path].label
            raise UserError(f"{file}: {path!r} has label {label}, in {split.source} it is {is_label}")
        if item.path in drawn:
            raise UserError(f"{file}: {path!r} stands twice in {part!r}")
        drawn[item.path] = item
    return list(drawn.values())
