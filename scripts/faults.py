"""Faults that days of computing bring, injected into runs of a small grid: `make test-faults`.

The rule: whatever is killed, paused, full, missing or damaged, the same command ends with the records of an undisturbed
run. No cell is lost, none is computed twice, no number is another; what cannot go on says why in one line.

    python scripts/faults.py                        everything; counts into results/faults.json
    python scripts/faults.py --only damaged --kills 20 --seed 7

Every process is a fork of one that has imported the bench, so that 200 kills take minutes. What is done follows from
the seed, but where it hits a process depends on how fast the machine is.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import platform
import re
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from datetime import date
from itertools import count
from pathlib import Path

from faults_damage import damaged_before_a_run, damaged_before_reading, damaged_checkpoints
from faults_world import GRID, ROOT, Tally, World, end, kill

# ---- processes that end, stop, or see another time -------------------------------------------------------------


def killed(world: World, tally: Tally, expected: dict[str, str], kills: int) -> None:
    """One process after another on one folder, each killed at a random time, or at a change of a file."""
    for campaign in count():
        if tally.injected >= kills or time.monotonic() > world.until:
            return
        world.clear(features=campaign % 4 == 0)  # most runs are about cells, some about features, too
        code = -signal.SIGKILL
        while code == -signal.SIGKILL and tally.injected < kills:
            if world.random.random() < 0.5:
                code = end(world.begin(change=world.random.randint(1, 120)))
            else:
                pid = world.begin()
                time.sleep(world.random.uniform(0, world.usual))
                kill(pid)
                code = end(pid)
            tally.injected += code == -signal.SIGKILL
        world.settle(tally)
        world.compare(tally, expected)


def killed_among_four(world: World, tally: Tally, expected: dict[str, str], kills: int) -> None:
    """Four processes on one folder; one after another is killed, and a new one takes its place."""
    for campaign in count():
        if tally.injected >= kills or time.monotonic() > world.until:
            return
        world.clear(features=campaign % 4 == 0)
        pids = [world.begin() for _ in range(4)]
        for _ in range(min(20, kills - tally.injected)):
            time.sleep(world.random.uniform(0, world.usual / 4))
            place = world.random.randrange(4)
            kill(pids[place])
            code = end(pids[place])
            tally.injected += code == -signal.SIGKILL
            tally.crashed += code not in (0, -signal.SIGKILL)
            pids[place] = world.begin()
        tally.crashed += sum(end(pid) != 0 for pid in pids)
        world.compare(tally, expected)


def worker_killed(world: World, tally: Tally, expected: dict[str, str], kills: int) -> None:
    """A worker of loky, Dask and Ray is killed in the midst of a cell; the run goes on."""
    for backend in ("loky", "dask", "ray"):
        if importlib.util.find_spec({"dask": "distributed"}.get(backend, backend)) is None and backend != "loky":
            tally.notes.append(f"{backend} is not installed: not tried")
            continue
        world.clear(features=False)
        run = world.begin([*[word for word in GRID if word != "--quiet"], "--jobs=2", f"--backend={backend}"])
        workers: list[int] = []
        while not workers and not os.waitid(os.P_PID, run, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            time.sleep(0.002)
            for claim in world.runs.rglob("*.claim"):
                with contextlib.suppress(OSError, ValueError):
                    workers.append(json.loads(claim.read_text())["pid"])
        for pid in workers[:1]:
            os.kill(pid, signal.SIGKILL)
            tally.injected += 1
        code = end(run)
        said = (world.said / f"{world.pids}.txt").read_text(errors="replace")
        if code:
            tally.crashed += 1
            tally.notes.append(f"{backend}: exit code {code}: {said[-1500:]}")
        computed = Counter(re.findall(r"key (\w+)", said))
        tally.doubled += computed.total() - len(computed)
        world.compare(tally, expected)


def paused(world: World, tally: Tally, expected: dict[str, str], kills: int) -> None:
    """A process that is stopped in the midst of a cell keeps it: the other waits, and both end well."""
    for _ in range(max(1, kills // 50)):
        world.clear()
        first, second = world.begin(), world.begin()
        time.sleep(world.usual * world.random.uniform(0.2, 0.8))
        os.kill(first, signal.SIGSTOP)
        tally.injected += 1
        time.sleep(world.usual)
        os.kill(first, signal.SIGCONT)
        tally.crashed += sum(end(pid) != 0 for pid in (first, second))
        world.compare(tally, expected)


def paused_beyond_its_lease(world: World, tally: Tally, expected: dict[str, str], kills: int) -> None:
    """As if on two hosts: the cell of a process that is stopped for too long is taken over, and it writes no other."""

    def hosts(name: str) -> Callable[[], None]:
        def other() -> None:
            from bench import claims

            claims.LEASE, claims.RENEW = 1.0, 0.2
            claims._host = lambda: name  # type: ignore[assignment]

        return other

    for _ in range(max(1, kills // 50)):
        world.clear()
        first = world.begin(before=hosts("a"))
        time.sleep(world.usual * world.random.uniform(0.3, 0.8))
        os.kill(first, signal.SIGSTOP)
        tally.injected += 1
        code = end(world.begin(before=hosts("b")))
        os.kill(first, signal.SIGCONT)
        tally.crashed += (code != 0) + (end(first) != 0)
        world.compare(tally, expected)


def clock_set_back(world: World, tally: Tally, expected: dict[str, str], kills: int) -> None:
    """A killed run goes on by a clock that is a day behind, within files of tomorrow."""

    def yesterday() -> None:
        now, behind = time.time, time.time_ns
        time.time = lambda: now() - 86_400  # type: ignore[assignment]
        time.time_ns = lambda: behind() - 86_400 * 10**9  # type: ignore[assignment]

    world.clear()
    pid = world.begin()
    time.sleep(world.usual / 2)
    kill(pid)
    end(pid)
    tomorrow = time.time() + 86_400
    for path in [*world.runs.rglob("*"), *(world.cache / "features").rglob("*")]:
        os.utime(path, (tomorrow, tomorrow))
    tally.injected += 1
    world.settle(tally, before=yesterday)
    world.compare(tally, expected)


def two_versions(world: World, tally: Tally, expected: dict[str, str], kills: int) -> None:
    """Two versions of the code on one folder at the same time: each has its own cells, of the right numbers."""

    def newer() -> None:
        from bench import cells as module

        module.numerics = lambda: "2"  # type: ignore[assignment]

    world.clear()
    world.settle(tally, runs=world.folder / "newer", before=newer)
    new = world.found(world.folder / "newer")
    tally.wrong += len(new.keys() & expected.keys())
    world.clear()
    pids = [world.begin(), world.begin(before=newer)]
    tally.injected += 1
    tally.crashed += sum(end(pid) != 0 for pid in pids)
    world.compare(tally, {**expected, **new})


# ---- disks -----------------------------------------------------------------------------------------------------


def mounted(folder: Path, options: str) -> bool:
    """Put a small disk of its own at a folder; False where that is not allowed."""
    folder.mkdir(parents=True, exist_ok=True)
    command = f"mount -t tmpfs -o {options} faults '{folder}' 2>/dev/null"
    return os.system(command) == 0  # noqa: S605 - our own words


def remount(folder: Path, options: str) -> None:
    os.system(f"mount -o remount,{options} '{folder}'")  # noqa: S605 - our own words


def unmount(folder: Path) -> None:
    os.system(f"umount '{folder}'")  # noqa: S605 - our own words


def disks(world: World, tally: Tally, expected: dict[str, str], kills: int) -> None:
    """A disk that fills up, or cannot be written: told in a line; with room again, the same command ends well."""
    for what in ("runs", "cache/features"):
        for options, then in (("size=64k", "size=50m"), ("size=200k", "size=50m"), ("size=50m,ro", "rw")):
            world.clear()
            disk = world.folder / what
            if not mounted(disk, options):
                tally.notes.append("no disks could be mounted here: not tried")
                return
            try:
                tally.injected += 1
                code, said = world.run()
                told = code in (1, 2) and "Traceback" not in said
                tally.refused += told
                if code and not told:
                    tally.crashed += 1
                    tally.notes.append(f"{what} {options}: exit code {code}: {said[-1500:]}")
                remount(disk, then)
                world.settle(tally)
                world.compare(tally, expected)
            finally:
                unmount(disk)


def folders_gone(world: World, tally: Tally, expected: dict[str, str], kills: int) -> None:
    """Results or features are removed while a run is at work; a file stands where the results should be."""
    for what in ("runs", "cache/features"):
        world.clear()
        pid = world.begin()
        time.sleep(world.usual / 2)
        shutil.rmtree(world.folder / what, ignore_errors=True)
        tally.injected += 1
        tally.refused += end(pid) != 0
        said = (world.said / f"{world.pids}.txt").read_text(errors="replace")
        if "Traceback" in said:
            tally.crashed += 1
            tally.notes.append(f"{what} removed: {said[-1500:]}")
        world.written.unlink(missing_ok=True)  # what was removed is rightly computed again
        world.settle(tally)
        world.compare(tally, expected)
    world.clear()
    world.runs.write_text("")
    tally.injected += 1
    code, said = world.run()
    tally.refused += code == 2
    tally.crashed += code != 2 or "Traceback" in said
    world.runs.unlink()
    world.settle(tally)
    world.compare(tally, expected)


def image_changed_in_place(world: World, tally: Tally, expected: dict[str, str], kills: int) -> None:
    """At its size and with its times: other cells, never the old ones' features; once it is back, the old cells."""
    world.clear()
    world.settle(tally)
    split = json.loads(next((world.cache / "demo").rglob("split_zhou_DemoColour.json")).read_text())
    images = next((world.cache / "demo").rglob("split_zhou_DemoColour.json")).parent / "images"
    tested = [images / path for path, *_ in split["test"]]
    sizes: dict[int, Path] = {}
    first, second = next(pair for p in tested if (pair := (sizes.setdefault(p.stat().st_size, p), p))[0] != p)
    old, stat = first.read_bytes(), first.stat()
    for content, kept in ((second.read_bytes(), False), (old, True)):
        first.write_bytes(content)
        os.utime(first, ns=(stat.st_atime_ns, stat.st_mtime_ns))
        tally.injected += 1
        world.written.unlink(missing_ok=True)
        world.settle(tally)
        n = len(world.written.read_text().split()) if world.written.exists() else 0
        tally.wrong += n != (0 if kept else len(expected))
    found = world.found()
    tally.lost += len(expected.keys() - found.keys())
    tally.wrong += sum(found[path] != text for path, text in expected.items() if path in found)


FAULTS: dict[str, Callable[[World, Tally, dict[str, str], int], None]] = {
    "killed, one process": killed,
    "killed, four processes": killed_among_four,
    "worker killed": worker_killed,
    "paused": paused,
    "paused beyond its lease": paused_beyond_its_lease,
    "clock set back": clock_set_back,
    "two versions of the code": two_versions,
    "disks full or read-only": disks,
    "folders gone": folders_gone,
    "image changed in place": image_changed_in_place,
    "damaged before a run": damaged_before_a_run,
    "damaged checkpoints": damaged_checkpoints,
    "damaged before reading": damaged_before_reading,
}


def inject(
    folder: Path, kills: int, minutes: float, seed: int, only: str, show: Callable[[str], object]
) -> dict[str, Tally]:
    """The faults, one after another.

    kills, minutes : how many of one process, and for how long at most; the same of four. Others in proportion.
    """
    world = World(folder, seed)
    code, said = world.run()  # renders the demo's images
    if code:
        raise RuntimeError(said)
    world.clear(features=False)
    began = time.monotonic()
    world.run()
    world.usual = time.monotonic() - began
    expected = world.found()
    show(f"{len(expected)} cells, {world.usual:.1f} s undisturbed")
    tallies = {}
    for name, fault in FAULTS.items():
        if not any(part.strip() in name for part in only.split(",")):
            continue
        began, tally = time.monotonic(), Tally()
        world.until = began + 60 * minutes
        fault(world, tally, expected, kills)
        tally.seconds = round(time.monotonic() - began, 1)
        tallies[name] = tally
        counts = {key: n for key, n in asdict(tally).items() if key != "notes"}
        show(f"{name}: {', '.join(f'{n} {key}' for key, n in counts.items())}")
        for text in tally.notes:
            show(f"  {text}")
    return tallies


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200, help="of one process, and as many of four (default: 200)")
    parser.add_argument("--minutes", type=float, default=10, help="for each of the two (default: 10)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default="", metavar="TEXT", help="faults with it in their name; several with commas")
    parser.add_argument("--out", type=Path, help="where the counts go; those of other faults stay there")
    args = parser.parse_args(argv)
    import bench.cli
    import bench.runner  # noqa: F401 - before the forks

    with tempfile.TemporaryDirectory() as folder:
        asked = args.kills, args.minutes, args.seed, args.only
        tallies = inject(Path(folder), *asked, lambda text: print(text, flush=True))
    out = args.out or ROOT / "results" / "faults.json"
    machine = {"system": platform.system(), "python": platform.python_version(), "cores": os.cpu_count()}
    about = {"date": date.today().isoformat(), "seed": args.seed, **machine}
    faults = json.loads(out.read_text(encoding="utf-8"))["faults"] if out.exists() else {}
    faults |= {name: {**asdict(tally), **about} for name, tally in tallies.items()}
    counted = ("injected", "refused", "lost", "doubled", "wrong", "crashed")
    total = {name: sum(tally[name] for tally in faults.values()) for name in counted}
    content = {"total": total, "faults": {name: faults[name] for name in FAULTS if name in faults}}
    out.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    print(", ".join(f"{n} {name}" for name, n in total.items()))
    return 1 if any(tally.broken for tally in tallies.values()) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
