"""Methods that raise, exit, hang or run out of memory: their cell fails and says where, the others go on."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import bench
from bench.cli import main
from bench.errors import UserError
from bench.guard import CellTimeout, Deadline, ends_run, frames, own_traceback, reason, telling_interrupts

pytestmark = pytest.mark.usefixtures("one_thread")

METHOD = """
import os, signal, sys, time
import torch
from bench.methods import Method

def deeper():
    {body}

class Odd(Method):
    name = "odd"
    needs = frozenset()

    def fit(self, clip, tasks, seed, report):
        if seed == 1:
            deeper()

    def predict(self, task, features, class_names=None):
        return torch.eye(len(class_names or task.class_names))[torch.zeros(len(features), dtype=torch.long)]
"""


@pytest.fixture
def odd(tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """`odd(body)`: run a method whose training with seed 1 does this, with seeds 1 and 2."""

    def run(body: str, **changes: Any) -> Any:
        (tmp_path / "odd_method.py").write_text(METHOD.replace("{body}", body))
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.delitem(sys.modules, "odd_method", raising=False)
        given = {"methods": ["odd_method:Odd"], "shots": [1], "seeds": [1, 2], **changes}
        return tiny.run(tmp_path / "runs", **given)

    return run


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ("sys.exit(3)", "SystemExit: 3, raised by the method's code"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt, raised by the method's code"),
        ("return [][7]", "IndexError: list index out of range"),
    ],
)
def test_whatever_a_method_raises_ends_its_cell_and_no_other(odd: Callable[..., Any], body: str, error: str) -> None:
    with pytest.warns(UserWarning, match=r"1 of 2 cells failed"):
        table = odd(body)
    assert list(table["seed"].unique()) == [2]
    (failed,) = table.attrs["failed"]
    assert (failed["seed"], failed["error"]) == (1, error)
    assert [line.strip() for line in failed["traceback"].splitlines()[:5]] == [  # from the method's own code on
        "Traceback (most recent call last):",
        f'File "{sys.modules["odd_method"].__file__}", line 15, in fit',
        "deeper()",
        f'File "{sys.modules["odd_method"].__file__}", line 7, in deeper',
        body,
    ]


@pytest.mark.parametrize("body", ["time.sleep(60)", "while True: pass"])
def test_a_hang_ends_its_cell_after_the_time_that_it_may_take(odd: Callable[..., Any], body: str) -> None:
    start = time.monotonic()
    with pytest.warns(UserWarning, match=r"took longer than --cell-timeout 1 \(seconds\)"):
        table = odd(body, cell_timeout=1)
    assert time.monotonic() - start < 20
    assert list(table["seed"].unique()) == [2]
    assert "in deeper" in table.attrs["failed"][0]["traceback"]
    assert signal.getsignal(signal.SIGALRM) is signal.SIG_DFL and signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_in_another_thread_a_hang_ends_between_two_instructions_and_nothing_strikes_later() -> None:
    said: list[str] = []

    def work() -> None:
        deadline = Deadline(0.2)
        try:
            with deadline.running():
                while True:
                    time.sleep(0.01)
        except CellTimeout as stop:
            said.append(str(stop))
        with Deadline(5).running():
            pass
        for _ in range(20):
            time.sleep(0.01)
        said.append("went on")

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(20)
    assert said == ["its method took longer than --cell-timeout 0.2 (seconds)", "went on"]


def test_the_time_is_that_of_all_pieces_together() -> None:
    deadline = Deadline(0.3)
    with deadline.running():
        time.sleep(0.2)
    with pytest.raises(CellTimeout), deadline.running():
        time.sleep(0.2)


def test_where_ctrl_c_is_ignored_a_keyboard_interrupt_is_the_method_s_own(interruptible: None) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with telling_interrupts():
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
        assert not ends_run(KeyboardInterrupt())
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_ctrl_c_is_told_from_a_method_s_own_keyboard_interrupt(interruptible: None) -> None:
    assert ends_run(KeyboardInterrupt())  # nobody watches: it is taken for Ctrl-C
    with telling_interrupts():
        assert not ends_run(KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt) as pressed:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(5)
        assert ends_run(pressed.value)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert [ends_run(error) for error in (SystemExit(1), MemoryError(), CellTimeout(), GeneratorExit())] == [
        False, False, False, True,
    ]  # fmt: skip


def test_the_first_failure_raises_where_that_is_asked_for_and_is_recorded(
    odd: Callable[..., Any], tiny: Any, tmp_path: Path
) -> None:
    with pytest.raises(bench.CellFailed, match=r"method odd, shots 1, seed 1: IndexError: .*\n(.*\n)+.*return") as stop:
        odd("return [][7]", fail_fast=True)
    assert stop.value.failure["seed"] == 1
    (record,) = tiny.records(tmp_path / "runs").values()  # seed 2 was not begun
    assert (record["status"], record["key"]) == ("failed", stop.value.failure["key"])


def test_the_command_shows_once_where_a_method_broke_and_stops_at_the_first_if_told(
    odd: Callable[..., Any], tiny: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.warns(UserWarning, match="failed"):
        odd("raise ValueError('twice')")
    more = ["--methods", "odd_method:Odd,zero-shot", "--shots=1,2", "--seeds=1"]
    assert main([*tiny.command(tmp_path / "again"), *more]) == 1
    said = capsys.readouterr().err
    assert said.count("failed: odd, ") == 2 and said.count("in deeper\n    raise ValueError('twice')") == 1
    assert main([*tiny.command(tmp_path / "once"), *more, "--fail-fast"]) == 1
    said = capsys.readouterr().err
    assert said.count("failed: odd, ") == 1 and "stopped at the first cell that failed (--fail-fast)" in said
    (path,) = re.findall(r"traceback is in (.*\.json)", said)
    assert Path(path).is_file()


def test_a_message_in_words_has_no_traceback_beside_it_and_one_that_never_met_the_method_has_all_of_it() -> None:
    try:
        raise UserError("two\nlines")
    except UserError as error:
        told = own_traceback(error, Deadline)
        assert frames(told) == "" and reason(error) == "two\nlines"
    try:
        [][7]
    except IndexError as error:
        told = own_traceback(error, Deadline)  # bench/guard.py has no part in it
        assert frames(told).startswith(f'  File "{__file__}"')


def test_the_installed_script_finds_a_method_in_the_current_folder(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(METHOD.replace("{body}", "pass"))
    (tmp_path / "torch.py").write_text("raise SystemExit('not the library')")
    script = Path(sys.executable).with_name("bench")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(  # noqa: S603 - a list of our own words, and no shell
        [str(script), "explain", "mine:Odd"], cwd=tmp_path, capture_output=True, text=True, env=environment
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("odd: ")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("def f(:\n", r"SyntaxError: .*broken_plug\.py, line 1"),
        ("import sys\nsys.exit('no licence')\n", r"SystemExit: no licence"),
        ("1 / 0\n", r"ZeroDivisionError: division by zero \(.*broken_plug\.py, line 1\)"),
    ],
)
def test_a_plug_in_that_cannot_be_imported_is_one_line(
    content: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "broken_plug.py").write_text(content)
    monkeypatch.syspath_prepend(tmp_path)
    assert main(["explain", "broken_plug:Mine"]) == 2
    said = capsys.readouterr().err
    assert re.match(f"error: explain 'broken_plug:Mine': {says}", said) and said.count("\n") == 1
