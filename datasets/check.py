"""What of a suite is on disk, and what to do about the rest."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.datasets import hub
from bench.datasets.archives import there
from bench.datasets.items import MissingData
from bench.datasets.splits import Task, load_task
from bench.datasets.suites import Suite, TaskSpec, targets_of
from bench.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ("task", "state", "images", "images_expected", "classes", "classes_expected", "split", "next")

Row = tuple[str, str, int, int | None, int, int | None, str, str]


def check_suite(suite: Suite, data_root: Path) -> pd.DataFrame:
    """One row a task; reads names and lists, opens no image and divides nothing for good.

    state: "ready"; "partial" (some images or classes are not there: usable with --allow-missing where a run refuses
    it); "missing"; "broken" (there, but wrong). The expected numbers are the suite file's `images` and `classes`,
    `next` says what to do.
    """
    import pandas as pd

    rows = [check_task(spec, Path(data_root)) for spec in suite.tasks]
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    numbers = {"images": "int64", "classes": "int64", "images_expected": "Int64", "classes_expected": "Int64"}
    return table.astype(numbers)


def check_task(spec: TaskSpec, data_root: Path) -> Row:
    """The values of one task, in the order of `COLUMNS`."""
    try:
        task = load_task(spec, data_root, write=False)
    except MissingData as error:
        wanting = error
    except UserError as error:
        return spec.name, "broken", 0, spec.n_images, 0, spec.n_classes, "", str(error)
    else:
        fewer = _too_few(task)
        advice = f"{fewer}; a run uses these, or: {how_to_get(spec, data_root)}" if fewer else ""
        return _counts(spec, "partial" if fewer else "ready", task, advice)
    advice = f"{wanting}; {how_to_get(spec, data_root)}"
    try:
        part = load_task(spec, data_root, allow_missing=True, write=False)
    except UserError:
        return spec.name, "missing", 0, spec.n_images, 0, spec.n_classes, "", advice
    return _counts(spec, "partial", part, advice)


def _counts(spec: TaskSpec, state: str, task: Task, advice: str) -> Row:
    classes = len(task.class_names)
    return spec.name, state, _images(task), spec.n_images, classes, spec.n_classes, task.split.source, advice


def _images(task: Task) -> int:
    return sum(len(items) for items in task.split.parts.values())


def _too_few(task: Task) -> str:
    """What is wanting where only the suite file knows how many images there are; "" where a list names them."""
    expected = task.spec.n_images
    by_folders = task.split.source.startswith("folders")  # else all that a list or a split file names are there
    if not by_folders or expected is None or _images(task) >= expected:
        return ""
    return f"{task.split.root}: holds {_images(task)} of {expected} images"


def how_to_get(spec: TaskSpec, data_root: Path) -> str:
    """What to fetch from where, and the folder it belongs in, for a task that is not ready."""
    folder = data_root / spec.folder
    missing = [source for source in spec.sources if not is_there(folder, source)]
    fetched = [_sized(spec, source) for source in missing if "fetch" in source]
    if hub.can_fetch(spec.reader):
        fetched.insert(0, "the images")
    parts = [f"`python -m bench data fetch` gets {', '.join(fetched)}"] if fetched else []
    if old := in_the_way(spec, data_root):
        parts.append(f"move {' and '.join(map(str, old))} away, and `python -m bench data fetch` gets the whole")
    by_hand = [
        f"{_sized(spec, source)}: {source.get('url', source.get('how', ''))}"
        for source in missing
        if "fetch" not in source
    ]
    if by_hand:
        parts.append(f"put into {folder}: {'; '.join(by_hand)}")
    return "; ".join(parts) or f"put the images into {folder}"


def in_the_way(spec: TaskSpec, data_root: Path) -> list[Path]:
    """What `data fetch` would get but for the part of it that is there, for a task that is not ready."""
    folder = data_root / spec.folder
    if any(not is_there(folder, source) and not is_split(source) for source in spec.sources):
        return []  # what is missing is reason enough
    fetched = [source for source in spec.sources if "fetch" in source]
    return [folder / target for source in fetched for target in targets_of(source).values()]


def is_there(folder: Path, source: dict[str, Any]) -> bool:
    """Whether what a source gives stands in the task's folder, as far as its name says."""
    if "fetch" in source:
        return all(there(folder / target) for target in targets_of(source).values())
    what = source.get("what", "")
    return bool(what) and "/" not in what and any((folder / f"{what}{end}").is_file() for end in ("", ".gz"))


def is_split(source: dict[str, Any]) -> bool:
    """Whether a source is a split file, which a task can do without."""
    return str(source.get("what", "")).startswith("split_")


def _sized(spec: TaskSpec, source: dict[str, Any]) -> str:
    size = f" ({source['size']})" if "size" in source else ""
    return f"{source.get('what', spec.name)}{size}"
