"""Image files by content: what their hashes are, which are broken, and which are copies of others.

What is found is remembered in the cache, by path, size and times of change (SQLite: safe for two processes). The time
of writing can be set back; that of the last change of any kind (ctime) cannot. A file is looked at when it is hashed:
its header is read, a PNG's checksums are, and of a JPEG whether its end is there; whatever looks doubtful is decoded.
Damage inside a JPEG's data shows only when it is decoded: when its features are made, or by `decode`.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.datasets.cache_paths import cache_folder
from bench.datasets.images import looks_whole, open_image
from bench.datasets.types import Item
from bench.errors import UserError
from bench.progress import count

HASHES = "hashes.sqlite"
HASHES_PER_COMMIT = 256  # a kill loses at most so many hashes
NAMED = 20  # files that a message names; of more it gives the number

BROKEN, SOUND, DECODED = _STATES = range(3)  # an image's state: cannot be decoded; looks sound; was decoded

Bar = Callable[[int], None]
"""Told how many views were encoded, or files read, since the last call."""


@dataclass(frozen=True)
class Images:
    """Images of a task, in the order in which their features are kept, with the hash of each file's bytes."""

    root: Path
    items: tuple[Item, ...]
    digests: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.items)

    @property
    def paths(self) -> list[Path]:
        return [self.root / item.path for item in self.items]

    def by_content(self) -> list[tuple[str, Path]]:
        """(digest, path) of each."""
        return list(zip(self.digests, self.paths, strict=True))


class ImageChanged(UserError):
    """An image's bytes are no longer those that were hashed."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"{path}: changed since this run first read it; run again to use it as it is now")
        self.path = path


def content_digest(data: bytes) -> str:
    """What stands for a file's bytes in cell keys and feature blocks."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()


class ImageHashes:
    """Content hashes of image files, and whether they can be read as images.

    Parameters
    ----------
    folder : where they are remembered, default that of the features in `cache_folder()`.
    """

    def __init__(self, folder: Path | None = None) -> None:
        folder = folder or cache_folder() / "features"
        folder.mkdir(parents=True, exist_ok=True)
        self._file = folder / HASHES
        with self._errors():
            self._db = sqlite3.connect(self._file, timeout=60)
            # Older versions have a table `hash` without ctime, which is not trusted.
            columns = "path PRIMARY KEY, size INT, mtime INT, ctime INT, digest TEXT"
            self._db.execute(f"CREATE TABLE IF NOT EXISTS file ({columns})")
            self._db.execute("CREATE TABLE IF NOT EXISTS image (digest TEXT PRIMARY KEY, state INT)")

    def of(self, paths: Sequence[Path], bar: Bar | None = None) -> list[str]:
        """Hex digests of the files' bytes, in order.

        Raises
        ------
        OSError : a file cannot be read.
        """
        digests = []
        for found in self._looked_at(paths, bar):
            if isinstance(found, OSError):
                raise found
            digests.append(found[0])
        return digests

    def forget(self, path: Path) -> None:
        """Hash a file anew when it is next asked for."""
        with self._errors(), self._db:
            self._db.execute("DELETE FROM file WHERE path = ?", (os.fsencode(path.resolve()),))

    def broken(self, paths: Sequence[Path], bar: Bar | None = None, decode: bool = False) -> list[str]:
        """What is wrong with those of the files that cannot be read as images, in order: "<path>: <reason>".

        decode : decode every image (once: the result is kept), not only those that look doubtful.
        """
        return list(self.faults(paths, bar, decode).values())

    def faults(self, paths: Sequence[Path], bar: Bar | None = None, decode: bool = False) -> dict[Path, str]:
        """`broken` by path."""
        faults: dict[Path, str] = {}
        with _pool() as pool:
            for first in range(0, len(paths), HASHES_PER_COMMIT):
                part = paths[first : first + HASHES_PER_COMMIT]
                doubtful: dict[Path, str] = {}  # a broken one is decoded again: another Pillow may read it
                reasons: dict[Path, str] = {}
                for path, found in zip(part, self._looked_at(part), strict=True):
                    if isinstance(found, OSError):
                        reasons[path] = f"{path}: cannot be read ({found.strerror})"
                    elif found[1] == BROKEN or (decode and found[1] != DECODED):
                        doubtful[path] = found[0]
                said = dict(zip(doubtful, pool.map(_fault, doubtful), strict=True))
                states = [(digest, BROKEN if said[path] else DECODED) for path, digest in doubtful.items()]
                with self._errors(), self._db:
                    self._db.executemany("INSERT OR REPLACE INTO image VALUES (?, ?)", states)
                reasons |= said
                faults |= {path: reasons[path] for path in part if reasons.get(path)}
                if bar:
                    bar(len(part))
        return faults

    def by_content(self, paths: Sequence[Path]) -> list[tuple[str, Path]]:
        """(digest, path) of the files, without those that cannot be read; `broken` names these."""
        looked = zip(self._looked_at(paths), paths, strict=True)
        return [(found[0], path) for found, path in looked if not isinstance(found, OSError)]

    def _looked_at(self, paths: Sequence[Path], bar: Bar | None = None) -> Iterator[tuple[str, int] | OSError]:
        """(digest, state) of each file, or what the disk said."""
        with _pool() as pool:
            for first in range(0, len(paths), HASHES_PER_COMMIT):
                part = paths[first : first + HASHES_PER_COMMIT]
                with self._errors():
                    yield from self._part(part, pool)
                if bar:
                    bar(len(part))

    def _part(self, paths: Sequence[Path], pool: ThreadPoolExecutor) -> list[tuple[str, int] | OSError]:
        found: dict[Path, tuple[str, int] | OSError] = {}
        fresh: dict[Path, tuple[bytes, int, int, int]] = {}
        for path in paths:
            try:
                name, stat = os.fsencode(path.resolve()), path.stat()  # bytes: not every file name is a text
            except OSError as error:
                found[path] = error
                continue
            row = self._db.execute(
                "SELECT size, mtime, ctime, digest, state FROM file JOIN image USING (digest) WHERE path = ?", (name,)
            ).fetchone()
            if row and row[:3] == (stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns) and _is_sound(*row[3:]):
                found[path] = row[3:]
            else:
                fresh[path] = name, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns
        found |= zip(fresh, pool.map(_look, fresh), strict=True)
        looked = [(key, known) for path, key in fresh.items() if isinstance(known := found[path], tuple)]
        if looked:
            with self._db:
                hashes = [(*key, digest) for key, (digest, _) in looked]
                self._db.executemany("INSERT OR REPLACE INTO file VALUES (?, ?, ?, ?, ?)", hashes)
                # What decoding the same bytes has shown counts more than a look at them.
                self._db.executemany("INSERT OR IGNORE INTO image VALUES (?, ?)", [known for _, known in looked])
        return [found[path] for path in paths]

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, UnicodeDecodeError) as error:  # of texts in a damaged file
            raise UserError(f"{self._file}: {error}; delete it, or name another folder with BENCH_CACHE") from error


def _look(path: Path) -> tuple[str, int] | OSError:
    try:
        data = path.read_bytes()
    except OSError as error:
        return error
    sound = looks_whole(data) or not _fault(path, data)
    return content_digest(data), SOUND if sound else BROKEN


def _is_sound(digest: Any, state: Any) -> bool:
    """Whether a row is as this module writes them: a damaged file of hashes may hold anything."""
    return isinstance(digest, str) and re.fullmatch("[0-9a-f]{32}", digest) is not None and state in _STATES


def _fault(path: Path, data: bytes | None = None) -> str:
    """Why an image cannot be decoded; "" where it can. data : the file's bytes, where they were read already."""
    try:
        open_image(path, data)
    except UserError as error:
        return str(error)
    return ""


def named(what: Sequence[str]) -> str:
    """The first of some texts in one line, and how many more there are."""
    more = f"; and {len(what) - NAMED} more" if len(what) > NAMED else ""
    return "; ".join(what[:NAMED]) + more


def copies(*parts: Sequence[tuple[str, Path]]) -> list[tuple[Path, Path]]:
    """Each image of a part with one of an earlier part that has the same bytes: (the earlier one, this one).

    parts : as from `by_content`, of `ImageHashes` or `Images`.
    """
    seen: dict[str, Path] = {}
    pairs = []
    for part in parts:
        pairs += [(seen[digest], path) for digest, path in part if digest in seen]
        for digest, path in part:
            seen.setdefault(digest, path)
    return pairs


def describe_copies(root: Path, pairs: Sequence[tuple[Path, Path]], what: str) -> str:
    """What `copies` found, in a line; "" where it found nothing.

    root : the folder that the images' names are relative to. what : whose copies they are, such as "few-shot images".
    """
    if not pairs:
        return ""
    said = [f"{second.relative_to(root)} = {first.relative_to(root)}" for first, second in pairs]
    have = "has" if len(pairs) == 1 else "have"
    return f"{count(len(pairs), 'image')} {have} the same bytes as {what}: {named(said)}"


def usable_cores() -> int:
    """How many cores this process may use, which in a container or a batch job are fewer than the machine has."""
    if hasattr(os, "process_cpu_count"):  # Python 3.13
        return os.process_cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):  # Linux
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextlib.contextmanager
def _pool() -> Iterator[ThreadPoolExecutor]:
    """A thread for each core; what is still queued is dropped when something fails."""
    pool = ThreadPoolExecutor(usable_cores())
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)
