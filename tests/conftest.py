"""A tiny world for the tests: a CLIP of random weights, a suite of tiny pictures, a cache of its own."""

from __future__ import annotations

import errno
import gzip
import ipaddress
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

CLASSES = {
    "colour": ("red_paint", "green paint", "blue paint"),
    "shade": ("dark", "grey", "light"),
    "stripes": ("lying", "standing", "leaning"),
}
IMAGES_PER_CLASS = 12  # the rule divides them into 6, 2 and 4

SUITE = """\
title: Tiny
recipe: {epochs: 2, lr: 0.5, batch: 8}
defaults:
  reader: {kind: folders}
tasks:
  - {name: Colour, folder: colour, template: "a photo of {}.", task_name: colour recognition, classes: 3,
     path: [paint]}
  - {name: Shade, folder: shade, template: "{} things.", task_name: shade recognition, metric: mean_acc, path: [paint]}
  - {name: Stripes, folder: stripes, template: "a photo of {} lines.", task_name: pattern recognition}
"""

MODEL: dict[str, Any] = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 32, "layers": [1, 1, 1, 1], "width": 8, "patch_size": None},
    "text_cfg": {
        "context_length": 77,
        "vocab_size": 516,  # 2 · 256 bytes, 2 merges, SOT and EOT
        "width": 32,
        "heads": 2,
        "layers": 2,
        "tokenizer_kwargs": {"bpe_path": "tiny-bpe.txt.gz"},
    },
}

# Kept small: one cell of zero-shot, and two shot counts and seeds of CoOp.
GRID: dict[str, Any] = {"methods": ["zero-shot", "coop"], "shots": [1, 2], "seeds": [1, 2]}
CELLS = 5

# What differs between two runs of one cell, and the checksum, which is of that, too.
MEASURED = ("run", "finished", "peak_memory_mb", "train_seconds", "test_seconds", "feature_seconds", "checksum")


@dataclass(frozen=True)
class Tiny:
    """Where the tiny world stands, and what tests do with it."""

    root: Path
    n_cells: int = CELLS

    @property
    def suite(self) -> str:
        return str(self.root / "tiny.yaml")

    @property
    def backbone(self) -> str:
        return str(self.root / "tiny-clip.json")

    @property
    def data(self) -> Path:
        return self.root / "data"

    @property
    def arguments(self) -> dict[str, Any]:
        """For `bench.run`."""
        return {"suite": self.suite, "backbone": self.backbone, "data": str(self.data), **GRID}

    def run(self, results: Path, **changes: Any) -> Any:
        import bench

        return bench.run(results=str(results), **{"quiet": True, **self.arguments, **changes})

    def command(self, results: Path, *more: str) -> list[str]:
        """The same grid for `python -m bench`."""
        where = ["--suite", self.suite, "--backbone", self.backbone, "--data", str(self.data)]
        grid = [f"--{name}={','.join(map(str, values))}" for name, values in GRID.items()]
        return ["run", *where, *grid, "--results", str(results), *more]

    def division(self, task: str = "colour") -> dict[str, list[list[Any]]]:
        """Which images of a task are in which part, in CoOp's form."""
        from bench.datasets import load_suite, load_tasks
        from bench.datasets.splitfiles import coop_form

        return coop_form(load_tasks(load_suite(self.suite), self.data, [task])[0].split)

    def images(self, task: str = "colour") -> list[Path]:
        return sorted((self.data / task).glob("*/*.png"))

    def model(self, name: str, seed: int = 0, **changes: Any) -> str:
        """Another backbone beside the first: the path of its JSON."""
        return make_model(self.root, name, seed, **changes)

    @staticmethod
    def records(results: Path) -> dict[str, dict[str, Any]]:
        """Every record below a folder, by its path."""
        files = sorted(results.rglob("*.json"))
        return {str(f.relative_to(results)): json.loads(f.read_text(encoding="utf-8")) for f in files}

    @classmethod
    def numbers(cls, results: Path) -> dict[str, dict[str, Any]]:
        """Every record without what differs between two runs of one cell: times, memory and what else was run."""
        records = cls.records(results).items()
        return {path: {k: v for k, v in record.items() if k not in MEASURED} for path, record in records}


def make_tiny(root: Path) -> Tiny:
    """Model, suite and pictures, the same at every call."""
    make_model(root, "tiny-clip")
    (root / "tiny.yaml").write_text(SUITE, encoding="utf-8")
    rng = np.random.default_rng(0)
    for task, names in CLASSES.items():
        for label, name in enumerate(names):
            folder = root / "data" / task / name
            folder.mkdir(parents=True)
            for number in range(IMAGES_PER_CLASS):
                Image.fromarray(picture(task, label, rng)).save(folder / f"{number:02d}.png")
    return Tiny(root)


def make_model(root: Path, name: str, seed: int = 0, **changes: Any) -> str:
    """An open_clip model of random weights: JSON, safetensors and vocabulary; returns the JSON's path."""
    import open_clip
    import torch
    from safetensors.torch import save_file

    from bench.clip.backbone import _register

    root.mkdir(parents=True, exist_ok=True)
    with gzip.open(root / "tiny-bpe.txt.gz", "wt", encoding="utf-8") as file:
        file.write("#version: tiny\ne d</w>\no n</w>")
    config = root / f"{name}.json"
    config.write_text(json.dumps({**MODEL, **changes}), encoding="utf-8")
    _register(config)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = open_clip.create_model(name, load_weights=False).eval()
    # Untrained, all pictures look alike: their common part is taken off, so that scores differ.
    rng = np.random.default_rng(seed)
    pictures = np.stack([picture(task, label, rng)[:32, :32] for task in CLASSES for label in range(3)])
    with torch.no_grad():
        pixels = torch.from_numpy(pictures).permute(0, 3, 1, 2) / 127.5 - 1
        model.visual.attnpool.c_proj.bias -= model.encode_image(pixels).mean(dim=0)
    save_file(model.state_dict(), str(config.with_suffix(".safetensors")))
    return str(config)


def picture(task: str, label: int, rng: np.random.Generator) -> np.ndarray:
    """uint8 [36, 40, 3]: what the class says, and noise."""
    y, x = np.mgrid[:36, :40]
    image = np.full((36, 40, 3), 100.0)
    if task == "colour":
        image[..., label] += 120
    elif task == "shade":
        image += 70 * (label - 1)
    else:
        image += 80 * np.sin([y, x, x + y][label] * 0.9 + rng.uniform(0, 6))[..., None]
    return np.clip(image + rng.normal(0, 12, image.shape), 0, 255).astype(np.uint8)


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """No test reads or writes the user's cache or data, or depends on the width of the terminal."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setenv("BENCH_CACHE", str(folder))
        patch.delenv("BENCH_DATA", raising=False)
        patch.setenv("COLUMNS", "200")  # no cell of a table is wrapped
        patch.delenv("HF_HUB_OFFLINE", raising=False)  # the tests' own servers are downloaded from
        yield folder


@pytest.fixture(scope="session", autouse=True)
def no_network() -> Iterator[None]:
    """Sockets reach this machine alone: elsewhere it is as if there were no network (in the tests' own process)."""

    def here(host: Any) -> bool:
        name = host.decode() if isinstance(host, bytes) else host
        if name in (None, "", "localhost"):
            return True
        try:
            return ipaddress.ip_address(name.partition("%")[0]).is_loopback
        except ValueError:
            return False

    def guarded(original: Callable[..., Any], place: int) -> Callable[..., Any]:
        def call(self: socket.socket, *args: Any) -> Any:
            address = args[place]
            if self.family in (socket.AF_INET, socket.AF_INET6) and not here(address[0]):
                raise OSError(errno.ENETUNREACH, f"the tests have no network: {address[0]}")
            return original(self, *args)

        return call

    resolve = socket.getaddrinfo

    def resolved(host: Any, *args: Any, **kwargs: Any) -> Any:
        if not here(host):
            raise socket.gaierror(socket.EAI_NONAME, f"the tests have no network: {host}")
        return resolve(host, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        for name, place in (("connect", 0), ("connect_ex", 0), ("sendto", -1)):
            patch.setattr(socket.socket, name, guarded(getattr(socket.socket, name), place))
        patch.setattr(socket, "getaddrinfo", resolved)
        yield


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    """The tiny world; tests read it and leave it as it is."""
    return make_tiny(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def own_tiny(tmp_path: Path) -> Tiny:
    """A tiny world that a test may change."""
    return make_tiny(tmp_path / "tiny")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache for one test."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("BENCH_CACHE", str(folder))
    return folder


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Small models gain nothing from a second thread, and lose much on a busy machine."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def count_calls(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any, str], list[tuple[Any, ...]]]:
    """`count_calls(owner, name)`: the arguments of every call of a method from now on; it still does its work."""

    def start(owner: Any, name: str) -> list[tuple[Any, ...]]:
        calls: list[tuple[Any, ...]] = []
        original = getattr(owner, name)

        def counted(*args: Any, **kwargs: Any) -> Any:
            calls.append(args)
            return original(*args, **kwargs)

        monkeypatch.setattr(owner, name, counted)
        return calls

    return start


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Ctrl-C is heard, here and in processes started here; a shell's background jobs are started deaf to it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


# ---- other processes -----------------------------------------------------------------------------------------

# Importing torch takes seconds: one process does it once, and every command is a fork of it. With `kill_at` n
# a command is killed at its n-th `os.replace`, before the new file gets its name.
FORKS = """
import json, os, signal, sys
import bench.runner, bench.cli

def run(job):
    os.environ.update(job["environment"])
    os.chdir(job["folder"])
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs are started deaf to it
    for stream in (1, 2):
        os.dup2(os.open(job["output"], os.O_WRONLY | os.O_CREAT | os.O_APPEND), stream)
    replace, calls = os.replace, [0]
    def counted(*names):
        calls[0] += 1
        if calls[0] == job["kill_at"]:
            os.kill(os.getpid(), signal.SIGKILL)
        replace(*names)
    os.replace = counted
    code = bench.cli.main(job["command"])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)

print("ready", flush=True)
for line in sys.stdin:
    job = json.loads(line)
    if "wait" in job:
        print(os.waitstatus_to_exitcode(os.waitpid(job["wait"], 0)[1]), flush=True)
    else:
        pid = os.fork()
        if pid == 0:
            run(job)
        print(pid, flush=True)
"""


class Forks:
    """Starts `python -m bench` commands, each in a process of its own."""

    def __init__(self) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        self._server = subprocess.Popen(  # noqa: S603 - a list of our own words, and no shell
            [sys.executable, "-c", FORKS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        self._answer()

    def start(self, command: list[str], cache: Path, output: Path, kill_at: int = 0) -> int:
        """Start a command in this process's folder; returns its process id. What it prints is added to `output`."""
        where = {"environment": {"BENCH_CACHE": str(cache)}, "folder": os.getcwd(), "output": str(output)}
        self._say({"command": command, **where, "kill_at": kill_at})
        return int(self._answer())

    def wait(self, pid: int) -> int:
        """The exit code; -9 when it was killed."""
        self._say({"wait": pid})
        return int(self._answer())

    def run(self, command: list[str], cache: Path, output: Path, kill_at: int = 0) -> int:
        return self.wait(self.start(command, cache, output, kill_at))

    def close(self) -> None:
        assert self._server.stdin is not None
        self._server.stdin.close()
        self._server.kill()  # taking torch down would take seconds
        self._server.wait()

    def _say(self, job: dict[str, Any]) -> None:
        assert self._server.stdin is not None
        self._server.stdin.write(json.dumps(job) + "\n")
        self._server.stdin.flush()

    def _answer(self) -> str:
        assert self._server.stdout is not None
        line = self._server.stdout.readline().strip()
        assert line, "the process that starts commands has ended"
        return line


@pytest.fixture(scope="session")
def forks(own_cache: Path) -> Iterator[Forks]:
    server = Forks()
    yield server
    server.close()


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many views each call of the image encoder got, from now on."""
    import open_clip

    counts: list[int] = []
    original = open_clip.CLIP.encode_image

    def counted(self: Any, image: Any, *args: Any, **kwargs: Any) -> Any:
        counts.append(len(image))
        return original(self, image, *args, **kwargs)

    monkeypatch.setattr(open_clip.CLIP, "encode_image", counted)
    return counts
