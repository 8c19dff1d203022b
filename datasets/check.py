"""What of a suite is on disk, and what to do about the rest."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from bench.datasets.items import MissingData
from bench.datasets.splits import Task, load_task
from bench.datasets.suites import Suite, TaskSpec
from bench.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ("task", "state", "images", "classes", "expected", "split", "next")


def check_suite(suite: Suite, data_root: Path) -> pd.DataFrame:
    """One row a task; reads names and lists, opens no image and divides nothing for good.

    state: "ready"; "partial" (some images or classes are not there: usable with --allow-missing); "missing";
    "broken" (there, but wrong). `expected` is the number of classes the suite says, `next` what to do.
    """
    import pandas as pd

    rows = [_row(spec, Path(data_root)) for spec in suite.tasks]
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    return table.astype({"images": "int64", "classes": "int64", "expected": "Int64"})


def _row(spec: TaskSpec, data_root: Path) -> tuple[str, str, int, int, int | None, str, str]:
    try:
        return _counts(spec, "ready", load_task(spec, data_root, write=False), "")
    except MissingData as error:
        wanting = error
    except UserError as error:
        return spec.name, "broken", 0, 0, spec.n_classes, "", str(error)
    advice = f"{wanting}; {how_to_get(spec, data_root)}"
    try:
        part = load_task(spec, data_root, allow_missing=True, write=False)
    except UserError:
        return spec.name, "missing", 0, 0, spec.n_classes, "", advice
    return _counts(spec, "partial", part, advice)


def _counts(spec: TaskSpec, state: str, task: Task, advice: str) -> tuple[str, str, int, int, int | None, str, str]:
    images = sum(len(items) for items in task.split.parts.values())
    return spec.name, state, images, len(task.class_names), spec.n_classes, task.split.source, advice


def how_to_get(spec: TaskSpec, data_root: Path) -> str:
    """What to fetch from where, and the folder it belongs in."""
    if not spec.sources:
        return f"put the images into {data_root / spec.folder}"
    parts = []
    for source in spec.sources:
        size = f" ({source['size']})" if "size" in source else ""
        parts.append(f"{source.get('what', spec.name)}{size}: {source.get('url', source.get('how', ''))}")
    return f"put into {data_root / spec.folder}: {'; '.join(parts)}"
