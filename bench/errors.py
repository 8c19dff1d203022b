"""What a user's mistake looks like: one line that names the argument or file, the value, and what would be right."""

from __future__ import annotations

import difflib
import os
import shlex
import subprocess
from collections.abc import Iterable, Sequence
from typing import Any

SHOWN = 60  # valid names in a message
WINDOWS = os.name == "nt"


class UserError(Exception):
    """A mistake in what the user gave: the command line prints its message alone and exits with code 2."""


class CellFailed(Exception):
    """The first cell that failed, where a run was asked to stop at it (`fail_fast`); its record is written.

    failure : as one of `.attrs["failed"]`.
    """

    def __init__(self, failure: dict[str, Any]) -> None:
        names = [f"{name} {failure[name]}" for name in ("method", "variant", "shots", "seed") if failure[name] != ""]
        super().__init__(f"{', '.join(names)}: {failure['error']}\n{failure['traceback']}".rstrip())
        self.failure = failure


def nearest(name: str, valid: Iterable[str]) -> str:
    """The hint that ends an error about an unknown name: the nearest valid name, and all of them or the first 60."""
    names = sorted(valid)
    shown = ", ".join([*names[:SHOWN], *["…"] * (len(names) > SHOWN)])
    close = difflib.get_close_matches(name.lower(), [n.lower() for n in names], n=1, cutoff=0.5)
    if close:
        match = next(n for n in names if n.lower() == close[0])
        return f"did you mean {match!r}? (valid: {shown})"
    return f"valid: {shown or 'none'}"


def printable(text: str) -> str:
    """Without what steers a terminal: escape sequences that a file or a name may hold are shown, not obeyed."""
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)


def in_a_line(text: str) -> str:
    """A text that can be printed, its line ends as spaces: names of files may hold anything."""
    return printable(text.replace("\n", " "))


def typed(words: Sequence[str]) -> str:
    """Words as one types them into a shell: quoted as this system's shells read it."""
    return subprocess.list2cmdline(words) if WINDOWS else shlex.join(words)
