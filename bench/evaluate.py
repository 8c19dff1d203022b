"""One cell, or the seeds of one side by side: features, training, scores, record."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bench import chosen, curves, likeness
from bench.cells import Cell, needed, parameters_kept
from bench.checkpoints import Checkpoint
from bench.clip.backbone import Backbone
from bench.controls import shuffled
from bench.datasets.splits import Task
from bench.devices import device_name, synchronise
from bench.errors import UserError
from bench.estimates import over_limit
from bench.features import Images, View
from bench.features.mapped import mapped
from bench.guard import Deadline, ends_run, own_traceback, reason
from bench.limits import BOUND, free, out_of_memory, smaller
from bench.methods import Method, TaskData
from bench.plan import Plan, draws_of
from bench.predictions import NUMBERS, SUFFIX, PartPredictions, images_digest, write
from bench.profile import profiled
from bench.progress import absolute, bar, note
from bench.protocols import Part
from bench.records import CHECKPOINT, PeakMemory, Record, processor, versions
from bench.saved import keep_state
from bench.scoring import Scored, known_classes, mean_over_tasks, score, under_names

NO_IMAGES: dict[str, Any] = {"views": torch.zeros(1, 0, 0), "labels": torch.zeros(0, dtype=torch.long)}
SMALL_WIDTH = 128  # text towers up to this width train on one thread


def evaluate(plan: Plan, cells: Sequence[Cell]) -> Iterator[Record]:
    """The records of cells that are trained together; what fails together is tried cell by cell."""
    trained = less = None
    limit = plan.config.cell_timeout
    try:
        if over := over_limit(plan, cells):
            raise UserError(over)
        trained = _train(plan, cells, Deadline(limit and limit * len(cells)))
    except BaseException as error:
        if ends_run(error):
            raise
        failure = failure_record(cells[0], error)
        less = smaller(cells[0]) if len(cells) == 1 and out_of_memory(error) else None
    if less is not None:
        note(f"not enough memory with {BOUND}={getattr(cells[0].variant.params, BOUND)}: again with half", plan.hide)
        free()
        yield from evaluate(plan, [less])
        return
    if trained is None:  # out of the handler, whose traceback would hold all that the training had allocated
        if len(cells) == 1:
            yield failure
            return
        note(f"not together ({failure.reason}): seed by seed", plan.hide)
        for cell in cells:
            yield from evaluate(plan, [cell])
        return
    for cell, method, data in zip(cells, trained.methods, trained.data, strict=True):
        try:
            with trained.deadline.running():
                record = _record(plan, cell, method, data, trained)
        except BaseException as error:
            if ends_run(error):
                raise
            record = failure_record(cell, error)
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
    deadline: Deadline


def _train(plan: Plan, cells: Sequence[Cell], deadline: Deadline) -> _Trained:
    """Features, and training side by side."""
    memory = PeakMemory(plan.backbone.device)
    start = time.perf_counter()
    kind = cells[0].variant.method
    for cell in cells:
        features_of(plan, cell)
    tests = scored_features(plan, plan.scored(cells[0]), kind.image)
    data = [_data(plan, cell) for cell in cells]
    encoded = time.perf_counter()
    methods, seeds = [cell.variant.make() for cell in cells], [cell.seed for cell in cells]
    with bar("  training", 0, "step", plan.hide, every=60) as shown, _threads(plan.backbone) as threads:
        beside = plan.store.path(cells[0].name, cells[0].key)
        trace = beside.with_suffix(".trace.json.gz") if plan.config.profile else None
        for cell, method in zip(cells, methods, strict=True):
            method.checkpoint = _checkpoint(plan, cell, cells, threads)
        with deadline.running(), profiled(trace, absolute(shown)) as report:
            seen = [[_seen(task, method) for task in own] for method, own in zip(methods, data, strict=True)]
            if len(cells) == 1:
                methods[0].fit(plan.backbone, seen[0], seeds[0], report)
            else:
                kind.fit_together(list(zip(methods, seen, seeds, strict=True)), plan.backbone, report)
    synchronise(plan.backbone.device)
    seconds = time.perf_counter() - encoded + sum(method.checkpoint.seconds for method in methods)
    return _Trained(methods, data, tests, encoded - start, seconds, memory, threads, seeds, deadline)


def _checkpoint(plan: Plan, cell: Cell, together: Sequence[Cell], threads: int) -> Checkpoint:
    """Where a cell's training goes on after a kill: numbers to the last bit need the same machine and versions."""
    about = {"cells": [c.key for c in together], "device": device_name(plan.backbone.device), "threads": threads}
    path = plan.store.path(cell.name, cell.key).with_suffix(CHECKPOINT)
    return Checkpoint(path, {**about, "processor": processor(), **versions()}, plan.config.checkpoint_every, plan.hide)


def _record(plan: Plan, cell: Cell, method: Method, data: list[TaskData], trained: _Trained) -> Record:
    """Test a cell's method, keep what it learned; the cell's record."""
    start = time.perf_counter()
    rows: list[dict[str, Any]] = []
    said = []
    by_name, named, overlap = {own.name: own for own in data}, {}, {}
    others = plan.trained(cell)  # under their own names, also where they were trained under others
    for task, blocks in zip(plan.scored(cell), trained.tests, strict=True):
        unseen = task.name not in by_name
        own = TaskData(**_names(task), **NO_IMAGES) if unseen else by_name[task.name]
        scores, parts = score(plan.protocol, method, task, own, blocks, plan.backbone.device, unseen)
        if unseen:
            named[task.name] = under_names(plan.protocol, method, task, own, others, blocks, plan.backbone.device)
            overlap[task.name] = known_classes(task, others, parts)
        rows += scores
        said += [_predictions(task, own, part, found) for part, found in parts]
    end = time.perf_counter()
    beside = plan.store.path(cell.name, cell.key)
    learned, predictions = beside.with_suffix(".safetensors"), beside.with_suffix(SUFFIX)
    kept = plan.config.keep and keep_state(learned, method, data, cell.config)
    if plan.config.keep:
        write(predictions, cell.key, said)
    n = len(trained.seeds)
    trained_curves, choices = method.curves(), method.chosen()
    return Record(
        "done",
        **_head(cell),
        tasks=rows,
        score=mean_over_tasks(rows),
        n_params=method.n_params,
        feature_seconds=trained.feature_seconds / n,
        train_seconds=trained.train_seconds / n,
        trained_together=trained.seeds if n > 1 else None,
        test_seconds=end - start,
        peak_memory_mb=trained.memory.megabytes(),
        device=device_name(plan.backbone.device),
        processor=processor(),
        threads=trained.threads,
        demo=plan.demo,
        title=plan.suite.title,
        note=plan.note,
        footnote=" ".join(filter(None, (method.notes, chosen.footnote(choices, plan.config.val_shots)))),
        recipe=plan.config.recipe or "",
        run=plan.config.recorded(),
        draws=None if (whose := draws_of(plan.config)) is None else Path(whose).name,
        curves=curves.kept(trained_curves),
        marks=curves.marks(trained_curves, data),
        similarity=likeness.kept(method, likeness.IN_RECORDS),
        chosen=chosen.kept(choices),
        facts=method.facts(),
        under_names={name: found for name, found in named.items() if found},
        overlap=overlap,
        learned=learned.name if kept else None,
        predictions=predictions.name if plan.config.keep else None,
        fingerprints=plan.fingerprints(cell),
        splits={task.name: task.split.source for task in plan.tasks},
        copies=_copies(plan, cell),
    )


def _copies(plan: Plan, cell: Cell) -> dict[str, int]:
    """How many test images of each task have the same bytes as one of its few-shot images, or, of a task that was not
    trained on, as one of any task that was."""
    few = {name: {*plan.draw(cell).images(name).digests} for name in cell.trained}
    of_any = {d for own in few.values() for d in own}
    tests = plan.images.tests.items()
    return {task: sum(d in few.get(task, of_any) for d in tested.digests) for task, tested in tests}


def _predictions(task: Task, trained: TaskData, part: Part, found: Scored) -> PartPredictions:
    """What is kept of a part's images."""
    columns = (part.rows, part.labels, *found)
    rows = dict(zip(NUMBERS, (x.numpy() for x in columns), strict=True))
    names = trained.class_names if part.class_names is None else part.class_names
    return PartPredictions(task.name, part.name, task.metric, names, images_digest(task.split.test), rows)


def _head(cell: Cell) -> dict[str, Any]:
    return {
        "key": cell.key,
        "cell": cell.name,
        "config": cell.config,
        "defaults": parameters_kept(cell.variant.defaults, whole=True),
        "finished": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "versions": versions(),
    }


def failure_record(cell: Cell, error: BaseException) -> Record:
    trace = own_traceback(error, cell.variant.method)
    return Record("failed", **_head(cell), error=reason(error), traceback=trace)


def features_of(plan: Plan, cell: Cell) -> None:
    """Encode what a cell needs, as far as the cache lacks it."""
    _encode(plan, [*plan.tests(cell), *plan.few(cell)], cell.variant.method.image)


def _encode(plan: Plan, wanted: Sequence[tuple[Images, View]], kind: str) -> None:
    blocks = plan.features.missing(wanted, kind)
    naming = plan.features.naming_broken([path for block in blocks for path in block.paths], plan.hide)
    with bar("  encoding images", sum(map(len, blocks)), "view", plan.hide) as shown, naming:
        plan.features.make(blocks, kind, shown.update)


def _data(plan: Plan, cell: Cell) -> list[TaskData]:
    """What a cell is trained on; of a control, under exchanged names."""
    tasks = plan.trained(cell)
    if cell.variant.shuffled:
        names = shuffled([task.task_name for task in tasks], cell.seed)
        tasks = [task.called(name) for task, name in zip(tasks, names, strict=True)]
    views = mapped((_views(plan, task, cell) for task in tasks), plan.features.folder)
    return [_task_data(plan, task, cell, own) for task, own in zip(tasks, views, strict=True)]


def _views(plan: Plan, task: Task, cell: Cell) -> Tensor:
    """[V, n, …]: a task's training views; none where the method reads none."""
    wanted = needed(cell, plan.draw(cell), plan.protocol.trained(task).name)
    return _few_shot(plan, cell, *wanted["views"]) if "views" in wanted else torch.zeros(1, 0, plan.backbone.embed_dim)


def _few_shot(plan: Plan, cell: Cell, view: View, parts: Sequence[Images]) -> Tensor:
    """[V, n, …] of a task's few-shot images."""
    blocks = [plan.features.get(part, view, cell.variant.method.image) for part in parts]
    return torch.cat(blocks, dim=1) if blocks else torch.zeros(1, 0, plan.backbone.embed_dim)


def _task_data(plan: Plan, task: Task, cell: Cell, views: Tensor) -> TaskData:
    draw, whole, task = plan.draw(cell), task, plan.protocol.trained(task)
    wanted = needed(cell, draw, task.name)
    found: dict[str, Any] = {n: _few_shot(plan, cell, *wanted[n])[0] for n in wanted if n != "views"}
    return TaskData(
        **_names(task),
        views=views,
        labels=_labels(draw.train[task.name]),
        val_labels=_labels(draw.val[task.name]),
        asked=cell.shots,
        new_names=tuple(name for name in whole.class_names if name not in task.class_names),
        **found,
    )


def _seen(task: TaskData, method: Method) -> TaskData:
    """What `fit` is given of a task: its validation images and its new classes' names only where the method says that
    it reads them."""
    needs = method.needs_of(method.params)
    if "val" not in needs:
        task = replace(task, val=task.val[:0], val_labels=task.val_labels[:0])
    return task if "new_names" in needs else replace(task, new_names=())


def _names(task: Task) -> dict[str, Any]:
    """Of a `TaskData`, what is known without an image."""
    names = ("name", "task_name", "class_names", "template", "descriptions", "path")
    return {name: getattr(task, name) for name in names}


def _labels(parts: Sequence[Images]) -> torch.Tensor:
    return torch.tensor([item.label for part in parts for item in part.items], dtype=torch.long)


def scored_features(plan: Plan, tasks: Sequence[Task], kind: str) -> list[list[torch.Tensor]]:
    """[n, d] blocks of each task's test images, mapped into memory."""
    wanted = [(plan.images.tests[task.name], View()) for task in tasks]
    _encode(plan, wanted, kind)
    return [[block[0] for block in plan.features.blocks(images, view, kind)] for images, view in wanted]


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
