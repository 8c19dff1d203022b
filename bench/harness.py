"""The harness: a grid of cells (method, shots, seed), each trained, scored and recorded once."""

from __future__ import annotations

import contextlib
import operator
import os
import sys
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from itertools import chain
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from tqdm.auto import tqdm

from bench.backbone import Backbone, Precision, load_backbone
from bench.cells import Cell, but_for_code, drawn, few_shot_set, make_cells, needed, paths
from bench.datasets.demo import ensure_demo
from bench.datasets.items import Item
from bench.datasets.places import cache_folder
from bench.datasets.splits import Task, load_tasks
from bench.datasets.suites import Suite, load_suite
from bench.devices import device_name, find_device, synchronise
from bench.errors import UserError
from bench.features import ImageFeatures, View
from bench.files import user_path
from bench.hashes import ImageHashes, copies, copies_told, named
from bench.heap import kept_heap
from bench.learned import keep_state
from bench.methods import Method, TaskData, find_method, method_names
from bench.methods.base import likeliest
from bench.metrics import METRICS
from bench.names import check_names
from bench.options import numbers, texts, variants
from bench.profile import profiled
from bench.progress import absolute, bar, count, duration, has_bars, note
from bench.protocols import BASE2NEW, FEW_SHOT, Part, check_protocol, harmonic_mean, test_parts, trained_part
from bench.recipe import check_values, load_recipe
from bench.records import SCHEMA, PeakMemory, RecordStore, processor, versions
from bench.reports.records import COLUMNS, rows_of

SCORE_CHUNK = 1024  # test images scored at a time
OTHER_CODE = (
    "{} of this grid finished with other code (of the method, or of what all methods share): run again; the old "
    "records stay as they are"
)
SMALL_WIDTH = 128  # text towers up to this width train on one thread


class Interrupted(KeyboardInterrupt):
    """Ctrl-C between or inside cells; says how many cells are finished."""


@dataclass
class Run:
    """Everything a grid needs, made once: tasks, backbone, features, cells, records."""

    suite: Suite
    protocol: str
    tasks: list[Task]
    backbone: Backbone
    features: ImageFeatures
    store: RecordStore
    cells: list[Cell]
    draws: Path | None
    recipe: str
    keep: bool
    profile: bool
    seeds_at_once: bool
    left_out: dict[str, str]  # methods that the protocol cannot take, and why
    tested: dict[str, Counter[str]]  # a task's test images by their content

    def todo(self) -> list[Cell]:
        """Cells without a finished record: new ones and failed ones."""
        return [c for c in self.cells if not self.is_done(c)]

    def is_done(self, cell: Cell) -> bool:
        return (self.store.read(cell.name, cell.key) or {}).get("status") == "done"

    def of_other_code(self) -> int:
        """How many of the cells to run are finished but for the code that made their numbers."""
        return sum(
            any(r.get("status") == "done" and but_for_code(r["config"]) == but_for_code(cell.config) for r in beside)
            for cell in self.todo()
            for beside in [self.store.beside(cell.name)]
        )

    def records(self) -> list[dict[str, Any]]:
        """Those of this grid's cells, by the names that this run gives them."""
        found = [(c.name, self.store.read(c.name, c.key)) for c in self.cells]
        return [{**r, "cell": name} for name, r in found if r is not None]

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
        wanted = [(paths(t, t.split.test), View()) for t in self.tasks]
        for task in self.tasks:
            few = few_shot_set(task, self.protocol, cell.shots, cell.seed, self.draws)
            for view, parts in needed(cell, *few).values():
                wanted += [(paths(task, part), view) for part in parts]
        kind = cell.variant.method.image
        there = sum(self.features.is_cached(images, view, kind) for images, view in wanted)
        return "cached" if there == len(wanted) else f"{there} of {len(wanted)} cached" if there else "to encode"


def prepare(
    suite: str | None = None,
    tasks: Sequence[str] | str | None = None,
    methods: Sequence[str] | str = ("zero-shot", "coop", "shared-coop", "softcpt"),
    shots: Sequence[int] | int = (1, 2, 4, 8, 16),
    seeds: Sequence[int] | int = (1, 2, 3),
    backbone: str | None = None,
    pretrained: str | None = None,
    data: str | Path | None = None,
    results: str | Path = "runs",
    device: str = "auto",
    views: int | None = None,
    options: Sequence[str] | str = (),
    allow_missing: bool = False,
    protocol: str = FEW_SHOT,
    recipe: str | None = None,
    draws: str | Path | None = None,
    precision: Precision = "float32",
    keep: bool = True,
    profile: bool = False,
    seeds_at_once: bool = False,
    *,
    quiet: bool = False,
) -> Run:
    """Resolve and check everything before anything is computed; see `run` for the arguments."""
    if suite is None and data:
        raise UserError("--data without --suite: name one (`python -m bench list suites`), or leave --data out")
    data_given = bool(data)
    data = data or os.environ.get("BENCH_DATA")
    check_protocol(protocol)
    if draws and not user_path(draws).is_dir():
        raise UserError(f"--draws {draws}: no such folder")
    chosen = load_suite(suite or "demo")
    names = method_names() if methods == "all" else texts(methods)
    tasks = None if tasks is None else texts(tasks)
    for argument, values in (("--methods", names), ("--tasks", tasks)):
        if values is not None and not values:
            raise UserError(f"{argument}: none given")
    shots, seeds = _whole(shots, "--shots", least=1), _whole(seeds, "--seeds", least=0)
    if views is not None and views < 1:
        raise UserError(f"--views {views}: at least 1")
    options = [options] if isinstance(options, str) else options
    classes = list(dict.fromkeys(find_method(name) for name in names))
    left_out = {c.name: c.closed for c in classes if c.closed} if protocol == BASE2NEW else {}
    if left_out and methods != "all":
        said = "; ".join(f"{name}: {why}" for name, why in left_out.items())
        raise UserError(f"--methods: {BASE2NEW} tests classes that no method was trained on; leave out {said}")
    classes = [c for c in classes if c.name not in left_out]
    for name in {c.name for c in classes}:  # records tell methods apart by name
        if sum(c.name == name for c in classes) > 1:
            raise UserError(f"--methods: two methods are called {name!r}; give one of the classes another `name`")
    check_values(f"{chosen.path}: recipe", {"all": chosen.recipe}, classes)
    recipe_used = load_recipe(recipe, classes) if recipe else None
    settings = variants(classes, options, [{"all": chosen.recipe}, recipe_used.values if recipe_used else {}])
    hide = True if quiet else None  # None: hidden where standard error is no terminal
    if chosen.demo:
        if data_given:
            raise UserError(f"--data {data}: the demo suite renders its own images; leave --data out")
        with bar("rendering the demo's images", 0, "image", hide, position=0) as shown:
            data = ensure_demo(cache_folder() / "demo", absolute(shown))
    elif not data:
        raise UserError(f"suite {chosen.name!r} needs images: give --data ROOT, or set BENCH_DATA")
    root = user_path(data)
    if not root.is_dir():
        raise UserError(f"--data {data}: no such folder")
    found = load_tasks(chosen, root, tasks, allow_missing)
    loaded = load_backbone(backbone or chosen.backbone or "RN50", pretrained, find_device(device), precision)
    check_names(loaded.tower, found, settings)
    features = ImageFeatures(loaded)
    folder = user_path(draws) if draws else None
    tested = _look_at_images(found, protocol, features.hashes, shots, seeds, folder, hide)
    views = views or (recipe_used.views if recipe_used else chosen.views)
    cells = list(make_cells(chosen, found, protocol, loaded, features, settings, shots, seeds, views, folder))
    store = RecordStore(user_path(results))
    return Run(
        suite=chosen,
        protocol=protocol,
        tasks=found,
        backbone=loaded,
        features=features,
        store=store,
        cells=cells,
        draws=folder,
        recipe=recipe or "",
        keep=keep,
        profile=profile,
        seeds_at_once=seeds_at_once,
        left_out=left_out,
        tested=tested,
    )


def _whole(values: Sequence[int] | int | str, argument: str, least: int) -> list[int]:
    """One number, several, or a text as on the command line: as a list, each once."""
    if isinstance(values, str):
        return numbers([values], argument, least)
    try:
        found = [operator.index(n) for n in (values if isinstance(values, Iterable) else [values])]
    except TypeError as error:
        raise UserError(f"{argument} {values!r}: whole numbers are wanted, for example [1, 2, 4]") from error
    if not found:
        raise UserError(f"{argument}: none given")
    if min(found) < least:
        raise UserError(f"{argument}: {min(found)} is less than {least}")
    return list(dict.fromkeys(found))


def _look_at_images(
    tasks: list[Task],
    protocol: str,
    hashes: ImageHashes,
    shots: Sequence[int],
    seeds: Sequence[int],
    draws: Path | None,
    hide: bool | None,
) -> dict[str, Counter[str]]:
    """Hash the images of all cells once, under a bar; what follows finds the hashes remembered.

    Broken images are refused, all at once; copies of few-shot images among the test images are told.
    Returns how often each content stands among a task's test images.
    """
    sets = [(n, seed) for seed in seeds for n in (shots if draws else [max(shots)])]  # ours are nested
    few = {t.name: [i for n, seed in sets for i in drawn(t, protocol, n, seed, draws)] for t in tasks}
    files = {t.name: (list(dict.fromkeys(paths(t, few[t.name]))), paths(t, t.split.test)) for t in tasks}
    broken = {}
    with bar("reading images", sum(map(len, chain(*files.values()))), "image", hide, position=0) as shown:
        for name, (seen, test) in files.items():
            broken[name] = hashes.broken([*seen, *test], shown.update)
    if any(broken.values()):
        lines = [f"  {name}: {named(faults)}" for name, faults in broken.items() if faults]
        n = sum(map(len, broken.values()))
        head = f"{n} images cannot be read; replace or delete them (docs/data.md says how):"
        raise UserError("\n".join([head, *lines]))
    tested = {}
    for t in tasks:
        learned_from, scored = map(hashes.by_content, files[t.name])
        if told := copies_told(t.split.root, copies(learned_from, scored), "few-shot images"):
            tqdm.write(f"warning: {t.name}: of the test images, {told}", file=sys.stderr)
        tested[t.name] = Counter(digest for digest, _ in scored)
    return tested


def run(
    suite: str | None = None,
    tasks: Sequence[str] | str | None = None,
    methods: Sequence[str] | str = ("zero-shot", "coop", "shared-coop", "softcpt"),
    shots: Sequence[int] | int = (1, 2, 4, 8, 16),
    seeds: Sequence[int] | int = (1, 2, 3),
    backbone: str | None = None,
    pretrained: str | None = None,
    data: str | Path | None = None,
    results: str | Path = "runs",
    device: str = "auto",
    views: int | None = None,
    options: Sequence[str] | str = (),
    allow_missing: bool = False,
    protocol: str = FEW_SHOT,
    recipe: str | None = None,
    draws: str | Path | None = None,
    precision: Precision = "float32",
    keep: bool = True,
    profile: bool = False,
    seeds_at_once: bool = False,
    *,
    quiet: bool = False,
) -> pd.DataFrame:
    """Run a grid of cells and return its results; what is finished already is read, not run again.

    Parameters
    ----------
    suite : name or path of a suite file; default: the embedded demo.
    tasks : some of the suite's tasks, or one; default: all.
    methods : names, "package.module:Class", or "all". shots, seeds : whole numbers, one or several.
    backbone, pretrained : see `bench.backbone.load_backbone`; default: the suite's, else "RN50" of OpenAI.
    data : folder that holds the tasks' folders; default: environment variable BENCH_DATA.
    results : folder of the records.
    device : "cpu", "cuda", "cuda:1", "mps", or "auto": CUDA's where there is one, else the CPU.
    views : training views an image (default: one for each epoch, which is the recipe's own distribution).
    options : "method.parameter=value" texts; several values with commas make one cell each.
    allow_missing : leave tasks out whose data is missing, and use what is there of those that are incomplete.
    protocol : "few-shot", or "base2new": train on the first half of each task's classes, test both halves.
    recipe : "paper" or a YAML file, above the suite's own recipe and below `options`; default: the suite's.
    draws : folder of few-shot files that are used instead of draws (`bench.write_draws` makes such files).
    precision : "float32", or "bfloat16" for the backbone's two towers.
    keep : keep what each cell learned beside its record, for `bench.words` and `bench.predict`.
    profile : write a trace of a few training steps of each cell beside its record (of seeds at once, the first's).
    seeds_at_once : train the seeds of a cell side by side: faster on a GPU, where small steps wait for each other. Each
        learns what it learns alone, up to the rounding of sums; a kill loses all seeds of the cell in flight.
    quiet : show nothing of the progress.

    Returns
    -------
    DataFrame : one row a finished cell and task (columns as in a report's records.csv). Cells that fail are recorded
        with their reason, left out here, summed up in a warning, and listed in `.attrs["failed"]`: one dict each, with
        suite, backbone, method, variant, protocol, shots, seed and error.

    Raises
    ------
    UserError : something given does not fit; nothing was run. Interrupted : Ctrl-C; finished cells are kept.
    """
    prepared = prepare(**locals())
    failed = execute(prepared, quiet)
    table = prepared.table()
    table.attrs["failed"] = [{**record["cell"], "error": record["error"]} for record in failed]
    if failed:
        warnings.warn(_summary(failed, len(prepared.cells)), stacklevel=2)
    return table


def _summary(failed: Sequence[dict[str, Any]], n_cells: int) -> str:
    """How many cells failed, for which reasons."""
    reasons = Counter(_reason(record) for record in failed)
    said = "; ".join(f"{reason} ({count(n, 'cell')})" for reason, n in reasons.most_common())
    return f"{len(failed)} of {count(n_cells, 'cell')} failed, see .attrs['failed'] of the table: {said}"


def _reason(record: dict[str, Any]) -> str:
    return record["error"].partition("\n")[0]


def execute(run: Run, quiet: bool = False) -> list[dict[str, Any]]:
    """Run what is not finished; returns the records of cells that failed."""
    todo = run.todo()
    failed = []
    hide = True if quiet else None
    run.store.folder.mkdir(parents=True, exist_ok=True)  # better now than after the first training
    other = run.of_other_code()
    if other:
        note(OTHER_CODE.format(count(other, "cell")), hide)
    finished = len(run.cells) - len(todo)
    bars = not hide and has_bars()
    with tqdm(total=len(run.cells), initial=finished, unit="cell", disable=not bars) as cells:
        for group in _groups(run, todo):
            left = [cell for cell in group if not run.is_done(cell)]  # another process may have done some meanwhile
            finished += len(group) - len(left)
            cells.update(len(group) - len(left))
            if not left:
                continue
            cells.set_description(_described(left))
            try:
                for cell, record in zip(left, run_cells(run, left, hide), strict=True):
                    if record["status"] == "done" or not run.is_done(cell):
                        run.store.write(record)
                    failed += [record] if record["status"] == "failed" else []
                    finished += 1
                    note(f"{_outcome(cell, record)} ({finished} of {len(run.cells)})", hide)
                    cells.update()
            except KeyboardInterrupt as stop:
                done = len(run.cells) - len(run.todo())  # without those that failed
                raise Interrupted(f"{done} of {len(run.cells)} cells are finished") from stop
    return failed


def _described(cells: Sequence[Cell]) -> str:
    """ "coop context=4, 2 shots, seeds 1, 2"; cells differ in the seed alone."""
    name = f"{cells[0].config['method']} {cells[0].variant.label}".strip()
    if not cells[0].shots:
        return name
    seeds = f"seed{'s' * (len(cells) > 1)} {', '.join(str(c.seed) for c in cells)}"
    return f"{name}, {count(cells[0].shots, 'shot')}, {seeds}"


def _outcome(cell: Cell, record: dict[str, Any]) -> str:
    """How a cell ended: its score and what it took, or why it failed."""
    if record["status"] == "failed":
        return f"failed: {_described([cell])}: {_reason(record)}"
    seconds = sum(record[f"{what}_seconds"] for what in ("feature", "train", "test"))
    return f"{_described([cell])}: {record['score']:.1f} % in {duration(seconds)}"


def _groups(run: Run, todo: Sequence[Cell]) -> list[list[Cell]]:
    """Cells that are trained together: one, or those that differ in the seed alone."""
    groups: dict[Any, list[Cell]] = {}
    for cell in todo:
        same = (cell.variant.method, cell.variant.label, cell.shots) if run.seeds_at_once else cell.key
        groups.setdefault(same, []).append(cell)
    return list(groups.values())


def run_cells(run: Run, cells: Sequence[Cell], hide: bool | None) -> Iterator[dict[str, Any]]:
    """The records of cells that are trained together; what fails together is tried cell by cell."""
    trained = None
    try:
        with kept_heap():
            trained = _train(run, cells, hide)
    except Exception as error:
        failure = _failure(cells[0], error)
    if trained is None:  # out of the handler, whose traceback would hold all that the training had allocated
        if len(cells) == 1:
            yield failure
            return
        note(f"not together ({_reason(failure)}): seed by seed", hide)
        for cell in cells:
            yield from run_cells(run, [cell], hide)
        return
    for cell, method, data in zip(cells, trained.methods, trained.data, strict=True):
        try:
            record = _record(run, cell, method, data, trained)
        except Exception as error:
            record = _failure(cell, error)
        yield record


@dataclass
class _Trained:
    """Cells' methods after training, and what it took."""

    methods: list[Method]
    data: list[list[TaskData]]
    tests: list[list[torch.Tensor]]  # a task's test features, in blocks
    feature_seconds: float
    train_seconds: float
    memory: PeakMemory
    threads: int
    seeds: list[int]


def _train(run: Run, cells: Sequence[Cell], hide: bool | None) -> _Trained:
    """Features, and training side by side."""
    memory = PeakMemory(run.backbone.device)
    start = time.perf_counter()
    kind, params = cells[0].variant.method, cells[0].variant.params
    tests = _test_features(run, kind.image, hide)
    data = [[_task_data(run, task, cell, hide) for task in run.tasks] for cell in cells]
    encoded = time.perf_counter()
    methods, seeds = [kind(params) for _ in cells], [cell.seed for cell in cells]
    with bar("  training", 0, "step", hide, every=60) as shown, _threads(run.backbone) as threads:
        trace = run.store.path(cells[0].name, cells[0].key).with_suffix(".trace.json.gz") if run.profile else None
        with profiled(trace, absolute(shown)) as report:
            if len(cells) == 1:
                methods[0].fit(run.backbone, data[0], seeds[0], report)
            else:
                kind.fit_together(list(zip(methods, data, seeds, strict=True)), run.backbone, report)
    synchronise(run.backbone.device)
    seconds = time.perf_counter() - encoded
    return _Trained(methods, data, tests, encoded - start, seconds, memory, threads, seeds)


def _record(run: Run, cell: Cell, method: Method, data: list[TaskData], trained: _Trained) -> dict[str, Any]:
    """Test a cell's method, keep what it learned; the cell's record."""
    start = time.perf_counter()
    scored = [
        row
        for t, task in enumerate(run.tasks)
        for row in _score(run, method, t, task, trained.tests[t], len(data[t].labels))
    ]
    end = time.perf_counter()
    learned = run.store.path(cell.name, cell.key).with_suffix(".safetensors")
    kept = run.keep and keep_state(learned, method, data, cell.config)
    n = len(trained.seeds)
    return {
        **_head(cell, "done"),
        "tasks": scored,
        "score": _mean_over_tasks(scored),
        "n_params": method.n_params,
        "feature_seconds": trained.feature_seconds / n,
        "train_seconds": trained.train_seconds / n,
        **({"trained_together": trained.seeds} if n > 1 else {}),
        "test_seconds": end - start,
        "peak_memory_mb": trained.memory.megabytes(),
        "device": device_name(run.backbone.device),
        "processor": processor(),
        "threads": trained.threads,
        "demo": run.suite.demo,
        "title": run.suite.title,
        "note": run.suite.note,
        "footnote": method.footnote,
        "recipe": run.recipe,
        "draws": str(run.draws) if run.draws else None,
        "learned": learned.name if kept else None,
        "versions": versions(),
        "fingerprints": {"weights": run.backbone.weights, "data": cell.config["data"], "draw": cell.config["draw"]},
        "splits": {task.name: task.split.source for task in run.tasks},
        "copies": {task.name: _copies(run, task, cell) for task in run.tasks},
    }


def _copies(run: Run, task: Task, cell: Cell) -> int:
    """How many of a task's test images have the same bytes as one of the cell's few-shot images."""
    few = paths(task, drawn(task, run.protocol, cell.shots, cell.seed, run.draws))
    return sum(run.tested[task.name][digest] for digest in set(run.features.hashes.of(few)))


def _score(
    run: Run, method: Method, t: int, task: Task, blocks: Sequence[torch.Tensor], n_train: int
) -> list[dict[str, Any]]:
    """One row for each part of a task's test images; base-to-new adds the harmonic mean of its two."""
    rows: list[dict[str, Any]] = []
    for part in test_parts(task, run.protocol):
        predicted = predictions(method, t, blocks, part, run.backbone.device, task.name)
        rows.append(
            {
                "task": task.name,
                "part": part.name,
                "metric": task.metric,
                "accuracy": METRICS[task.metric](predicted, part.labels),
                "n_test": len(part.labels),
                "n_train": n_train,
                "n_classes": part.n_classes,
            }
        )
    if run.protocol == BASE2NEW:
        both = harmonic_mean(rows[0]["accuracy"], rows[1]["accuracy"])
        total = {k: rows[0][k] + rows[1][k] for k in ("n_test", "n_classes")}
        rows.append({**rows[0], **total, "part": "harmonic", "accuracy": both})
    return rows


def predictions(
    method: Method, t: int, blocks: Sequence[torch.Tensor], part: Part, device: torch.device, name: str
) -> torch.Tensor:
    """The likeliest class [n] of each of a part's images, of which the features stand in blocks [m, d] one after the
    other; they may be mapped from disk: a chunk at a time is read."""
    found, first = [], 0
    for block in blocks:
        inside = part.rows[(part.rows >= first) & (part.rows < first + len(block))] - first  # rows ascend
        first += len(block)
        for rows in inside.split(SCORE_CHUNK) if len(inside) else ():
            scores = method.predict(t, block[rows].to(device), part.class_names)
            found.append(likeliest(scores, method.name, name, len(rows), part.n_classes).cpu())
    return torch.cat(found)


def _mean_over_tasks(rows: list[dict[str, Any]]) -> float:
    """The suite's score: unweighted mean over tasks (of the harmonic means, where there are two parts)."""
    last = {row["task"]: row["accuracy"] for row in rows}  # the last part of a task sums it up
    return sum(last.values()) / len(last)


def _head(cell: Cell, status: str) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "status": status,
        "key": cell.key,
        "cell": cell.name,
        "config": cell.config,
        "defaults": asdict(cell.variant.defaults),
        "finished": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }


def _failure(cell: Cell, error: Exception) -> dict[str, Any]:
    reason = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
    trace = "".join(traceback.format_exception(error))
    return {**_head(cell, "failed"), "error": reason, "traceback": trace, "versions": versions()}


def _task_data(run: Run, task: Task, cell: Cell, hide: bool | None) -> TaskData:
    method = cell.variant.method
    found: dict[str, torch.Tensor] = {}
    train, val = few_shot_set(task, run.protocol, cell.shots, cell.seed, run.draws)
    task = trained_part(task, run.protocol)
    for need, (view, parts) in needed(cell, train, val).items():
        total = sum(map(len, parts)) * (view.last - view.first)
        naming = run.features.naming_broken(paths(task, [*chain(*train, *val)]), hide)
        with bar(f"  encoding {task.name}", total, "view", hide) as shown, naming:
            blocks = [run.features.get(paths(task, part), view, method.image, shown.update) for part in parts]
        features = torch.cat(blocks, dim=1) if blocks else torch.zeros(1, 0, run.backbone.embed_dim)
        found[need] = features if need == "views" else features[0]
    return TaskData(
        name=task.name,
        task_name=task.task_name,
        class_names=task.class_names,
        template=task.template,
        descriptions=task.descriptions,
        labels=_labels(train),
        val_labels=_labels(val),
        **{"views": torch.zeros(1, 0, run.backbone.embed_dim), **found},
    )


def _labels(parts: list[list[Item]]) -> torch.Tensor:
    return torch.tensor([item.label for items in parts for item in items], dtype=torch.long)


def _test_features(run: Run, kind: str, hide: bool | None) -> list[list[torch.Tensor]]:
    """[n, d] blocks of each task, mapped into memory."""
    with bar("  encoding test images", sum(len(t.split.test) for t in run.tasks), "view", hide) as shown:
        found = []
        for t in run.tasks:
            images = paths(t, t.split.test)
            with run.features.naming_broken(images, hide):
                found.append([block[0] for block in run.features.blocks(images, View(), kind, shown.update)])
        return found


@contextlib.contextmanager
def _threads(backbone: Backbone) -> Iterator[int]:
    """One thread for small text towers: several spend their time waiting for each other, and sums in another order
    would make the result depend on the machine's number of cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1 if backbone.tower.width <= SMALL_WIDTH else before)
    try:
        yield torch.get_num_threads()
    finally:
        torch.set_num_threads(before)
