"""Freed memory is kept while a cell trains, and given back after it."""

from __future__ import annotations

import subprocess
import sys

import pytest

from bench.heap import _glibc

SCRIPT = """
import torch
from bench.heap import kept_heap

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096 >> 20

def faults():
    import resource
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def step():
    tensors = [torch.ones(150 << 18) for _ in range(20)]  # 150 MB each: more than 2 GB together

start = resident()
with kept_heap():
    step()
    held, before = resident() - start, faults()
    step()
    again = faults() - before
print(held, again, resident() - start)
"""


@pytest.mark.skipif(_glibc() is None or sys.platform != "linux", reason="glibc's allocator is not here")
def test_freed_memory_is_kept_within_and_given_back_at_the_end() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    held, again, left = map(int, done.stdout.split())
    assert held > 2900  # megabytes
    assert again < 200_000  # pages of 4 kB: all anew they would be 768 000
    assert left < 300
