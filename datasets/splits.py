"""From a suite's tasks to images divided into train, val and test.

A task's division comes from the first of: a split file in its folder (CoOp's `split_zhou_<Name>.json`, the
SoftCPT authors' `split_dk_<Name>.json`), the data set's own lists, the rule below, which depends on file names alone.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from bench.datasets import hub
from bench.datasets.cache_paths import cache_place
from bench.datasets.fewshot import by_label, seeded_order
from bench.datasets.readers import image_root, text_of
from bench.datasets.registry import READERS
from bench.datasets.spec import Suite, TaskSpec
from bench.datasets.splitfiles import check_parts, coop_form, read_json, read_split
from bench.datasets.types import Item, LeftOut, Listing, MissingData, Split, missing_images
from bench.errors import UserError, nearest
from bench.progress import count

__all__ = ["Item", "Split", "Task", "divide", "load_task", "load_tasks", "select_tasks"]

SHOWN = 5  # names in a message
SEED = 1  # of the divisions made here; the few-shot draws have seeds of their own
TOLD = 40  # tasks without data that a message names


@dataclass(frozen=True)
class Task:
    """A task whose data is on disk."""

    spec: TaskSpec
    split: Split
    left_out: LeftOut = field(default_factory=LeftOut)  # files that are there and not read; as a text, what to tell

    @property
    def name(self) -> str:
        return self.spec.name

    @property
    def task_name(self) -> str:
        return self.spec.task_name

    def worded(self, number: int) -> Task:
        """The task under the first, second, … of its task names."""
        return replace(self, spec=replace(self.spec, task_name=self.spec.task_names[number - 1]))

    def called(self, task_name: str) -> Task:
        """The task under another task's name."""
        return replace(self, spec=self.spec.called(task_name))

    @property
    def template(self) -> str | tuple[str, ...]:
        return self.spec.template

    @property
    def descriptions(self) -> Mapping[str, Sequence[str]]:
        return self.spec.descriptions

    @property
    def path(self) -> tuple[str, ...]:
        return self.spec.path

    @property
    def doubles(self) -> str:
        """What to say of names that stand for several classes; "" where there are none."""
        names = [name for name, n in Counter(self.class_names).items() if n > 1]
        if not names:
            return ""
        said = f"{count(len(names), 'name')} of the official list {'stands' if len(names) == 1 else 'stand'}"
        return f"{said} for several classes, told apart only by what is learned of each: {', '.join(names[:SHOWN])}"

    @property
    def metric(self) -> str:
        return self.spec.metric

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.split.class_names


def load_tasks(
    suite: Suite,
    data_root: Path,
    names: Sequence[str] | None = None,
    allow_missing: bool = False,
    advice: Sequence[str] = (),
) -> list[Task]:
    """The tasks of a suite (or those named, in the suite's order) with their images.

    Missing data is one error that names every task concerned, the folder and where to get it, and ends with `advice`.
    With `allow_missing` a task without data is left out, and one of which only a part is there (of its images or
    classes) is used as it is. Files that a reader leaves out are told on standard error, a line per task.
    """
    data_root = Path(data_root).expanduser()
    tasks, missing = [], []
    for spec in select_tasks(suite.at(data_root), names):
        try:
            tasks.append(load_task(spec, data_root, allow_missing))
        except MissingData as error:
            links = ", ".join(source.url for source in spec.sources if source.url)
            missing.append(f"  {spec.name}: {error}{f'; get it from {links}' if links else ''}")
    if missing and not (allow_missing and tasks):
        head = f"suite {suite.name}: data of {len(missing)} of {len(missing) + len(tasks)} tasks is missing"
        more = [f"  … and {len(missing) - TOLD} more"] if len(missing) > TOLD else []
        raise UserError("\n".join([f"{head} below {data_root}:", *missing[:TOLD], *more, *advice]))
    for task in tasks:
        for told in filter(None, (str(task.left_out), task.doubles)):
            print(f"warning: {task.name}: {told}", file=sys.stderr)
    return tasks


def select_tasks(suite: Suite, names: Sequence[str] | None = None) -> list[TaskSpec]:
    """The suite's tasks of these names, whatever their case; all of them without names."""
    known = {spec.name.lower(): spec for spec in suite.tasks}
    for name in names or ():
        if name.lower() not in known:
            hint = nearest(name, [spec.name for spec in suite.tasks])
            raise UserError(f"tasks: suite {suite.name} has no task {name!r}; {hint}")
    wanted = known if names is None else {name.lower() for name in names}
    return [spec for name, spec in known.items() if name in wanted]


def load_task(spec: TaskSpec, data_root: Path, allow_missing: bool = False, write: bool = True) -> Task:
    """One task with its images; `MissingData` where they are not all there (see `load_tasks`).

    Without `write` the images of a library's rows are not written as files: the task is missing if they are not there.
    """
    folder = spec.folder_in(data_root)
    if not folder.is_dir() and not cache_place(folder).is_dir():
        raise MissingData(f"{folder}: no such folder")
    reader, leak = spec.reader, spec.reader.get("allow_leak", False)
    if file := _given_split(spec, folder):  # it says itself which images are the task's: nothing counts as left out
        root = image_root(folder, reader, READERS[reader["kind"]].images)
        split, task_name = read_split(file, root, reader.get("task", 0), leak)
        gone = _missing(file, root, split.parts, allow_missing)
        split, unread = without(split, gone), LeftOut()
    else:
        if write:
            hub.prepare(folder, reader)
        listing = READERS[reader["kind"]].read(folder, reader)
        _check_unmet(spec, listing)
        gone = _missing(folder, listing.root, listing.parts, allow_missing)
        kept = {part: [item for item in items if item.path not in gone] for part, items in listing.parts.items()}
        check_parts(folder, kept, leak)
        split = divide(replace(listing, parts=kept))
        if "train" not in kept:
            _check_kept(spec, folder, split)
        split, task_name, unread = without(split, gone), listing.task_name, listing.left_out
    split = _check_complete(spec, folder, split, allow_missing)
    if not allow_missing or len(split.class_names) == spec.n_classes:  # else its class may be what is missing
        for name in spec.descriptions:  # of a name with a slip of the pen they would never be read
            if name not in split.class_names:
                hint = nearest(name, split.class_names)
                raise UserError(f"{spec.name}: `descriptions` has {name!r}, no class; {hint}")
    # A folder of many tasks (Fashion-20) cannot hold one name for them.
    own = folder / "task_name.txt"
    named = " ".join(text_of(own).split()) if "task" not in reader and own.exists() else ""
    named = named or spec.task_name or task_name
    if not named:
        raise UserError(f"{spec.name}: no task name; put one into {own}")
    return Task(spec.called(named), split, unread)


def divide(listing: Listing) -> Split:
    """Make train, val and test of what a reader lists: by class, in an order that depends on file names alone.

    "all" gives 50 % train, 20 % val and the rest test; "trainval" gives 80 % train and 20 % val; "test" alone is a set
    to test on.
    """
    if "train" in listing.parts:
        parts = listing.parts
    elif set(listing.parts) == {"test"}:
        parts = {"train": [], "val": [], **listing.parts}
    elif "trainval" in listing.parts:
        train, val, _ = _divide_by_class(listing, "trainval", test_too=False)
        parts = {"train": train, "val": val, "test": listing.parts["test"]}
    else:
        train, val, test = _divide_by_class(listing, "all", test_too=True)
        parts = {"train": train, "val": val, "test": test}
    parts = {part: sorted(items) for part, items in parts.items()}
    return Split.of(listing.root, listing.class_names, parts, source=listing.source)


def _divide_by_class(listing: Listing, part: str, test_too: bool) -> list[list[Item]]:
    divided: list[list[Item]] = [[], [], []]
    for label, items in by_label(listing.parts[part]).items():
        if len(items) < 2 + test_too:
            raise UserError(
                f"{listing.root}: class {listing.class_names[label]!r} has {len(items)} images; "
                f"dividing them takes at least {2 + test_too}"
            )
        items.sort(key=lambda item: seeded_order(item.path, SEED))
        n_val = max(1, round(0.2 * len(items)))
        n_train = min(max(1, round(0.5 * len(items))), len(items) - n_val - 1) if test_too else len(items) - n_val
        divided[0] += items[:n_train]
        divided[1] += items[n_train : n_train + n_val]
        divided[2] += items[n_train + n_val :]
    return divided


def _given_split(spec: TaskSpec, folder: Path) -> Path | None:
    """The split file that came with the data, if any."""
    folder_name = Path(spec.folder).name  # split_dk_kaggle_flower.json
    called = [spec.reader.get("split_name", spec.name), folder_name, spec.split_name]
    names = [f"split_{who}_{n}.json{end}" for n in called for who in ("zhou", "dk") for end in ("", ".gz")]
    names = [spec.reader["split"]] if "split" in spec.reader else names
    return next((folder / name for name in names if (folder / name).is_file()), None)


def _check_kept(spec: TaskSpec, folder: Path, split: Split) -> None:
    """Refuse a division that an earlier version wrote and went by, where it is another one: nothing is passed over."""
    for place in (folder, cache_place(folder)):
        file = place / f"split_bench_{spec.split_name}.json"
        if file.is_file() and read_json(file) != coop_form(split):
            raise UserError(
                f"{file}: holds another division than the images that are there give; remove it, or, to keep it, "
                f"move it to {folder / f'split_zhou_{spec.split_name}.json'}"
            )


def without(split: Split, gone: set[str]) -> Split:
    """The split without some images, and without classes of which nothing is left (labels then close up)."""
    if not gone:
        return split
    parts = {part: [item for item in items if item.path not in gone] for part, items in split.parts.items()}
    left = sorted({item.label for items in parts.values() for item in items})
    new = {label: number for number, label in enumerate(left)}
    names = tuple(split.class_names[label] for label in left)
    kept = {part: [Item(item.path, new[item.label]) for item in items] for part, items in parts.items()}
    return Split.of(split.root, names, kept, source=f"{split.source}, {count(len(gone), 'image')} missing")


def _check_unmet(spec: TaskSpec, listing: Listing) -> None:
    """Refuse `exclude` and `rename` of folders that are not there, where they left the classes other than was meant.

    With a part of the classes the folders may still come; with as many as the suite says, what was to be excluded is
    not there, which is as good.
    """
    found, unmet = len(listing.class_names), dict(listing.unmet)
    if spec.n_classes == found:
        unmet.pop("exclude", None)
    if unmet and found >= (spec.n_classes or 0):
        raise UserError("; ".join(unmet.values()))


def _missing(listed_in: Path, root: Path, parts: Mapping[str, Sequence[Item]], allow_missing: bool) -> set[str]:
    """The paths of listed images that are not on disk."""
    gone = missing_images(root, [item for items in parts.values() for item in items])
    if gone and not allow_missing:
        said = f"{count(len(gone), 'image')} that {listed_in.name} lists {'is' if len(gone) == 1 else 'are'} not there"
        raise MissingData(f"{root}: {said}, e.g. {min(gone)!r}")
    return gone


def _check_complete(spec: TaskSpec, folder: Path, split: Split, allow_missing: bool) -> Split:
    """Classes are as many as the suite says (fewer where allowed: the source then tells), and each can be learned, or
    none: such a task is tested only."""
    found, wanted = len(split.class_names), spec.n_classes or len(split.class_names)
    if found > wanted:
        raise UserError(f"{folder}: {found} classes where the suite says {wanted}; remove what is no class")
    if found < wanted and not allow_missing:
        raise MissingData(f"{folder}: holds {found} of {wanted} classes")
    trained = {item.label for item in split.train}
    for label, name in enumerate(split.class_names):
        if trained and label not in trained:  # without a single one it is a task to test on
            raise UserError(f"{folder}: class {name!r} has no training image ({split.source})")
    if not split.test:
        raise UserError(f"{folder}: no test images ({split.source})")
    return split if found == wanted else replace(split, source=f"{split.source}, {found} of {wanted} classes")
