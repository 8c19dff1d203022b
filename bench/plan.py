"""From a configuration to a plan: tasks, backbone and cells, resolved and checked before anything is computed."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from bench.catalogue import missing_advice
from bench.cells import Cell, make_cells, needed, shard_of, without_code
from bench.claims import CLAIMS
from bench.clip.backbone import Backbone, load_backbone
from bench.config import METHODS, RunConfig
from bench.controls import METHODS as CONTROLS
from bench.controls import unshuffled, with_shuffled
from bench.datasets.cache_paths import cache_folder
from bench.datasets.demo import ensure_demo
from bench.datasets.fewshot import COOP, NESTED, VAL_SHOTS
from bench.datasets.spec import Suite, load_suite
from bench.datasets.splits import Task, load_tasks, select_tasks
from bench.devices import find_device
from bench.draws import Draw, RunImages, look_at_images, seen_and_scored
from bench.effects import check_effects, check_views
from bench.errors import UserError
from bench.features import ImageFeatures, Images, View
from bench.files import user_path
from bench.methods import Method, find_method, method_names
from bench.names import check_names
from bench.options import Variant, variants
from bench.progress import absolute, bar, count, note, silent
from bench.protocols import Protocol, SuiteToSuite, find_protocol
from bench.protocols.sampled import sampled
from bench.recipe import check_values, load_recipe
from bench.records import COLUMNS, Record, RecordStore
from bench.settings import many

EVERY = ("all",)  # of --methods


@dataclass
class Plan:
    """Everything a run needs, made once: tasks, backbone, features, cells, records."""

    config: RunConfig
    suite: Suite
    target: Suite | None  # of suite-to-suite
    protocol: Protocol
    tasks: list[Task]
    backbone: Backbone
    features: ImageFeatures
    store: RecordStore
    cells: list[Cell]
    images: RunImages
    left_out: dict[str, str]  # of all methods, or of a run that names none: those that cannot be run here, and why
    absent: list[str]  # tasks that were asked for and have no data

    @property
    def hide(self) -> bool | None:
        """Of progress: True where the run is to be quiet, None where the place decides."""
        return True if self.config.quiet else None

    @property
    def demo(self) -> bool:
        """Whether its numbers say nothing about photographs: any of its images is rendered."""
        return self.suite.demo or (self.target is not None and self.target.demo)

    @property
    def note(self) -> str:
        """What its suite files say of themselves."""
        return " ".join(filter(None, (self.suite.note, self.target.note if self.target else "")))

    def draw(self, cell: Cell) -> Draw:
        """The few-shot images of a cell."""
        return self.images.draws[cell.shots, cell.seed]

    def trained(self, cell: Cell) -> list[Task]:
        """The tasks that a cell is trained on (those of a method that does not train: whose names it reads)."""
        return [task for task in self.tasks if task.name in cell.trained]

    def scored(self, cell: Cell) -> list[Task]:
        """The tasks that a cell is scored on."""
        return [task for task in self.tasks if task.name in cell.scored]

    def fingerprints(self, cell: Cell) -> dict[str, str]:
        """Of what a cell shares with others that it may be compared with: all folds of its protocol included, with as
        many training tasks, whatever other numbers of these the run has."""
        _, scored = seen_and_scored(self.protocol, self.tasks)
        alike = [f for f in self.protocol.folds(self.tasks) if f.train_tasks == cell.config.get("train_tasks", 0)]
        seen = {name for fold in alike for name in fold.trained}
        draw = self.draw(cell).fingerprint([task.name for task in self.tasks if task.name in seen])
        return {"weights": self.backbone.weights, "data": self.images.fingerprint(scored), "draw": draw}

    def todo(self) -> list[Cell]:
        """Cells to compute: new ones, and failed ones that are to run again."""
        before = self.failed_before()
        return [c for c in self.cells if self.is_open(c, before)]

    def failed_before(self) -> dict[str, str]:
        """When cells failed that are to run again, by key."""
        return {r.key: r.finished for r in self.records() if not r.done} if self.config.retry_failed else {}

    def failures_left(self) -> list[Record]:
        """Of cells that failed before and are not to run again."""
        return [] if self.config.retry_failed else [r for r in self.records() if not r.done]

    def record(self, cell: Cell) -> Record | None:
        return self.store.read(cell.name, cell.key)

    def is_open(self, cell: Cell, before: Mapping[str, str]) -> bool:
        """Whether a cell is still to be computed. before : as from `failed_before`, when the run began."""
        record = self.record(cell)
        return record is None or (not record.done and record.finished == before.get(cell.key))

    def is_done(self, cell: Cell) -> bool:
        record = self.record(cell)
        return record is not None and record.done

    def claim(self, cell: Cell) -> Path:
        """The file by which a process claims a cell."""
        return self.store.path(cell.name, cell.key).with_suffix(".claim")

    def of_other_code(self) -> int:
        """How many of the cells to run are finished with other code."""
        return sum(
            any(r.done and without_code(r.config) == without_code(cell.config) for r in beside)
            for cell in self.todo()
            for beside in [self.store.beside(cell.name)]
        )

    def records(self) -> list[Record]:
        """Those of this grid's cells, by the names that this run gives them."""
        found = [(c.name, self.record(c)) for c in self.cells]
        return [replace(r, cell=name) for name, r in found if r is not None]

    def table(self) -> pd.DataFrame:
        """Finished cells, one row per cell and task: the columns of a report's records.csv. setting : how many tasks a
        cell was trained on, where that was asked for."""
        rows = [row for r in self.records() if r.done for row in r.rows()]
        rows = [{**row, "setting": f"train_tasks={n}" if (n := row["train_tasks"]) else ""} for row in rows]
        return pd.DataFrame(rows, columns=COLUMNS)

    def overview(self) -> pd.DataFrame:
        """The cells and what is there already: one row per cell."""
        rows = []
        for c in self.cells:
            record = self.record(c)
            again = "failed, to run again" if self.config.retry_failed else "failed, left as it is"
            state = "to run" if record is None else "done" if record.done else again
            if state != "done" and not CLAIMS.is_free(self.claim(c)):
                state = f"running, {CLAIMS.owner(self.claim(c))}"
            row = {k: c.name[k] for k in ("suite", "backbone", "method", "variant", "shots", "seed")}
            parts = {name: c.config.get(name, "") for name in ("fold", "train_tasks")}
            rows.append({**row, **parts, "views": c.views, "state": state, "features": self.cached(c)})
        table = pd.DataFrame(rows)
        return table.drop(columns=[name for name in ("fold", "train_tasks") if not any(table[name])])

    def tests(self, cell: Cell) -> list[tuple[Images, View]]:
        """The test images of the tasks that a cell is scored on."""
        return [(self.images.tests[task.name], View()) for task in self.scored(cell)]

    def few(self, cell: Cell) -> list[tuple[Images, View]]:
        """The few-shot images of which a cell needs features, and their views."""
        draw = self.draw(cell)
        by_need = [need for task in self.trained(cell) for need in needed(cell, draw, task.name).values()]
        return [(part, view) for view, parts in by_need for part in parts]

    def cached(self, cell: Cell) -> str:
        """How much of the features that a cell needs is there."""
        wanted, kind = [*self.tests(cell), *self.few(cell)], cell.variant.method.image
        there = sum(self.features.is_cached(images, view, kind) for images, view in wanted)
        return "cached" if there == len(wanted) else f"{there} of {len(wanted)} cached" if there else "to encode"


OWN_ORDER = (
    "--draws coop: no whole split file came with {}: drawn in the same way from the bench's own split, these are no "
    "published draws"
)


def draws_of(config: RunConfig) -> str | Path | None:
    """Whose few-shot draws a run takes: None for the bench's own, "coop", or a folder of files.

    Raises
    ------
    UserError : there is no such folder.
    """
    if config.draws in (None, NESTED):
        return None
    if config.draws == COOP:
        return COOP
    folder = user_path(config.draws)
    if not folder.is_dir():
        raise UserError(f"--draws {folder}: no such folder; or write {COOP}")
    return folder


def prepare(config: RunConfig, download: bool = True) -> Plan:
    """Resolve and check everything before anything is computed. download : see `load_backbone`.

    Raises
    ------
    UserError : something in the configuration does not fit what is there.
    """
    with silent(config.quiet):
        return _prepared(config, download)


def _prepared(config: RunConfig, download: bool) -> Plan:
    if config.suite is None and config.data:
        raise UserError("--data without --suite: name one (`python -m bench list suites`), or leave --data out")
    protocol = find_protocol(config.protocol)
    draws = draws_of(config)
    if draws and protocol.draws_itself:
        raise UserError(f"--draws {draws}: --protocol {protocol.name} draws its own images; leave --draws out")
    if isinstance(draws, Path) and config.val_shots != VAL_SHOTS:
        raise UserError(f"--val-shots {config.val_shots}: the files of --draws {draws} say what to validate on")
    suite = load_suite(config.suite or "demo")
    target = load_suite(config.target, "--target") if config.target else None
    if config.data and suite.demo and (target or suite).demo:
        raise UserError(f"--data {config.data}: the demo suite renders its own images; leave --data out")
    given = tuple(config.methods or METHODS)
    classes = _methods(given, CONTROLS if config.controls else ())
    check_values(f"{suite.path}: recipe", {"all": suite.recipe}, classes)
    recipe = load_recipe(config.recipe, classes) if config.recipe else None
    if recipe:
        recipe.check_tasks(suite)
    contents = [{"all": suite.recipe}, recipe.values if recipe else {}]
    named = (recipe.rules, recipe.name) if recipe else (None, "")
    asked_for = variants(classes, tuple(config.options), contents, *named)
    hide = True if config.quiet else None
    wanted = None if config.tasks is None else tuple(config.tasks)
    root = _data_root(suite, config)
    suite = suite.at(root)
    specs = select_tasks(suite, wanted)
    no_tree = "" if any(spec.path for spec in specs) else f"none of suite {suite.name} has a `path` (docs/data.md)"
    settings, left_out = _taking_part(asked_for, protocol, no_tree, config.methods is None or given == EVERY)
    settings = with_shuffled(settings) if config.controls else settings
    tasks = _load(suite, root, config, wanted)
    if target and isinstance(protocol, SuiteToSuite):
        root = _data_root(target, config)
        target = target.at(root)
        protocol, twice = protocol.towards(target, specs)
        scored = [spec for spec in target.tasks if spec.name in protocol.scored]
        if twice:
            note(f"{protocol.name}: not scored, because {suite.name} has the same: {', '.join(twice)}", hide)
        tasks += _load(target, root, config, [spec.name for spec in scored])
        specs += scored
    there = {task.name for task in tasks}
    absent = [spec.name for spec in specs if spec.name not in there]
    tasks = [_worded(task, config.task_names) for task in tasks]
    protocol = protocol.of(tasks)
    if config.train_tasks or config.score_tasks:
        protocol = sampled(protocol, many(config.train_tasks or ()), config.score_tasks)
    tasks = [protocol.judged(task) for task in tasks]
    for text in _known_names(protocol, tasks):
        note(text, hide)
    if any(v.shuffled for v in settings) and (why := _unshuffled(protocol, tasks)):
        note(why, hide)
        settings = [v for v in settings if not v.shuffled]
    check_effects(settings, many(config.shots), protocol, protocol.folds(tasks), hide)
    name = config.backbone or suite.backbone or "RN50"
    backbone = load_backbone(name, config.pretrained, find_device(config.device), config.precision, download)
    shots, seeds = many(config.shots), many(config.seeds)
    check_names(backbone.tower, tasks, [v.at(n, [t.name for t in tasks]) for v in settings for n in shots])
    features = ImageFeatures(backbone)
    ours = ", ".join(t.name for t in tasks if not t.split.from_file)
    if draws == COOP and ours:
        note(OWN_ORDER.format(ours), hide)
    if any(v.method.trains for v in settings):
        _check_training_images(protocol, tasks)
    images = look_at_images(tasks, protocol, features.hashes, shots, seeds, draws, hide, config.val_shots)
    views = config.views, recipe.views if recipe else suite.views
    complete = not absent and config.score_tasks is None and specs[: len(suite.tasks)] == list(suite.tasks)
    more = config.task_names, config.val_shots
    cells = list(make_cells(suite, tasks, protocol, backbone, settings, images, complete, *views, *more))
    check_views(cells, config.views, hide)
    return Plan(
        config=config,
        suite=suite,
        target=target,
        protocol=protocol,
        tasks=tasks,
        backbone=backbone,
        features=features,
        store=RecordStore(user_path(config.results)),
        cells=shard_of(cells, config.shard, config.seeds_at_once),
        images=images,
        left_out=left_out,
        absent=absent,
    )


def _load(suite: Suite, root: Path, config: RunConfig, names: Sequence[str] | None) -> list[Task]:
    """A suite's tasks of these names with their images."""
    return load_tasks(suite, root, names, config.allow_missing, missing_advice(suite, root))


def _unshuffled(protocol: Protocol, tasks: Sequence[Task]) -> str:
    """Why the control with exchanged names is left out; "" where every training of the protocol can have it."""
    for fold in protocol.folds(tasks):
        if why := unshuffled([task.task_name for task in tasks if task.name in fold.trained]):
            return f"--controls: no row with shuffled names: of those trained on, {why}, so that one would keep its own"
    return ""


def _known_names(protocol: Protocol, tasks: Sequence[Task]) -> list[str]:
    """What to say of tasks that are scored unseen under a name that was trained on."""
    by_name, told = {task.name: task for task in tasks}, []
    for fold in protocol.folds(tasks):
        known = {by_name[name].task_name.lower(): name for name in fold.trained}
        for name in (name for name in fold.scored if name not in fold.trained):
            if other := known.get(by_name[name].task_name.lower()):
                told.append(f"{name} is called {by_name[name].task_name!r}, as is {other}, which is trained on: that "
                            "name is not new to a method")  # fmt: skip
    return list(dict.fromkeys(told))


def _check_training_images(protocol: Protocol, tasks: Sequence[Task]) -> None:
    """Refuse to train on tasks that have test images alone."""
    trained, _ = seen_and_scored(protocol, tasks)
    lacking = [task.name for task in tasks if task.name in trained and not task.split.train]
    if lacking:
        raise UserError(
            f"--protocol {protocol.name}: trains on {', '.join(lacking)}, of which there are test images alone; name "
            "other --tasks, or test what is trained elsewhere: --protocol source-task:TASK"
        )


def _worded(task: Task, number: int) -> Task:
    """The task under the first, second, … of its task names."""
    if number > len(task.spec.task_names):
        held = ", ".join(map(repr, task.spec.task_names))
        has = f"{count(len(task.spec.task_names), 'task name')} ({held})"
        raise UserError(
            f"--task-names {number}: task {task.name} has {has}; a suite file gives several as `task_name: [..., ...]`"
        )
    return task.worded(number)


def _methods(given: tuple[str, ...], more: Sequence[str] = ()) -> list[type[Method]]:
    """The classes of these names, and of more."""
    names = method_names() if given == EVERY else given
    classes = list(dict.fromkeys(find_method(name) for name in (*names, *more)))
    for name in {c.name for c in classes}:  # records tell methods apart by name
        if sum(c.name == name for c in classes) > 1:
            raise UserError(f"--methods: two methods are called {name!r}; give one of the classes another `name`")
    return classes


def _taking_part(
    asked_for: list[Variant], protocol: Protocol, no_tree: str, unnamed: bool
) -> tuple[list[Variant], dict[str, str]]:
    """Those that can be run, and which are left out, with the reason.

    unnamed : the user named none of them: leaving some out is no error.
    no_tree : why methods that read tasks' places in a tree cannot be run; "" where they can.
    """
    able: list[Variant] = []
    refused: dict[str, str] = {}
    treeless: dict[str, str] = {}
    for variant in asked_for:
        name = variant.method.name + (f" ({variant.label})" if variant.label else "")
        if why := protocol.refusal(variant.method, variant.params):
            refused[name] = why
        elif no_tree and variant.method.reads_path:
            treeless[name] = f"reads tasks' places in a tree: {no_tree}"
        else:
            able.append(variant)
    if refused and not unnamed:
        said = "; ".join(f"{name}: {why}" for name, why in refused.items())
        raise UserError(f"--methods: {protocol.name} tests {protocol.tests}; leave out {said}")
    if treeless and not unnamed:
        raise UserError(f"--methods: {'; '.join(f'{name} {why}' for name, why in treeless.items())}")
    return able, {name: f"cannot score {protocol.tests}: {why}" for name, why in refused.items()} | treeless


def _data_root(suite: Suite, config: RunConfig) -> Path:
    """The folder of the suite's data; the demo's is made."""
    if suite.demo:
        with bar("rendering the demo's images", 0, "image", None, position=0) as shown:
            return Path(ensure_demo(cache_folder() / "demo", absolute(shown)))
    data = config.data or os.environ.get("BENCH_DATA")
    if not data:
        raise UserError(f"suite {suite.name!r} needs images: give --data ROOT, or set BENCH_DATA")
    root = user_path(data)
    if not root.is_dir():
        raise UserError(f"--data {data}: no such folder")
    return root
