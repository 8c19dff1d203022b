"""Freed memory is kept while a cell of the command line trains, and given back after it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

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


HUNGRY = """
import torch
from bench.methods.zero_shot import ZeroShot

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096 >> 20

class Hungry(ZeroShot):
    name = "hungry"

    def fit(self, clip, tasks, seed, report):
        super().fit(clip, tasks, seed, report)
        start = resident()
        torch.ones(1 << 28)  # 1 GB
        self.held = resident() - start

    @property
    def n_params(self):  # stands in the record: megabytes that stay after 1 GB was freed
        return self.held
"""

glibc = pytest.mark.skipif(_glibc() is None or sys.platform != "linux", reason="glibc's allocator is not here")


@pytest.mark.parametrize("command_line", [True, False])
@glibc
def test_the_command_line_alone_keeps_freed_memory_and_a_python_call_leaves_the_process_as_it_is(
    command_line: bool, tiny: Any, tmp_path: Path
) -> None:
    (tmp_path / "hungry_method.py").write_text(HUNGRY)
    runs = tmp_path / "runs"
    command = [*tiny.command(runs), "--methods", "hungry_method:Hungry"]
    arguments = {**tiny.arguments, "methods": "hungry_method:Hungry", "results": str(runs)}
    how = ["-m", "bench", *command] if command_line else ["-c", f"import bench; bench.run(**{arguments})"]
    subprocess.run([sys.executable, *how], cwd=tmp_path, capture_output=True, check=True)  # noqa: S603 - a list of our own words, and no shell
    (record,) = runs.rglob("*.json")
    held = json.loads(record.read_text())["n_params"]
    assert held > 1000 if command_line else held < 100


@glibc
def test_freed_memory_is_kept_within_and_given_back_at_the_end() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)  # noqa: S603 - a list of our own words, and no shell
    bare, held, left = map(int, done.stdout.split())  # megabytes that stay after 3 GB were freed
    assert bare < 300
    assert held > 3000
    assert left < 300
