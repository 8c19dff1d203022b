"""Consoles and systems of every kind: no letter, no closed pipe and no missing system call ends a finished run."""

from __future__ import annotations

import errno
import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

import bench
import bench.records
from bench.cli import main
from bench.errors import UserError, typed
from bench.features.hashes import usable_cores
from bench.files import file_name, user_path, write_whole
from bench.records import PeakMemory, RecordStore
from bench.system import kept_heap

CONSOLES = {
    "ascii": {"PYTHONIOENCODING": "ascii"},
    "cp1252": {"PYTHONIOENCODING": "cp1252"},
    "the C locale": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
}
# Runs each command as `python -m bench` would, and says on standard error how it ended.
EACH = """
import json, sys
from bench.cli import main
for command in json.loads(sys.argv[1]):
    print(command[0], main(command), file=sys.stderr)
"""


def in_console(commands: Sequence[Sequence[str]], console: dict[str, str], cwd: Path) -> tuple[list[str], str]:
    """(exit codes and whatever else standard error says, standard output) of commands in a process of their own."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "LC_", "LANG"))} | console
    call = [sys.executable, "-c", EACH, json.dumps(commands)]
    ended = subprocess.run(call, cwd=cwd, env=environment | {"OMP_NUM_THREADS": "1"}, capture_output=True, timeout=300)  # noqa: S603 - a list of our own words, and no shell
    return ended.stderr.decode("ascii", "replace").splitlines(), ended.stdout.decode("cp1252")


@pytest.mark.parametrize("console", CONSOLES.values(), ids=CONSOLES)
def test_no_letter_that_a_console_lacks_ends_a_command(own_tiny: Any, tmp_path: Path, console: dict[str, str]) -> None:
    suite = Path(own_tiny.suite)
    text = suite.read_text(encoding="utf-8").replace("title: Tiny", "title: Tiny ≥ 果物")
    renamed = "folder: shade, reader: {kind: folders, rename: {grey: 果物}},"
    suite.write_text(text.replace("folder: shade,", renamed), encoding="utf-8")
    grid = ["--methods", "coop", "--shots", "1", "--seeds", "1", "--results", "runs"]
    commands = [own_tiny.command(Path("runs"), *grid), ["report"], ["list", "methods"], ["explain", "softcpt"]]
    commands += [["data", "check", "--suite", own_tiny.suite, "--data", str(own_tiny.data)]]
    said, shown = in_console(commands, console, tmp_path)
    ends = [line for line in said if re.fullmatch(r"\w+ \d+", line)]
    assert ends == ["run 0", "report 0", "list 0", "explain 0", "data 0"], said
    assert not any("Error" in line or "Traceback" in line for line in said)
    assert "tasks of Tiny ? ??, tiny-clip, percent" in shown
    (record,) = (tmp_path / "runs").rglob("*.json")
    cell = ["--cell", str(record), "--backbone", own_tiny.backbone, "--task", "shade"]
    photos = own_tiny.data / "shade/grey"
    (photos / "notes.txt").write_text("no image")
    said, shown = in_console([["words", *cell], ["predict", str(photos), *cell]], console, tmp_path)
    warned = f"warning: {photos}: 1 file left out, not images by name or content, e.g. 'notes.txt'"
    assert said == ["words 0", warned, "predict 0"]
    assert "??" in shown


def test_json_for_programs_has_every_letter_in_any_pipe(own_tiny: Any, tmp_path: Path) -> None:
    suite = Path(own_tiny.suite)
    suite.write_text(suite.read_text(encoding="utf-8").replace("Shade", "色"), encoding="utf-8")
    command = ["data", "check", "--suite", own_tiny.suite, "--data", str(own_tiny.data), "--json"]
    said, shown = in_console([command], CONSOLES["ascii"], tmp_path)
    assert [row["task"] for row in json.loads(shown)] == ["Colour", "色", "Stripes"]
    assert said == ["data 0"]


def test_a_file_name_that_the_locale_cannot_encode_is_one_line(own_tiny: Any, tmp_path: Path) -> None:
    suite = Path(own_tiny.suite)
    text = suite.read_text(encoding="utf-8").replace("folder: shade", "folder: Früchte")
    suite.write_text(text, encoding="utf-8")
    os.rename(own_tiny.data / "shade", own_tiny.data / "Früchte")
    said, _ = in_console([own_tiny.command(tmp_path / "runs")], CONSOLES["the C locale"], tmp_path)
    assert len(said) == 2 and said[1] == "run 2"
    assert said[0].startswith("error: ") and "Fr\\xfcchte" in said[0] and "set PYTHONUTF8=1" in said[0]


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("command", ["list tasks", "run --help", "run --suite nothing"])
def test_a_closed_pipe_ends_quietly(command: str, unbuffered: str) -> None:
    """Whether the reader has gone before the first line or after it."""
    for reader in ("true", "head -n 1 > /dev/null"):
        piped = f"{sys.executable} -m bench {command} 2>&1 | {reader}; exit ${{PIPESTATUS[0]}}"
        environment = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
        ended = subprocess.run(["bash", "-c", piped], capture_output=True, text=True, timeout=120, env=environment)  # noqa: S603, S607 - the system's bash, and our own words
        assert (ended.returncode, ended.stdout, ended.stderr) == (2 if "nothing" in command else 0, "", "")


def test_a_closed_pipe_does_not_hide_that_cells_failed(
    tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Gone(io.StringIO):
        def flush(self) -> None:
            raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    def fail(*_: Any) -> None:
        raise ValueError("no training today")

    monkeypatch.setattr("bench.methods.coop.CoOp.fit", fail)
    monkeypatch.setattr(sys, "stdout", Gone())
    assert main(tiny.command(tmp_path / "runs", "--shots", "1")) == 1


def test_windows_error_for_a_closed_pipe_ends_quietly(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    def write(*_: Any, **__: Any) -> None:
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr("bench.cli.show.print_table", write)
    assert main(["list", "suites"]) == 2  # elsewhere it means another thing
    assert "Invalid argument" in capsys.readouterr().err
    monkeypatch.setattr("bench.cli.WINDOWS", True)
    assert main(["list", "suites"]) == 0
    assert capsys.readouterr().err == ""


def test_library_calls_leave_the_streams_as_they_are(tmp_path: Path) -> None:
    code = "import sys, bench; bench.listing('suites'); print(sys.stdout.errors)"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)  # noqa: S603 - a list of our own words, and no shell
    assert ended.stdout.strip() in ("strict", "surrogateescape")


# ---- paths that users give ------------------------------------------------------------------------------------


def test_a_tilde_is_the_home_folder_in_every_command_and_call(
    tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, here = tmp_path / "home", tmp_path / "here"
    for folder in (home, here):
        folder.mkdir()
    (home / "data").symlink_to(tiny.data)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(here)
    monkeypatch.setattr("bench.reports.figures.draw", lambda *_, **__: [])  # drawn in test_reports
    few = ["--methods=coop", "--shots=1", "--seeds=1"]
    assert main(tiny.command(Path("~/runs"), *few, "--data=~/data")) == 0
    (record,) = (home / "runs").rglob("*.json")
    assert main(["report", "--results=~/runs", "--out=~/report"]) == 0
    assert (home / "report/table.md").is_file()
    image = f"~/data/{tiny.images()[0].relative_to(tiny.data)}"
    key = record.stem.rpartition("-")[2]
    cell = ["--cell", key, "--results=~/runs", "--backbone", tiny.backbone, "--task", "Colour"]
    assert main(["words", *cell]) == 0
    assert main(["predict", image, *cell]) == 0
    assert main(["data", "splits", "--suite", tiny.suite, "--data=~/data", "--shots=1", "--out=~/draws"]) == 0
    assert (home / "draws/Colour/shot_1-seed_1.json").is_file()
    assert main(tiny.command(Path("~/with-draws"), *few, "--draws=~/draws")) == 0
    assert len(tiny.run(Path("~/runs"), methods=["coop"], shots=[1], seeds=[1])) == 3
    assert len(bench.report("~/runs", "~/again")) == 3
    assert bench.load_cell(key, "~/runs", tiny.backbone).config["method"] == "coop"
    assert list(here.iterdir()) == []


def test_a_home_that_is_not_there_is_told() -> None:
    with pytest.raises(UserError, match=r"^~nobody-of-this-name/x: has no home folder; write the path in full"):
        user_path("~nobody-of-this-name/x")
    assert user_path("a~/~b") == Path("a~/~b")


# ---- other systems, imitated ----------------------------------------------------------------------------------


def test_files_are_flushed_as_windows_takes_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There a descriptor that is open for reading alone cannot be flushed (EBADF)."""
    import fcntl

    modes = []

    def fsync(descriptor: int) -> None:
        modes.append(fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE)
        if modes[-1] == os.O_RDONLY:
            raise OSError(errno.EBADF, "Bad file descriptor")

    monkeypatch.setattr("bench.files.os.fsync", fsync)
    for content in ("text", b"bytes", lambda path: path.write_text("made")):
        write_whole(tmp_path / "file", content)
    assert modes == [os.O_RDWR] * 3
    assert (tmp_path / "file").read_text() == "made"


def test_windows_is_asked_again_while_a_scanner_holds_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace, refusals, waited = os.replace, [], []

    def busy(*names: Any) -> None:
        if len(refusals) < 2:
            refusals.append(names)
            raise PermissionError(errno.EACCES, "Access is denied")
        replace(*names)

    monkeypatch.setattr("bench.files.os.replace", busy)
    monkeypatch.setattr("bench.files.time.sleep", waited.append)
    with pytest.raises(PermissionError):  # elsewhere that is an answer
        write_whole(tmp_path / "file", "new")
    assert waited == []
    refusals.clear()
    monkeypatch.setattr("bench.files.WINDOWS", True)
    write_whole(tmp_path / "file", "new")
    assert (tmp_path / "file").read_text() == "new"
    assert waited == [0.05, 0.2]
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_without_glibc_the_heap_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def windows(_: None) -> None:
        raise TypeError("LoadLibrary() argument 1 must be str, not None")

    for library in (windows, lambda _: object()):  # macOS: a C library, but another one
        monkeypatch.setattr("bench.system.ctypes.CDLL", library)
        with kept_heap():
            pass


@pytest.mark.parametrize(
    ("platform", "told", "megabytes"),
    [("linux", 500_000, 512.0), ("darwin", 512_000_000, 512.0)],
)
def test_peak_memory_is_read_in_each_system_s_unit(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, platform: str, told: int, megabytes: float
) -> None:
    """500,000 kB of 1024 bytes are 512 MB, and so are 512,000,000 bytes."""
    import resource

    monkeypatch.setattr(bench.records, "Path", lambda *_: tmp_path / "no/such/file")
    monkeypatch.setattr(bench.records.sys, "platform", platform)
    usage = type("Usage", (), {"ru_maxrss": told})
    monkeypatch.setattr(resource, "getrusage", lambda _: usage)
    assert PeakMemory(torch.device("cpu")).megabytes() == megabytes


def test_a_system_without_the_module_resource_has_no_peak_memory_and_records_all_the_same(
    tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "resource", None)  # as on Windows: importing it fails
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    assert usable_cores() >= 1
    monkeypatch.setattr(bench.records, "Path", lambda *_: tmp_path / "no/such/file")
    assert PeakMemory(torch.device("cpu")).megabytes() is None
    monkeypatch.setattr(bench.records.PeakMemory, "megabytes", lambda _: None)
    monkeypatch.setattr("bench.reports.figures.draw", lambda *_, **__: [])
    tiny.run(tmp_path / "runs", methods=["coop"], shots=[1], seeds=[1])
    rows = bench.report(tmp_path / "runs", tmp_path / "report")
    assert rows["peak_memory_mb"].isna().all()
    assert len(pd.read_csv(tmp_path / "report/records.csv")) == 3


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("ViT-B-16", "ViT-B-16"),
        ("tiny-clip bfloat16", "tiny-clip_bfloat16"),
        ("hf-hub:org/model", "hf-hub_org_model"),
        ('a<b>"c|d?e*', "a_b_c_d_e_"),
        ("trailing. ", "trailing._"),
        ("dots...", "dots"),
        ("../..", "_"),
        ("con", "_con"),
        ("AUX.yaml", "_AUX.yaml"),
        ("Com7", "_Com7"),
        ("console", "console"),
        ("果物", "果物"),
        ("", "_"),
    ],
)
def test_names_of_records_folders_are_names_on_every_system(name: str, safe: str) -> None:
    assert file_name(name) == safe
    cell = {"suite": name, "backbone": name, "method": name, "shots": 1, "seed": 2}
    assert RecordStore(Path("r")).path(cell, "k") == Path("r", safe, safe, safe, "1shot-seed2-k.json")


def test_commands_to_type_are_quoted_as_the_system_s_shells_read_them(monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["--data", "/my data", "--suite", "rs8"]
    assert typed(words) == "--data '/my data' --suite rs8"
    monkeypatch.setattr("bench.errors.WINDOWS", True)
    assert typed(words) == '--data "/my data" --suite rs8'
