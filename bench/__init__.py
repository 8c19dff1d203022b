"""Prompt-tuning methods for CLIP, compared in one harness.

>>> import bench
>>> bench.run(methods=["zero-shot", "coop"], shots=[1, 16])   # a DataFrame: one row per cell and task
>>> bench.report("runs", "report")                            # tables and figures from all records
>>> cell = bench.load_cell("3f9a2c")                          # what a cell learned, by its key
>>> bench.predict(cell, ["leaf.jpg"], task="PlantVillage")

Everything `python -m bench` does is one of these calls.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bench.errors import CellFailed, UserError

if TYPE_CHECKING:
    from bench.catalogue import cache, check, explain, fetch, listing, write_draws
    from bench.curvature import stability
    from bench.likeness import similarity
    from bench.merging import merge
    from bench.perturb import rounding
    from bench.predictions import load_predictions
    from bench.relating import relate
    from bench.reports import report
    from bench.runner import run
    from bench.saved import load_cell, predict, words

__version__ = "0.2.0"
__all__ = [
    "CellFailed",
    "UserError",
    "cache",
    "check",
    "explain",
    "fetch",
    "listing",
    "load_cell",
    "load_predictions",
    "merge",
    "predict",
    "relate",
    "report",
    "rounding",
    "run",
    "similarity",
    "stability",
    "words",
    "write_draws",
]

# Imported when first used: `import bench` and `python -m bench --help` do not wait for torch.
_HOMES = {
    "run": "bench.runner",
    "similarity": "bench.likeness",
    "relate": "bench.relating",
    "report": "bench.reports",
    "rounding": "bench.perturb",
    "stability": "bench.curvature",
    "merge": "bench.merging",
    "listing": "bench.catalogue",
    "cache": "bench.catalogue",
    "check": "bench.catalogue",
    "fetch": "bench.catalogue",
    "write_draws": "bench.catalogue",
    "explain": "bench.catalogue",
    "load_cell": "bench.saved",
    "load_predictions": "bench.predictions",
    "words": "bench.saved",
    "predict": "bench.saved",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'bench' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
