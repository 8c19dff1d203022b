"""Readers: from the files of a data set, as its authors hand it out, to class names and images.

A suite file picks a reader by its kind and sets its options; a reader is a function (folder, options) →
Listing. This file holds the readers of folders; those of the data sets' own lists are in `lists.py`, the
table of kinds in `kinds.py`.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.datasets.items import Item, Listing, MissingData, class_name, list_folder
from bench.datasets.splitfiles import check_names
from bench.errors import UserError, nearest

Options = Mapping[str, Any]


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

    Options: `pool` (class folders stand below several folders, taken together), `grouped` (class folders
    stand inside folders of groups), `exclude` (folders that are no classes), `strip` (a pattern removed from
    the folder's name), `camel` (CamelCase becomes words), `rename` (folder name → class name, instead of
    these rules).
    """
    root = image_root(folder, options)
    pools = options.get("pool", ["."])
    by_class: dict[str, list[str]] = {}
    seen: set[str] = set()
    for pool in pools:
        for name, path in _class_folders(root, pool, options, seen):
            _, images = list_folder(root / path)
            by_class.setdefault(name, []).extend(f"{path}/{image}" for image in images)
    if not by_class:
        raise MissingData(f"{root}: holds no class folders")
    for name, paths in by_class.items():
        if not paths:
            raise UserError(f"{root / name}: class folder without images; put some there or list it under `exclude`")
    folders = sorted(by_class)
    items = [Item(path, label) for label, name in enumerate(folders) for path in sorted(by_class[name])]
    names = check_names(root, dict(enumerate(readable_name(name, options) for name in folders)))
    checked = {"exclude": seen, "rename": folders}
    unmet = {option: said for option, known in checked.items() if (said := _unmet(root, option, options, known))}
    return Listing(root, names, {"all": items}, source="folders", unmet=unmet)


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
    for class_folder in list_folder(root / str(task))[0]:
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
    return Listing(root, names, {"all": items}, source="folders", task_name=task_name)


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
