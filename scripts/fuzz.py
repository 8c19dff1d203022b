"""Bounded fuzz runs of every reader of outside files, and of the command line: `make fuzz`.

The rule: an input is read, or refused in a line. Never another exception or a crash, more than 5 s of work, a hang,
memory over 1 GB, a file written outside of the reader's folder, a connection, a program started or a pickle read.

    python scripts/fuzz.py                      all readers, 100 000 inputs, counts into results/fuzz.json
    python scripts/fuzz.py --only splits -n 500 --seed 7

Every input follows from the seed, the reader's name and its number. Inputs that break the rule are written to
build/fuzz/; mended ones become tests (tests/test_fuzz.py, and those of each reader).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import mmap
import os
import platform
import resource
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Iterator
from datetime import date
from importlib.metadata import version
from pathlib import Path
from random import Random
from typing import Any

ROOT = Path(__file__).parents[1]
SECONDS, MEGABYTES = 5, 1000
KEPT = ROOT / "build" / "fuzz"
LIBRARIES = ("torch", "open_clip_torch", "safetensors", "numpy", "scipy", "pandas", "pyarrow", "pillow", "pyyaml")


class Broken(BaseException):
    """The rule is broken; no `Exception`, so that no reader takes it for its own."""


class Watch:
    """What an audit hook sees of the code that reads: writes outside of a folder, connections, programs, pickles."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.on = str(folder.resolve()), False
        sys.addaudithook(self.hook)

    def hook(self, event: str, args: tuple[Any, ...]) -> None:
        if not self.on:
            return
        if event in (
            "socket.connect",
            "socket.getaddrinfo",
            "subprocess.Popen",
            "os.system",
            "pickle.find_class",
            "os.exec",
        ):
            raise Broken(f"{event}: {args!r:.200}")
        if event == "open" and isinstance(args[1], str | None) and isinstance(args[2], int):
            writes = args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
            if writes and isinstance(args[0], str | bytes):
                self.check(args[0])
        elif event in ("os.mkdir", "os.remove", "os.rmdir", "os.truncate", "os.chmod", "os.chown"):
            self.check(args[0], args[-1] if event in ("os.remove", "os.rmdir", "os.mkdir") else -1)
        elif event in ("os.rename", "os.link", "os.symlink"):
            self.check(args[1], args[-1])

    def check(self, path: Any, folder: int = -1) -> None:
        """folder : a file descriptor that the path is relative to."""
        if isinstance(path, int):
            path = f"/proc/self/fd/{path}"
        above = os.readlink(f"/proc/self/fd/{folder}") if folder >= 0 else ""
        full = os.path.realpath(os.path.join(above, os.fsdecode(path)))
        if not full.startswith((self.folder, "/dev/null", "/proc/self/clear_refs")):
            raise Broken(f"writes {full}")

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        self.on = True
        try:
            yield
        finally:
            self.on = False


def _late(number: int, frame: Any) -> None:
    raise Broken(f"takes more than {SECONDS} s of work")


def try_input(reader: Any, data: bytes, watch: Watch | None) -> str:
    """Feed one input: "read", "refused", or what is wrong with it."""
    reader.file.parent.mkdir(parents=True, exist_ok=True)
    reader.file.write_bytes(data)
    before = signal.signal(signal.SIGPROF, _late)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        with warnings.catch_warnings(), watch.watching() if watch else contextlib.nullcontext():
            warnings.simplefilter("ignore")
            reader.read()
        return "read"
    except reader.refuses:
        return "refused"
    except (Exception, Broken) as error:
        signal.setitimer(signal.ITIMER_PROF, 0)
        place = traceback.extract_tb(error.__traceback__)[-1]
        own = [
            f
            for f in traceback.extract_tb(error.__traceback__)
            if "/bench/" in f.filename or "/datasets/" in f.filename
        ]
        where = own[-1] if own else place
        return f"{type(error).__name__}: {error!s:.200} ({Path(where.filename).name}:{where.lineno})"
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def make_input(reader: Any, name: str, number: int, seed: int) -> bytes:
    return reader.make(Random(f"{seed}/{name}/{number}"))  # noqa: S311 - a seeded draw, no secret


def made(name: str, folder: Path) -> Any:
    """A reader with its world in a folder; the user's cache and data are not touched."""
    os.environ.update(BENCH_CACHE=str(folder / "cache"), HF_HUB_OFFLINE="1", OMP_NUM_THREADS="1")
    os.environ.pop("BENCH_DATA", None)
    if str(ROOT / "scripts") not in sys.path:
        sys.path.insert(0, str(ROOT / "scripts"))
    import torch
    from fuzz_readers import READERS

    torch.set_num_threads(1)
    folder.mkdir(parents=True, exist_ok=True)
    return READERS[name][0](folder)


def child(name: str, first: int, upto: int, seed: int, folder: Path) -> None:
    """Feed inputs first … upto - 1; a line a finding on standard output, the number at work in a mapped file."""
    os.environ["MPLCONFIGDIR"] = str(folder)  # matplotlib makes its folder, and asks for fonts, when first imported
    import matplotlib.font_manager  # noqa: F401

    reader = made(name, folder / "world")
    (folder / "at").write_bytes(bytes(8))
    with (folder / "at").open("r+b") as file:
        at = mmap.mmap(file.fileno(), 8)
    watch = Watch(folder)
    with open("/proc/self/statm") as statm:
        now = int(statm.read().split()[0]) * resource.getpagesize()
    limit = now + MEGABYTES * 10**6
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    counts = {"read": 0, "refused": 0}
    for number in range(first, upto):
        at[:] = struct.pack("<Q", number)
        data = make_input(reader, name, number, seed)
        said = try_input(reader, data, watch)
        if said in counts:
            counts[said] += 1
        else:
            print(json.dumps({"number": number, "said": said}), flush=True)
    print(json.dumps(counts), flush=True)


def run(name: str, n: int, seed: int) -> dict[str, Any]:
    """All inputs of a reader, in processes that may die."""
    found: dict[str, Any] = {"inputs": 0, "read": 0, "refused": 0, "faults": []}
    start, first = time.monotonic(), 0
    while first < n:
        folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
        command = [sys.executable, __file__, "--child", name, str(first), str(n), str(seed), str(folder)]
        with (folder / "out").open("w") as out:
            aside = {**os.environ, "TMPDIR": str(folder)}  # libraries make temporary folders, too
            process = subprocess.Popen(command, stdout=out, stderr=subprocess.DEVNULL, env=aside)  # noqa: S603 - a list of our own words, and no shell
            last, since = -1, time.monotonic()
            while process.poll() is None:
                time.sleep(0.2)
                at = (folder / "at").read_bytes() if (folder / "at").exists() else b""
                number = struct.unpack("<Q", at)[0] if len(at) == 8 else -1
                if number != last:
                    last, since = number, time.monotonic()
                elif time.monotonic() - since > (60 if number <= 0 else 3 * SECONDS):
                    process.kill()  # it hangs where no signal's handler is called
                    process.wait()
        lines = [json.loads(line) for line in (folder / "out").read_text().splitlines() if line.startswith("{")]
        found["faults"] += [line for line in lines if "number" in line]
        ended = [line for line in lines if "read" in line]
        if ended:
            found["read"] += ended[0]["read"]
            found["refused"] += ended[0]["refused"]
            first = n
        else:  # of a process that died it is not known how many were read and how many refused
            at = (folder / "at").read_bytes() if (folder / "at").exists() else b""
            number = struct.unpack("<Q", at)[0] if len(at) == 8 else first
            found["faults"].append({"number": number, "said": f"the process ended with {process.returncode}"})
            first = number + 1
        shutil.rmtree(folder, ignore_errors=True)
    found["inputs"], found["seconds"] = n, round(time.monotonic() - start, 1)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-n", type=int, default=100_000, help="inputs in all (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the inputs (default: %(default)s)")
    parser.add_argument("--only", nargs="+", metavar="READER", help="some of the readers")
    parser.add_argument(
        "--out", type=Path, help="where the counts go (default: results/fuzz.json, of a run of all readers)"
    )
    parser.add_argument("--child", nargs=5, help=argparse.SUPPRESS)
    a = parser.parse_args()
    if a.child:
        name, first, upto, seed, folder = a.child
        child(name, int(first), int(upto), int(seed), Path(folder))
        return 0
    sys.path.insert(0, str(ROOT / "scripts"))
    from fuzz_readers import READERS

    names = a.only or list(READERS)
    if unknown := [name for name in names if name not in READERS]:
        parser.error(f"--only {unknown[0]!r}: one of {', '.join(map(repr, READERS))}")
    total = sum(READERS[name][1] for name in names)
    readers = {}
    for name in names:
        n = -(-round(a.n * READERS[name][1]) // total)
        readers[name] = found = run(name, int(n), a.seed)
        counts = f"{found['inputs']} inputs, {found['read']} read, {found['refused']} refused"
        print(f"{name}: {counts}, {len(found['faults'])} faults, {found['seconds']} s", flush=True)
        kinds: dict[str, list[int]] = {}
        for fault in found["faults"]:
            kinds.setdefault(fault["said"], []).append(fault["number"])
        for said, numbers in sorted(kinds.items(), key=lambda kind: -len(kind[1]))[:20]:
            print(f"    {len(numbers)} x {said}, e.g. input {numbers[0]}", flush=True)
            keep(name, numbers[0], a.seed)
    inputs, faults = (sum(len(r[k]) if k == "faults" else r[k] for r in readers.values()) for k in ("inputs", "faults"))
    print(f"{inputs} inputs, {faults} faults")
    out = a.out or (ROOT / "results" / "fuzz.json" if not a.only else None)
    if out:
        versions = {"python": platform.python_version(), **{name: version(name) for name in LIBRARIES}}
        for found in readers.values():
            found["faults"] = len(found["faults"])
        content = {
            "date": date.today().isoformat(),
            "seed": a.seed,
            "inputs": inputs,
            "faults": faults,
            "limits": {"seconds": SECONDS, "megabytes": MEGABYTES},
            "readers": readers,
            "versions": versions,
        }
        out.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return 1 if faults else 0


def keep(name: str, number: int, seed: int) -> None:
    """Write an input for a look at it, and for a test."""
    KEPT.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        script = (
            f"import sys; sys.path.insert(0, {str(ROOT / 'scripts')!r}); import fuzz; from pathlib import Path\n"
            f"reader = fuzz.made({name!r}, Path({folder!r}))\n"
            f"Path({str(KEPT)!r}, '{name.replace(' ', '-')}-{seed}-{number}').write_bytes("
            f"fuzz.make_input(reader, {name!r}, {number}, {seed}))"
        )
        subprocess.run([sys.executable, "-c", script], check=False, capture_output=True)  # noqa: S603 - a list of our own words, and no shell


if __name__ == "__main__":
    sys.exit(main())
