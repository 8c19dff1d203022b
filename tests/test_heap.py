"""Freed memory is kept while a cell trains, and given back after it."""

from __future__ import annotations

import subprocess
import sys

import pytest

from bench.system import _glibc

SCRIPT = """
import torch
from bench.system import kept_heap

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096 >> 20

def step():
    torch.ones(3 << 28)  # 3 GB

start = resident()
step()
bare = resident() - start
with kept_heap():
    step()
    held = resident() - start
print(bare, held, resident() - start)
"""


@pytest.mark.skipif(_glibc() is None or sys.platform != "linux", reason="glibc's allocator is not here")
def test_freed_memory_is_kept_within_and_given_back_at_the_end() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    bare, held, left = map(int, done.stdout.split())  # megabytes that stay after 3 GB were freed
    assert bare < 300
    assert held > 3000
    assert left < 300
