"""Where files made from a task's data are kept: in its folder, else in the user's cache."""

from __future__ import annotations

import os
from hashlib import blake2b
from pathlib import Path

import platformdirs


def cache_folder() -> Path:
    """The cache: $BENCH_CACHE, or the user's cache folder."""
    return Path(os.environ.get("BENCH_CACHE") or platformdirs.user_cache_dir("prompt-bench")).expanduser()


def cache_place(folder: Path) -> Path:
    """The place in the user's cache for one folder of data, wherever a folder of that name stands."""
    resolved = os.fsencode(folder.resolve())
    return cache_folder() / "splits" / f"{folder.name}-{blake2b(resolved, digest_size=8).hexdigest()}"


def writable_places(folder: Path) -> list[Path]:
    """Where to try to write, first choice first. A folder marked read-only is left alone even by the super-user."""
    if folder.is_dir() and not folder.stat().st_mode & 0o222:
        return [cache_place(folder)]
    return [folder, cache_place(folder)]
