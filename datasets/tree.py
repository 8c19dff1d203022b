"""Suite files' trees of tasks: each task may say where it stands, by the names of the nodes above it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from bench.errors import UserError


def check_paths(file: Path, paths: Mapping[str, Sequence[str]]) -> None:
    """Refuse nodes without a name, and a node that is written in two ways: they would be two, and share nothing.

    paths : by task, from the top.
    """
    written: dict[tuple[str, ...], str] = {}
    for task, path in paths.items():
        at = f"{file}: task {task}: `path`"
        for depth, node in enumerate(path, start=1):
            key = tuple(" ".join(name.casefold().split()) for name in path[:depth])
            if not key[-1]:
                raise UserError(f"{at} must name the nodes above the task, from the top, not {list(path)}")
            if node != (first := written.setdefault(key, node)):
                raise UserError(f"{at} has {node!r} where another task has {first!r}; write it in one way")
