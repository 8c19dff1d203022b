"""Out of memory: where work is done in chunks, it goes on in halves of them; elsewhere the cell fails, not the grid."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor
from tqdm.auto import tqdm

if TYPE_CHECKING:
    from bench.cells import Cell

T = TypeVar("T")
BOUND = "max_tokens"  # a method's parameter that bounds its memory and not its result
SAID = ("not enough memory", "out of memory", "can't allocate memory", "cannot allocate memory")


def out_of_memory(error: BaseException) -> bool:
    """Whether memory did not suffice: Python's, torch's on the CPU (a RuntimeError), or a GPU's."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(said in str(error).lower() for said in SAID)


def in_halves(work: Callable[[Tensor], T], rows: Tensor, what: str) -> list[T]:
    """[work(rows)]; where memory does not suffice, that of each half of the rows, and so on down to single rows.

    `work` takes rows independently of each other, so the results are the same, up to the rounding of sums whose order
    depends on how many rows there are. what : they are, in the warning.
    """
    try:
        return [work(rows)]
    except Exception as error:
        if not out_of_memory(error) or len(rows) < 2:
            raise
    # Out of the handler, whose traceback would hold what has been allocated.
    free()
    _tell(len(rows), what)
    half = (len(rows) + 1) // 2
    return in_halves(work, rows[:half], what) + in_halves(work, rows[half:], what)


def smaller(cell: Cell) -> Cell | None:
    """The same cell with half of what bounds its method's memory, and not its result; None where nothing does."""
    variant = cell.variant
    bound = getattr(variant.params, BOUND, 1)
    if bound < 2:
        return None
    params, *by_task = (replace(own, **{BOUND: bound // 2}) for own in (variant.params, *variant.by_task.values()))
    own = dict(zip(variant.by_task, by_task, strict=True))
    return replace(cell, variant=replace(variant, params=params, by_task=own))


def free() -> None:
    """Give back what a GPU's allocator keeps."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


@lru_cache(maxsize=64)
def _tell(n: int, what: str) -> None:
    """Once for each number."""
    tqdm.write(f"warning: not enough memory for {n} {what} at a time: going on in halves", file=sys.stderr)
