"""Claims: which process computes what, so that no two compute the same.

A claim is a file beside what is computed. It is created exclusively and says which process of which host made it; while
the process works, a thread renews the file's time. A claim is void

- at once, where its process ran on this host and is gone (the process that now has its number started at another time);
- otherwise, when it was not renewed for `LEASE` seconds. Those are counted by the clock of whoever waits, so clocks of
  hosts that differ, or are set back, do no harm.

Where systems do not tell a process's start (macOS, Windows), the lease alone counts. What is claimed has to be looked
for after the claim is taken: somebody else may have finished it just before. docs/running-at-scale.md says which file
systems keep claims.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from bench.files import from_json, locked

LEASE = 90.0  # seconds; more than network file systems keep a file's time without asking (60)
RENEW = 15.0
POLL = 0.5  # between looks of one who waits

_Seen = tuple[bytes, int]


class Claims:
    """The claims of this process."""

    def __init__(self) -> None:
        self._held: dict[Path, bytes] = {}
        self._seen: dict[Path, tuple[_Seen, float]] = {}  # others' claims, as they were when last seen to change
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    @contextlib.contextmanager
    def taking(self, paths: Sequence[Path]) -> Iterator[list[bool]]:
        """Claims files of these names, as far as nobody else has; says which. Lets go of them at the end."""
        taken = []
        try:
            for path in paths:
                taken.append(self._take(path))
            yield taken
        finally:
            for path, own in zip(paths, taken, strict=False):
                if own:
                    self._release(path)

    @contextlib.contextmanager
    def waiting(self, path: Path) -> Iterator[None]:
        """Claims a file of this name once nobody else has it, and lets go of it at the end."""
        while True:
            with self.taking([path]) as (own,):
                if own:
                    yield
                    return
            time.sleep(POLL)

    def clear(self, path: Path) -> bool:
        """Whether nobody holds it; a void claim is removed, so that every other process sees the same."""
        if not path.exists():
            return True
        with self.taking([path]) as (own,):
            return own

    def is_free(self, path: Path) -> bool:
        """Whether a claim could be taken: there is none, or a void one."""
        try:
            with path.open("rb") as file:
                seen = file.read(), os.fstat(file.fileno()).st_mtime_ns  # of an open file: network disks ask the server
        except FileNotFoundError:
            self._seen.pop(path, None)
            return True
        owner = _owner(seen[0])
        if owner.get("host") == _host() and owner.get("started"):
            return _started(owner.get("pid")) != owner["started"]
        now = time.monotonic()
        known, since = self._seen.get(path, (None, now))
        if known != seen:
            since = now
        self._seen[path] = seen, since
        return now - since > LEASE

    def owner(self, path: Path) -> str:
        """Who has claimed it, in words; "" for nobody."""
        try:
            owner = _owner(path.read_bytes())
        except OSError:
            return ""
        return f"process {owner.get('pid', '?')} on {str(owner.get('host', '?')).partition(' ')[0]}"

    def _take(self, path: Path) -> bool:
        if self._create(path):
            return True
        if not self.is_free(path):
            return False
        with locked(path.parent, "claims"):  # of several that see a void claim, one takes it over
            if not self.is_free(path):
                return False
            path.unlink(missing_ok=True)
            return self._create(path)

    def _create(self, path: Path) -> bool:
        who = {"host": _host(), "pid": os.getpid(), "started": _started(os.getpid()), "claim": uuid.uuid4().hex}
        content = json.dumps(who).encode()
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with path.open("xb") as file:
                file.write(content)
        except FileExistsError:
            return False
        except OSError:  # a full disk: the claim would be nobody's
            path.unlink(missing_ok=True)
            raise
        with self._changed:
            self._held[path] = content
            if self._thread is None or not self._thread.is_alive():  # it does not live on in a forked process
                self._thread = threading.Thread(target=self._renew, name="claims", daemon=True)
                self._thread.start()
        return True

    def _release(self, path: Path) -> None:
        with self._changed:
            content = self._held.pop(path)
            self._changed.notify()
        with contextlib.suppress(OSError):
            if path.read_bytes() == content:  # not taken over while this process was paused
                path.unlink()

    def _renew(self) -> None:
        with self._changed:
            while self._held:
                self._changed.wait(RENEW)
                for path in self._held:
                    with contextlib.suppress(OSError):
                        os.utime(path)
            self._thread = None


CLAIMS = Claims()


def _owner(content: bytes) -> dict[str, Any]:
    """What a claim says; nothing where it is not whole (its process was killed while it wrote it)."""
    try:
        owner = from_json(content)
    except ValueError:
        return {}
    return owner if isinstance(owner, dict) else {}


@lru_cache(maxsize=1)
def _host() -> str:
    """This host, as long as process numbers mean the same on it: until it is started again, and within a container."""
    known = [socket.gethostname()]
    with contextlib.suppress(OSError):
        known.append(Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip())
        known.append(os.readlink("/proc/self/ns/pid"))
    return " ".join(known)


def _started(pid: Any) -> str | None:
    """When a process of this host started, in ticks since the host did; None where it is gone, or nobody tells."""
    try:
        told = Path(f"/proc/{int(pid)}/stat").read_text(encoding="utf-8", errors="replace")
        state, *numbers = told.rpartition(")")[2].split()  # after the program's name, which may have blanks
    except (OSError, ValueError, TypeError, OverflowError):
        return None
    return None if state in "ZX" else numbers[18]  # dead, and not yet asked after by its parent
