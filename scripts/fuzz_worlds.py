"""Small worlds that `scripts/fuzz.py`'s readers stand in: tests/conftest.py's tiny suite, and one run of it."""

from __future__ import annotations

import sys
from functools import lru_cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]


@lru_cache(maxsize=1)
def tiny(root: Path) -> Any:
    sys.path.insert(0, str(ROOT / "tests"))
    from conftest import make_tiny

    return make_tiny(root / "tiny")


@lru_cache(maxsize=1)
def runs(root: Path) -> Path:
    """One cell of CoOp and one of zero-shot, with all that is kept beside their records."""
    tiny(root).run(root / "runs", methods=["zero-shot", "coop"], shots=[1], seeds=[1])
    return root / "runs"


def beside(root: Path, pattern: str) -> Path:
    """The one file of that run with such a name."""
    (found,) = runs(root).rglob(pattern)
    return found


def without_checksum(content: dict[str, Any]) -> dict[str, Any]:
    """As older versions wrote it: changes reach what stands behind the checksum."""
    return {key: value for key, value in content.items() if key != "checksum"}
