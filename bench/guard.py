"""What a method's code may do to a run: raise, exit or hang. Each ends its cell, not the grid.

What cannot be ended from within the process is code that neither returns to Python nor lets go: a single call of a
compiled library that hangs, and a method that catches every exception and goes on. Such a process has to be killed; the
same command then goes on with the next cells.
"""

from __future__ import annotations

import contextlib
import ctypes
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

from bench.errors import UserError

REPEAT = 5.0  # seconds until a time-out that a method has swallowed is raised again


class CellTimeout(BaseException):
    """A cell took longer than it may. No `Exception`: a method that catches those shall not take it for one."""


class Deadline:
    """The seconds that a method's code has, in all pieces of work that stand within `running`.

    seconds : None for as long as it takes.
    """

    def __init__(self, seconds: float | None) -> None:
        self.seconds = self.left = seconds
        self._running = False

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Raises CellTimeout in the code within, once the time is up.

        In the main thread by a signal, which ends a sleep or a wait, too. In other threads, and on Windows, between two
        instructions of Python.
        """
        if self.left is None:
            yield
            return
        start = time.monotonic()
        by_signal = hasattr(signal, "setitimer") and threading.current_thread() is threading.main_thread()
        self._running = True
        try:
            with self._signal() if by_signal else self._watchdog():
                yield
        except CellTimeout as stop:
            stop.args = (f"its method took longer than --cell-timeout {self.seconds:g} (seconds)",)
            raise
        finally:
            self.left = max(self.left - (time.monotonic() - start), 0.001)

    @contextlib.contextmanager
    def _signal(self) -> Iterator[None]:
        def stop(number: int, frame: FrameType | None) -> None:
            if self._running:
                raise CellTimeout

        before = signal.signal(signal.SIGALRM, stop)
        signal.setitimer(signal.ITIMER_REAL, self.left or 0, REPEAT)
        try:
            yield
        finally:
            self._running = False
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)

    @contextlib.contextmanager
    def _watchdog(self) -> Iterator[None]:
        thread, ended, lock = threading.get_ident(), threading.Event(), threading.Lock()

        def throw(what: type | None) -> None:
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), what and ctypes.py_object(what))

        def watch() -> None:
            wait = self.left
            while not ended.wait(wait):
                with lock:
                    if not ended.is_set():
                        throw(CellTimeout)
                wait = REPEAT

        watching = threading.Thread(target=watch, daemon=True)
        watching.start()
        try:
            yield
        finally:
            self._running = False
            with lock:
                ended.set()
                throw(None)  # one that has not been raised yet shall not strike the next cell
            watching.join()


class _Interrupts:
    """Whether Ctrl-C was pressed, which a `raise KeyboardInterrupt` in a method's code is not."""

    watching = False
    pressed = False


@contextlib.contextmanager
def telling_interrupts() -> Iterator[None]:
    """Within it `ends_run` tells Ctrl-C from a KeyboardInterrupt that a method raises."""
    main = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGINT)
    if not main or before not in (signal.default_int_handler, signal.SIG_IGN):
        yield  # somebody else's handler: every KeyboardInterrupt is taken for Ctrl-C
        return

    def press(number: int, frame: FrameType | None) -> None:
        _Interrupts.pressed = True
        signal.default_int_handler(number, frame)

    _Interrupts.watching, _Interrupts.pressed = True, False
    if before is not signal.SIG_IGN:  # as in a shell's background jobs, which Ctrl-C does not reach
        signal.signal(signal.SIGINT, press)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        _Interrupts.watching = False


def ends_run(error: BaseException) -> bool:
    """Whether what was raised while a method ran is to end the run: Ctrl-C is; whatever the method raises is not."""
    if isinstance(error, KeyboardInterrupt):
        return _Interrupts.pressed or not _Interrupts.watching
    return not isinstance(error, Exception | SystemExit | CellTimeout)


def reason(error: BaseException) -> str:
    """Why a cell failed, as its record says it."""
    if isinstance(error, UserError | CellTimeout):
        return str(error)
    said = f"{type(error).__name__}: {error}"
    if isinstance(error, KeyboardInterrupt | SystemExit):
        return f"{said.removesuffix(': ')}, raised by the method's code"
    return said


def own_traceback(error: BaseException, method: type) -> str:
    """The traceback of what a method's code raised, from its first frame in that code on; all where there is none.

    method : the method's class; its code is what stands in the folder of its file, or else in `methods/`.
    """
    cut = error.__traceback__
    for home in (_folder(method.__module__), _folder("bench.methods")):
        found = _from(error.__traceback__, home)
        if found is not None:
            cut = found
            break
    return "".join(traceback.format_exception(type(error), error, cut))


def frames(told: str) -> str:
    """The places in a traceback's text that belong to what was raised last; "" where its message says enough."""
    last = told.rpartition("Traceback (most recent call last):\n")[2]
    if f"\n{UserError.__module__}.{UserError.__name__}: " in last:
        return ""
    return "\n".join(line for line in last.splitlines() if line.startswith("  "))


def _from(trace: TracebackType | None, home: Path | None) -> TracebackType | None:
    while trace is not None and home is not None:
        if Path(trace.tb_frame.f_code.co_filename).parent == home:
            return trace
        trace = trace.tb_next
    return None


def _folder(module: str) -> Path | None:
    file: Any = getattr(sys.modules.get(module), "__file__", None)
    return Path(file).parent if file else None
