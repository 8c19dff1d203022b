"""Progress bars with time left, for whatever takes more than two seconds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tqdm import tqdm


def bar(label: str, total: int, unit: str, hide: bool | None, position: int = 1) -> Any:
    """A bar that appears after two seconds. hide None: hidden where standard error is no terminal."""
    return tqdm(desc=label, total=total, unit=unit, delay=2, leave=False, disable=hide, position=position)


def absolute(shown: Any) -> Callable[[int, int], None]:
    """A function that moves a bar by (done, total)."""

    def report(done: int, total: int) -> None:
        shown.total = total
        shown.update(done - shown.n)

    return report
