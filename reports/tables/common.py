"""What tables share: captions, footnotes, printed numbers and the marks that the data support."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from functools import cache
from typing import Any

import pandas as pd

from bench.progress import count
from bench.reports import stats
from bench.reports.groups import DAGGER, EACH_TASK, Block
from bench.reports.markup import Cell
from bench.reports.steadiness import sentences

HALVES = (
    "Trained on the first half of each task's classes at {}. Base and New: that half and the other, each scored "
    "among its own classes. H: their harmonic mean, taken for each task and seed, then averaged; the average H in "
    "CoCoOp's paper is another number, the harmonic mean of the averaged Base and New."
)
UNEVEN = (
    "Trained at {} on classes of different sizes: as many images in all, of each class by {}. Every task is scored by "
    "the mean of its classes' accuracies."
)
MARKED = (
    "Bold: better than every other of its {}; underlined: second, and better than all that follow; ≈: the highest and "
    "those that are not told from it ({}, 5 %, p adjusted by Holm)."
)
FEWER = "(n=…): measured with n seeds, not with the table's {}; not ranked with the others."
SEARCHED = (
    "{}: values or settings were chosen by accuracy on the few-shot validation images, min(shots, {}) a class; "
    "rows without it saw no labels but those of the shots, so the two kinds are not on a par."
)
TEST_SHARE = 0.3  # of a data set's images, by the bench's rule and in CoOp's split files


def spread_said(block: Block) -> str:
    """What the numbers are."""
    if len(block.seeds) < 2:
        return "Accuracy in percent, of one seed."
    return "Accuracy in percent, mean ± sample standard deviation (n − 1) over seeds."


def about(block: Block) -> list[str]:
    """The sentences every caption begins with: what was measured, with what, and how."""
    first = block.rows.iloc[0]
    weights = f"{first['pretrained']} ({first['weights'][:8] or 'no fingerprint'})".strip()
    said = [
        f"Suite {first['title']}, backbone {first['backbone']}, weights {weights}.",
        f"{block.n_tasks}{_part_of(block)}: {listed(block.tasks)}.",
        *missing(block),
        f"Protocol {first['protocol']}, seed{'s' * (len(block.seeds) > 1)} {', '.join(map(str, block.seeds))}.",
        _fewer_tasks(block),
        HALVES.format(_shots(block)) if block.halves else "",
        _uneven(block),
        _recipe(block),
    ]
    if block.shared:
        alike = ", ".join(f"{name}={value}" for name, value in block.shared.items())
        said.append(f"All methods that have it with {alike}.")
    if block.differs:
        words = {"tasks": "task list", "data": "data fingerprint", "weights": "weights' fingerprint"}
        what = ", ".join(words.get(name, name) for name in block.differs)
        said.append(f"The records of this suite and backbone differ in {what}: each kind has its own table.")
    versions = sorted(set(block.rows["numerics"]) - {""})
    if len(versions) > 1:
        kinds = block.rows[block.rows["numerics"] != ""].groupby("numerics")["label"].unique()
        told = "; ".join(f"{version}: {', '.join(kinds[version])}" for version in versions)
        said.append(f"Made by several versions of the shared numerics ({told}): differences may come from these.")
    if (block.rows.groupby(["shots", "seed", "train_tasks"], dropna=False)["draw"].nunique() > 1).any():
        said.append("Not all methods were trained on the same few-shot images: do not compare them.")
    chosen = [text for text in block.rows["selected"].unique() if text]
    return [*filter(None, said), *chosen, *(note for note in block.rows["note"].unique() if note)]


def listed(tasks: Sequence[str]) -> str:
    """Their names; of many the first."""
    more = len(tasks) - EACH_TASK
    return ", ".join(tasks[:EACH_TASK]) + (f" and {more} more (records.csv has all)" if more > 0 else "")


def _part_of(block: Block) -> str:
    if block.rows["complete"].all():
        return ""
    known = expected(block)
    return f" of the suite's {len(known)}" if set(block.tasks) <= set(known) else " (not the whole suite)"


def missing(block: Block) -> list[str]:
    """A sentence on tasks with fewer classes or test images than their data sets have, where the suite file knows."""
    known = expected(block)
    said = []
    for task in (task for task in block.tasks if task in known):
        rows = block.rows[block.rows["task"] == task]
        n_classes, n_images = known[task]
        parts = rows[rows["part"] != "harmonic"].drop_duplicates("part")
        classes, tested = int(parts["n_classes"].sum()), int(parts["n_test"].sum())
        told: list[str] = []
        if n_classes and 0 < classes < n_classes:
            told.append(f"{classes} of {n_classes} classes")
        if n_images and 0 < tested < 0.95 * TEST_SHARE * n_images:
            told.append(f"{tested:,} of about {round(TEST_SHARE * n_images):,} test images")
        if told:
            said.append(f"{task} {', '.join(told)}")
    return [f"Data in part: {'; '.join(said)}."] if said else []


def expected(block: Block) -> dict[str, tuple[int | None, int | None]]:
    """Of every task of the block's suite, how many classes and images its data set has; empty for an own suite."""
    return {} if block.demo else _expected(str(block.rows["suite"].iloc[0]))


@cache
def _expected(suite: str) -> dict[str, tuple[int | None, int | None]]:
    from bench.datasets.spec import load_suite, suite_names

    tasks = load_suite(suite).tasks if suite in suite_names() else ()
    return {task.name: (task.n_classes, task.n_images) for task in tasks}


def _shots(block: Block) -> str:
    """ "1 shot", "1, 4 shots"."""
    *first, last = block.shots or [0]
    return ", ".join([*map(str, first), count(last, "shot")])


def _fewer_tasks(block: Block) -> str:
    """Of how many tasks a training was, where not of all that it might have been; "" where of all."""
    numbers = sorted(block.rows["train_tasks"].dropna().unique())
    return f"Each training is on {' or '.join(map(str, numbers))} of the tasks (--train-tasks)." if numbers else ""


def _uneven(block: Block) -> str:
    """What the imbalanced protocol did; "" of others."""
    kind, _, ratio = str(block.rows["protocol"].iloc[0]).partition(":")
    if kind != "imbalanced":
        return ""
    shares = f"shares that fall to 1/{ratio} of the largest" if ratio else "its share of the data"
    return UNEVEN.format(_shots(block), shares)


def _recipe(block: Block) -> str:
    """Epochs, views, learning rate and batch of the trained methods: the common ones, then who differs."""
    trained = block.rows[block.rows["epochs"].notna() & (block.rows["shots"] > 0)]
    told = {}
    for name, rows in trained.groupby("label", sort=False):
        views = "a view each" if rows["views"].isna().any() else f"{_range(rows['views'], 'view')} per image"
        more = {"lr": "learning rate", "batch": "batch"}
        values = {key: [p[key] for p in rows["parameters"] if key in p] for key in more}
        rest = [f"{more[key]} {_range(found)}" for key, found in values.items() if found]
        told[str(name)] = ", ".join([_range(rows["epochs"], "epoch"), views, *rest])
    if not told:
        return ""
    common = Counter(told.values()).most_common(1)[0][0]
    others = "; ".join(f"{name}: {recipe}" for name, recipe in told.items() if recipe != common)
    return f"Recipe: {common}{f' ({others})' if others else ''}."


def _range(values: Collection[Any], noun: str = "") -> str:
    """ "50 epochs", or "50 to 200 epochs" where a recipe sets them by shots."""
    low, high = min(values), max(values)
    if low == high:
        return count(int(low), noun) if noun else str(low)
    return f"{low} to {high}{f' {noun}s' if noun else ''}"


def ranked(
    values: pd.DataFrame, means: Sequence[float], stds: Sequence[float], n_seeds: int, test: stats.Test
) -> tuple[list[Cell], int]:
    """A column's (or a row's) cells in the order of `values`' columns; and 0 where they have marks, else how many
    methods were too many for the pairs (1 where there is nothing to rank). A mean of fewer seeds than `n_seeds` says
    so, and is not ranked.

    values : `Block.values`, of which a label has NaN where it lacks seeds.
    """
    found, labels = values.dropna(how="all"), [str(name) for name in values]
    seeds = {name: found[name].dropna().index.get_level_values("seed").nunique() for name in labels}
    there = [name for name, mean in zip(labels, means, strict=True) if pd.notna(mean)]
    most = max((seeds[name] for name in there), default=0)
    full = [name for name in there if seeds[name] == most]
    marks = stats.marks(found[full].dropna(), test) if len(full) > 1 else {}
    cells = []
    for name, mean, std in zip(labels, means, stds, strict=True):
        fewer = f" (n={seeds[name]})" if name in there and seeds[name] < n_seeds else ""
        cells.append(Cell(number(mean, std) + fewer, (marks or {}).get(name, "")))
    return cells, 1 if len(full) < 2 else 0 if marks is not None else len(full)


def marks_said(tested: Sequence[int], where: str, test: stats.Test) -> list[str]:
    """What the marks of a table's columns (or rows) mean, or why there are none. tested : as `ranked` returns it."""
    most = max(tested, default=1)
    takes = f"to tell {most} methods apart takes at least {test.needed(most - 1)} {test.pairs}"
    if 0 in tested:
        some = [f"A {where} without marks has too few: {takes}."] if most > 1 else []
        return [MARKED.format(where, test.name), *some]
    return [f"Nothing is marked as the best: {takes}."] if most > 1 else []


def number(mean: float, std: float = float("nan")) -> str:
    return "—" if pd.isna(mean) else f"{mean:.2f}" + ("" if pd.isna(std) else f" ± {std:.2f}")


def signed(value: float) -> str:
    return "—" if pd.isna(value) else f"{round(value, 2) + 0.0:+.2f}".replace("-", "−")  # no −0.00


def whole(value: Any) -> str:
    return "—" if pd.isna(value) else f"{int(value):,}"


def probability(p: float) -> str:
    return "—" if pd.isna(p) else "< 0.001" if p < 0.001 else f"{p:.3f}"


def footnotes(block: Block, name: str) -> list[str]:
    """What must be known of a row: what its method says, which code made its cells where that is not one, and which of
    them were trained with other seeds."""
    rows = block.rows[block.rows["label"] == name]
    cells = rows.drop_duplicates(["shots", "seed"])
    made = Counter(_code(code, numerics) for code, numerics in zip(cells["code"], cells["numerics"], strict=True))
    told = "; ".join(f"{count(n, 'cell')} {by}" for by, n in sorted(made.items()))
    mixed = [f"Made by different code, of {name}: {told}."] if len(made) > 1 else []
    together = f"{(cells['together'] != '').sum()} of {count(len(cells), 'cell')}"
    beside = [
        f"Trained with other seeds side by side (--seeds-at-once), of {name}: {together}. As alone but for the "
        "rounding of sums, which an unstable training makes a difference of points."
    ]
    measured = sentences(name, cells)
    return [*filter(None, rows["footnote"].unique()), *mixed, *(beside if any(cells["together"]) else []), *measured]


def _code(code: str, numerics: str) -> str:
    """The beginning of a code's hash (a plug-in's after its module and class), and the version of what all share."""
    if not code and not numerics:
        return "of code not recorded"
    *_, found = code.split(":")
    return f"of code {found[:8] or 'not recorded'}, numerics {numerics or 'not recorded'}"


def slug(text: str) -> str:
    """A table's name from what may be any text."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def of(labels: Sequence[str]) -> tuple[dict[str, Any], ...]:
    """What rows (or columns) that have a label each are about."""
    return tuple({"label": name} for name in labels)


def names(block: Block, labels: Sequence[str], notes: dict[str, int], say: Callable[[str], str] = str) -> list[Cell]:
    """The cells that name rows or columns, with the numbers of their footnotes, and the mark of those that used the
    labels of validation images."""
    return [
        Cell(f"{say(name)} {DAGGER}" if name in block.searched else say(name), "",
             tuple(notes[text] for text in footnotes(block, name)))
        for name in labels
    ]  # fmt: skip


def searched_said(block: Block, labels: Sequence[str]) -> list[str]:
    """What the mark of such rows means, where some have it."""
    those = block.searched & set(labels)
    sizes = sorted(block.rows.loc[block.rows["label"].isin(those), "val_shots"].unique())
    return [SEARCHED.format(DAGGER, " or ".join(map(str, sizes)))] if those else []


def used(block: Block, labels: Sequence[str], notes: dict[str, int]) -> dict[int, str]:
    """The footnotes below a table, with the numbers they have in all tables."""
    return dict(sorted((notes[text], text) for name in labels for text in footnotes(block, name)))
