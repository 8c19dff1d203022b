"""Progress where standard error is no terminal: lines instead of bars, and not many."""

from __future__ import annotations

import contextlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import bench
from bench import progress
from bench.cli import main
from bench.config import RunConfig
from bench.datasets import taxa
from bench.errors import UserError
from bench.plan import prepare

sys.path.append(str(Path(__file__).parent))
from test_datasets_imagenet import write_coop, write_train
from test_datasets_many import write as write_inat


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """The time in seconds, as a list of one."""
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    yield now


def work(clock: list[float], seconds: int, hide: bool | None = None, **more: Any) -> None:
    """A view encoded each second."""
    with progress.bar("  encoding Colour", seconds, "view", hide, **more) as shown:
        for _ in range(seconds):
            clock[0] += 1
            shown.update(1)


def test_what_is_done_at_once_is_not_told(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    work(clock, 1)
    assert capsys.readouterr().err == ""


def test_longer_work_has_a_line_after_two_seconds_one_every_ten_and_one_at_the_end(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    work(clock, 25)
    assert capsys.readouterr().err.splitlines() == [
        "encoding Colour: 2 of 25 views, about 23 s left",
        "encoding Colour: 12 of 25 views, about 13 s left",
        "encoding Colour: 22 of 25 views, about 3.0 s left",
        "encoding Colour: 25 of 25 views, in 25 s",
    ]


def test_lines_of_other_work_come_as_often_as_it_says(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    work(clock, 70, every=60)
    assert [line.split()[2] for line in capsys.readouterr().err.splitlines()] == ["2", "62", "70"]


def test_quiet_shows_neither_lines_nor_notes(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    work(clock, 25, hide=True)
    progress.note("coop: 50.0 %", True)
    assert capsys.readouterr() == ("", "")


def test_work_that_fails_has_no_line_that_says_it_ended(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ValueError), progress.bar("reading", 9, "image", None) as shown:
        clock[0] += 3
        shown.update(3)
        clock[0] += 1
        shown.update(1)
        raise ValueError
    assert capsys.readouterr().err == "reading: 3 of 9 images, about 6.0 s left\n"


def test_a_total_that_comes_later_and_bytes_are_told(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    with progress.bar("a.zip", 0, "B", None) as shown:
        shown.unit_scale = True
        moved = progress.absolute(shown)
        clock[0] += 2
        moved(1_000_000, 4_000_000)
    assert re.fullmatch(r"a\.zip: 1\.00M of 4\.00MB, about 6\.0 s left\n", capsys.readouterr().err)


@pytest.mark.parametrize(
    ("seconds", "told"),
    [(0.04, "0.0 s"), (9.94, "9.9 s"), (9.96, "10 s"), (99.4, "99 s"), (100, "2 min"), (7500, "2 h 5 min")],
)
def test_durations_are_told_as_people_say_them(seconds: float, told: str) -> None:
    assert progress.duration(seconds) == told


def test_one_is_no_plural() -> None:
    assert [progress.count(n, "shot") for n in (0, 1, 2)] == ["0 shots", "1 shot", "2 shots"]


@pytest.mark.parametrize("suite", ["imagenet", "inat2021-families"])
def test_a_quiet_run_shows_no_bar_of_what_reads_its_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], suite: str
) -> None:
    """Each run ends at its backbone, once the suite is read; each check with what it found."""
    monkeypatch.setattr(progress, "DELAY", 0)
    write_inat(tmp_path, pictures=False)
    write_coop(tmp_path / "imagenet")
    write_train(tmp_path / "imagenet" / "images" / "train")
    given: dict[str, Any] = {"suite": suite, "data": str(tmp_path), "allow_missing": True, "methods": ["zero-shot"]}

    def told(quiet: bool) -> list[str]:
        said = []
        for look in (
            lambda: prepare(RunConfig(**given, backbone="none", quiet=quiet)),
            lambda: main(["run", "--suite", suite, "--data", str(tmp_path), "--tasks", "none", *["--quiet"] * quiet]),
            lambda: bench.check(suite, str(tmp_path), quiet=quiet),
        ):
            taxa._annotations.cache_clear()  # read once per process
            with contextlib.suppress(UserError):
                look()
            said.append(capsys.readouterr().err)
        return ["reading " in text for text in said]

    assert told(quiet=True) == [False, False, False]
    assert told(quiet=False) == [True, suite != "imagenet", True]  # which tasks ImageNet has is known unread
