"""`report --watch`: the report again whenever a record comes, until Ctrl-C."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from bench.errors import UserError
from bench.files import user_path
from bench.reports import Written, write
from bench.reports.config import PICTURES, ReportConfig

PAUSE = 1.0  # seconds between two looks


def follow(config: ReportConfig, say: Callable[[str], None] = print, pause: float = PAUSE) -> Written:
    """Write all but the pictures, which take their time, again whenever records have changed; the page reads itself
    again. Ctrl-C ends it, and the page then stays as it is.

    Raises
    ------
    UserError : the report cannot be made, for another reason than that there are no records yet.
    """
    formats = tuple(kind for kind in config.format if kind not in PICTURES)
    if "html" not in formats:
        raise UserError("--watch: the page is what is watched; add html to --format")
    config = replace(config, format=formats)
    say(f"Watching {config.results}; open {user_path(config.out) / 'index.html'}. Ctrl-C ends it.")
    seen: dict[Path, tuple[int, int]] = {}
    try:
        while True:
            found = _records(config)
            if found != seen and found:
                seen = found
                written = write(config)
                say(f"{time.strftime('%H:%M:%S')}  {written.records['key'].nunique()} cells")
            time.sleep(pause)
    except KeyboardInterrupt:
        return write(replace(config, watch=False))


def _records(config: ReportConfig) -> dict[Path, tuple[int, int]]:
    """When each file of records was written, and its size."""
    results, out = user_path(config.results), user_path(config.out).resolve()
    found = {}
    for path in results.rglob("*"):
        if path.suffix in (".json", ".parquet") and out not in path.resolve().parents:
            try:
                about = path.stat()
            except FileNotFoundError:  # replaced at this moment
                continue
            found[path] = about.st_mtime_ns, about.st_size
    return found
