"""Records: one JSON file per cell, written whole or not at all, never written twice once done.

`Record` is all that knows how one is written, read and checked, and the rows that a report makes of it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import platform
import re
import sys
from dataclasses import dataclass, field, fields
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench import __version__
from bench.chosen import check as check_chosen
from bench.curves import check
from bench.datasets.fewshot import NESTED, VAL_SHOTS
from bench.files import file_name, from_json, write_whole
from bench.likeness import check as check_similarity

if TYPE_CHECKING:
    import torch

SCHEMA = 1

# The columns of records.csv. accuracy: percent, by the task's metric; part: one of PARTS;
# setting: what else differs among records of one method and variant ("views=10"); views, epochs: empty where the method
# has none; together: the seeds that were trained side by side (`--seeds-at-once`), empty for one alone;
# weights, data (the test sets): fingerprints; code, numerics: of the method's own code and of what all share
# (bench/numerics.py; empty in older records); times in seconds of the whole cell (all its tasks); marks: what is wrong
# with its training (bench/curves.py), sentences joined by "; "; val_accuracy: percent, on the few-shot validation
# images (min(shots, 4) a class, or as --val-shots says; empty without them, for new classes, and in older records).
COLUMNS = [
    "suite", "backbone", "method", "variant", "setting", "protocol", "shots", "seed", "task", "part", "metric",
    "accuracy", "n_test", "n_train", "n_classes", "params", "epochs", "views", "together", "train_seconds",
    "feature_seconds", "test_seconds", "peak_memory_mb", "device", "pretrained", "weights", "data", "code", "numerics",
    "demo", "key", "finished", "marks", "val_accuracy",
]  # fmt: skip

# What is scored of a task and how tables call it, in their order: all its classes, or base2new's two halves of them and
# the two accuracies' harmonic mean.
PARTS = {"all": "", "base": "Base", "new": "New", "harmonic": "H"}

STABILITY = "stability.csv"  # in the folder of the records: what `bench stability` measured of their cells

SHUFFLED = "names=shuffled"  # in the variant of a cell that was trained with tasks' names exchanged (bench/controls.py)

KEY_SHOWN = 8  # characters of a key in messages: a beginning is enough for `words` and `predict`

CHECKPOINT = ".checkpoint"  # beside where a record will be: what a stopped training goes on from (bench/checkpoints.py)

FAILED = ("status", "key", "cell", "config", "defaults", "finished", "error", "traceback", "versions")
"""What the record of a failed cell has."""


@dataclass(frozen=True)
class Record:
    """What is kept of a cell: how it ended, what it scored, what it took and what it was made with.

    Attributes
    ----------
    status : "done", or "failed" (then `error` says why, and all but what `FAILED` names is empty).
    cell : what tables call it. config : all that its numbers follow from; `key` is its hash. defaults : of its method's
        parameters in the suite. finished : ISO 8601, UTC.
    tasks : one dict a task and part: task, part, metric, accuracy (percent), val_accuracy (on the few-shot validation
        images; None without them), n_test, n_train, n_classes.
    score : mean over tasks, percent. n_params : learned numbers. Times in seconds, of a training that several seeds
        share (`trained_together`) the share of one. threads : of the training.
    run : the run's settings that are not defaults. draws : "coop", or the name of the folder of the user's own; None
        for the bench's.
    learned, predictions : the files beside.
    fingerprints : hashes of weights, test data and draw. splits : where each task's split comes from.
    curves : of its trainings (`bench.curves.kept`). marks : what they say against the score, in sentences.
    similarity : of tasks (`bench.likeness.kept`); {} of methods without task features.
    chosen : what the method's search on validation images chose (`bench.chosen.kept`); {} where it chose nothing.
    facts : numbers that say what was learned (`Method.facts`); {} of most methods.
    under_names : of tasks that were not trained on, accuracy (percent) under other names (`bench.scoring.under_names`).
    overlap : of tasks that were not trained on, how much of them is not new (`bench.scoring.known_classes`).
    copies : test images of each task that have the same bytes as a few-shot image.

    Raises
    ------
    ValueError : a value that no record can have; so what is written can be read again.
    """

    status: str
    key: str
    cell: dict[str, Any]
    config: dict[str, Any]
    defaults: dict[str, Any] = field(default_factory=dict)  # older records have none
    finished: str = ""
    error: str = ""
    traceback: str = ""
    tasks: list[dict[str, Any]] = field(default_factory=list)
    score: float | None = None
    n_params: int | None = None
    feature_seconds: float | None = None
    train_seconds: float | None = None
    trained_together: list[int] | None = None
    test_seconds: float | None = None
    peak_memory_mb: float | None = None
    device: str = ""
    processor: str = ""  # older records have none
    threads: int | None = None
    demo: bool = False
    title: str = ""
    note: str = ""
    footnote: str = ""
    recipe: str = ""
    run: dict[str, Any] = field(default_factory=dict)  # older records have none
    draws: str | None = None
    learned: str | None = None
    predictions: str | None = None  # older records have none
    curves: dict[str, Any] = field(default_factory=dict)  # older records have none, nor marks
    marks: list[str] = field(default_factory=list)
    similarity: dict[str, Any] = field(default_factory=dict)  # older records have none
    chosen: dict[str, Any] = field(default_factory=dict)  # older records have none
    facts: dict[str, float] = field(default_factory=dict)  # older records have none
    under_names: dict[str, dict[str, float]] = field(default_factory=dict)  # older records have none
    overlap: dict[str, dict[str, Any]] = field(default_factory=dict)  # older records have none
    versions: dict[str, str] = field(default_factory=dict)
    fingerprints: dict[str, str] = field(default_factory=dict)
    splits: dict[str, str] = field(default_factory=dict)
    copies: dict[str, int] = field(default_factory=dict)  # older records have none

    @property
    def done(self) -> bool:
        return self.status == "done"

    @property
    def tested(self) -> list[str]:
        """The names of the tasks that it scored."""
        return list(dict.fromkeys(row["task"] for row in self.tasks))

    @property
    def reason(self) -> str:
        """Why the cell failed, in a line."""
        return self.error.partition("\n")[0]

    @property
    def failure(self) -> dict[str, Any]:
        """What is told of a failed cell: its names, the error, and where it broke."""
        return {**self.cell, "key": self.key, "error": self.error or "no reason recorded", "traceback": self.traceback}

    def to_json(self) -> dict[str, Any]:
        """As it stands in its file: of a failed cell without what only a finished one has."""
        left_out = {"error", "traceback"} | ({"trained_together"} if self.trained_together is None else set())
        names = [f.name for f in fields(self) if f.name not in left_out] if self.done else FAILED
        content = {"schema": SCHEMA, **{name: getattr(self, name) for name in names}}
        return {**content, "checksum": _checksum(content)}

    @classmethod
    def from_json(cls, content: Any) -> Record:
        """The record in a file's content. Keys that are not a record's are left out: a later version may have more.

        Raises
        ------
        ValueError : it is no record, or not a sound one.
        """
        if not isinstance(content, dict):
            raise ValueError("not a JSON object")
        if content.get("schema") != SCHEMA:
            raise ValueError(f"schema {content.get('schema')!r}, expected {SCHEMA}")
        known = [f.name for f in fields(cls)]
        values = {name: content[name] for name in known if content.get(name) is not None}
        for name in ("status", "key", "cell", "config"):
            if name not in values:
                raise ValueError(f"{name!r} is missing")
        record = cls(**values)
        if "checksum" in content and content["checksum"] != _checksum(content):  # older records have none
            raise ValueError("damaged: its checksum does not fit; who edits a record by hand takes its checksum out")
        return record

    def __post_init__(self) -> None:
        for f in fields(self):
            value, kind = getattr(self, f.name), re.split(r"\W", str(f.type))[0]
            if value is not None or "None" not in str(f.type):
                _check_kind(f.name, value, _KINDS[kind])
        if self.status not in ("done", "failed"):
            raise ValueError(f"status {self.status!r}")
        for name in ("suite", "backbone", "method", "protocol", "shots", "seed"):
            if name not in self.cell:
                raise ValueError(f"its cell has no {name!r}")
            _check_kind(name, self.cell[name], int if name in ("shots", "seed") else str)
        _check_kind("params", self.config.get("params", {}), dict)
        if not self.done:
            return
        check(self.curves)
        check_similarity(self.similarity)
        check_chosen(self.chosen)
        for name, number in self.facts.items():
            _check_kind(f"{name} among the facts", number, _NUMBER)
        for task, found in self.under_names.items():
            _check_kind(f"under_names of task {task!r}", found, dict)
            for accuracy in found.values():
                _check_kind("an accuracy under another name", accuracy, _NUMBER)
        for task, found in self.overlap.items():
            _check_kind(f"overlap of task {task!r}", found, dict)
            _check_kind("known classes", found.get("known"), int)
            if found.get("accuracy") is not None:
                _check_kind("accuracy on classes that are not known", found["accuracy"], _NUMBER)
        texts = {name: self.config[name] for name in ("code", "numerics", "fold") if name in self.config}
        for name, text in [*self.fingerprints.items(), *self.splits.items(), *texts.items()]:
            _check_kind(name, text, str)
        if "fold" in texts:
            _check_kind("tasks", self.config.get("tasks"), list)
            _check_kind("sample", self.config.get("sample", []), list)
        _check_kind("train_tasks", self.config.get("train_tasks", 1), int)
        for mark in self.marks:
            _check_kind("marks", mark, str)
        if not self.tasks:
            raise ValueError("no tasks")
        for row in self.tasks:
            _check_kind("a row of the tasks", row, dict)
            for name in ("task", "part"):
                _check_kind(name, row.get(name), str)
            for name in ("accuracy",) if row.get("val_accuracy") is None else ("accuracy", "val_accuracy"):
                _check_kind(name, row.get(name), _NUMBER)
                if not 0 <= row[name] <= 100:  # nor is it NaN
                    raise ValueError(f"{name} {row[name]} of task {row['task']!r} is no percentage")
        pairs = {(row["task"], row.get("part")) for row in self.tasks}
        tasks, parts = ({pair[i] for pair in pairs} for i in (0, 1))
        whole = len(tasks) * len(parts) == len(pairs) == len(self.tasks)
        if parts not in ({"all"}, set(PARTS) - {"all"}) or not whole:
            said = sorted(map(str, parts))
            raise ValueError(f"the tasks' parts are {said}, {len(self.tasks)} for {len(tasks)} tasks")

    def rows(self) -> list[dict[str, Any]]:
        """Of a finished cell, one row a task and part: COLUMNS, and what tables need beside them."""
        config, variant = self.config, str(self.cell.get("variant") or "")
        held = config.get("params") or {}  # without what came later, at its default (`bench.cells.parameters_kept`)
        known = dict.fromkeys([*self.defaults, *held])
        parameters = {k: held.get(k, self.defaults.get(k)) for k in known if k in held or f"{k}=" not in variant}
        parameters |= {name: config[name] for name in ("names",) if name in config}  # a control's, in place of one
        common = {
            **{name: self.cell[name] for name in ("suite", "backbone", "method", "protocol", "shots", "seed")},
            "variant": variant,
            "setting": "",
            "params": self.n_params,
            "epochs": parameters.get("epochs"),
            "views": config.get("views"),
            "together": " ".join(map(str, self.trained_together or ())),
            **{name: getattr(self, name) for name in ("train_seconds", "feature_seconds", "test_seconds")},
            "peak_memory_mb": self.peak_memory_mb,
            "device": (self.processor or self.device) if self.device == "cpu" else self.device,
            **{name: getattr(self, name) for name in ("key", "finished", "note", "footnote", "demo", "recipe")},
            "title": self.title or self.cell["suite"],
            "pretrained": _file_name(str(config.get("pretrained") or "")),
            **{name: self.fingerprints.get(name, "") for name in ("weights", "data", "draw")},
            **{name: config.get(name, "") for name in ("code", "numerics")},
            "draws": Path(self.draws or NESTED).name,
            "searched": bool(self.chosen),
            "val_shots": config.get("val_shots", VAL_SHOTS),
            "marks": "; ".join(self.marks),
            "defaults": self.defaults,
            "complete": bool(config.get("complete_suite", True)),
            "parameters": parameters,
            "config": config,
            "fold": str(config.get("fold", "")),
            "train_tasks": config.get("train_tasks"),
            # What the mean is taken over is what the record holds, not what its configuration promised; of a fold it is
            # what all folds hold together, which a report sees to.
            "tasks": json.dumps(config.get("sample", config["tasks"]) if config.get("fold") else self.tested),
        }
        names = ("task", "part", "metric", "accuracy", "val_accuracy", "n_test", "n_train", "n_classes")
        return [{**common, **{name: row.get(name) for name in names}} for row in self.tasks]


_NUMBER = (int, float)
_KINDS: dict[str, Any] = {"str": str, "bool": bool, "int": int, "float": _NUMBER, "dict": dict, "list": list}


def _check_kind(name: str, value: Any, kind: Any) -> None:
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise ValueError(f"{name} is {value!r:.50}")


def _file_name(weights: str) -> str:
    """A weights file's name without the folders of the machine it lay on; a tag stays as it is."""
    return Path(weights).name if Path(weights).suffix in {".safetensors", ".pt", ".pth", ".bin"} else weights


def _checksum(content: dict[str, Any]) -> str:
    """A hash of all that a record's file says, whatever its layout: with one flipped bit 81.5 could read 91.5."""
    said = {name: value for name, value in content.items() if name != "checksum"}
    written = json.dumps(said, ensure_ascii=False).encode("utf-8", "replace")  # as `RecordStore.write` replaces
    return hashlib.blake2b(json.dumps(from_json(written), sort_keys=True).encode(), digest_size=8).hexdigest()


def cell_key(config: dict[str, Any]) -> str:
    """What a cell is: the hash of everything that its numbers follow from."""
    text = json.dumps(config, sort_keys=True, separators=(",", ":"))
    return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()


class RecordStore:
    """The records below a folder: RESULTS/<suite>/<backbone>/<method>/<shots>shot-seed<seed>-<key>.json."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, cell: dict[str, Any], key: str) -> Path:
        folder = self.folder.joinpath(*(file_name(str(cell[k])) for k in ("suite", "backbone", "method")))
        return folder / f"{cell['shots']}shot-seed{cell['seed']}-{key}.json"

    def read(self, cell: dict[str, Any], key: str) -> Record | None:
        """The record of a cell; None when there is none, or only a damaged one (then the cell runs again)."""
        with contextlib.suppress(OSError, ValueError):
            if (record := read_record(self.path(cell, key))).key == key:
                return record
        return None

    def beside(self, cell: dict[str, Any]) -> list[Record]:
        """All records of the cell's suite, backbone, method, shots and seed, whatever else they differ in."""
        there = self.path(cell, "*")
        found = [self.read(cell, path.stem.rpartition("-")[2]) for path in sorted(there.parent.glob(there.name))]
        return [record for record in found if record is not None]

    def write(self, record: Record) -> Path:
        """Write a record, whole or not at all; the cell's checkpoint has served."""
        path = self.path(record.cell, record.key)
        text = json.dumps(record.to_json(), indent=1, ensure_ascii=False)
        # Lists of numbers on one line each: curves would take thousands. No text in JSON holds a line's end.
        text = re.sub(r"\[\n\s+([-+.,\deE\s]+?)\s+\]", lambda found: f"[{' '.join(found[1].split())}]", text)
        write_whole(path, f"{text}\n".encode("utf-8", "replace"))  # the name of a folder of draws may be no text
        path.with_suffix(CHECKPOINT).unlink(missing_ok=True)
        return path


def read_record(path: Path) -> Record:
    """The record in a file.

    Raises
    ------
    OSError : it cannot be read. ValueError : it holds no sound record.
    """
    return Record.from_json(from_json(path.read_text(encoding="utf-8")))


def versions() -> dict[str, str]:
    """Versions of what the numbers depend on."""
    found = {"python": platform.python_version(), "prompt-bench": __version__}
    for name in ("torch", "torchvision", "open_clip_torch", "timm", "numpy", "pillow", "safetensors"):
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def processor() -> str:
    """The CPU's name: times and the rounding of sums depend on it."""
    with contextlib.suppress(OSError):
        if found := re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text()):  # Linux
            return found[1]
    return platform.processor() or platform.machine()


class PeakMemory:
    """Peak memory of this process, or of the GPU, in MB (1,000,000 bytes), since the object was made.

    On macOS it is the process's since its start, and Windows has nothing in the standard library for it.

    Of Apple's GPU, which keeps no peak: what its driver holds for this process in the end.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        if device.type == "cuda":
            import torch

            torch.cuda.reset_peak_memory_stats(device)
        elif device.type == "cpu":
            with contextlib.suppress(OSError):  # Linux: forget the peak so far; elsewhere it is the process's
                Path("/proc/self/clear_refs").write_text("5")

    def megabytes(self) -> float | None:
        if self.device.type != "cpu":
            import torch

            if self.device.type == "mps":
                return torch.mps.driver_allocated_memory() / 1e6
            return torch.cuda.max_memory_allocated(self.device) / 1e6
        try:
            status = Path("/proc/self/status").read_text()
            return int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0]) * 1024 / 1e6  # the kernel's kB has 1024 bytes
        except (OSError, IndexError):
            return _peak_since_start()


def _peak_since_start() -> float | None:
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6  # bytes on macOS, kB elsewhere
