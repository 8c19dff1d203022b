"""Split files: CoOp's form, the SoftCPT authors' form, and the ones written here.

CoOp:    {"train": [[path, label, class name], ...], "val": [...], "test": [...]}
authors: {"train": [[path, [label], [task]], ...], ..., "meta": {"taskid2cname": [[...]], ...}}
Such files come from anywhere, so nothing in them is believed before it is checked.
"""

from __future__ import annotations

import gzip
import json
import posixpath
import zlib
from collections import Counter
from collections.abc import Container, Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

from bench.datasets.types import Item, Split, class_name
from bench.errors import UserError
from bench.files import is_text, write_whole

PARTS = ("train", "val", "test")
COOP_ROW = "[path, label, class name]"
MAX_JSON = 200_000_000  # bytes, unpacked: the rows of more than two million images

Entries = tuple[dict[int, str], str, dict[str, list[Item]]]  # class names by label, task name, images


def read_split(file: Path, root: Path, task: int = 0, allow_leak: bool = False) -> tuple[Split, str]:
    """A split file of either form, checked; and the task's name where the file holds one (else "").

    `task` selects one of several tasks in an authors' file; `allow_leak` accepts images in two parts.
    """
    content = read_json(file)
    if not isinstance(content, dict) or not all(isinstance(content.get(part), list) for part in PARTS):
        raise UserError(f"{file}: a split file is an object with the lists 'train', 'val' and 'test'")
    by_label, task_name, parts = (
        _authors_entries(file, content, task) if "meta" in content else _coop_entries(file, content)
    )
    names = check_names(file, by_label)
    check_parts(file, parts, allow_leak)
    return Split.of(root, names, parts, source=file.name), task_name


def read_json(file: Path, lines: bool = False) -> Any:
    """The content of a JSON file, gzip or plain; anything wrong with it is an error that names the file.

    No more than `MAX_JSON` bytes are read or unpacked: a gzip of 1 MB may hold 1 GB of blanks.

    lines : the file has one JSON value per line; a list of them.
    """
    try:
        with gzip.open(file, "rb") if file.suffix == ".gz" else file.open("rb") as stream:
            data = stream.read(MAX_JSON + 1)
        if len(data) > MAX_JSON:
            raise UserError(f"{file}: holds more than {MAX_JSON / 1e6:.0f} MB; no list of images is as long")
        text = data.decode(json.detect_encoding(data))  # JSON's own decoding lets half a surrogate pair pass
        return [json.loads(line) for line in text.split("\n") if line.strip()] if lines else json.loads(text)
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error})") from None
    except (ValueError, EOFError, RecursionError, zlib.error) as error:  # JSON's and Unicode's are ValueErrors
        raise UserError(f"{file}: not JSON ({error}); fetch the file again") from None


def write_json(file: Path, content: Any) -> None:
    """Write a file as a whole or not at all: another process sees the old one or the new one."""
    write_whole(file, json.dumps(content))


def coop_rows(items: Sequence[Item], names: Sequence[str]) -> list[list[object]]:
    """Images as CoOp's files list them."""
    return [[item.path, item.label, names[item.label]] for item in items]


def coop_form(split: Split) -> dict[str, list[list[object]]]:
    """A split as CoOp writes it."""
    return {part: coop_rows(items, split.class_names) for part, items in split.parts.items()}


def rows_of(file: Path, part: str, rows: object, form: str, lengths: Container[int] = (3,)) -> Iterator[list[Any]]:
    """The rows of a part, each a list of so many entries; `form` says which."""
    if not isinstance(rows, list):
        raise UserError(f"{file}: {part!r} must be a list of {form}, not {repr(rows)[:80]}")
    for row in rows:
        if not isinstance(row, list) or len(row) not in lengths:
            raise UserError(f"{file}: an entry of {part!r} must be {form}, not {json.dumps(row)[:80]}")
        yield row


def item_of(file: Path, path: object, label: object, known: Container[str] = ()) -> Item:
    """An image as a file names it, its path as in `safe_path`."""
    return Item(safe_path(file, path, known), whole_number(file, "label", label))


def whole_number(file: Path, what: str, value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise UserError(f"{file}: {what} {value!r} is not a whole number from 0 up")
    return value


def safe_path(file: Path, path: object, known: Container[str] = ()) -> str:
    """A path of a split file, with "/" where Windows writes "\\", without "." and double "/".

    A path among `known` is taken as it stands: outside Windows a file's name may hold a "\\". An error where a path
    leaves the image folder, or is none.
    """
    if not isinstance(path, str) or not path.strip() or "\0" in path:
        raise UserError(f"{file}: {path!r} is not an image path")
    normal = posixpath.normpath(path.replace("\\", "/"))
    if normal.startswith("/") or normal[1:2] == ":":
        raise UserError(f"{file}: {path!r} is an absolute path; paths are relative to the image folder")
    if normal == ".." or normal.startswith("../"):
        raise UserError(f"{file}: {path!r} leaves the image folder")
    return path if path in known else normal


def check_parts(file: Path, parts: Mapping[str, Sequence[Item]], allow_leak: bool) -> None:
    """Refuse an image that is listed twice: within a part always, across parts unless allowed."""
    for part, items in parts.items():
        twice = [path for path, count in Counter(item.path for item in items).items() if count > 1]
        if twice:
            raise UserError(f"{file}: {len(twice)} images stand twice in {part!r}, e.g. {min(twice)!r}")
    for first, second in () if allow_leak else combinations(parts, 2):
        both = {item.path for item in parts[first]} & {item.path for item in parts[second]}
        if both:
            raise UserError(
                f"{file}: {len(both)} images stand in both {first!r} and {second!r}, e.g. {min(both)!r}; "
                "remove them from one, or set `allow_leak: true` in the task's reader to accept it"
            )


def check_names(file: Path, by_label: Mapping[int, str], twice: bool = False) -> tuple[str, ...]:
    """Class names in label order; labels must be 0, 1, 2, ... and names must differ.

    twice : but for those of an official list, which may give a name to two classes.
    """
    gaps = sorted(set(range(len(by_label))) - set(by_label))
    if gaps:
        raise UserError(
            f"{file}: labels must be 0 to {len(by_label) - 1} without gaps; {len(gaps)} are missing, "
            f"e.g. {gaps[0]} (highest label: {max(by_label)})"
        )
    names = tuple(class_name(by_label[label]) for label in range(len(by_label)))
    if "" in names:
        raise UserError(f"{file}: label {names.index('')} has an empty class name")
    for name, count in Counter(names).items():
        if count > 1 and not twice:
            labels = [label for label, other in enumerate(names) if other == name]
            raise UserError(f"{file}: labels {labels} have the same class name {name!r}")
    return names


def _coop_entries(file: Path, content: Mapping[str, Any]) -> Entries:
    by_label: dict[int, str] = {}
    parts: dict[str, list[Item]] = {part: [] for part in PARTS}
    for part in PARTS:
        for path, label, name in rows_of(file, part, content[part], COOP_ROW):
            parts[part].append(item_of(file, path, label))
            if not is_text(name):
                raise UserError(f"{file}: the class name {name!r} of {path!r} is not text")
            if by_label.setdefault(label, name) != name:
                raise UserError(f"{file}: label {label} has two class names, {by_label[label]!r} and {name!r}")
    if not by_label:
        raise UserError(f"{file}: holds no images")
    return by_label, "", parts


def _authors_entries(file: Path, content: Mapping[str, Any], task: int) -> Entries:
    meta = content["meta"]
    names = meta.get("taskid2cname") if isinstance(meta, dict) else None
    rows = names if isinstance(names, list) else []
    if not rows or not all(isinstance(row, list) and row and all(map(is_text, row)) for row in rows):
        raise UserError(f"{file}: 'meta' must hold 'taskid2cname', a list of class names for each task")
    if task >= len(rows):
        raise UserError(f"{file}: holds tasks 0 to {len(rows) - 1}, not task {task}")
    by_label: dict[int, str] = dict(enumerate(rows[task]))
    parts: dict[str, list[Item]] = {part: [] for part in PARTS}
    for part in PARTS:
        for path, labels, tasks in rows_of(file, part, content[part], "[path, [label], [task]]"):
            if not (isinstance(labels, list) and isinstance(tasks, list) and len(labels) == len(tasks) == 1):
                raise UserError(f"{file}: {path!r} must have one label and one task, not {labels!r} and {tasks!r}")
            if whole_number(file, "task", tasks[0]) == task:
                parts[part].append(item_of(file, path, labels[0]))
                if labels[0] not in by_label:
                    has = f"{len(by_label)} classes have names"
                    raise UserError(f"{file}: label {labels[0]} of {path!r} is out of range; {has}")
    task_names = meta.get("taskid2tname") or []
    named = isinstance(task_names, list) and task < len(task_names) and isinstance(task_names[task], str)
    return by_label, class_name(task_names[task]) if named else "", parts
