"""Freed memory is kept for what is allocated next, while the command line's cells encode and train."""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Iterator

# glibc's <malloc.h>
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_MMAP_MAX = -1, -3, -4
KEEP = {M_TRIM_THRESHOLD: -1, M_MMAP_MAX: 0}  # nothing is trimmed (-1: the largest size there is), nothing mapped
# As glibc sets them by itself once large blocks were freed; its start values cannot be restored.
AFTER = {M_TRIM_THRESHOLD: 2**26, M_MMAP_THRESHOLD: 2**25, M_MMAP_MAX: 65536}


@contextlib.contextmanager
def kept_heap() -> Iterator[None]:
    """Within it glibc gives no freed memory back to the system; at its end it gives back all that is free.

    A training step allocates the same large tensors as the step before it. glibc maps each again, and the system
    zeroes every page of it at its first touch: a sixth of a step at General-10's size. Elsewhere than on glibc
    nothing is done. Numbers do not change. What the process had set for malloc before is lost: glibc cannot be asked.
    So `python -m bench run` alone enters it; `bench.run` leaves a notebook's process as it is.
    """
    libc = _glibc()
    if libc is None:
        yield
        return
    _set(libc, KEEP)
    try:
        yield
    finally:
        _set(libc, AFTER)
        libc.malloc_trim(0)


def _set(libc: ctypes.CDLL, options: dict[int, int]) -> None:
    for option, value in options.items():
        libc.mallopt(option, value)


def _glibc() -> ctypes.CDLL | None:
    """The C library of this process, if it is glibc."""
    try:
        libc = ctypes.CDLL(None)
        return libc if hasattr(libc, "gnu_get_libc_version") else None
    except (OSError, TypeError):  # TypeError: Windows
        return None
