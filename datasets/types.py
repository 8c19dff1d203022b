"""What passes between the readers and the splits: images with labels, and where they stand."""

from __future__ import annotations

import errno
import os
import re
import warnings
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench.datasets.images import SUFFIXES, is_image
from bench.errors import UserError
from bench.files import user_path
from bench.progress import count

# Files and folders that systems leave beside images.
SYSTEM_NAMES = frozenset({"__macosx", "thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "@eadir", "lost+found"})

# What the bench itself writes into a task's folder (`hub.py`, `splits.py`): never a part of the data.
OWN_OUTPUT = re.compile(r"files-(huggingface|torchvision)-[0-9a-f]{8}(-[0-9a-f]{8})?|split_bench_.*\.json")

# What a disk says of a folder that is not there, that is a file, or whose path is longer than any can be.
NOT_THERE = (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG)


class MissingData(UserError):
    """Files of a task that are not on the user's disk (yet): collected over tasks into one message."""


class NotWritten(MissingData):
    """Local rows are there; their images become files when they are first used."""


@dataclass(frozen=True, order=True, slots=True)
class Item:
    """One image of a task."""

    path: str  # relative to the split's root, parts separated by "/"
    label: int


class LeftOut(dict[str, tuple[int, str]]):
    """Files that a reader found and did not read: which → how many, and one of them. As a text, what to tell."""

    def add(self, which: str, paths: Sequence[str]) -> None:
        if paths:
            self[which] = (len(paths), min(paths))

    def __str__(self) -> str:
        told = [f"{which} ({count}, e.g. {example!r})" for which, (count, example) in self.items()]
        return f"left out: {'; '.join(told)}" if told else ""


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
    left_out: LeftOut = field(default_factory=LeftOut)
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
    def from_file(self) -> bool:
        """Whether it is that of a split file that came with the data, whole and in the file's order."""
        return self.source.endswith((".json", ".json.gz"))

    @property
    def parts(self) -> dict[str, tuple[Item, ...]]:
        return {"train": self.train, "val": self.val, "test": self.test}


def class_name(raw: str) -> str:
    """A readable class name: `_` becomes a space, runs of white space (line ends too) become one space."""
    return " ".join(raw.encode("utf-8", "replace").decode("utf-8").replace("_", " ").split())


def is_passed_over(name: str) -> bool:
    """Whether a file's or folder's name says that it is no data: hidden, the system's (a Mac's, Windows'), our own."""
    return name.startswith(".") or name.lower() in SYSTEM_NAMES or OWN_OUTPUT.fullmatch(name) is not None


def is_image_name(name: str) -> bool:
    """Whether a file name is an image's: a known suffix, not hidden (a Mac leaves `._x.jpg` beside x.jpg)."""
    return os.path.splitext(name)[1].lower() in SUFFIXES and not name.startswith(".")


def is_image_file(folder: Path | str, path: str) -> bool:
    """Whether a file below a folder is an image: by its name, or, of a name without a suffix, by its first bytes."""
    name = os.path.basename(path)
    if is_passed_over(name) or os.path.splitext(name)[1]:
        return is_image_name(name)
    file = os.path.join(folder, path)
    return os.path.isfile(file) and is_image(file)


def present(file: Path) -> Path:
    """A file that has to be there: `MissingData` where it is not, `UserError` where that cannot be told."""
    try:
        file.stat()
    except OSError as error:
        if error.errno in NOT_THERE:
            raise MissingData(f"{file}: no such file") from None
        raise UserError(f"{file}: cannot be read ({error})") from None
    return file


def image_files(given: Sequence[Path | str]) -> list[Path]:
    """Image files as they were given, each once; a folder stands for the images in it and below it, by name.

    Hidden files and folders are left out. So are files that are no images by their names, with a warning.

    Raises
    ------
    UserError : no such file, or a folder without images.
    """
    found: list[Path] = []
    for path in map(user_path, given):
        if path.is_dir():
            found += _images_below(path)
        elif path.is_file():
            found.append(path)
        else:
            raise UserError(f"{path}: no such file or folder")
    return list(dict.fromkeys(found))


def _images_below(folder: Path) -> list[Path]:
    files = list(files_below(folder))
    images = [path for path in files if is_image_file(folder, path)]
    others = sorted({*files} - {*images})
    if not images:
        said = count(len(others), "other file")
        raise UserError(f"{folder}: holds no images, neither in it nor below it ({said})")
    if others:
        said = f"{count(len(others), 'file')} left out, not images by name or content"
        warnings.warn(f"{folder}: {said}, e.g. {others[0]!r}", stacklevel=3)
    return [folder / path for path in images]


def list_folder(folder: Path | str) -> tuple[list[str], list[str]]:
    """Sub-folders and images of a folder, each sorted by name, without hidden ones.

    Nothing is opened but files without a suffix.
    """
    folders, files = _scan(folder)
    return folders, [name for name in files if is_image_file(folder, name)]


def _scan(folder: Path | str) -> tuple[list[str], list[str]]:
    """Sub-folders and files of a folder, sorted, but for those passed over."""
    kept = [entry for entry in _entries(folder) if not is_passed_over(entry.name)]
    folders = {entry.name for entry in kept if entry.is_dir()}  # known from the directory: no system call per file
    return sorted(folders), sorted(entry.name for entry in kept if entry.name not in folders)


def _entries(folder: Path | str) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except (OSError, UnicodeEncodeError) as error:  # a split file may name a folder in characters that no disk takes
        if isinstance(error, UnicodeEncodeError) or error.errno in NOT_THERE:
            raise MissingData(f"{folder}: no such folder") from None
        denied = isinstance(error, PermissionError)
        why = "; give yourself permission to read it" if denied else f" ({error.strerror})"
        raise UserError(f"{folder}: cannot be read{why}") from None


def files_below(
    root: Path, top: str = ".", skip: Collection[str] = (), exclude: Collection[str] = (), above: Collection[str] = ()
) -> Iterator[str]:
    """The files below `root`/`top`, relative to `root`, but for hidden ones, the system's and our own.

    Folders whose path is in `skip`, or whose name is in `exclude`, are not entered; nor are links to a folder they
    stand in (`above`).
    """
    real = os.path.realpath(root / top)
    if real in above:
        return
    folders, files = _scan(root / top)
    prefix = "" if top == "." else f"{top}/"
    yield from (prefix + name for name in files)
    for name in folders:
        if name not in exclude and prefix + name not in skip:
            yield from files_below(root, prefix + name, skip, exclude, {*above, real})


def missing_images(root: Path, items: Iterable[Item]) -> set[str]:
    """The paths of `items` that are not below `root`, found by listing each folder once."""
    by_folder: dict[str, set[str]] = {}
    for item in items:
        by_folder.setdefault(item.path.rpartition("/")[0], set()).add(item.path)
    missing: set[str] = set()
    for folder, paths in by_folder.items():
        prefix = f"{folder}/" if folder else ""
        try:
            missing |= paths - {prefix + entry.name for entry in _entries(root / folder)}
        except MissingData:
            missing |= paths
    return missing


def left_out(
    root: Path, classes: Collection[str], read: Collection[str], exclude: Collection[str] = (), top: str = "."
) -> LeftOut:
    """What lies below `root`/`top` and is not read: images wherever they lie, other files in class folders.

    `classes` are the paths of the class folders, `exclude` names of folders that the user has left out.
    """
    inside = [p for folder in classes for p in files_below(root, folder, exclude=exclude) if p not in read]
    deeper = [path for path in inside if is_image_file(root, path)]
    around = [path for path in files_below(root, top, skip=classes, exclude=exclude) if is_image_file(root, path)]
    found = LeftOut()
    found.add("files in class folders whose suffix is not an image's", sorted({*inside} - {*deeper}))
    found.add("images in folders inside a class folder; the reader's `deep: true` takes them", deeper)
    found.add("images outside the class folders", around)
    return found
