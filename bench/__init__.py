"""Prompt-tuning methods for CLIP, compared in one harness.

>>> import bench
>>> bench.run(methods=["zero-shot", "coop"], shots=[1, 16])   # a DataFrame: one row a cell and task
>>> bench.report("runs", "report")                            # tables and figures from all records

Everything `python -m bench` does is one of these calls.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bench.errors import UserError

if TYPE_CHECKING:
    from bench.catalogue import cache, check, listing
    from bench.explain import explain
    from bench.harness import run
    from bench.reports import report

__version__ = "0.1.0"
__all__ = ["UserError", "cache", "check", "explain", "listing", "report", "run"]

# Imported when first used: `import bench` and `python -m bench --help` do not wait for torch.
_HOMES = {
    "run": "bench.harness",
    "report": "bench.reports",
    "listing": "bench.catalogue",
    "cache": "bench.catalogue",
    "check": "bench.catalogue",
    "explain": "bench.explain",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'bench' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_HOMES[name]), name)
