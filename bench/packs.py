"""Packs: many record files as one Parquet file, byte for byte; a report is made from it as from the files."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from bench.errors import UserError
from bench.files import file_name, from_json, user_path, write_whole
from bench.predictions import SUFFIX
from bench.records import STABILITY, Record, read_record

MARK, FORMAT = b"bench-records", b"1"
UNREADABLE = (OSError, ValueError, pa.ArrowException)  # what pyarrow raises of a damaged file
SCHEMA = pa.schema([("path", pa.string()), ("text", pa.binary())], metadata={MARK: FORMAT})
LONGEST = 200  # bytes of a file's or folder's name; while a file is written, its name is longer by 38
MOST_BYTES = 4_000_000_000  # unpacked; a file that claims more is refused before it is read


def pack(results: str | Path, out: str | Path) -> int:
    """Write every `*.json` below a folder into one file, byte for byte. Returns how many there were.

    Raises
    ------
    UserError : there is none, or one has a path that a pack cannot hold. Then nothing is written.
    """
    folder, target = user_path(results), user_path(out)
    if target.suffix != ".parquet":
        raise UserError(f"--out {out}: the file's name must end in .parquet, or a report would not find it")
    files = sorted(folder.rglob("*.json"))
    if not files:
        raise UserError(f"no records (*.json) below '{folder}'")
    names = [file.relative_to(folder).as_posix() for file in files]
    for name in names:
        if not _is_safe(name):
            raise UserError(
                f"{folder}: no pack can hold {name!r}, for not every system can have such a file; rename it, so that "
                "each part of its path has letters, digits, '_', '.' and '-' alone"
            )
    table = pa.table([names, [file.read_bytes() for file in files]], schema=SCHEMA)
    how: dict[str, Any] = {"compression": "zstd", "compression_level": 19, "write_page_checksum": True}
    write_whole(target, lambda part: pq.write_table(table, str(part), **how))
    return len(files)


def left_behind(results: str | Path) -> dict[str, int]:
    """What a pack of a folder does not hold although it belongs to its cells: how many files, by ending or name."""
    kinds = (".safetensors", SUFFIX, STABILITY)
    names = [file.name for file in user_path(results).rglob("*") if file.is_file()]
    counts = {kind: sum(name.endswith(kind) for name in names) for kind in kinds}
    return {kind: n for kind, n in counts.items() if n}


def unpack(file: str | Path, out: str | Path) -> int:
    """Write a pack's files into a folder, byte for byte. Returns how many there were.

    Raises
    ------
    UserError : it is no pack, or damaged; or a file of that name is there with other content. Then nothing is written.
    """
    source, folder = user_path(file), user_path(out)
    try:
        held = list(packed(source))
    except UNREADABLE as error:
        raise UserError(f"{file}: not a readable pack of records ({str(error).partition(chr(10))[0]})") from error
    for name, text in held:
        there = folder / name
        if there.exists() and (not there.is_file() or there.read_bytes() != text):
            raise UserError(f"{there} is there with other content; name another folder in --out")
    try:
        for name, text in held:
            write_whole(folder / name, text)
    except OSError as error:  # a file where a folder has to be, a full disk
        raise UserError(f"{folder}: cannot be written ({error})") from None
    return len(held)


def record_files(results: Path, pattern: str = "*.json") -> list[tuple[Path, bytes | None]]:
    """The files of records below a folder whose names match, by path; of a packed one the path where it would be
    unpacked beside its pack, and its content. What is no readable pack is named in a warning."""
    found: list[tuple[Path, bytes | None]] = [(path, None) for path in results.rglob(pattern)]
    for file in sorted(results.rglob("*.parquet")):
        if file.name.endswith(SUFFIX):
            continue
        try:
            held = list(packed(file)) if is_pack(file) else []
        except UNREADABLE as error:
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            warnings.warn(f"{file} is not a readable pack of records and is left out ({reason})", stacklevel=2)
            continue
        found += [(file.parent / name, text) for name, text in held if fnmatch(PurePosixPath(name).name, pattern)]
    return sorted(found, key=lambda pair: pair[0])


def records_below(results: Path) -> Iterator[tuple[Path, Record]]:
    """The records below a folder, in files of their own and in packs, by path. What cannot be read is named in a
    warning."""
    for path, text in record_files(results):
        try:
            yield path, read_record(path) if text is None else Record.from_json(from_json(text))
        except (OSError, ValueError) as error:
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            warnings.warn(f"{path} is not a readable record and is left out ({reason})", stacklevel=3)


def is_pack(file: Path) -> bool:
    """Whether a Parquet file says that it is a pack; others (predictions, a report's tables) are not.

    Raises
    ------
    OSError, ValueError : it is no Parquet file.
    """
    return MARK in (pq.read_schema(str(file)).metadata or {})


def packed(file: Path) -> Iterator[tuple[str, bytes]]:
    """The files in a pack: path below its folder, and content.

    Raises
    ------
    OSError, ValueError : it is no pack, or damaged, or a path in it leads out of the folder.
    """
    with pq.ParquetFile(str(file), page_checksum_verification=True) as opened:
        schema = opened.schema_arrow
        if (schema.metadata or {}).get(MARK) != FORMAT or not schema.equals(SCHEMA):
            raise ValueError("not what `bench records pack` writes")
        groups = [opened.metadata.row_group(i) for i in range(opened.num_row_groups)]
        if sum(group.total_byte_size for group in groups) > MOST_BYTES:
            raise ValueError(f"more than {MOST_BYTES} bytes")
        table = opened.read()
    names, texts = (table.column(name).to_pylist() for name in SCHEMA.names)
    if not names or len(names) != sum(group.num_rows for group in groups):
        raise ValueError(f"{len(names)} records are not what its footer says")
    known = set(names)
    if None in known or None in texts or len(known) != len(names):
        raise ValueError("a path or text is missing, or a path stands there twice")
    for name in names:
        if not _is_safe(name):
            raise ValueError(f"{name!r:.100} is no record's path")
        if above := next((str(above) for above in PurePosixPath(name).parents if str(above) in known), None):
            raise ValueError(f"{above!r:.100} is a record's path, and a folder of another's")
    yield from zip(names, texts, strict=True)


def _is_safe(name: str) -> bool:
    """Whether every system can have a record's file of this path, below any folder."""
    path = PurePosixPath(name)
    sound = all(file_name(part) == part and len(part.encode()) <= LONGEST for part in path.parts)
    return path.suffix == ".json" and path.as_posix() == name and sound
