"""Getting a suite's data: what is there, what may be downloaded, what must be fetched by hand.

This file plans, checks that there is space, and carries the plan out, source by source. A source with `fetch` in the
suite file is one HTTP GET (`transfer.py`); an archive is then unpacked (`archives.py`) and removed. All of this happens
in a hidden folder, so what stands there is ours and what stands elsewhere is the user's. After a kill at any moment the
same call does the rest.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.datasets import hub
from bench.datasets.archives import Damaged, there, unpack
from bench.datasets.check import check_task, in_the_way, is_split, is_there, packed, printable
from bench.datasets.spec import Suite, file_of, targets_of
from bench.datasets.splits import select_tasks
from bench.datasets.transfer import byte_bar, download, human, part_of, size_of, verify
from bench.errors import UserError
from bench.files import locked
from bench.files import replace as move
from bench.progress import absolute

if TYPE_CHECKING:
    import pandas as pd

HAVE, DOWNLOAD, UNPACK, BY_HAND = "have", "to download", "to unpack", "by hand"
FETCHED, FAILED = "fetched", "failed"
COLUMNS = ("task", "what", "size", "licence", "checksum", "state", "from", "to", "problem")

UNITS = {"kB": 1e3, "KB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12}


@dataclass(frozen=True)
class Step:
    """One source of one or more tasks that share a folder."""

    tasks: tuple[str, ...]
    folder: Path
    source: dict[str, Any]  # of the suite file; {} for what a library downloads by itself
    reader: dict[str, Any]
    state: str
    problem: str = ""

    @property
    def what(self) -> str:
        if not self.source:
            return f"{self.reader['kind']} {self.reader.get('hub') or self.reader.get('class')}"
        return str(self.source.get("what") or file_of(self.source) or self.source.get("url", self.tasks[0]))

    @property
    def task(self) -> str:
        return self.tasks[0] if len(self.tasks) == 1 else f"{self.tasks[0]} to {self.tasks[-1]}"

    @property
    def size(self) -> int | None:
        """Bytes of the download by the suite file's `size`, roughly."""
        found = re.search(r"(\d+(?:\.\d+)?)\s*([kKMGT]B)", self.source.get("size", ""))
        return int(float(found[1]) * UNITS[found[2]]) if found else None

    @property
    def checksum(self) -> tuple[str, str] | None:
        """(algorithm, hexadecimal digest)."""
        return next(((kind, self.source[kind]) for kind in ("sha256", "md5") if kind in self.source), None)


@dataclass(frozen=True)
class Plan:
    """What `data fetch` would do."""

    suite: Suite
    root: Path
    steps: tuple[Step, ...]
    notes: tuple[str, ...] = ()  # about tasks of which a part is there

    @property
    def open(self) -> list[Step]:
        return [step for step in self.steps if step.state in (DOWNLOAD, UNPACK)]

    @property
    def to_download(self) -> int:
        """Bytes, without what an earlier run left; sizes that are not stated count as nothing."""
        return sum(max(0, (step.size or 0) - size_of(_part(step))) for step in self.open if step.state == DOWNLOAD)

    @property
    def needed(self) -> int:
        """Bytes on disk at most: all that is kept, images unpacked as large as packed, and one archive at a time."""
        kept = [step.size or 0 for step in self.open]
        archives = [step.size or 0 for step in self.open if "unpack" in step.source and step.state == DOWNLOAD]
        there_in_part = sum(size_of(_part(step)) for step in self.open)
        return max(0, sum(kept) + max(archives, default=0) - there_in_part)

    @property
    def free(self) -> int:
        """Bytes free on the root's disk."""
        return shutil.disk_usage(_existing(self.root)).free

    def check_space(self) -> None:
        if self.needed > self.free:
            raise UserError(
                f"{self.root}: {human(self.needed)} are needed while downloading and unpacking, "
                f"{human(self.free)} are free; make room, or fetch fewer tasks at a time"
            )

    def table(self) -> pd.DataFrame:
        """One row a source; all texts can be printed as they are."""
        import pandas as pd

        return pd.DataFrame([_row(step) for step in self.steps], columns=list(COLUMNS))


def _row(step: Step) -> tuple[str, ...]:
    fetched = "fetch" in step.source
    checksum = (step.checksum[0] if step.checksum else "none known") if fetched else ""
    origin = step.source.get("url", step.source.get("how", ""))
    texts = (step.source.get("size", ""), step.source.get("licence", ""), checksum, step.state)
    row = (step.task, step.what, *texts, url_of(step.source) or origin, str(step.folder), step.problem)
    return tuple(map(printable, row))


def plan(suite: Suite, root: Path, names: Sequence[str] | None = None) -> Plan:
    """What is there and what is not, for all tasks of a suite or those named; reads names and lists only."""
    steps: dict[tuple[Path, str], Step] = {}
    notes: list[str] = []
    for spec in select_tasks(suite, names):
        folder = root / spec.folder
        state = check_task(spec, root)[1]
        ready = state == "ready"
        if not ready and (old := in_the_way(spec, root)):
            paths = " and ".join(map(str, old))
            notes.append(f"{spec.name} is {state}, and what is there is left alone; move {paths} away to get the whole")
        sources: list[dict[str, Any]] = [{}] if hub.can_fetch(spec.reader) else []
        for source in [*sources, *spec.sources]:
            step = Step((spec.name,), folder, source, spec.reader, "")
            step = replace(step, state=_state(step, ready))
            if step.state == BY_HAND and packed(folder, source):
                step = replace(step, problem="it is there, but packed: unpack it")
            key = (folder, _key(step))
            earlier = steps.get(key)
            if earlier:  # tasks that share a folder share its sources; it is there when all have it
                _same(suite, earlier, step)
                state = earlier.state if step.state == HAVE else step.state
                problem = earlier.problem or step.problem
                step = replace(earlier, tasks=(*earlier.tasks, spec.name), state=state, problem=problem)
            steps[key] = step
    return Plan(suite, root, tuple(steps.values()), tuple(notes))


def _key(step: Step) -> str:
    """What makes two tasks' steps in one folder the same: what a library is asked for, a file's name, a text."""
    if not step.source:
        return json.dumps(step.reader, sort_keys=True)
    return file_of(step.source).casefold() or step.what


def _same(suite: Suite, one: Step, other: Step) -> None:
    """Two tasks that share a folder must mean the same by one file name."""
    for key, mine, theirs in (
        ("fetch", url_of(one.source), url_of(other.source)),
        ("unpack", one.source.get("unpack"), other.source.get("unpack")),
    ):
        if mine != theirs:
            raise UserError(
                f"{suite.path}: tasks {one.tasks[0]} and {other.tasks[0]} share {one.folder} and differ in what they "
                f"`{key}` as {file_of(one.source)}; give both the same source, or each its own `file`"
            )


def _state(step: Step, ready: bool) -> str:
    if not step.source:
        return HAVE if hub.is_fetched(step.folder, step.reader) else DOWNLOAD
    if "fetch" in step.source and _ours(step).is_file():  # a kill came before our archive was removed
        return UNPACK
    if is_there(step.folder, step.source) or (ready and not is_split(step.source)):
        return HAVE
    if "fetch" not in step.source:
        return BY_HAND
    return UNPACK if (step.folder / file_of(step.source)).is_file() else DOWNLOAD


def url_of(source: dict[str, Any]) -> str:
    """The address a source is downloaded from; "" where it is not."""
    fetched = source.get("fetch")
    return "" if not fetched else str(source["url"] if fetched is True else fetched)


def carry_out(what: Plan, hide: bool | None = None) -> Plan:
    """Download and unpack; the plan with new states. A failure stops its source only.

    `hide` hides the bars (None: where standard error is no terminal).
    """
    what.check_space()
    what.root.mkdir(parents=True, exist_ok=True)
    steps = []
    for step in what.steps:
        if step.state in (DOWNLOAD, UNPACK):
            try:
                _fetch(step, hide)
                step = replace(step, state=FETCHED)
            except Exception as error:  # whatever a server sent, or a bug: the other sources are still worth getting
                step = replace(step, state=FAILED, problem=_in_a_line(error, step.folder))
        steps.append(step)
    return replace(what, steps=tuple(steps))


def _fetch(step: Step, hide: bool | None) -> None:
    """One source; whatever an earlier run has done of it is not done again."""
    if not step.source:
        hub.fetch(step.folder, step.reader)
        return
    mine, ours = step.folder / file_of(step.source), _ours(step)
    with locked(step.folder, "fetch", timeout=0):
        ours.parent.mkdir(exist_ok=True)
        try:
            targets = targets_of(step.source)
            wanted = {member: target for member, target in targets.items() if not there(step.folder / target)}
            if wanted:  # else another process was faster, or a kill left what is cleared away below
                file = mine if mine.is_file() else ours
                _get(step, file, hide)
                if "unpack" in step.source:
                    with byte_bar(f"unpacking {file.name}", file.stat().st_size, hide) as shown:
                        _unpack(step, file, wanted, absolute(shown))
                else:
                    move(ours, mine)
        except BaseException:
            if not (ours.exists() or _part(step).exists()):  # nothing to go on with
                shutil.rmtree(ours.parent, ignore_errors=True)
            raise
        shutil.rmtree(ours.parent)


def _get(step: Step, file: Path, hide: bool | None) -> None:
    """The file of a source with the right checksum: as it is there, else downloaded."""
    if not file.is_file():
        limit = 2 * step.size + 10_000_000 if step.size else None
        download(url_of(step.source), file, step.checksum, limit, hide)
    elif step.checksum:
        verify(file, step.checksum, "" if file == _ours(step) else "move it away", hide)


def _unpack(step: Step, file: Path, wanted: dict[str, str], report: Callable[[int, int], None]) -> None:
    try:
        unpack(file, step.folder, wanted, report, draft=_ours(step).with_name(".unpacked"))
    except Damaged as error:
        if step.checksum or file != _ours(step):  # as it should be, or the user's
            raise
        file.unlink()  # a web page, or cut off at the server: the next call would find it again
        raise UserError(f"{error} (it is removed, the same command does that)") from None


# Small things ------------------------------------------------------------------------------------------------


def _in_a_line(error: Exception, folder: Path) -> str:
    """What to tell of a failure."""
    if isinstance(error, UserError):
        return printable(str(error))
    if isinstance(error, OSError):
        return printable(f"{error.filename or folder}: {error.strerror or error}")
    return printable(f"{folder}: unexpected {type(error).__name__}: {error}")


def _ours(step: Step) -> Path:
    """Where the download of a source stands until its work is done: alone in a hidden folder."""
    name = file_of(step.source) or "none"
    return step.folder / f".{name}.fetch" / name


def _part(step: Step) -> Path:
    return part_of(_ours(step))


def _existing(path: Path) -> Path:
    """The nearest folder above (or at) a path that exists."""
    path = path.absolute()
    return path if path.exists() or path == path.parent else _existing(path.parent)
