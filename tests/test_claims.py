"""Claims: no two processes compute one thing, and what a dead one has claimed is taken over."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from bench import claims as claims_module
from bench.claims import LEASE, Claims

linux = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nobody tells when a process started")

HOLDER = """
import sys, time
from pathlib import Path
from bench.claims import Claims
with Claims().taking([Path(sys.argv[1])]) as taken:
    print(taken, flush=True)
    time.sleep(60)
"""


def holding(path: Path) -> subprocess.Popen[str]:
    """A process that claims it, says so and sleeps."""
    command = [sys.executable, "-c", HOLDER, str(path)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)  # noqa: S603 - our own words, and no shell


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "runs" / "cell.claim"


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Moves the clock that leases are counted by."""
    now = [100.0]
    monkeypatch.setattr(claims_module, "time", SimpleNamespace(monotonic=lambda: now[0]))
    return lambda seconds: now.__setitem__(0, now[0] + seconds)


def another_host(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"host": "node7 boot pid", "pid": os.getpid(), "started": "1", "claim": "x"}))


def test_what_is_claimed_is_nobody_elses_until_it_is_let_go(path: Path) -> None:
    with Claims().taking([path, path.with_name("b")]) as first:
        assert first == [True, True]
        with Claims().taking([path, path.with_name("c")]) as second:
            assert second == [False, True]
        assert path.exists()  # the second let go of its own alone
    assert sorted(path.parent.iterdir()) == []


def test_an_error_lets_go_of_what_was_claimed(path: Path) -> None:
    with pytest.raises(ZeroDivisionError), Claims().taking([path]):
        raise ZeroDivisionError
    assert not path.exists()


@linux
def test_the_claim_of_a_killed_process_is_taken_over_at_once(path: Path) -> None:
    with holding(path) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "[True]\n"
        claims = Claims()
        assert not claims.is_free(path)
        assert claims.owner(path).startswith(f"process {holder.pid} on ")
        holder.send_signal(signal.SIGKILL)
        while claims_module._started(holder.pid):  # it is a zombie until `wait`: that counts as gone
            time.sleep(0.01)
        with claims.taking([path]) as taken:
            assert taken == [True]
            assert json.loads(path.read_text())["pid"] == os.getpid()


@linux
def test_a_stopped_process_keeps_its_claim(path: Path) -> None:
    with holding(path) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "[True]\n"
        holder.send_signal(signal.SIGSTOP)
        assert not Claims().is_free(path)
        holder.send_signal(signal.SIGKILL)


@linux
def test_a_process_that_has_a_dead_ones_number_does_not_hold_its_claim(path: Path) -> None:
    with Claims().taking([path]):
        claim = json.loads(path.read_text())
        assert not Claims().is_free(path)
        path.write_text(json.dumps({**claim, "started": str(int(claim["started"]) + 1)}))
        assert Claims().is_free(path)


def test_a_claim_of_another_host_holds_for_its_lease(path: Path, clock: Callable[[float], None]) -> None:
    another_host(path)
    claims = Claims()
    assert not claims.is_free(path)
    clock(LEASE - 1)
    assert not claims.is_free(path)
    os.utime(path, (5, 5))  # renewed, by a clock that is decades behind
    clock(2)
    assert not claims.is_free(path)
    clock(LEASE - 1)
    assert not claims.is_free(path)
    clock(2)
    with claims.taking([path]) as taken:
        assert taken == [True]


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b'{"host": 3}', b'{"pid": "x", "started": null}'])
def test_a_claim_that_is_not_whole_holds_for_its_lease(
    path: Path, clock: Callable[[float], None], content: bytes
) -> None:
    path.parent.mkdir()
    path.write_bytes(content)
    claims = Claims()
    assert not claims.is_free(path)
    clock(LEASE + 1)
    assert claims.is_free(path)
    assert claims.owner(path)


def test_claims_are_renewed_while_they_are_held(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims_module, "RENEW", 0.01)
    with Claims().taking([path]):
        os.utime(path, (1, 1))
        end = time.monotonic() + 20
        while path.stat().st_mtime < 2 and time.monotonic() < end:
            time.sleep(0.01)
        assert path.stat().st_mtime > 2


def test_who_lost_a_claim_leaves_the_new_one(path: Path) -> None:
    with Claims().taking([path]):
        path.unlink()
        another_host(path)  # took it over while this process was paused
    assert "node7" in path.read_text()


@linux
def test_a_void_claim_is_cleared_away_and_a_held_one_is_not(path: Path) -> None:
    claims = Claims()
    assert claims.clear(path)
    with Claims().taking([path]):
        claim = json.loads(path.read_text())
        assert not claims.clear(path) and path.exists()
    path.write_text(json.dumps({**claim, "started": "1"}))  # its process is gone
    assert claims.clear(path) and not path.exists()


def test_of_many_that_see_a_void_claim_one_takes_it_over(path: Path) -> None:
    for _ in range(20):
        another_host(path)
        path.write_text(json.dumps({"host": claims_module._host(), "pid": 2**30, "started": "1"}))
        ready, taken, done = threading.Barrier(8), [], threading.Barrier(8)

        def work(ready: threading.Barrier = ready, taken: list[bool] = taken, done: threading.Barrier = done) -> None:
            claims = Claims()
            ready.wait()
            with claims.taking([path]) as own:
                taken.extend(own)
                done.wait()

        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(taken) == [False] * 7 + [True]
        assert not path.exists()


def test_a_claim_that_cannot_be_written_is_not_left_behind(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = Path.open

    def full(self: Path, *args: object, **kwargs: object) -> object:
        file = original(self, *args, **kwargs)  # type: ignore[call-overload]
        if args == ("xb",):
            file.close()
            raise OSError(28, "No space left on device", str(self))
        return file

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(OSError, match="No space left"), Claims().taking([path]):
        pass
    assert not path.exists()
