"""Progress of whatever takes more than two seconds: bars on terminals and in notebooks, lines elsewhere.

`hide` is the same everywhere: True shows nothing, None what suits standard error.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from tqdm.auto import tqdm

DELAY = 2  # seconds until anything is shown
LOG_EVERY = 10  # seconds between the lines of one bar, where lines stand for bars

_silent = ContextVar("silent", default=False)

IN_NOTEBOOK = tqdm.__mro__[1].__module__ == "tqdm.notebook"  # its bars need no terminal


class _Lines:
    """A bar's stand-in for logs: a line after two seconds, one every `every` seconds, and one at the end."""

    def __init__(self, label: str, total: int, unit: str, every: float) -> None:
        self.label, self.total, self.unit, self.every = label.strip(), total, unit, every
        self.n, self.said, self.unit_scale = 0, -1, False
        self.start = time.monotonic()
        self.next = self.start + DELAY

    def __enter__(self) -> _Lines:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None and self.said not in (-1, self.n):
            self._say()

    def update(self, n: int = 1) -> None:
        self.n += n
        if time.monotonic() >= self.next:
            self._say()
            self.next = time.monotonic() + self.every

    def _say(self) -> None:
        self.said, spent = self.n, time.monotonic() - self.start
        total, left = self.total or self.n, (self.total or self.n) - self.n
        done = f"{self.n} of {total} {self.unit}s"
        if self.unit_scale:  # bytes
            done = f"{tqdm.format_sizeof(self.n)} of {tqdm.format_sizeof(total)}{self.unit}"
        when = f"about {duration(spent * left / self.n)} left" if left > 0 and self.n else f"in {duration(spent)}"
        note(f"{self.label}: {done}, {when}", None)


def bar(label: str, total: int, unit: str, hide: bool | None, position: int = 1, every: float = LOG_EVERY) -> Any:
    """A bar that appears after two seconds, or lines where standard error is no terminal. every : seconds per line."""
    hide = True if _silent.get() else hide
    if hide is None and not has_bars():
        return _Lines(label, total, unit, every)
    return tqdm(desc=label, total=total, unit=unit, delay=DELAY, leave=False, disable=bool(hide), position=position)


@contextmanager
def silent(quiet: bool | None) -> Iterator[None]:
    """Where `quiet`, no bar of what is called within is shown, whatever its `hide`: readers know of none."""
    before = _silent.set(bool(quiet) or _silent.get())
    try:
        yield
    finally:
        _silent.reset(before)


def has_bars() -> bool:
    """Whether standard error shows bars: on a terminal, or in a notebook."""
    return IN_NOTEBOOK or sys.stderr.isatty()


def note(text: str, hide: bool | None) -> None:
    """A line on standard error, above the bars."""
    if not hide:
        tqdm.write(text, file=sys.stderr)
        sys.stderr.flush()


def absolute(shown: Any) -> Callable[[int, int], None]:
    """A function that moves a bar by (done, total)."""

    def report(done: int, total: int) -> None:
        shown.total = total
        shown.update(done - shown.n)

    return report


def count(n: int, noun: str) -> str:
    """ "1 shot", "2 shots"."""
    return f"{n} {noun}{'s' * (n != 1)}"


def duration(seconds: float) -> str:
    """ "0.4 s", "12 s", "3 min", "2 h 5 min"."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"
