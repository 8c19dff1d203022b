"""What `scripts/fuzz.py` feeds to the readers of Parquet files: predictions, packed records, Hugging Face data."""

from __future__ import annotations

import io
import json
import os
import shutil
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from fuzz_inputs import NUMBERS, TEXTS, Reader, changed_bytes, changed_json
from fuzz_worlds import beside, runs, without_checksum

from bench.errors import UserError


def parquet(table: pa.Table) -> bytes:
    out = io.BytesIO()
    pq.write_table(table, out)
    return out.getvalue()


def changed_parquet(table: pa.Table, rng: Random, key: bytes = b"") -> bytes:
    """Its bytes, the values and types of a column, or the JSON under one key of its metadata, changed."""
    if rng.random() < 0.4:
        return changed_bytes(parquet(table), rng)
    metadata = dict(table.schema.metadata or {})
    if key and rng.random() < 0.4:
        metadata[key] = changed_json(json.loads(metadata[key]), rng)
        return parquet(table.replace_schema_metadata(metadata))
    k = rng.randrange(table.num_columns)
    name, values = table.column_names[k], table.column(k).to_pylist()
    for _ in range(rng.choice((1, len(values)))):
        values[rng.randrange(len(values))] = changed_value(values, rng)
    try:
        kind = table.schema.field(k).type if rng.random() < 0.7 else None
        changed = table.set_column(k, name, pa.array(values, kind))
    except (pa.ArrowException, OverflowError, TypeError, ValueError, UnicodeError):
        twice = table.append_column(name, table.column(k))
        changed = rng.choice((table.drop_columns([name]), twice, table.slice(0, 0)))
    return parquet(changed.replace_schema_metadata(metadata))


def changed_value(values: list[Any], rng: Random) -> Any:
    """An odd value, another one of the column, or this column's bytes or texts changed."""
    one = rng.choice(values)
    if isinstance(one, dict) and rng.random() < 0.7:
        key = rng.choice(list(one))
        return {**one, key: changed_value([one[key]], rng)}
    if isinstance(one, bytes) and rng.random() < 0.6:
        return changed_bytes(one, rng)
    return rng.choice((*NUMBERS, *TEXTS, one, None))


def predictions(root: Path) -> Reader:
    from bench.predictions import confused, ece, per_class, read

    table = pq.read_table(beside(root, "coop/*.predictions.parquet"))
    about = without_checksum(json.loads(table.schema.metadata[b"bench"]))
    older = table.replace_schema_metadata({b"bench": json.dumps(about).encode()})
    file = root / "x.predictions.parquet"

    def look() -> None:
        found = read(file)
        per_class(found), confused(found), ece(found)

    return Reader(file, lambda rng: changed_parquet(rng.choice((table, older)), rng, b"bench"), look)


def packs(root: Path) -> Reader:
    """Unpacked as the command does, and read as a report does, with a warning for what is damaged."""
    from bench.files import from_json
    from bench.packs import SCHEMA, pack, record_files, unpack
    from bench.records import Record

    folder, out = root / "packs", root / "unpacked"
    file = folder / "a.parquet"
    pack(runs(root), file)
    rows = pq.read_table(file).to_pylist()

    def make(rng: Random) -> bytes:
        changed = [dict(row) for row in rows]
        row = rng.choice(changed)
        if rng.random() < 0.5:
            text = rng.choice([text for text in TEXTS if "\ud800" not in text])
            row["path"] = rng.choice((text, f"{text}/{row['path']}", f"{row['path']}/{text}", f"{text}.json"))
        else:
            row["text"] = changed_json(without_checksum(json.loads(row["text"])), rng)
        table = pa.Table.from_pylist(changed, SCHEMA)
        return parquet(table) if rng.random() < 0.5 else changed_parquet(table, rng)

    def read() -> None:
        for _, text in record_files(folder):
            try:
                Record.from_json(from_json(text)).rows()
            except (OSError, ValueError):  # a report names it in a warning
                continue
        shutil.rmtree(out, ignore_errors=True)
        unpack(file, out)

    return Reader(file, make, read)


def hugging_face(root: Path) -> Reader:
    """A user's own Parquet files: their images are written as files at the first use, then read as a split."""
    os.environ["HF_HOME"] = str(root / "huggingface")
    from PIL import Image

    import datasets
    from bench.datasets.cache_paths import cache_place
    from bench.datasets.hub import INDEX, prepare, read_rows

    datasets.disable_progress_bars()
    folder = root / "rows"
    options = {
        "kind": "huggingface",
        "files": {"train": "a.parquet"},
        "parts": {"all": "train"},
        "label": "colour",
        "image": "picture",
    }
    rows = []
    for number, name in enumerate(("red", "green", "blue") * 2):
        out = io.BytesIO()
        Image.fromarray(np.full((6, 6, 3), 40 * number, dtype=np.uint8)).save(out, "PNG")
        rows.append({"picture": {"bytes": out.getvalue(), "path": f"{number}.png"}, "colour": name})
    given = pa.Table.from_pylist(rows)
    column = {"_type": "ClassLabel", "names": ["red", "green", "blue"]}
    info = json.dumps({"info": {"features": {"picture": {"_type": "Image"}, "colour": column}}})
    numbers = pa.array([number % 3 for number in range(len(rows))], pa.int64())
    labelled = given.set_column(1, "colour", numbers).replace_schema_metadata({b"huggingface": info.encode()})
    file = folder / "a.parquet"
    folder.mkdir()

    def make(rng: Random) -> bytes:
        return changed_parquet(given, rng) if rng.random() < 0.5 else changed_parquet(labelled, rng, b"huggingface")

    def read() -> None:
        for place in (root / "huggingface", cache_place(folder), *folder.glob("files-*")):
            shutil.rmtree(place, ignore_errors=True)
        prepare(folder, options)
        split = read_rows(folder, options)
        if not (split.root / INDEX).is_file():
            raise AssertionError("no index")

    return Reader(file, make, read, (UserError,))
