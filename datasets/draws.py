"""Few-shot draws: made, written for others to use, and read instead of drawing.

What is written is CoOp's split form without "test": {"train": [[path, label, class name], ...], "val": [...]}. Read
are also the forms in which others publish theirs: one object with lists of {"impath", "label", "classname"} (`indices/`
of github.com/linzhiqiu/cross_modal_adaptation), and one such object a line, its names with a "_" before them, in a
file for each part (2SFS, github.com/FarinaMatteo/rethinking_fewshot_vlms). CoOp itself keeps draws as pickles
(split_fewshot/shot_16-seed_1.pkl). A pickle can run code, so they are not read: `coop_draw` makes the same draws, and
docs/data.md shows how to turn one into JSON.
"""

from __future__ import annotations

import json
from collections.abc import Container, Iterator
from pathlib import Path
from typing import Any

from bench.datasets.fewshot import NESTED, draw
from bench.datasets.splitfiles import COOP_ROW, coop_form, coop_rows, item_of, read_json, rows_of, write_json
from bench.datasets.splits import Task
from bench.datasets.types import Item, Split
from bench.errors import UserError

OBJECT = '{"impath": …, "label": …, "classname": …}'


def write_draw(
    task: Task, folder: Path, shots: int, seed: int, like: str = NESTED
) -> tuple[Path, list[Item], list[Item]]:
    """Write the draw of a task to `folder`/<task>/shot_<shots>-seed_<seed>.json.

    Returns that file and what it holds: the images to train and to validate on.
    """
    split = task.split
    train, val = draw(split, shots, seed, like)
    file = Path(folder) / task.name / f"shot_{shots}-seed_{seed}.json"
    _write(file, {"train": coop_rows(train, split.class_names), "val": coop_rows(val, split.class_names)})
    return file, train, val


def write_split(task: Task, folder: Path) -> None:
    """Write a task's division in CoOp's form, as `folder`/<task>/split_zhou_<name>.json."""
    _write(Path(folder) / task.name / f"split_zhou_{task.spec.split_name}.json", coop_form(task.split))


def _write(file: Path, content: object) -> None:
    try:
        write_json(file, content)
    except OSError as error:
        raise UserError(f"{file}: cannot be written ({error})") from None


def find_draw(task: Task, folder: Path, shots: int, seed: int) -> Path | None:
    """The file in `folder` that fixes the draw of a task, if there is one.

    It stands in a folder named as the task or as its data's folder, whatever the case and the signs between words
    (FGVCAircraft, fgvc_aircraft), or in `split_fewshot` there.
    """
    names = {_letters(task.name), _letters(task.spec.folder)}
    own = [folder / task.name, *sorted(p for p in Path(folder).iterdir() if p.is_dir() and _letters(p.name) in names)]
    stem = f"shot_{shots}-seed_{seed}"
    files = [
        place / f"{stem}{end}"
        for at in own
        for place in (at, at / "split_fewshot")
        for end in (".json", ".json.gz", "_train.jsonl")
    ]
    return next((file for file in files if file.is_file()), None)


def validation_file(file: Path) -> Path:
    """The file of the images to validate on, where a draw is in a file for each part; else the file itself."""
    return file.with_name(file.name.replace("_train.jsonl", "_val.jsonl"))


def _letters(name: str) -> str:
    return "".join(letter for letter in name.casefold() if letter.isalnum())


def read_draw(file: Path, split: Split) -> tuple[list[Item], list[Item]]:
    """The training and validation images a file fixes, checked against the split they are drawn from.

    file : of one object a line, the training images'; those to validate on stand in the file "…_val.jsonl" beside it.
    """
    if file.suffix == ".pkl":
        raise UserError(
            f"{file}: a pickle can run code and is not read; `--draws coop` draws the same, and docs/data.md shows how "
            "to turn one into JSON"
        )
    if file.suffix == ".jsonl":
        beside = validation_file(file)
        content: Any = {
            "train": read_json(file, lines=True),
            "val": read_json(beside, lines=True) if beside.is_file() else [],
        }
    else:
        content = read_json(file)
    if not isinstance(content, dict) or not isinstance(content.get("train"), list | dict):
        raise UserError(f"{file}: a few-shot file is an object with the list 'train' (and 'val')")
    train, val = (_drawn(file, part, content.get(part, []), split) for part in ("train", "val"))
    absent = set(range(len(split.class_names))) - {item.label for item in train}
    if absent:
        raise UserError(f"{file}: no training image of class {split.class_names[min(absent)]!r}")
    return train, val


def _rows(file: Path, part: str, given: object, known: Container[str]) -> Iterator[tuple[object, object]]:
    """Path and label of each image, in whichever form they are given."""
    entries = given.get("data") if isinstance(given, dict) else given
    if not isinstance(entries, list) or not any(isinstance(entry, dict) for entry in entries):
        for path, label, *_ in rows_of(file, part, entries, COOP_ROW, lengths=(2, 3)):
            yield path, label
        return
    for entry in entries:
        own = {str(k).lstrip("_"): v for k, v in entry.items()} if isinstance(entry, dict) else {}
        if not {"impath", "label"} <= set(own):
            raise UserError(f"{file}: an entry of {part!r} must be {OBJECT}, not {json.dumps(entry)[:80]}")
        yield _inside(own["impath"], known), own["label"]


def _inside(path: object, known: Container[str]) -> object:
    """A path below the image folder, of one that begins at another: "./data/dtd/images/banded/a.jpg"."""
    parts = str(path).replace("\\", "/").split("/")
    return next((end for i in range(len(parts)) if (end := "/".join(parts[i:])) in known), path)


def _drawn(file: Path, part: str, rows: object, split: Split) -> list[Item]:
    known = {item.path: item for item in split.parts[part]}
    drawn: dict[str, Item] = {}
    for path, label in _rows(file, part, rows, known):
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
