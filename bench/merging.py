"""Folders of records from several machines as one: `python -m bench merge A B --into C`."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from bench.errors import UserError
from bench.files import file_name, from_json, user_path, write_whole
from bench.packs import record_files
from bench.predictions import SUFFIX
from bench.records import STABILITY, Record, RecordStore

BESIDE = (".safetensors", SUFFIX, ".trace.json.gz")  # what a cell keeps beside its record
NAMED = 10  # conflicts that an error names


@dataclass(frozen=True)
class Found:
    """A record as it stands somewhere: its file or its place in a pack, and its text, byte for byte."""

    record: Record
    path: Path
    text: bytes

    @property
    def rank(self) -> tuple[bool, str]:
        """A finished record is better than a failed one, then a later one than an earlier."""
        return self.record.done, self.record.finished


def merge(folders: Sequence[str | Path], into: str | Path, prefer: str | Path | None = None) -> dict[str, int]:
    """Put the records of several folders, with what stands beside them, into one. It may be one of them.

    Of a cell that is finished in one place and failed in another, the finished record is taken; of two that failed the
    later one. Of two finished ones with the same numbers, the one that is in `into` already, or else the first.

    Parameters
    ----------
    folders : their records may be packed. prefer : the one of them whose record is taken where numbers differ.

    Returns
    -------
    dict : how many cells were "new" to `into`, "replaced" there, and were "there" already.

    Raises
    ------
    UserError : a folder is missing or holds no records, or two finished records of one cell have other numbers, each
        named. Then nothing is written.
    """
    target, sources = user_path(into), [user_path(folder) for folder in folders]
    if prefer is not None and user_path(prefer) not in [*sources, target]:
        raise UserError(f"--prefer {prefer}: not one of the folders that are merged")
    store = RecordStore(target)
    cells: dict[Path, list[Found]] = {}
    for source in sources:
        for found in _records(source):
            place = store.path(found.record.cell, found.record.key)
            cells.setdefault(place, _there(place)).append(found)
    chosen, conflicts = {}, []
    for place, all_found in cells.items():
        done = [found for found in all_found if found.record.done]
        if prefer is not None and (own := [f for f in done if user_path(prefer) in f.path.parents]):
            done = own
        conflicts += [f"{done[0].path} and {f.path} ({d})" for f in done[1:] if (d := _difference(done[0], f))][:1]
        chosen[place] = done[0] if done else max(all_found, key=lambda found: found.rank)
    if conflicts:
        more = f"; and {len(conflicts) - NAMED} more" if len(conflicts) > NAMED else ""
        raise UserError(
            f"{len(conflicts)} of {len(cells)} cells have other numbers in two places, and nothing was merged: "
            f"{'; '.join(conflicts[:NAMED])}{more}. Add --prefer DIR to take those of one folder"
        )
    curvature = _stability([target, *sources])
    counts = {"new": 0, "replaced": 0, "there": 0}
    for place, found in chosen.items():
        what = "there" if found.path == place else "replaced" if place.exists() else "new"
        counts[what] += 1
        if what != "there":
            _copy(found, place)
    if curvature:
        write_whole(target / STABILITY, curvature)
    return counts


def _records(folder: Path) -> list[Found]:
    if not folder.is_dir():
        raise UserError(f"merge {folder}: no such folder")
    found, damaged = [], []
    for path, text in record_files(folder):
        try:
            found.append(_found(path, path.read_bytes() if text is None else text))
        except (OSError, ValueError) as error:
            damaged.append(f"{path} ({error})")
    if damaged:
        warnings.warn(f"left out, no sound records: {'; '.join(damaged)}", stacklevel=3)
    if not found:
        raise UserError(f"merge {folder}: no records in it")
    return found


def _there(place: Path) -> list[Found]:
    """The record that stands at a place already; none where it is damaged."""
    try:
        return [_found(place, place.read_bytes())]
    except (OSError, ValueError):
        return []


def _found(path: Path, text: bytes) -> Found:
    record = Record.from_json(from_json(text))
    if file_name(record.key) != record.key:  # it becomes a file's name
        raise ValueError(f"its key is {record.key!r:.50}")
    return Found(record, path, text)


def _difference(one: Found, other: Found) -> str:
    """The first number in which two runs of one cell disagree; "" where all accuracies are equal."""
    ours, theirs = ({(r["task"], r["part"]): r["accuracy"] for r in f.record.tasks} for f in (one, other))
    for task, part in [*ours, *theirs]:
        left, right = ours.get((task, part)), theirs.get((task, part))
        if left != right:
            return f"{task}: {left} and {right} %"
    return ""


def _copy(found: Found, place: Path) -> None:
    """A record and what stands beside it, the record last."""
    for suffix in BESIDE:
        source, own = found.path.with_suffix(suffix), place.with_suffix(suffix)
        if source.is_file():
            write_whole(own, partial(shutil.copyfile, source))
        else:
            own.unlink(missing_ok=True)  # of the record that is replaced
    write_whole(place, found.text)


def _stability(folders: Sequence[Path]) -> str:
    """The lines of all tables of `bench stability`, each once; "" where there are none."""
    lines: dict[str, None] = {}
    tables = [file.read_text(encoding="utf-8").splitlines() for f in folders if (file := f / STABILITY).is_file()]
    if len({table[0] for table in tables if table}) > 1:
        raise UserError(f"{STABILITY} has other columns in these folders: made by other versions; move one away")
    for table in tables:
        lines |= dict.fromkeys(table)
    return "".join(f"{line}\n" for line in lines)
