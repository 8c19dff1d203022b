"""Readers: from the files of a data set, as its authors hand it out, to class names and images.

A suite file picks a reader by its kind and sets its options; a reader is a function (folder, options) →
Listing. This file holds the readers of folders; those of lists are in `lists.py`, those of libraries in `hub.py`, the
table of kinds in `registry.py`.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

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
    present,
)
from bench.errors import UserError, nearest

Options = Mapping[str, Any]
PARTS = ({"all"}, {"test"}, {"trainval", "test"}, {"train", "val", "test"})  # what the option "parts" may name


@dataclass(frozen=True)
class Reader:
    """A kind of reader: what reads, which options a suite file may set, and of which type they are."""

    read: Callable[[Path, Options], Listing]
    images: str = "."  # default of the option "images", the folder the images are in
    options: Mapping[str, type] = field(default_factory=dict)
    required: tuple[str, ...] = ()
    many: Callable[[Any, Path], Sequence[Any]] | None = None  # the TaskSpecs that one stands for, by its folder


# Options of every kind. "images" is a folder below the task's, or a list of which the first that exists is
# taken; "split_name" is the name in split_zhou_<name>.json where it is not the task's.
COMMON_OPTIONS: Mapping[str, type] = {"images": list, "split_name": str, "allow_leak": bool}


def image_root(folder: Path, options: Options, default: str = ".") -> Path:
    """The folder a task's image paths are relative to."""
    images = options.get("images", default)
    choices = [folder / choice for choice in ([images] if isinstance(images, str) else images)]
    for choice in choices:
        if choice.is_dir():
            return choice
    raise MissingData(f"{choices[0]}: no such folder")


def text_of(file: Path) -> str:
    """What a text file holds, as UTF-8."""
    try:
        return present(file).read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise UserError(f"{file}: cannot be read ({error})") from None


def parts_of(options: Options) -> Mapping[str, str]:
    """Our part → the data set's name of it; without the option "parts", what is called "train" is all there is."""
    parts: Mapping[str, str] = options.get("parts", {"all": "train"})
    if set(parts) not in PARTS:
        raise UserError(f"parts: {sorted(parts)} must be all, or test, or trainval and test, or train, val and test")
    return parts


# Class folders --------------------------------------------------------------------------------------------


def read_folders(folder: Path, options: Options) -> Listing:
    """One folder per class, sorted by name.

    Options: `parts` (class folders below a folder for each part), `pool` (class folders below several folders, taken
    together), `grouped` (class folders inside folders of groups), `deep` (images in folders inside a class folder are
    the class's), `exclude` (folders that are no classes), `strip` (a pattern removed from the folder's name), `camel`
    (CamelCase becomes words), `rename` (folder name → class name, instead of these rules).
    """
    root, exclude = image_root(folder, options), set(options.get("exclude", ()))
    if "parts" in options and "pool" in options:
        raise UserError(f"{folder}: the reader's `parts` and `pool` both say where class folders are; give one")
    tops = {part: [top] for part, top in parts_of(options).items()} if "parts" in options else {}
    by_part: dict[str, list[tuple[str, str]]] = {}  # (class, path of its folder)
    seen: set[str] = set()  # names of all folders, excluded ones too
    for part, paths in (tops or {"all": options.get("pool", ["."])}).items():
        by_part[part] = [pair for top in paths for pair in _class_folders(root, posixpath.normpath(top), options, seen)]
    class_folders = {path: name for pairs in by_part.values() for name, path in pairs}
    images = {path: _images_of_class(root, path, options) for path in class_folders}
    names = sorted(set(class_folders.values()))
    if not names:
        raise _no_class_folders(root)
    if "parts" not in options and "pool" not in options:
        _check_no_parts(root, names)
    for name in names:
        own = [path for path, of in class_folders.items() if of == name]
        if not any(images[path] for path in own):
            raise _empty_class_folder(root, own[0], exclude)
    labels = {name: label for label, name in enumerate(names)}
    items = {
        part: [Item(image, labels[name]) for name, path in pairs for image in images[path]]
        for part, pairs in by_part.items()
    }
    class_names = check_names(root, {label: readable_name(name, options) for label, name in enumerate(names)})
    unread = left_out(root, class_folders, {image for own in images.values() for image in own}, exclude)
    source = f"folders {', '.join(options['parts'].values())}" if "parts" in options else "folders"
    checked = {"exclude": seen, "rename": names}
    unmet = {option: said for option, known in checked.items() if (said := _unmet(root, option, options, known))}
    return Listing(root, class_names, items, source, left_out=unread, unmet=unmet)


def _class_folders(root: Path, top: str, options: Options, seen: set[str]) -> list[tuple[str, str]]:
    """(class, path relative to root) of the class folders below one folder, or in its groups.

    The names of all folders, excluded ones too, are added to `seen`.
    """
    exclude, found = options.get("exclude", ()), []
    folders, _ = list_folder(root / top)
    seen.update(folders)
    for name in folders:
        if name not in exclude:
            path = name if top == "." else f"{top}/{name}"
            inside = list_folder(root / path)[0] if options.get("grouped") else []
            seen.update(inside)
            found += [(n, f"{path}/{n}") for n in inside if n not in exclude] or [(name, path)]
    return found


def _images_of_class(root: Path, path: str, options: Options) -> list[str]:
    if not options.get("deep"):
        return [f"{path}/{image}" for image in list_folder(root / path)[1]]
    below = files_below(root, path, exclude=options.get("exclude", ()))
    return [file for file in below if is_image_file(root, file)]


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


# How to read what is there instead -------------------------------------------------------------------------

PART_FOLDERS = frozenset({"train", "training", "test", "testing", "val", "valid", "validation"})
PARTS_SAID = "set the reader's `parts`, such as {trainval: train, test: test}, or `pool`, to read them together"


def _check_no_parts(root: Path, folders: Sequence[str]) -> None:
    """Refuse "train", "val" and "test" as classes, naming the options that read them as parts."""
    if all(name.lower() in PART_FOLDERS for name in folders):
        if not any(list_folder(root / name)[0] for name in folders):
            raise _no_class_folders(root / folders[0])
        raise UserError(f"{root}: {', '.join(map(repr, folders))} are parts of a data set, not classes; {PARTS_SAID}")


def _no_class_folders(root: Path) -> UserError:
    """What to say of a folder without class folders; of images without any, how else their classes can be given."""
    images = list_folder(root)[1]
    if not images:
        return MissingData(f"{root}: holds no class folders")
    return UserError(
        f"{root}: {len(images)} images, e.g. {images[0]!r}, and no class folders; move them into a folder per class, "
        "or use the reader `csv`, where a table names the classes, or `names`, where the files' names do"
    )


def _empty_class_folder(root: Path, path: str, exclude: Collection[str]) -> UserError:
    """What to say of a class folder without images: where they are, or which files are there instead."""
    way = "put some there or list it under `exclude`"
    if path.lower() in PART_FOLDERS:
        way = f"if it is a part of the data set, {PARTS_SAID}; else {way}"
    elif inner := list_folder(root / path)[0]:
        way = (
            f"if the classes are the folders in it, such as {inner[0]!r}, set the reader's `images` to this folder (or "
            f"`grouped: true`, of several such folders); if they all belong to this class, `deep: true`; else {way}"
        )
    unread = left_out(root, {path}, (), exclude, top=path)
    return UserError(f"{root / path}: class folder without images; {way}{f' ({unread})' if unread else ''}")


# Fashion-20 -----------------------------------------------------------------------------------------------


def read_fashion20(folder: Path, options: Options) -> Listing:
    """One task of Fashion-20: `images/<task id>/<class id>/*`, names in `task_info.csv`."""
    task, info = options["task"], folder / "task_info.csv"
    rows = [line.split("\t") for line in text_of(info).splitlines()]
    row = next((row for row in rows[1:] if len(row) >= 4 and row[0].strip() == str(task)), None)
    if row is None:
        columns = "(id, task name, description and label names, tab-separated)"
        raise UserError(f"{info}: no line for task {task} {columns}")
    names = check_names(info, dict(enumerate(row[3].split(","))))
    root, items = image_root(folder, options, "images"), []
    class_folders = {name: f"{task}/{name}" for name in list_folder(root / str(task))[0]}
    for name, path in class_folders.items():
        if not name.isdecimal() or int(name) >= len(names):
            named = f"are named 0 to {len(names) - 1}, as many as {info.name} names classes"
            raise UserError(f"{root / path}: class folders of task {task} {named}")
        items += [Item(f"{path}/{image}", int(name)) for image in list_folder(root / path)[1]]
    for label in set(range(len(names))) - {item.label for item in items}:
        raise MissingData(f"{root / str(task) / str(label)}: no images of class {names[label]!r}")
    unread = left_out(root, class_folders.values(), {item.path for item in items}, top=str(task))
    return Listing(root, names, {"all": items}, source="folders", task_name=class_name(row[1]), left_out=unread)


# A split file of one's own --------------------------------------------------------------------------------


def read_split_only(folder: Path, options: Options) -> Listing:
    """A data set that is described by a split file alone; `splits.py` reads it before any reader is asked."""
    raise MissingData(f"{folder / options['split']}: no such file")
