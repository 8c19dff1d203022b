"""What passes between the readers and the splits: images with labels, and where they stand."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from bench.errors import UserError

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm", ".jp2"})

# What a disk says of a folder that is not there, that is a file, or whose path is longer than any can be.
NOT_THERE = (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG)


class MissingData(UserError):
    """Files of a task that are not on the user's disk (yet): collected over tasks into one message."""


@dataclass(frozen=True, order=True, slots=True)
class Item:
    """One image of a task."""

    path: str  # relative to the split's root, parts separated by "/"
    label: int


@dataclass(frozen=True)
class Listing:
    """What a reader finds: class names in label order and the images of each part.

    The keys of `parts` say what is still to be divided: {"all"}, {"trainval", "test"} or nothing:
    {"train", "val", "test"}.
    """

    root: Path
    class_names: tuple[str, ...]
    parts: dict[str, list[Item]]
    source: str
    task_name: str = ""  # where the user's copy names the task (Fashion-20)
    unmet: Mapping[str, str] = field(default_factory=dict)  # options that name folders that are not there: what to say


@dataclass(frozen=True)
class Split:
    """The images of a task, divided for good."""

    root: Path
    class_names: tuple[str, ...]
    train: tuple[Item, ...]
    val: tuple[Item, ...]
    test: tuple[Item, ...]
    source: str  # the file or rule the division comes from

    @classmethod
    def of(cls, root: Path, names: tuple[str, ...], parts: Mapping[str, Iterable[Item]], source: str) -> Split:
        """The split with these parts ("train", "val" and "test")."""
        return cls(root, names, tuple(parts["train"]), tuple(parts["val"]), tuple(parts["test"]), source)

    @property
    def parts(self) -> dict[str, tuple[Item, ...]]:
        return {"train": self.train, "val": self.val, "test": self.test}


def class_name(raw: str) -> str:
    """A readable class name: `_` becomes a space, runs of white space (line ends too) become one space."""
    return " ".join(raw.encode("utf-8", "replace").decode("utf-8").replace("_", " ").split())


def is_image_name(name: str) -> bool:
    """Whether a file name is an image's: a known suffix, not hidden (a Mac leaves `._x.jpg` beside x.jpg)."""
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES


def list_folder(folder: Path | str) -> tuple[list[str], list[str]]:
    """Sub-folders and images of a folder, each sorted by name, without hidden ones; nothing is opened."""
    folders, images = [], []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir():  # known from the directory itself: no system call a file
                    if not entry.name.startswith((".", "__MACOSX")):
                        folders.append(entry.name)
                elif is_image_name(entry.name):
                    images.append(entry.name)
    except FileNotFoundError:
        raise MissingData(f"{folder}: no such folder") from None
    except NotADirectoryError:
        raise UserError(f"{folder}: a folder is expected here, this is a file") from None
    except PermissionError:
        raise UserError(f"{folder}: cannot be read; give yourself permission to read it") from None
    return sorted(folders), sorted(images)


def missing_images(root: Path, items: Iterable[Item]) -> set[str]:
    """The paths of `items` that are not below `root`, found by listing each folder once."""
    by_folder: dict[str, set[str]] = {}
    for item in items:
        folder, _, name = item.path.rpartition("/")
        by_folder.setdefault(folder, set()).add(name)
    missing: set[str] = set()
    for folder, names in by_folder.items():
        try:
            with os.scandir(root / folder) as entries:
                names = names - {entry.name for entry in entries}
        except PermissionError:
            raise UserError(f"{root / folder}: cannot be read; give yourself permission to read it") from None
        except OSError as error:
            if error.errno not in NOT_THERE:
                raise UserError(f"{root / folder}: cannot be read ({error.strerror})") from None
        prefix = f"{folder}/" if folder else ""
        missing.update(prefix + name for name in names)
    return missing
