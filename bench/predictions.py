"""What a cell said of each test image: kept beside its record, read as per-class results, confusion and calibration.

One Parquet file a cell, one row a test image and part. Labels and predictions are among the part's classes, whose names
stand in the file; a digest of the task's test list says whether the rows of two cells are of the same images.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from bench.errors import UserError, nearest
from bench.files import from_json, write_whole

if TYPE_CHECKING:
    from bench.datasets.types import Item

SUFFIX = ".predictions.parquet"
FORMAT = 1
BINS = 15  # of the calibration error, as in Guo et al., "On Calibration of Modern Neural Networks", ICML 2017
MOST_ROWS = 20_000_000  # a file that claims more is refused before it is unpacked
ROWS_AT_ONCE = 131_072

_NAME = pa.dictionary(pa.int32(), pa.string())
SCHEMA = pa.schema(
    [
        ("task", _NAME),
        ("part", _NAME),
        ("image", pa.int32()),
        ("label", pa.int32()),
        ("predicted", pa.int32()),
        ("margin", pa.float32()),
        ("confidence", pa.float32()),
    ]
)
NUMBERS = SCHEMA.names[2:]


@dataclass(frozen=True)
class PartPredictions:
    """What was said of the test images of a task's part.

    class_names : those it was scored among. images : digest of the task's test list (`images_digest`).
    rows : [n] each: image (place in the task's test list), label, predicted, margin, confidence.
    """

    task: str
    part: str
    metric: str
    class_names: Sequence[str]
    images: str
    rows: dict[str, NDArray[Any]]


def images_digest(items: Iterable[Item]) -> str:
    """Of a task's test list: its images' names and labels in their order."""
    digest = hashlib.blake2b(digest_size=12)
    for item in items:
        digest.update(f"{item.path}\0{item.label}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def write(path: Path, key: str, parts: Sequence[PartPredictions]) -> None:
    """Write a cell's predictions, whole or not at all. key : the cell's."""
    about = [
        {"task": p.task, "part": p.part, "metric": p.metric, "classes": list(p.class_names), "images": p.images}
        for p in parts
    ]
    said = {"format": FORMAT, "key": key, "parts": about}
    places = [np.full(len(p.rows["image"]), i) for i, p in enumerate(parts)]
    rows = {name: np.concatenate([p.rows[name] for p in parts]) for name in NUMBERS}
    checksum = _checksum(said, np.concatenate(places), rows)
    schema = SCHEMA.with_metadata({"bench": json.dumps({**said, "checksum": checksum})})
    how: dict[str, Any] = {
        "compression": "zstd",
        "use_dictionary": ["task", "part", "label", "predicted"],
        "column_encoding": {"image": "DELTA_BINARY_PACKED", "margin": "BYTE_STREAM_SPLIT",
                            "confidence": "BYTE_STREAM_SPLIT"},
    }  # fmt: skip

    def fill(file: Path) -> None:
        with pq.ParquetWriter(str(file), schema, **how) as writer:
            for p in parts:
                n = len(p.rows["image"])
                names = [pa.array([name] * n, pa.string()).dictionary_encode() for name in (p.task, p.part)]
                columns = [pa.array(p.rows[name], SCHEMA.field(name).type) for name in NUMBERS]
                writer.write_table(pa.Table.from_arrays([*names, *columns], schema=schema), ROWS_AT_ONCE)

    write_whole(path, fill)


def _checksum(about: Mapping[str, Any], places: NDArray[Any], rows: Mapping[str, Any]) -> str:
    """A hash of all that a file says: names, classes, and every row with its part's place among the parts."""
    said = {name: about[name] for name in ("format", "key", "parts")}
    digest = hashlib.blake2b(json.dumps(said, sort_keys=True).encode(), digest_size=12)
    digest.update(np.asarray(places, np.int32).tobytes())
    for name in NUMBERS:
        digest.update(np.asarray(rows[name], SCHEMA.field(name).type.to_pandas_dtype()).tobytes())
    return digest.hexdigest()


def read(path: Path) -> pd.DataFrame:
    """A cell's predictions.

    Returns
    -------
    DataFrame : one row a test image and part: task, part, image (place in the task's test list), label, predicted
        (places among the part's class names), margin, confidence. `.attrs`: `key` of the cell; `classes`, `images` and
        `metrics`: by (task, part), the class names, the digest of the test list and the metric.

    Raises
    ------
    UserError : it is not such a file, or damaged.
    """
    try:
        return _read(path)
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException) as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise UserError(f"{path}: not what a run keeps of its predictions ({reason})") from error


def _read(path: Path) -> pd.DataFrame:
    with pq.ParquetFile(str(path)) as file:
        schema = file.schema_arrow
        if not schema.equals(SCHEMA):
            raise ValueError(f"columns {', '.join(f'{f.name} {f.type}' for f in schema):.200}")
        if not 0 < file.metadata.num_rows <= MOST_ROWS:
            raise ValueError(f"{file.metadata.num_rows} rows")
        about = from_json((schema.metadata or {})[b"bench"])
        if about["format"] != FORMAT:
            raise ValueError(f"format {about['format']!r}, expected {FORMAT}")
        table = file.read()
    frame = pd.DataFrame({name: table.column(name).to_pandas() for name in SCHEMA.names})
    parts = {(str(p["task"]), str(p["part"])): p for p in about["parts"]}
    frame.attrs = {
        "key": str(about["key"]),
        "classes": {which: [str(name) for name in p["classes"]] for which, p in parts.items()},
        "images": {which: str(p["images"]) for which, p in parts.items()},
        "metrics": {which: str(p["metric"]) for which, p in parts.items()},
    }
    if frame[["task", "part", *NUMBERS[:3], "confidence"]].isna().to_numpy().any():
        raise ValueError("values are missing")
    if not frame["confidence"].between(0, 1 + 1e-6).all() or not (frame["image"] >= 0).all():
        raise ValueError("values that no prediction has")
    places = np.full(len(frame), -1)
    for which, own in frame.groupby(["task", "part"], observed=True):
        classes = frame.attrs["classes"].get(which)
        if classes is None:
            raise ValueError(f"the classes of {which!r} are missing")
        for name in ("label", "predicted"):
            if not own[name].between(0, len(classes) - 1).all():
                raise ValueError(f"{name} of {which!r} is none of its {len(classes)} classes")
        if own["image"].duplicated().any():
            raise ValueError(f"an image of {which!r} stands there twice")
        places[own.index] = list(parts).index(which)
    if "checksum" in about and about["checksum"] != _checksum(about, places, frame):  # older files have none
        raise ValueError("damaged: its checksum does not fit; run the cell again")
    return frame


def chosen(frame: pd.DataFrame, task: str | None) -> pd.DataFrame:
    """The rows of one task; all, where none is named.

    Raises
    ------
    UserError : the cell has no such task.
    """
    if task is None:
        return frame
    names = {str(name).lower(): str(name) for name, _ in frame.attrs["classes"]}
    if task.lower() not in names:
        raise UserError(f"--task {task!r} is not in the cell; {nearest(task, list(names.values()))}")
    return frame[frame["task"] == names[task.lower()]]


def per_class(frame: pd.DataFrame) -> pd.DataFrame:
    """One row a task, part and class, in the order of labels.

    Returns
    -------
    DataFrame : task, part, class, n (test images), accuracy (recall, percent; NaN where there is no image), predicted
        (how many images were given this class), confidence (mean over its images, percent).
    """
    rows = []
    for (task, part), own in frame.groupby(["task", "part"], sort=False, observed=True):
        names = frame.attrs["classes"][task, part]
        label, predicted = own["label"].to_numpy(), own["predicted"].to_numpy()
        n, right, given = (_counts(x, len(names)) for x in (label, label[label == predicted], predicted))
        sure = np.bincount(label, own["confidence"], len(names))
        with np.errstate(invalid="ignore"):
            rows.append(
                pd.DataFrame(
                    {"task": task, "part": part, "class": names, "n": n, "accuracy": 100 * right / n,
                     "predicted": given, "confidence": 100 * sure / n}
                )
            )  # fmt: skip
    return pd.concat(rows, ignore_index=True)


def _counts(classes: NDArray[Any], n: int) -> NDArray[np.intp]:
    return np.bincount(classes, minlength=n)


def confusion(frame: pd.DataFrame, task: str, part: str = "all") -> pd.DataFrame:
    """How many test images of each class (rows) were given each class (columns), of one task and part; [C, C].

    Raises
    ------
    UserError : the cell has no such task or part.
    """
    own = chosen(frame, task)
    own = own[own["part"] == part]
    if own.empty:
        parts = sorted({p for t, p in frame.attrs["classes"] if t.lower() == task.lower()})
        raise UserError(f"--task {task}: has no part {part!r}; {nearest(part, parts)}")
    names = frame.attrs["classes"][own["task"].iloc[0], part]
    pairs = own["label"].to_numpy() * len(names) + own["predicted"].to_numpy()
    counts = _counts(pairs, len(names) ** 2).reshape(len(names), -1)
    return pd.DataFrame(counts, pd.Index(names, name="label"), pd.Index(names, name="predicted"))


def confused(frame: pd.DataFrame) -> pd.DataFrame:
    """The wrong predictions, counted: one row a task, part, label and predicted class (by name), most often first."""
    wrong = frame[frame["label"] != frame["predicted"]]
    counts = wrong.groupby(["task", "part", "label", "predicted"], sort=False, observed=True).size()
    table = counts.rename("images").reset_index()
    for name in ("label", "predicted"):
        found = zip(table["task"], table["part"], table[name], strict=True)
        table[name] = [frame.attrs["classes"][task, part][c] for task, part, c in found]
    return table.sort_values("images", ascending=False, kind="stable", ignore_index=True)


def reliability(frame: pd.DataFrame, bins: int = BINS) -> pd.DataFrame:
    """Confidence against accuracy in bins of equal width, (0, 1/B], (1/B, 2/B], …, over all rows.

    Returns
    -------
    DataFrame : one row a bin: above, upto (its bounds), n, confidence and accuracy (means in percent; NaN where n = 0).
    """
    place = np.clip(np.ceil(frame["confidence"].to_numpy(np.float64) * bins).astype(int) - 1, 0, bins - 1)
    right = (frame["label"] == frame["predicted"]).to_numpy(np.float64)
    n = _counts(place, bins)
    with np.errstate(invalid="ignore"):
        confidence, accuracy = (100 * np.bincount(place, x, bins) / n for x in (frame["confidence"], right))
    edges = np.arange(bins + 1) / bins
    return pd.DataFrame(
        {"above": edges[:-1], "upto": edges[1:], "n": n, "confidence": confidence, "accuracy": accuracy}
    )


def ece(frame: pd.DataFrame, bins: int = BINS) -> float:
    """Expected calibration error in percentage points: |accuracy − confidence| of each bin, weighted by its images."""
    table = reliability(frame, bins)
    gap = (table["accuracy"] - table["confidence"]).abs().fillna(0)
    return float((gap * table["n"]).sum() / table["n"].sum())


def paired(a: pd.DataFrame, b: pd.DataFrame) -> pd.DataFrame:
    """Two cells on the same test images, for a bootstrap over images.

    Returns
    -------
    DataFrame : one row an image of the tasks and parts that both have: task, part, image, label, a, b (whether each was
        right), difference (a − b: 1, 0 or -1). The mean difference is that of overall accuracies.

    Raises
    ------
    UserError : no task in common, or one whose images or classes differ.
    """
    both = [which for which in a.attrs["images"] if which in b.attrs["images"]]
    if not both:
        raise UserError("the two cells have no task in common")
    for which in both:
        for what in ("images", "classes"):
            if a.attrs[what][which] != b.attrs[what][which]:
                raise UserError(f"task {which[0]}: the two cells were tested on other {what}; nothing can be paired")
    on = ["task", "part", "image"]
    sides = []
    for frame in (a, b):
        right = (frame["label"] == frame["predicted"]).rename("right")
        names = frame[["task", "part"]].astype(str)
        sides.append(pd.concat([names, frame[["image", "label"]], right], axis=1))
    table = sides[0].merge(sides[1].drop(columns="label"), on=on, suffixes=("_a", "_b"), validate="one_to_one")
    expected = sum(len(frame.merge(pd.DataFrame(both, columns=["task", "part"]))) for frame in sides)
    if 2 * len(table) != expected:
        raise UserError("the two cells do not hold predictions of the same images")
    table = table.rename(columns={"right_a": "a", "right_b": "b"})
    return table.assign(difference=table["a"].astype("int8") - table["b"].astype("int8"))


def load_predictions(cell: str, results: str | Path = "runs") -> pd.DataFrame:
    """What a cell said of each test image, as `read` returns it.

    Parameters
    ----------
    cell, results : see `bench.saved.find_cell`.

    Raises
    ------
    UserError : no such cell, its predictions were not kept, or the file is damaged.
    """
    from bench.saved import find_cell

    return read(find_cell(cell, results, SUFFIX, "predictions"))
