"""What of a suite is on disk, and what to do about the rest."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from bench.datasets.spec import Suite, TaskSpec
from bench.datasets.splits import Task, load_task, select_tasks
from bench.datasets.types import MissingData, NotWritten
from bench.errors import UserError, in_a_line
from bench.features.hashes import ImageHashes, copies, describe_copies, named
from bench.progress import bar, count, silent

if TYPE_CHECKING:
    import pandas as pd


NO_TRAINING = "no training images: it can only be tested, by --protocol source-task:TASK or suite-to-suite"
NO_VALIDATION = "no validation images: a run has no validation accuracy here"


class Row(NamedTuple):
    """What `check_suite` says of a task."""

    task: str
    state: str
    images: int
    images_expected: int | None
    classes: int
    classes_expected: int | None
    split: str = ""
    notes: str = ""
    next: str = ""


def check_suite(
    suite: Suite,
    data_root: Path,
    open_images: bool = False,
    quiet: bool | None = None,
    command: Callable[[str], str] = lambda task: "data fetch",
    tasks: Sequence[str] | None = None,
) -> pd.DataFrame:
    """One row per task; reads names and lists, and divides nothing for good.

    state: "ready"; "at first use" (its images are written as files then); "partial" (some images or classes are not
    there: a run uses it where it is told to allow that); "missing"; "broken" (there, but wrong). The expected numbers
    are the suite file's `images` and `classes`, `notes` tells what is no fault but worth knowing, `next` says what to
    do. All texts can be printed as they are.

    open_images : decode every image (once: what was decoded is remembered in the cache), which finds broken ones, and
        copies of an image in two parts. quiet : no progress bars (None: where standard error is no terminal).
    command : what to type to fetch a task's data. tasks : some of the suite's (default: all).
    """
    import pandas as pd

    root = Path(data_root).expanduser()
    hashes, rows = ImageHashes() if open_images else None, []
    with silent(quiet):
        for spec in select_tasks(suite.at(root), tasks):
            row = check_task(spec, root, command(spec.name), hashes)
            if suite.demo and row.state == "missing":
                row = row._replace(state="at first use", next="its images are rendered on first use")
            rows.append([in_a_line(value) if isinstance(value, str) else value for value in row])
    table = pd.DataFrame(rows, columns=list(Row._fields))
    numbers = {"images": "int64", "classes": "int64", "images_expected": "Int64", "classes_expected": "Int64"}
    return table.astype(numbers)


def check_task(
    spec: TaskSpec, data_root: Path, command: str = "data fetch", hashes: ImageHashes | None = None
) -> Row:
    """One task's row.

    command : what fetches its data. hashes : opens its images.
    """
    row, state, advice = Row(spec.name, "missing", 0, spec.n_images, 0, spec.n_classes), "ready", ""
    try:
        task = load_task(spec, data_root, write=False)
        if fewer := _too_few(task):
            state, advice = "partial", f"{fewer}; a run uses these, or `{command}` says how to get the whole"
    except NotWritten as error:
        return row._replace(state="at first use", next=str(error))
    except MissingData as error:
        state, advice = "partial", "; ".join([str(error), *_places(spec), f"`{command}` gets it, or says how"])
        try:
            task = load_task(spec, data_root, allow_missing=True, write=False)
        except UserError:
            return row._replace(next=advice)
    except UserError as error:
        return row._replace(state="broken", next=str(error))
    lacking = NO_VALIDATION if task.split.train else NO_TRAINING
    notes = [str(task.left_out), task.doubles, "" if task.split.val else lacking]
    if hashes:
        parts = [[task.split.root / item.path for item in items] for items in task.split.parts.values()]
        with bar(f"opening {spec.name}'s images", _images(task), "image", None, position=0) as shown:
            faults = hashes.broken([path for part in parts for path in part], shown.update, decode=True)
        if faults:
            broken = f"{count(len(faults), 'image')} cannot be read: {named(faults)}"
            state, advice = "broken", "; ".join(filter(None, [broken, advice]))
        notes.append(describe_copies(task.split.root, copies(*map(hashes.by_content, parts)), "images of another part"))
    told, classes, split = "; ".join(filter(None, notes)), len(task.class_names), task.split.source
    return row._replace(state=state, images=_images(task), classes=classes, split=split, notes=told, next=advice)


def _places(spec: TaskSpec) -> list[str]:
    """Where a task's data is from and under which licence: the first that is named at each address, but for CoOp's
    split files, which a task can do without."""
    licences: dict[str, str] = {}
    for source in spec.sources:
        place = source.url or source.address
        if place and not source.is_split:
            licences[place] = licences.get(place) or source.licence
    found: dict[str, list[str]] = {}
    for place, licence in licences.items():
        found.setdefault(licence or "the suite file does not say", []).append(place)
    return [f"from {', '.join(places)} (licence: {licence})" for licence, places in found.items()]


def _images(task: Task) -> int:
    return sum(len(items) for items in task.split.parts.values())


def _too_few(task: Task) -> str:
    """What is missing where only the suite file knows how many images there are; "" where a list names them."""
    expected = task.spec.n_images
    by_folders = task.split.source.startswith("folders")  # else all that a list or a split file names are there
    if not by_folders or expected is None or _images(task) >= expected:
        return ""
    return f"{task.split.root}: holds {_images(task)} of {expected} images"


def in_the_way(spec: TaskSpec, data_root: Path) -> list[Path]:
    """What `data fetch` would get but for the part of it that is there, for a task that is not ready."""
    folder = spec.folder_in(data_root)
    if any(not source.is_there(folder) and not source.is_split for source in spec.sources):
        return []  # what is missing is reason enough
    return [folder / target for source in spec.sources if source.fetch for target in source.targets.values()]
