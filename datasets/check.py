"""What of a suite is on disk, and what to do about the rest."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.datasets import hub
from bench.datasets.archives import there
from bench.datasets.spec import Suite, TaskSpec, file_of, targets_of
from bench.datasets.splits import Task, load_task
from bench.datasets.types import MissingData
from bench.errors import UserError
from bench.features.hashes import ImageHashes, copies, describe_copies, named
from bench.progress import bar

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ("task", "state", "images", "images_expected", "classes", "classes_expected", "split", "notes", "next")

PACKED = (".zip", ".rar", ".7z", ".tar", ".tar.gz", ".tgz")

Row = tuple[str, str, int, int | None, int, int | None, str, str, str]


def check_suite(
    suite: Suite,
    data_root: Path,
    open_images: bool = False,
    quiet: bool | None = None,
    command: Callable[[str], str] = lambda task: "data fetch",
) -> pd.DataFrame:
    """One row a task; reads names and lists, and divides nothing for good.

    state: "ready"; "partial" (some images or classes are not there: a run uses it where it is told to allow that);
    "missing"; "broken" (there, but wrong). The expected numbers are the suite file's `images` and `classes`, `notes`
    tells what is no fault but worth knowing, `next` says what to do. All texts can be printed as they are.

    open_images : decode every image (once: what was decoded is remembered in the cache), which finds broken ones, and
        copies of an image in two parts. quiet : no progress bars (None: where standard error is no terminal).
    command : what to type to fetch a task's data.
    """
    import pandas as pd

    root = Path(data_root).expanduser()
    hashes = ImageHashes() if open_images else None
    checked = []
    for spec in suite.tasks:
        checked.append(check_task(spec, root, command(spec.name), hashes, True if quiet else None))
    rows = [[printable(value) if isinstance(value, str) else value for value in row] for row in checked]
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    numbers = {"images": "int64", "classes": "int64", "images_expected": "Int64", "classes_expected": "Int64"}
    return table.astype(numbers)


def check_task(
    spec: TaskSpec,
    data_root: Path,
    command: str = "data fetch",
    hashes: ImageHashes | None = None,
    hide: bool | None = True,
) -> Row:
    """The values of one task, in the order of `COLUMNS`.

    command : what fetches its data. hashes : opens its images. hide : the progress bar, as in `bench.progress.bar`.
    """
    try:
        task = load_task(spec, data_root, write=False)
    except MissingData as error:
        wanting = error
    except UserError as error:
        return spec.name, "broken", 0, spec.n_images, 0, spec.n_classes, "", "", str(error)
    else:
        fewer = _too_few(task)
        advice = f"{fewer}; a run uses these, or: {how_to_get(spec, data_root, command)}" if fewer else ""
        return _found(spec, "partial" if fewer else "ready", task, advice, hashes, hide)
    advice = f"{wanting}; {how_to_get(spec, data_root, command)}"
    if isinstance(wanting, hub.NotWritten):  # nothing to get
        advice = str(wanting)
    try:
        part = load_task(spec, data_root, allow_missing=True, write=False)
    except UserError:
        return spec.name, "missing", 0, spec.n_images, 0, spec.n_classes, "", "", advice
    return _found(spec, "partial", part, advice, hashes, hide)


def _found(spec: TaskSpec, state: str, task: Task, advice: str, hashes: ImageHashes | None, hide: bool | None) -> Row:
    """The row of a task that is there, in whole or in part."""
    notes = [_left_out(task)]
    if hashes:
        parts = [[task.split.root / item.path for item in items] for items in task.split.parts.values()]
        with bar(f"opening {spec.name}'s images", _images(task), "image", hide, position=0) as shown:
            faults = hashes.broken([path for part in parts for path in part], shown.update, decode=True)
        if faults:
            state = "broken"
            advice = "; ".join(filter(None, [f"{len(faults)} images cannot be read: {named(faults)}", advice]))
        notes.append(describe_copies(task.split.root, copies(*map(hashes.by_content, parts)), "images of another part"))
    told, classes = "; ".join(filter(None, notes)), len(task.class_names)
    return spec.name, state, _images(task), spec.n_images, classes, spec.n_classes, task.split.source, told, advice


def _left_out(task: Task) -> str:
    """Which files of the task's folder are not among its images, where its reader counts them."""
    return str(getattr(task, "left_out", "") or "")


def _images(task: Task) -> int:
    return sum(len(items) for items in task.split.parts.values())


def _too_few(task: Task) -> str:
    """What is wanting where only the suite file knows how many images there are; "" where a list names them."""
    expected = task.spec.n_images
    by_folders = task.split.source.startswith("folders")  # else all that a list or a split file names are there
    if not by_folders or expected is None or _images(task) >= expected:
        return ""
    return f"{task.split.root}: holds {_images(task)} of {expected} images"


def how_to_get(spec: TaskSpec, data_root: Path, command: str) -> str:
    """What to fetch from where, and the folder it belongs in, for a task that is not ready."""
    folder = data_root / spec.folder
    missing = [source for source in spec.sources if not is_there(folder, source)]
    fetched = [_sized(spec, source, " from ") for source in missing if "fetch" in source]
    if hub.can_fetch(spec.reader):
        fetched.insert(0, "the images")
    parts = [f"`{command}` gets {', '.join(fetched)}"] if fetched else []
    if old := in_the_way(spec, data_root):
        whole = ", ".join(_sized(spec, source, " from ") for source in spec.sources if "fetch" in source)
        parts.append(f"move {' and '.join(map(str, old))} away, and `{command}` gets the whole: {whole}")
    by_hand = [source for source in missing if "fetch" not in source]
    lying = [file for source in by_hand if (file := packed(folder, source))]
    if lying:
        parts.append(f"unpack {' and '.join(map(str, lying))} there")
    wanted = [_sized(spec, source, ": ") for source in by_hand if not packed(folder, source)]
    if wanted:
        parts.append(f"put into {folder}: {'; '.join(wanted)}")
    return "; ".join(parts) or f"put the images into {folder}"


def in_the_way(spec: TaskSpec, data_root: Path) -> list[Path]:
    """What `data fetch` would get but for the part of it that is there, for a task that is not ready."""
    folder = data_root / spec.folder
    if any(not is_there(folder, source) and not is_split(source) for source in spec.sources):
        return []  # what is missing is reason enough
    fetched = [source for source in spec.sources if "fetch" in source]
    return [folder / target for source in fetched for target in targets_of(source).values()]


def is_there(folder: Path, source: dict[str, Any]) -> bool:
    """Whether what a source gives stands in the task's folder, as far as its name says.

    Of an archive fetched by hand nobody can say: what its files are called stands nowhere.
    """
    if "fetch" in source:
        return all(there(folder / target) for target in targets_of(source).values())
    what = source.get("what", "")
    if not what or "/" in what or what.lower().endswith(PACKED):
        return False
    return any(os.path.isfile(folder / f"{what}{end}") for end in ("", ".gz"))


def packed(folder: Path, source: dict[str, Any]) -> Path | None:
    """The archive of a source by hand, where it lies in the task's folder as it came."""
    what = source.get("what", "")
    by_hand = "fetch" not in source and what.lower().endswith(PACKED) and "/" not in what
    return folder / what if by_hand and os.path.isfile(folder / what) else None


def is_split(source: dict[str, Any]) -> bool:
    """Whether a source is a split file, which a task can do without."""
    return str(source.get("what", "")).startswith("split_")


def _sized(spec: TaskSpec, source: dict[str, Any], before_link: str) -> str:
    size = f" ({source['size']})" if "size" in source else ""
    fetched = source.get("fetch", "")
    link = source.get("url") or source.get("how") or (fetched if isinstance(fetched, str) else "")
    return f"{source.get('what') or file_of(source) or spec.name}{size}{before_link}{link}"


def printable(text: str) -> str:
    """A text in one line, without what moves a terminal's cursor or is no text: names of files may hold anything."""
    return "".join(c if c.isprintable() else " " if c.isspace() else "?" for c in text)
