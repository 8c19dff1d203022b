"""Prove that the package works on other Pythons: one virtual environment each, and a user's first day in it.

    python scripts/smoke.py 3.10 3.13     # each one found on this machine; what is missing is said in one line
    python scripts/smoke.py               # the Python that runs this script, as in the workflow's matrix

A wheel is built once. For each Python uv (part of the `test` extra) installs it with the newest dependencies of that
Python, and `bench` runs in an empty folder: list, explain, a tiny grid on the demo, report, words, predict. All files,
uv's cache included unless UV_CACHE_DIR names another, lie in a temporary folder that is removed at the end.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
GRID = "run --methods zero-shot,coop --shots 1 --seeds 1 -o all.epochs=2"


def call(command: list[str], folder: Path, **environment: str) -> str:
    """What a command writes to standard output; an exit code other than 0 ends this script with all it wrote."""
    run = subprocess.run(  # noqa: S603 - a list of our own words, and no shell
        command, cwd=folder, env={**os.environ, **environment}, capture_output=True, text=True, encoding="utf-8"
    )
    if run.returncode:
        sys.exit(f"{' '.join(command)}\nended with exit code {run.returncode}:\n{run.stdout}{run.stderr}")
    return run.stdout


def find_python(version: str) -> str | None:
    """The interpreter of a version such as "3.10" on the search path (pyenv's stand-ins included), if one answers."""
    found = shutil.which(f"python{version}")
    if not found:
        return None
    command = [found, "-c", "import sys; print(sys.executable)"]
    run = subprocess.run(command, env={**os.environ, "PYENV_VERSION": version}, capture_output=True, text=True)  # noqa: S603 - a list of our own words, and no shell
    return run.stdout.strip() if run.returncode == 0 else None


def smoke(python: str, wheel: Path, folder: Path) -> None:
    """Install the wheel for `python` under `folder` and use it; the first step that fails ends this script."""
    venv, work = folder / "venv", folder / "work"
    work.mkdir(parents=True)
    call([sys.executable, "-m", "uv", "venv", "--quiet", "--python", python, str(venv)], work)
    call([sys.executable, "-m", "uv", "pip", "install", "--quiet", "--python", str(venv), str(wheel)], work)
    bench_program = shutil.which("bench", path=str(venv / ("Scripts" if os.name == "nt" else "bin")))
    assert bench_program, "the wheel installs no program `bench`"  # noqa: S101 - a test's

    def bench(arguments: str, *expected: str) -> None:
        environment = {"BENCH_CACHE": str(folder / "cache"), "PYTHONUTF8": "1", "PYTHONPATH": ""}
        told = call([bench_program, *arguments.split(" ")], work, **environment)
        for text in expected:
            if text not in told:
                sys.exit(f"bench {arguments}\nsays nothing of {text!r}:\n{told}")

    bench("--version", wheel.name.split("-")[1])
    bench("list methods", "zero-shot", "coop", "softcpt")
    bench("list suites", "demo", "general10")
    bench("explain coop", "CoOp")
    bench(GRID, "zero-shot", "coop")
    bench("report", "table.md")
    table = (work / "report" / "table.md").read_text(encoding="utf-8")
    assert "coop" in table and list((work / "report" / "figures").iterdir()), table  # noqa: S101 - a test's
    cell = next((work / "runs").rglob("coop/*.json")).stem.rsplit("-", 1)[1]
    bench(f"words --cell {cell}", "Weather")
    image = sorted((folder / "cache").rglob("colour/images/yellow/*.png"))[0]
    bench(f"predict --cell {cell} --task Colour {image}", image.name)


def main(versions: list[str]) -> None:
    here = ".".join(map(str, sys.version_info[:2]))
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        folder = Path(name)
        os.environ.setdefault("UV_CACHE_DIR", str(folder / "uv"))
        # From a source archive: nothing is left in the working tree, and the archive is proved as well.
        call([sys.executable, "-m", "uv", "build", "--quiet", "--out-dir", str(folder / "dist"), str(ROOT)], folder)
        (wheel,) = (folder / "dist").glob("*.whl")
        for version in versions or [here]:
            python = find_python(version) if versions else sys.executable
            if not python:
                print(f"smoke on Python {version}: skipped, no python{version} here", flush=True)
                continue
            start = time.monotonic()
            smoke(python, wheel, folder / version)
            shutil.rmtree(folder / version, ignore_errors=True)
            print(f"smoke on Python {version}: passed in {time.monotonic() - start:.0f} s", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
