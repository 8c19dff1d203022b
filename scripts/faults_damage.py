"""Files that are emptied, truncated, garbled or have flipped bits (faults.py)."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

from faults_world import GRID, QUICK, Tally, World, end


def damages(random: Random, content: bytes, bits: int) -> list[bytes]:
    """A file emptied, truncated, garbled, and with single flipped bits."""
    cut, place = random.randrange(len(content)), random.randrange(len(content))
    garbled = content[:place] + random.randbytes(64) + content[place + 64 :]
    made = [b"", content[:cut], random.randbytes(len(content)), garbled]
    for _ in range(bits):
        bit = random.randrange(8 * len(content))
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << bit % 8
        made.append(bytes(flipped))
    return made


def damaged_before_a_run(world: World, tally: Tally, expected: dict[str, str], kills: int) -> None:
    """Records, features, hashes, claims and checkpoints: the run makes anew what it cannot trust, and nothing else."""
    few = max(1, kills // 50)
    world.clear()
    pid = world.begin(["run", *GRID[1:3], "--method=coop", "--shots=2", "--seeds=1", *GRID[6:]], change=10**6)
    end(pid)
    world.clear()
    world.settle(tally)
    for path in world.random.sample(sorted(world.runs.rglob("*.json")), 2):
        content = path.read_bytes()
        for damaged in damages(world.random, content, few):
            path.write_bytes(damaged)
            world.written.unlink(missing_ok=True)
            tally.injected += 1
            world.settle(tally)
            world.compare(tally, expected, may_write=1)
    world.settle(tally, QUICK, world.folder / "quick")
    quick = world.found(world.folder / "quick")
    files = sorted((world.cache / "features").rglob("*.safetensors"))
    for path in [*world.random.sample(files, 2), world.cache / "features" / "hashes.sqlite"]:
        for damaged in damages(world.random, path.read_bytes(), few):
            content = path.read_bytes()
            path.write_bytes(damaged)
            shutil.rmtree(world.folder / "quick")
            world.written.unlink(missing_ok=True)
            tally.injected += 1
            world.settle(tally, QUICK, world.folder / "quick")
            world.compare(tally, quick, world.folder / "quick")
            path.write_bytes(content)
    shutil.rmtree(world.folder / "quick")


def damaged_checkpoints(world: World, tally: Tally, expected: dict[str, str], kills: int) -> None:
    """A run is killed with a checkpoint, which is then damaged: the cell starts anew, or goes on rightly."""
    while tally.injected < max(2, kills // 25):
        world.clear(features=False)
        for _ in range(50):
            code = end(world.begin(change=world.random.randint(20, 120)))
            there = list(world.runs.rglob("*.checkpoint"))
            if there or not code:
                break
        for path in there:
            path.write_bytes(world.random.choice(damages(world.random, path.read_bytes(), 4)))
            tally.injected += 1
        world.settle(tally)
        world.compare(tally, expected)


def damaged_before_reading(world: World, tally: Tally, expected: dict[str, str], kills: int) -> None:
    """What commands read, each with many single flipped bits: refused in a line, or read as it was written."""
    world.clear()
    world.settle(tally)
    found = world.ask(lambda: read_damaged(world, kills))
    for name, n in found.items():
        setattr(tally, name, getattr(tally, name) + n)


def read_damaged(world: World, kills: int) -> dict[str, int]:
    """For `damaged_before_reading`."""
    import bench
    from bench.errors import UserError
    from bench.features.cache import read_block
    from bench.packs import pack, packed
    from bench.predictions import read
    from bench.records import read_record

    record = next(iter(world.runs.rglob("coop/*.json")))
    pack(world.runs, world.folder / "pack.parquet")

    def state(path: Path) -> Any:
        return {name: value.tolist() for name, value in bench.load_cell(str(path)).method.state().items()}  # type: ignore[union-attr]

    def predictions(path: Path) -> Any:
        frame = read(path)
        return frame.to_csv(), str(sorted(frame.attrs.items()))

    def block(path: Path) -> Any:
        features = read_block(path)
        if features is None:
            raise ValueError
        return features.tolist()

    readers: dict[Path, tuple[Callable[[Path], Any], int]] = {
        record: (lambda path: read_record(path).to_json(), 5 * kills),
        record.with_suffix(".safetensors"): (state, kills // 2),
        record.with_suffix(".predictions.parquet"): (predictions, kills),
        world.folder / "pack.parquet": (lambda path: list(packed(path)), kills),
        next(iter((world.cache / "features").rglob("*.safetensors"))): (block, kills),
    }
    found = Counter[str]()
    for path, (reader, bits) in readers.items():
        content, expected = path.read_bytes(), reader(path)
        for damaged in damages(world.random, content, bits):
            path.write_bytes(damaged)
            found["injected"] += 1
            try:
                found["wrong"] += reader(path) != expected
            except (UserError, ValueError, OSError) as error:
                found["refused"] += 1
                found["crashed"] += isinstance(error, UserError) and "\n" in str(error)
        path.write_bytes(content)
    return dict(found)
