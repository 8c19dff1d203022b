"""Readers: from the files of a data set, as its authors hand it out, to class names and images.

A suite file picks a reader by its kind and sets its options; a reader is a function (folder, options) →
Listing. This file holds the readers of folders; those of the data sets' own lists are in `lists.py`, the
table of kinds in `kinds.py`.
"""

from __future__ import annotations

import csv
import posixpath
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from bench.datasets.splitfiles import check_names
from bench.datasets.types import (
    Item,
    Listing,
    MissingData,
    class_name,
    files_below,
    is_image_file,
    left_out,
    list_folder,
)
from bench.errors import UserError, nearest

Options = Mapping[str, Any]
PARTS = ({"all"}, {"trainval", "test"}, {"train", "val", "test"})  # what the option "parts" may name


@dataclass(frozen=True)
class Reader:
    """A kind of reader: what reads, which options a suite file may set, and of which type they are."""

    read: Callable[[Path, Options], Listing]
    images: str = "."  # default of the option "images", the folder the images stand in
    options: Mapping[str, type] = field(default_factory=dict)
    required: tuple[str, ...] = ()


# Options of every kind. "images" is a folder below the task's, or a list of which the first that exists is
# taken; "split_name" is the name in split_zhou_<name>.json where it is not the task's.
COMMON_OPTIONS: Mapping[str, type] = {"images": list, "split_name": str, "allow_leak": bool}


def image_root(folder: Path, options: Options, default: str = ".") -> Path:
    """The folder a task's image paths are relative to."""
    images = options.get("images", default)
    choices = [images] if isinstance(images, str) else list(images)
    for choice in choices:
        if (folder / choice).is_dir():
            return folder / choice
    raise MissingData(f"{folder / choices[0]}: no such folder")


# Class folders --------------------------------------------------------------------------------------------


def read_folders(folder: Path, options: Options) -> Listing:
    """One folder a class, sorted by name.

    Options: `parts` (class folders stand below a folder for each part), `pool` (they stand below several folders,
    taken together), `grouped` (they stand inside folders of groups), `deep` (images in folders inside a class folder
    are the class's), `exclude` (folders that are no classes), `strip` (a pattern removed from the folder's name),
    `camel` (CamelCase becomes words), `rename` (folder name → class name, instead of these rules).
    """
    root = image_root(folder, options)
    if "parts" in options and "pool" in options:
        raise UserError(f"{folder}: the reader's `parts` and `pool` both say where class folders stand; give one")
    pools = {part: [theirs] for part, theirs in parts_of(options).items()} if "parts" in options else {}
    by_part: dict[str, dict[str, list[str]]] = {}
    class_folders: list[str] = []
    seen: set[str] = set()  # all folders, excluded ones too
    for part, tops in (pools or {"all": options.get("pool", ["."])}).items():
        by_class = by_part.setdefault(part, {})
        for top in map(posixpath.normpath, tops):
            for name, path in _class_folders(root, top, options, seen):
                class_folders.append(path)
                by_class.setdefault(name, []).extend(_images_of_class(root, path, options))
    folders = sorted({name for by_class in by_part.values() for name in by_class})
    if not folders:
        raise _no_class_folders(root, options)
    if "parts" not in options and "pool" not in options:
        _check_no_parts(root, folders, options)
    for name in folders:
        if not any(by_class.get(name) for by_class in by_part.values()):
            raise _empty_class_folder(root, next(p for p in class_folders if p.split("/")[-1] == name), options)
    items = {
        part: [Item(path, label) for label, name in enumerate(folders) for path in sorted(by_class.get(name, []))]
        for part, by_class in by_part.items()
    }
    names = check_names(root, dict(enumerate(readable_name(name, options) for name in folders)))
    read = {item.path for part in items.values() for item in part}
    unread = left_out(root, set(class_folders), read, set(options.get("exclude", ())))
    source = f"folders {', '.join(options['parts'].values())}" if "parts" in options else "folders"
    checked = {"exclude": seen, "rename": folders}
    unmet = {option: said for option, known in checked.items() if (said := _unmet(root, option, options, known))}
    return Listing(root, names, items, source, left_out=unread, unmet=unmet)


def _images_of_class(root: Path, path: str, options: Options) -> list[str]:
    if not options.get("deep"):
        return [f"{path}/{image}" for image in list_folder(root / path)[1]]
    below = files_below(root, path, exclude=options.get("exclude", ()))
    return [file for file in below if is_image_file(root, file)]


# Names of folders that stand for parts of a data set, and the part each stands for.
PART_FOLDERS: Mapping[str, str] = {
    **{"train": "train", "training": "train", "test": "test", "testing": "test"},
    **{"val": "val", "valid": "val", "validation": "val"},
}

# How to use the parts that are there; where none is called a test, val is.
PARTS_FOR: Mapping[tuple[str, ...], Mapping[str, str]] = {
    ("test", "train", "val"): {"train": "train", "val": "val", "test": "test"},
    ("test", "train"): {"trainval": "train", "test": "test"},
    ("train", "val"): {"trainval": "train", "test": "val"},
}


def _check_no_parts(root: Path, folders: Sequence[str], options: Options) -> None:
    """Refuse "train", "val" and "test" as classes, naming the option that reads them as parts."""
    if not all(name.lower() in PART_FOLDERS for name in folders):
        return
    if not any(list_folder(root / name)[0] for name in folders):
        raise _no_class_folders(root / folders[0], options)
    raise UserError(
        f"{root}: {', '.join(map(repr, folders))} are parts of a data set, not classes; "
        f"write into the suite file: {_parts_line(folders, options)}"
    )


def _parts_line(folders: Sequence[str], options: Options) -> str:
    """The `reader` line that reads these folders as parts, or together where they are no train and test."""
    by_part = {PART_FOLDERS[name.lower()]: name for name in folders}
    form = PARTS_FOR.get(tuple(sorted(by_part))) if len(by_part) == len(folders) else None
    if form is None:
        return suite_line(options, {"pool": list(folders)})
    return suite_line(options, {"parts": {ours: by_part[theirs] for ours, theirs in form.items()}})


def _no_class_folders(root: Path, options: Options) -> UserError:
    """What to say of a folder without class folders; of images without any, how else their classes can be given."""
    images = list_folder(root)[1]
    if not images:
        return MissingData(f"{root}: holds no class folders")
    kept = {key: options[key] for key in ("images",) if key in options}
    lists = suite_line({"kind": "csv", **kept}, {"parts": {"all": "labels.csv"}, "image": "file", "label": "class"})
    named = suite_line({"kind": "names", **kept}, {"pattern": r"(.+)_\d+"})
    return UserError(
        f"{root}: {len(images)} images, e.g. {images[0]!r}, and no class folders; move them into a folder a class, "
        f"or write into the suite file, where a table names the classes: {lists}, where the files' names do: {named}"
    )


def _empty_class_folder(root: Path, path: str, options: Options) -> UserError:
    """What to say of a class folder without images: where they are, or which files are there instead."""
    where = root / path
    unread = left_out(root, {path}, (), set(options.get("exclude", ())), top=path)
    way = "put some there or list it under `exclude`"
    inner, _ = list_folder(where)
    parts = [name for name in list_folder(root)[0] if name.lower() in PART_FOLDERS]
    if path in parts:
        way = f"if it is a part of the data set, write into the suite file: {_parts_line(parts, options)}; else {way}"
    elif inner and not options.get("grouped"):
        top = options.get("images", ".")
        below = f"{top}/{path}" if isinstance(top, str) and top != "." else path
        way = (
            f"if the classes are the folders in it, such as {inner[0]!r}, set the reader's `images: {below}` (or "
            f"`grouped: true`, of several such folders); if they all belong to this class, `deep: true`; else {way}"
        )
    return UserError(f"{where}: class folder without images; {way}{f' ({unread})' if unread else ''}")


def suite_line(options: Options, more: Options) -> str:
    """The `reader` line of a suite file with these options, to be pasted there."""
    reader = {**options, **more}
    return "`reader: " + yaml.safe_dump(reader, default_flow_style=True, sort_keys=False, width=10**6).strip() + "`"


def parts_of(options: Options) -> Mapping[str, str]:
    """Our part → the data set's name of it; without the option "parts", what is called "train" is all there is."""
    parts: Mapping[str, str] = options.get("parts", {"all": "train"})
    if set(parts) not in PARTS:
        raise UserError(f"parts: {sorted(parts)} must be all, or trainval and test, or train, val and test")
    return parts


def _unmet(root: Path, option: str, options: Options, folders: Iterable[str]) -> str:
    """What to say of an option's folders that are not there; "" where all are."""
    gone = sorted(set(options.get(option, ())) - set(folders))
    return f"{root}: `{option}` names {gone[0]!r}, which is no folder here; {nearest(gone[0], folders)}" if gone else ""


def readable_name(folder_name: str, options: Options) -> str:
    """The class name a folder's name stands for."""
    rename = options.get("rename", {})
    if folder_name in rename:
        return str(rename[folder_name])
    name = re.sub(options["strip"], "", folder_name) if "strip" in options else folder_name
    return " ".join(camel_words(name)) if options.get("camel") else name


def camel_words(name: str) -> list[str]:
    """The words of a CamelCase name; capitals in a row stay one word (TVStudio → TV, Studio)."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", name).split()


def _class_folders(root: Path, pool: str, options: Options, seen: set[str]) -> list[tuple[str, str]]:
    """(class, path relative to root) of the class folders below one pool, or in its groups.

    The names of all folders, excluded ones too, are added to `seen`.
    """
    exclude = set(options.get("exclude", []))
    found = []
    folders, _ = list_folder(root / pool)
    seen.update(folders)
    for name in folders:
        if name in exclude:
            continue
        path = name if pool == "." else f"{pool}/{name}"
        inside = list_folder(root / path)[0] if options.get("grouped") else []
        seen.update(inside)
        inner = [n for n in inside if n not in exclude]
        found += [(n, f"{path}/{n}") for n in inner] or [(name, path)]
    return found


# Fashion-20 -----------------------------------------------------------------------------------------------


def read_fashion20(folder: Path, options: Options) -> Listing:
    """One task of Fashion-20: `images/<task id>/<class id>/*`, names in `task_info.csv`."""
    task = options["task"]
    if task < 0:
        raise UserError(f"{folder}: the reader's `task` must be a whole number from 0 up, not {task}")
    info = folder / "task_info.csv"
    root = image_root(folder, options, "images")
    task_name, names = _fashion20_names(info, task)
    items = []
    class_folders = list_folder(root / str(task))[0]
    for class_folder in class_folders:
        if not class_folder.isdecimal() or int(class_folder) >= len(names):
            raise UserError(
                f"{root / str(task) / class_folder}: class folders of task {task} are named "
                f"0 to {len(names) - 1}, as many as {info.name} names classes"
            )
        images = list_folder(root / str(task) / class_folder)[1]
        items += [Item(f"{task}/{class_folder}/{image}", int(class_folder)) for image in images]
    for label, name in enumerate(names):
        if not any(item.label == label for item in items):
            raise MissingData(f"{root / str(task) / str(label)}: no images of class {name!r}")
    paths = {f"{task}/{class_folder}" for class_folder in class_folders}
    unread = left_out(root, paths, {item.path for item in items}, top=str(task))
    return Listing(root, names, {"all": items}, source="folders", task_name=task_name, left_out=unread)


def _fashion20_names(info: Path, task: int) -> tuple[str, tuple[str, ...]]:
    try:
        with open(info, encoding="utf-8-sig", newline="") as stream:
            rows = list(csv.reader(stream, delimiter="\t", quoting=csv.QUOTE_NONE))
    except FileNotFoundError:
        raise MissingData(f"{info}: no such file") from None
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(f"{info}: cannot be read ({error})") from None
    for row in rows[1:]:
        if len(row) >= 4 and row[0].strip() == str(task):
            labels = [name.strip() for name in row[3].split(",")]
            return class_name(row[1]), check_names(info, dict(enumerate(labels)))
    raise UserError(f"{info}: no line for task {task} (id, task name, description and label names, tab-separated)")


# A split file of one's own --------------------------------------------------------------------------------


def read_split_only(folder: Path, options: Options) -> Listing:
    """A data set that is described by a split file alone; `splits.py` reads it before any reader is asked."""
    raise MissingData(f"{folder / options['split']}: no such file")
