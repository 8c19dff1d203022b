"""Runs under faults (scripts/faults.py) end like undisturbed ones; a shorter set than that of `make test-faults`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
BROKEN = ("lost", "doubled", "wrong", "crashed")

sys.path.insert(0, str(ROOT / "scripts"))
from faults import FAULTS, Tally, World  # noqa: E402 - scripts, not a package
from faults_damage import damages  # noqa: E402

linux = pytest.mark.skipif(sys.platform != "linux", reason="forks, and what /proc tells of processes")


@linux
def test_killed_damaged_and_set_back_a_grid_ends_like_an_undisturbed_one(tmp_path: Path) -> None:
    only = "one process,clock,versions,before reading"
    script = [sys.executable, str(ROOT / "scripts" / "faults.py"), "--kills=8"]
    command = [*script, f"--only={only}", f"--out={tmp_path / 'out'}"]
    done = subprocess.run(command, capture_output=True, text=True)  # noqa: S603 - a list of our own words, and no shell
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "out").read_text())
    assert {name: found["total"][name] for name in BROKEN} == dict.fromkeys(BROKEN, 0)
    injected = {name: tally["injected"] for name, tally in found["faults"].items()}
    assert injected.pop("damaged before reading") == 40 + 4 + 8 + 8 + 8 + 5 * 4  # bits, and 4 other ways
    assert injected == {"killed, one process": 8, "clock set back": 1, "two versions of the code": 1}


@pytest.mark.parametrize(
    ("found", "written", "expected"),
    [
        ({"a": "1", "b": "2"}, "k\nl\n", (0, 0, 0)),
        ({"a": "1"}, "k\n", (1, 0, 0)),
        ({"a": "1", "b": "2"}, "k\nl\nk\n", (0, 1, 0)),
        ({"a": "1", "b": "3"}, "k\nl\n", (0, 0, 1)),
        ({"a": "1", "b": "2", "c": "4"}, "k\nl\n", (0, 0, 1)),
    ],
)
def test_lost_doubled_and_wrong_cells_are_counted(
    found: dict[str, str], written: str, expected: tuple[int, int, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BENCH_CACHE", "unused")  # the world sets its own, and the test puts it back
    world, tally = World(tmp_path, seed=1), Tally()
    monkeypatch.setattr(world, "found", lambda runs: found)
    world.written.write_text(written)
    world.compare(tally, {"a": "1", "b": "2"})
    assert (tally.lost, tally.doubled, tally.wrong) == expected
    assert tally.broken == sum(expected)


def test_damages_are_what_they_say() -> None:
    from random import Random

    content = bytes(range(256)) * 4
    empty, cut, garbled, inside, *flipped = damages(Random(1), content, 50)  # noqa: S311 - for faults
    assert empty == b"" and content.startswith(cut) and len(cut) < len(content)
    assert garbled != content and inside != content
    for damaged in flipped:
        differs = [a ^ b for a, b in zip(damaged, content, strict=True) if a != b]
        assert len(differs) == 1 and differs[0].bit_count() == 1


def test_the_committed_run_injected_every_fault_and_nothing_broke() -> None:
    found: dict[str, Any] = json.loads((ROOT / "results" / "faults.json").read_text(encoding="utf-8"))
    assert set(found["faults"]) == set(FAULTS)
    for name, tally in found["faults"].items():
        assert tally["injected"] > 0
        assert {count: tally[count] for count in BROKEN} == dict.fromkeys(BROKEN, 0), name
        assert not tally["notes"], name
    text = " ".join((ROOT / "docs" / "testing.md").read_text(encoding="utf-8").split())
    assert {count: found["total"][count] for count in BROKEN} == dict.fromkeys(BROKEN, 0)
    for count, n in found["total"].items():
        assert f"{n} {count}" in text  # what the docs say is what the file says
