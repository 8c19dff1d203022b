"""Records: one JSON file per cell, written whole or not at all, never written twice once done."""

from __future__ import annotations

import contextlib
import hashlib
import json
import platform
import re
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench import __version__
from bench.files import file_name, write_whole

if TYPE_CHECKING:
    import torch

SCHEMA = 1


def cell_key(config: dict[str, Any]) -> str:
    """What a cell is: the hash of everything that its numbers follow from."""
    text = json.dumps(config, sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()


class RecordStore:
    """The records below a folder: RESULTS/<suite>/<backbone>/<method>/<shots>shot-seed<seed>-<key>.json."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, cell: dict[str, Any], key: str) -> Path:
        folder = self.folder.joinpath(*(file_name(str(cell[k])) for k in ("suite", "backbone", "method")))
        return folder / f"{cell['shots']}shot-seed{cell['seed']}-{key}.json"

    def read(self, cell: dict[str, Any], key: str) -> dict[str, Any] | None:
        """The record of a cell; None when there is none, or only a damaged one (then the cell runs again)."""
        try:
            record = json.loads(self.path(cell, key).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return record if isinstance(record, dict) and record.get("key") == key else None

    def beside(self, cell: dict[str, Any]) -> list[dict[str, Any]]:
        """All records of the cell's suite, backbone, method, shots and seed, whatever else they differ in."""
        there = self.path(cell, "*")
        found = [self.read(cell, path.stem.rpartition("-")[2]) for path in sorted(there.parent.glob(there.name))]
        return [record for record in found if record is not None]

    def write(self, record: dict[str, Any]) -> Path:
        """Write a record, whole or not at all."""
        path = self.path(record["cell"], record["key"])
        write_whole(path, json.dumps(record, indent=1, ensure_ascii=False) + "\n")
        return path


def versions() -> dict[str, str]:
    """Versions of what the numbers depend on."""
    found = {"python": platform.python_version(), "prompt-bench": __version__}
    names = ("torch", "torchvision", "open_clip_torch", "timm", "numpy", "pillow", "safetensors")
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def processor() -> str:
    """The CPU's name: times and the rounding of sums depend on it."""
    with contextlib.suppress(OSError):
        found = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())  # Linux
        if found:
            return found[1]
    return platform.processor() or platform.machine()


class PeakMemory:
    """Peak memory of this process, or of the GPU, in MB (1,000,000 bytes), since the object was made.

    On macOS it is the process's since its start, and Windows has nothing in the standard library for it.

    Of Apple's GPU, which keeps no peak: what its driver holds for this process in the end.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        if device.type == "cuda":
            import torch

            torch.cuda.reset_peak_memory_stats(device)
        elif device.type == "cpu":
            with contextlib.suppress(OSError):  # Linux: forget the peak so far; elsewhere it is the process's
                Path("/proc/self/clear_refs").write_text("5")

    def megabytes(self) -> float | None:
        if self.device.type != "cpu":
            import torch

            if self.device.type == "mps":
                return torch.mps.driver_allocated_memory() / 1e6
            return torch.cuda.max_memory_allocated(self.device) / 1e6
        try:
            status = Path("/proc/self/status").read_text()
            return int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0]) * 1024 / 1e6  # the kernel's kB has 1024 bytes
        except (OSError, IndexError):
            return _peak_since_start()


def _peak_since_start() -> float | None:
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6  # bytes on macOS, kB elsewhere
