"""Getting a suite's data: what is there, what may be downloaded, what must be fetched by hand.

This file plans, checks that there is space, and carries the plan out, source by source. A source with `fetch` in the
suite file is one HTTP GET (`transfer.py`); an archive is then unpacked (`archives.py`) and removed. All of this happens
in a hidden folder, so what is in it is ours and what is elsewhere is the user's. After a kill at any moment the same
call does the rest.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from bench.datasets import hub
from bench.datasets.archives import Damaged, there, unpack
from bench.datasets.check import check_task, in_the_way
from bench.datasets.sources import Source
from bench.datasets.spec import Suite
from bench.datasets.splits import select_tasks
from bench.datasets.transfer import byte_bar, download, human, kept, size_of, verify
from bench.errors import UserError, in_a_line
from bench.files import locked
from bench.files import replace as move
from bench.progress import absolute

if TYPE_CHECKING:
    import pandas as pd

HAVE, DOWNLOAD, UNPACK, BY_HAND = "have", "to download", "to unpack", "by hand"
FETCHED, FAILED = "fetched", "failed"
COLUMNS = ("task", "what", "size", "licence", "checksum", "state", "from", "to", "problem")


@dataclass(frozen=True)
class Step:
    """One source of one or more tasks that share a folder."""

    tasks: tuple[str, ...]
    folder: Path
    source: Source
    state: str
    problem: str = ""

    @property
    def task(self) -> str:
        return self.tasks[0] if len(self.tasks) == 1 else f"{self.tasks[0]} to {self.tasks[-1]}"

    @property
    def ours(self) -> Path:
        """Where the download is until its work is done: alone in a hidden folder."""
        name = self.source.file_name or "none"
        return self.folder / f".{name}.fetch" / name

    @property
    def row(self) -> tuple[str, ...]:
        source = self.source
        checksum = (source.checksum[0] if source.checksum else "none known") if source.fetch else ""
        texts = (source.size, source.licence, checksum, self.state, source.address or source.url or source.how)
        return tuple(map(in_a_line, (self.task, source.name, *texts, str(self.folder), self.problem)))


@dataclass(frozen=True)
class Plan:
    """What `data fetch` would do."""

    root: Path
    steps: tuple[Step, ...]
    notes: tuple[str, ...] = ()  # about tasks of which a part is there

    @property
    def open(self) -> list[Step]:
        return [step for step in self.steps if step.state in (DOWNLOAD, UNPACK)]

    @property
    def to_download(self) -> int:
        """Bytes, without what an earlier run left; sizes that are not stated count as nothing."""
        to_come = [step for step in self.open if step.state == DOWNLOAD]
        return sum(max(0, step.source.n_bytes - kept(step.ours)) for step in to_come)

    @property
    def needed(self) -> int:
        """Bytes on disk at most: all that is kept, images unpacked as large as packed, and one archive at a time."""
        sizes = [step.source.n_bytes for step in self.open]
        archives = [step.source.n_bytes for step in self.open if step.source.unpack and step.state == DOWNLOAD]
        there_in_part = sum(kept(step.ours) for step in self.open)
        return max(0, sum(sizes) + max(archives, default=0) - there_in_part)

    @property
    def free(self) -> int:
        """Bytes free on the disk of the root, or of the nearest folder above it that exists."""
        root = self.root.absolute()
        return shutil.disk_usage(next(path for path in (root, *root.parents) if path.exists())).free

    def check_space(self) -> None:
        if self.needed > self.free:
            raise UserError(
                f"{self.root}: {human(self.needed)} are needed while downloading and unpacking, "
                f"{human(self.free)} are free; make room, or fetch fewer tasks at a time"
            )

    def table(self) -> pd.DataFrame:
        """One row per source; all texts can be printed as they are."""
        import pandas as pd

        return pd.DataFrame([step.row for step in self.steps], columns=list(COLUMNS))


def plan(suite: Suite, root: Path, names: Sequence[str] | None = None) -> Plan:
    """What is there and what is not, for all tasks of a suite or those named; reads names and lists only."""
    steps: list[Step] = []
    notes: dict[str, str] = {}  # by what is in the way: tasks made from one data set share it
    for spec in select_tasks(suite.at(root), names):
        folder, state = spec.folder_in(root), check_task(spec, root).state
        if state != "ready" and (old := in_the_way(spec, root)):
            paths = " and ".join(map(str, old))
            notes.setdefault(paths, f"{spec.name} is {state}, and what is there is left alone; move {paths} away")
        for source in spec.sources:
            step = Step((spec.name,), folder, source, _state(folder, source, state == "ready"))
            if step.state == BY_HAND and source.packed(folder):
                step = replace(step, problem="it is there, but packed: unpack it")
            number = next((n for n, earlier in enumerate(steps) if _is_shared(suite, earlier, step)), None)
            if number is None:
                steps.append(step)
            else:  # it is there when all tasks have it
                one = step if steps[number].state == HAVE else steps[number]
                steps[number] = replace(one, tasks=(*steps[number].tasks, spec.name))
    return Plan(root, tuple(steps), tuple(f"{note} to get the whole" for note in notes.values()))


def _is_shared(suite: Suite, one: Step, other: Step) -> bool:
    """Whether two tasks' sources are one; if they share a folder, a file's name must mean the same to both."""
    if one.folder != other.folder or one.source == other.source:
        return one.folder == other.folder
    name = other.source.file_name
    if name and one.source.file_name.casefold() == name.casefold():
        raise UserError(
            f"{suite.path}: tasks {one.tasks[0]} and {other.tasks[0]} share {one.folder} and differ in what they say "
            f"of {name}; give both the same source, or each its own `file`"
        )
    return False


def _state(folder: Path, source: Source, ready: bool) -> str:
    if source.fetch and Step((), folder, source, "").ours.is_file():  # a kill came before our archive was removed
        return UNPACK
    if source.is_there(folder) or (ready and not source.is_split):
        return HAVE
    if source.by_hand:
        return BY_HAND
    return UNPACK if source.fetch and (folder / source.file_name).is_file() else DOWNLOAD


def carry_out(what: Plan, hide: bool | None = None) -> Plan:
    """Download and unpack; the plan with new states. A failure stops its source only.

    `hide` hides the bars (None: where standard error is no terminal).
    """
    what.check_space()
    what.root.mkdir(parents=True, exist_ok=True)
    steps = []
    for step in what.steps:
        if step in what.open:
            try:
                _fetch(step, hide)
                step = replace(step, state=FETCHED)
            except Exception as error:  # whatever a server sent, or a bug: the other sources are still worth getting
                step = replace(step, state=FAILED, problem=_reason(error, step.folder))
        steps.append(step)
    return replace(what, steps=tuple(steps))


def _fetch(step: Step, hide: bool | None) -> None:
    """One source; whatever an earlier run has done of it is not done again."""
    source = step.source
    if source.reader:
        hub.fetch(step.folder, source.reader)
        return
    mine, ours = step.folder / source.file_name, step.ours
    with locked(step.folder, "fetch", timeout=0):
        ours.parent.mkdir(exist_ok=True)
        try:
            wanted = {member: to for member, to in source.targets.items() if not there(step.folder / to)}
            file = mine if mine.is_file() else ours
            if wanted:  # else another process was faster, or a kill left what is cleared away below
                if not file.is_file():
                    limit = 2 * source.n_bytes + 10_000_000 if source.n_bytes else None
                    download(source.address, file, source.checksum, limit, hide)
                elif source.checksum:
                    verify(file, source.checksum, "" if file == ours else "move it away", hide)
                if source.unpack:
                    _unpack(step, file, wanted, hide)
                else:
                    move(ours, mine)
        except BaseException:
            if not (ours.exists() or kept(ours)):  # nothing to go on with
                shutil.rmtree(ours.parent, ignore_errors=True)
            raise
        shutil.rmtree(ours.parent)


def _unpack(step: Step, file: Path, wanted: dict[str, str], hide: bool | None) -> None:
    try:
        with byte_bar(f"unpacking {file.name}", size_of(file), hide) as shown:
            unpack(file, step.folder, wanted, absolute(shown), draft=step.ours.with_name(".unpacked"))
    except Damaged as error:
        if step.source.checksum or file != step.ours:  # as it should be, or the user's
            raise
        file.unlink()  # a web page, or cut off at the server: the next call would find it again
        raise UserError(f"{error} (it is removed, the same command does that)") from None


def _reason(error: Exception, folder: Path) -> str:
    """What to tell of a failure."""
    if isinstance(error, UserError):
        return in_a_line(str(error))
    if isinstance(error, OSError):
        return in_a_line(f"{error.filename or folder}: {error.strerror or error}")
    return in_a_line(f"{folder}: unexpected {type(error).__name__}: {error}")
