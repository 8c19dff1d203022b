"""The harness: a grid of cells (method, shots, seed), each trained, scored and recorded once."""

from __future__ import annotations

import hashlib
import json
import os
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from itertools import pairwise
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from tqdm import tqdm

from bench.backbone import Backbone, load_backbone
from bench.datasets.demo import ensure_demo
from bench.datasets.fewshot import few_shot
from bench.datasets.items import Item
from bench.datasets.splits import Task, load_tasks
from bench.datasets.suites import Suite, load_suite
from bench.errors import UserError
from bench.features import ImageFeatures, View, cache_folder
from bench.methods import TaskData, find_method, method_names
from bench.metrics import METRICS
from bench.options import Variant, variants
from bench.records import SCHEMA, PeakMemory, RecordStore, cell_key, versions
from bench.reports.records import COLUMNS, rows_of

SCORE_CHUNK = 8192  # test images scored at a time
VAL_SHOTS = 4  # validation few-shot images a class, at most


@dataclass(frozen=True)
class Cell:
    """One training and its test: what it is (`config`), and where its record stands."""

    variant: Variant
    shots: int
    seed: int
    views: int | None
    config: dict[str, Any]
    key: str

    @property
    def name(self) -> dict[str, Any]:
        c = self.config
        names = {k: c[k] for k in ("suite", "backbone", "method", "protocol", "shots", "seed")}
        return {**names, "variant": self.variant.label}


class Interrupted(KeyboardInterrupt):
    """Ctrl-C between or inside cells; says how many cells are finished."""


@dataclass
class Run:
    """Everything a grid needs, made once: tasks, backbone, features, cells, records."""

    suite: Suite
    tasks: list[Task]
    backbone: Backbone
    features: ImageFeatures
    store: RecordStore
    cells: list[Cell]

    def todo(self) -> list[Cell]:
        """Cells without a finished record: new ones and failed ones."""
        return [c for c in self.cells if not self.is_done(c)]

    def is_done(self, cell: Cell) -> bool:
        return (self.store.read(cell.name, cell.key) or {}).get("status") == "done"

    def records(self) -> list[dict[str, Any]]:
        found = [self.store.read(c.name, c.key) for c in self.cells]
        return [r for r in found if r is not None]

    def table(self) -> pd.DataFrame:
        """Finished cells, one row a cell and task: the columns of a report's records.csv."""
        rows = [row for r in self.records() if r["status"] == "done" for row in rows_of(r)]
        return pd.DataFrame(rows, columns=COLUMNS)

    def plan(self) -> pd.DataFrame:
        """The cells and what is there already: one row a cell."""
        rows = []
        for c in self.cells:
            record = self.store.read(c.name, c.key)
            state = "to run" if record is None else {"done": "done"}.get(record["status"], "failed, to run again")
            row = {k: c.name[k] for k in ("suite", "backbone", "method", "variant", "shots", "seed")}
            rows.append({**row, "views": c.views, "state": state, "features": self._cached(c)})
        return pd.DataFrame(rows)

    def _cached(self, cell: Cell) -> str:
        wanted = [(_test_paths(t), View()) for t in self.tasks]
        for task in self.tasks:
            for view, items in _wanted(task, cell):
                wanted += [(_paths(task, part), view) for part in items]
        kind = cell.variant.method.image
        there = sum(self.features.is_cached(paths, view, kind) for paths, view in wanted)
        return "cached" if there == len(wanted) else f"{there} of {len(wanted)} cached" if there else "to encode"


def prepare(
    suite: str | None = None,
    tasks: Sequence[str] | None = None,
    methods: Sequence[str] | str = ("zero-shot", "coop", "shared-coop", "softcpt"),
    shots: Sequence[int] = (1, 2, 4, 8, 16),
    seeds: Sequence[int] = (1, 2, 3),
    backbone: str | None = None,
    pretrained: str | None = None,
    data: str | Path | None = None,
    results: str | Path = "runs",
    device: str = "auto",
    views: int | None = None,
    options: Sequence[str] = (),
    allow_missing: bool = False,
    *,
    quiet: bool = False,
) -> Run:
    """Resolve and check everything before anything is computed; see `run` for the arguments."""
    if suite is None and data:
        raise UserError("--data without --suite: name one (`python -m bench list suites`), or leave --data out")
    data = data or os.environ.get("BENCH_DATA")
    chosen = load_suite(suite or "demo")
    names = method_names() if methods == "all" else [methods] if isinstance(methods, str) else list(methods)
    _check(names, tasks, shots, seeds, views)
    classes = list(dict.fromkeys(find_method(name) for name in names))
    for name in {c.name for c in classes}:  # records tell methods apart by name
        if sum(c.name == name for c in classes) > 1:
            raise UserError(f"--methods: two methods are called {name!r}; give one of the classes another `name`")
    settings = variants(classes, options, chosen.recipe)
    hide = True if quiet else None  # None: hidden where standard error is no terminal
    if chosen.demo:
        with _bar("rendering the demo's images", 0, "image", hide, position=0) as bar:
            data = ensure_demo(cache_folder() / "demo", _absolute(bar))
    elif not data:
        raise UserError(f"suite {chosen.name!r} needs images: give --data ROOT, or set BENCH_DATA")
    root = Path(data).expanduser()
    if not root.is_dir():
        raise UserError(f"--data {data}: no such folder")
    found = load_tasks(chosen, root, tasks, allow_missing)
    loaded = load_backbone(backbone or chosen.backbone or "RN50", pretrained, _device(device))
    features = ImageFeatures(loaded)
    _hash(found, features, shots, seeds, hide)
    cells = list(_cells(chosen, found, loaded, features, settings, shots, seeds, views or chosen.views))
    return Run(chosen, found, loaded, features, RecordStore(Path(results)), cells)


def _check(
    methods: Sequence[str], tasks: Sequence[str] | None, shots: Sequence[int], seeds: Sequence[int], views: int | None
) -> None:
    for argument, values in (("--methods", methods), ("--tasks", tasks), ("--shots", shots), ("--seeds", seeds)):
        if values is not None and not len(values):
            raise UserError(f"{argument}: none given")
    if min(shots) < 1:
        raise UserError(f"--shots: {min(shots)} is less than 1")
    if min(seeds) < 0:
        raise UserError(f"--seeds: {min(seeds)} is less than 0")
    if views is not None and views < 1:
        raise UserError(f"--views {views}: at least 1")


def _hash(
    tasks: list[Task], features: ImageFeatures, shots: Sequence[int], seeds: Sequence[int], hide: bool | None
) -> None:
    """Hash the images of all cells once, under a bar; what follows finds the hashes remembered."""
    items = {t.name: [*t.split.test, *(i for seed in seeds for i in _draw(t, max(shots), seed))] for t in tasks}
    paths = list(dict.fromkeys(path for t in tasks for path in _paths(t, items[t.name])))
    with _bar("reading images", len(paths), "image", hide, position=0) as bar:
        features.hashes.of(paths, bar.update)


def run(*args: Any, quiet: bool = False, **kwargs: Any) -> pd.DataFrame:
    """Run a grid of cells and return its results; what is finished already is read, not run again.

    Parameters
    ----------
    suite : name or path of a suite file; default: the embedded demo.
    tasks : some of the suite's tasks; default: all.
    methods : names, "package.module:Class", or "all". shots, seeds : lists of whole numbers.
    backbone, pretrained : see `bench.backbone.load_backbone`; default: the suite's, else "RN50" of OpenAI.
    data : folder that holds the tasks' folders; default: environment variable BENCH_DATA.
    results : folder of the records. device : "auto", "cpu" or "cuda".
    views : training views an image (default: one for each epoch, which is the recipe's own distribution).
    options : "method.parameter=value" texts; several values with commas make one cell each.
    allow_missing : leave tasks out whose data is missing.
    quiet : no progress bars.

    Returns
    -------
    DataFrame : one row a finished cell and task (columns as in a report's records.csv). A cell that fails
        is recorded with its reason and left out here.

    Raises
    ------
    UserError : something given does not fit; nothing was run. Interrupted : Ctrl-C; finished cells are kept.
    """
    prepared = prepare(*args, quiet=quiet, **kwargs)
    execute(prepared, quiet)
    return prepared.table()


def execute(run: Run, quiet: bool = False) -> list[dict[str, Any]]:
    """Run what is not finished; returns the records of cells that failed."""
    todo = run.todo()
    failed = []
    hide = True if quiet else None
    run.store.folder.mkdir(parents=True, exist_ok=True)  # better now than after the first training
    with tqdm(total=len(run.cells), initial=len(run.cells) - len(todo), unit="cell", disable=hide) as bar:
        for cell in todo:
            if run.is_done(cell):  # by another process, meanwhile
                bar.update()
                continue
            label = f"{cell.config['method']} {cell.variant.label}".strip()
            bar.set_description(f"{label}, {cell.shots} shots, seed {cell.seed}")
            try:
                record = _run_cell(run, cell, hide)
            except KeyboardInterrupt as stop:
                finished = len(run.cells) - len(run.todo())  # a hidden bar does not count
                raise Interrupted(f"{finished} of {len(run.cells)} cells are finished") from stop
            except Exception as error:
                record = _failure(cell, error)
                failed.append(record)
            if record["status"] == "done" or not run.is_done(cell):
                run.store.write(record)
            bar.update()
    return failed


def _run_cell(run: Run, cell: Cell, hide: bool | None) -> dict[str, Any]:
    """Features, training, test: the record of one cell."""
    memory = PeakMemory(str(run.backbone.device))
    start = time.perf_counter()
    tests = _test_features(run, cell.variant.method.image, hide)
    data = [_task_data(run, task, cell, hide) for task in run.tasks]
    encoded = time.perf_counter()
    method = cell.variant.method(cell.variant.params)
    with _bar("  training", 0, "step", hide) as bar:
        method.fit(run.backbone, data, cell.seed, _absolute(bar))
    if run.backbone.device.type == "cuda":
        torch.cuda.synchronize()
    trained = time.perf_counter()
    scored: list[dict[str, Any]] = []
    for t, task in enumerate(run.tasks):
        labels = torch.tensor([item.label for item in task.split.test])
        chunks = tests[t].split(SCORE_CHUNK)
        scores = (method.predict(t, chunk.to(run.backbone.device)) for chunk in chunks)
        predicted = torch.cat([s.argmax(dim=1).cpu() for s in scores])
        scored.append(
            {
                "task": task.name,
                "part": "all",
                "metric": task.metric,
                "accuracy": METRICS[task.metric](predicted, labels),
                "n_test": len(labels),
                "n_train": len(data[t].labels),
                "n_classes": len(task.class_names),
            }
        )
    end = time.perf_counter()
    return {
        **_head(cell, "done"),
        "tasks": scored,
        "score": sum(s["accuracy"] for s in scored) / len(scored),
        "n_params": method.n_params,
        "feature_seconds": encoded - start,
        "train_seconds": trained - encoded,
        "test_seconds": end - trained,
        "peak_memory_mb": memory.megabytes(),
        "device": _device_name(run.backbone.device),
        "threads": torch.get_num_threads(),
        "demo": run.suite.demo,
        "title": run.suite.title,
        "note": run.suite.note,
        "footnote": method.footnote,
        "versions": versions(),
        "fingerprints": {"weights": run.backbone.weights, "data": cell.config["data"], "draw": cell.config["draw"]},
    }


def _head(cell: Cell, status: str) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "status": status,
        "key": cell.key,
        "cell": cell.name,
        "config": cell.config,
        "finished": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }


def _failure(cell: Cell, error: Exception) -> dict[str, Any]:
    reason = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
    trace = "".join(traceback.format_exception(error))
    return {**_head(cell, "failed"), "error": reason, "traceback": trace, "versions": versions()}


# ---- cells ---------------------------------------------------------------------------------------------------


def _cells(
    suite: Suite,
    tasks: list[Task],
    backbone: Backbone,
    features: ImageFeatures,
    settings: Sequence[Variant],
    shots: Sequence[int],
    seeds: Sequence[int],
    views: int | None,
) -> Iterator[Cell]:
    """All cells, seed by seed and shots ascending, so that a stopped run leaves complete columns behind."""
    data = _digest([_description(t, features, t.split.test) for t in tasks])
    draws: dict[tuple[int, int], str] = {}
    for seed, n in [(0, 0)] + [(seed, n) for seed in seeds for n in shots]:
        for variant in settings:
            if variant.method.trains != (n > 0):
                continue
            if n and (seed, n) not in draws:
                draws[seed, n] = _digest([_description(t, features, _draw(t, n, seed)) for t in tasks])
            params = asdict(variant.params)
            epochs = params.get("epochs")
            cell_views = min(views or epochs or 1, epochs or views or 1) if "views" in variant.method.needs else None
            config = {
                "suite": suite.name,
                "backbone": backbone.name,
                "pretrained": backbone.pretrained,
                "weights": backbone.weights,
                "method": variant.method.name,
                "params": params,
                "protocol": "few-shot",
                "shots": n,
                "seed": seed,
                "views": cell_views,
                "tasks": [t.name for t in tasks],
                "complete_suite": len(tasks) == len(suite.tasks),
                "data": data,
                "draw": draws.get((seed, n), ""),
            }
            yield Cell(variant, n, seed, cell_views, config, cell_key(config))


def _description(task: Task, features: ImageFeatures, items: Sequence[Item]) -> list[Any]:
    """What a method's numbers follow from: names, and the images' content with their labels."""
    digests = features.hashes.of(_paths(task, items))
    images = [(digest, item.label) for digest, item in zip(digests, items, strict=True)]
    return [task.name, task.task_name, task.template, task.metric, task.class_names, images]


def _draw(task: Task, shots: int, seed: int) -> list[Item]:
    return few_shot(task.split.train, shots, seed) + few_shot(task.split.val, min(shots, VAL_SHOTS), seed)


def _digest(what: Any) -> str:
    return hashlib.blake2b(json.dumps(what).encode(), digest_size=12).hexdigest()


# ---- features of a cell --------------------------------------------------------------------------------------


def _paths(task: Task, items: Sequence[Item]) -> list[Path]:
    return [task.split.root / item.path for item in items]


def _test_paths(task: Task) -> list[Path]:
    return _paths(task, task.split.test)


def _shards(items: Sequence[Item], shots: int, seed: int) -> list[list[Item]]:
    """The few-shot set cut at ranks 1, 2, 4, 8, …: 16 shots reuse the blocks that 1, 2, 4 and 8 shots left."""
    edges = [0, *(2**i for i in range(shots.bit_length()) if 2**i < shots), shots]
    return [few_shot(items, b, seed, first=a) for a, b in pairwise(edges)] if shots else []


def _wanted(task: Task, cell: Cell) -> Iterator[tuple[View, list[list[Item]]]]:
    """The few-shot features a method needs, in the order of `Method.needs` sorted: a view, and the images."""
    train = _shards(task.split.train, cell.shots, cell.seed)
    val = _shards(task.split.val, min(cell.shots, VAL_SHOTS), cell.seed)
    views = View(cell.seed, 0, cell.views or 1)
    for need in sorted(cell.variant.method.needs):
        yield {"plain": (View(), train), "val": (View(), val), "views": (views, train)}[need]


def _task_data(run: Run, task: Task, cell: Cell, hide: bool | None) -> TaskData:
    method = cell.variant.method
    parts: dict[str, torch.Tensor] = {}
    for need, (view, shards) in zip(sorted(method.needs), _wanted(task, cell), strict=True):
        total = sum(map(len, shards)) * (view.last - view.first)
        with _bar(f"  encoding {task.name}", total, "view", hide) as bar:
            paths = [_paths(task, items) for items in shards if items]  # empty where classes are small
            blocks = [run.features.get(part, view, method.image, bar.update) for part in paths]
        features = torch.cat(blocks, dim=1) if blocks else torch.zeros(1, 0, run.backbone.embed_dim)
        parts[need] = features if need == "views" else features[0]
    return TaskData(
        name=task.name,
        task_name=task.task_name,
        class_names=task.class_names,
        template=task.template,
        labels=_labels(_shards(task.split.train, cell.shots, cell.seed)),
        val_labels=_labels(_shards(task.split.val, min(cell.shots, VAL_SHOTS), cell.seed)),
        **{"views": torch.zeros(1, 0, run.backbone.embed_dim), **parts},
    )


def _labels(shards: list[list[Item]]) -> torch.Tensor:
    return torch.tensor([item.label for items in shards for item in items], dtype=torch.long)


def _test_features(run: Run, kind: str, hide: bool | None) -> list[torch.Tensor]:
    with _bar("  encoding test images", sum(len(t.split.test) for t in run.tasks), "view", hide) as bar:
        return [run.features.get(_test_paths(t), View(), kind, bar.update)[0] for t in run.tasks]


def _bar(label: str, total: int, unit: str, hide: bool | None, position: int = 1) -> Any:
    """A progress bar with time left, shown once something takes more than two seconds."""
    return tqdm(desc=label, total=total, unit=unit, delay=2, leave=False, disable=hide, position=position)


def _absolute(bar: Any) -> Callable[[int, int], None]:
    """Move a bar by (done, total)."""

    def report(done: int, total: int) -> None:
        bar.total = total
        bar.update(done - bar.n)

    return report


def _device(name: str) -> str:
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name not in ("cpu", "cuda"):
        raise UserError(f"--device {name!r}: one of auto, cpu, cuda")
    if name == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: no CUDA device is there; use --device cpu")
    return name


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
