"""Cells: what each one is (its configuration and key), and which images and views it needs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from itertools import product
from typing import Any

from bench.clip.backbone import Backbone
from bench.datasets.fewshot import VAL_SHOTS
from bench.datasets.spec import Suite
from bench.datasets.splits import Task
from bench.draws import Draw, RunImages, seen_and_scored
from bench.features import Images, View
from bench.numerics import method_code, numerics
from bench.options import Variant
from bench.protocols import Fold, Protocol
from bench.records import cell_key


@dataclass(frozen=True)
class Cell:
    """One training and its test: what it is (`config`, hashed to `key`), and the method that runs it."""

    variant: Variant
    config: dict[str, Any]
    key: str

    @property
    def shots(self) -> int:
        return self.config["shots"]

    @property
    def seed(self) -> int:
        return self.config["seed"]

    @property
    def views(self) -> int | None:
        return self.config["views"]

    @cached_property  # asked for each of thousands of tasks
    def trained(self) -> frozenset[str]:
        """The names of the tasks that are trained on."""
        return frozenset(self.config.get("trained", self.config["tasks"]))

    @cached_property
    def scored(self) -> frozenset[str]:
        """The names of the tasks that are scored."""
        return frozenset(self.config.get("scored", self.config["tasks"]))

    @property
    def name(self) -> dict[str, Any]:
        names = {k: self.config[k] for k in ("suite", "backbone", "method", "protocol", "shots", "seed")}
        if "precision" in self.config:  # another backbone to a reader: kept and reported apart
            names["backbone"] += f" {self.config['precision']}"
        return {**names, "variant": self.variant.label}


def make_cells(
    suite: Suite,
    tasks: Sequence[Task],
    protocol: Protocol,
    backbone: Backbone,
    settings: Sequence[Variant],
    images: RunImages,
    complete: bool,
    asked: int | None,
    views: int | None,
    task_names: int = 1,
    val_shots: int = VAL_SHOTS,
) -> Iterator[Cell]:
    """All cells, seed by seed and shots ascending, so that a stopped run leaves complete columns.

    A method that does not train has one cell, with 0 shots and seed 0. Of one that does, each of the protocol's folds
    is a cell; its key holds nothing of what is not trained on but names and test images.

    complete : whether all of the suite's tasks are there.
    asked, views : training views per image as the run says, and as its recipe or suite says.
    task_names, val_shots : which of the suite's, and validation images of a class at most; both told in the
        configuration where they are not the usual ones.
    """
    version, everything = numerics(), [t.name for t in tasks]
    folds, (_, scored) = protocol.folds(tasks), seen_and_scored(protocol, tasks)
    for (n, seed), draw in images.draws.items():
        names = everything if n else scored
        chosen = [v.at(n, names) for v in settings if v.method.trains == (n > 0)]
        for variant, fold in product(chosen, folds if n else [Fold(tuple(scored), tuple(scored))]):
            params = parameters_kept(variant.params)
            by_task = variant.by_task_values()
            config = {
                "suite": suite.name,
                "backbone": backbone.name,
                "pretrained": backbone.pretrained,
                "weights": backbone.weights,
                "method": variant.method.name,
                "params": params,
                "protocol": protocol.name,
                "shots": n,
                "seed": seed,
                "views": _views(variant, asked, views),
                "tasks": names,
                "complete_suite": complete,
                "data": images.fingerprint(fold.scored),
                "draw": draw.fingerprint(fold.trained),
                "code": method_code(variant.method),
                "numerics": version,
                **({} if backbone.precision == "float32" else {"precision": backbone.precision}),
                **({"params_by_task": by_task} if by_task else {}),
                **({"names": "shuffled"} if variant.shuffled else {}),
                **({"task_names": task_names} if task_names > 1 else {}),
                **({"val_shots": val_shots} if n and val_shots != VAL_SHOTS else {}),
                **({"fold": fold.name} if fold.name else {}),
                **({} if fold.trained == fold.scored else {"trained": [*fold.trained], "scored": [*fold.scored]}),
                **({"paths": _paths(tasks, fold)} if variant.method.reads_path else {}),
                **({"train_tasks": fold.train_tasks} if fold.train_tasks else {}),
                **({"sample": [*fold.sample]} if fold.sample else {}),
            }
            yield Cell(variant, config, cell_key(config))


def parameters_kept(params: Any, whole: bool = False) -> dict[str, Any]:
    """A method's parameters as records hold them; infinity, which JSON lacks, as a text.

    Those that came later than finished cells are left out at their defaults, so that these keep their keys.
    whole : all of them.
    """
    given = [(f, getattr(params, f.name)) for f in fields(params)]
    held = [(f.name, v) for f, v in given if whole or not (f.metadata.get("later") and v == f.default)]
    return {name: "inf" if value == math.inf else value for name, value in held}


def _paths(tasks: Sequence[Task], fold: Fold) -> dict[str, list[str]]:
    """Where the tasks of a cell stand in the suite's tree."""
    return {task.name: [*task.path] for task in tasks if task.name in (*fold.trained, *fold.scored)}


def work_of(cell: Cell) -> int:
    """How long a cell takes, compared with others of its method: how often an image of each class is trained on."""
    params = cell.variant.params
    return max(1, cell.shots * (_epochs(params) or 1) * cell.variant.method.trainings_of(params))


def together(cells: Sequence[Cell], seeds_at_once: bool) -> list[list[Cell]]:
    """Cells that are trained together: one, or those that differ in the seed alone."""
    groups: dict[Any, list[Cell]] = {}
    for cell in cells:
        alike = (cell.variant.method, cell.variant.label, cell.shots, cell.trained, cell.scored)
        same = alike if seeds_at_once else cell.key
        groups.setdefault(same, []).append(cell)
    return list(groups.values())


def shard_of(cells: Sequence[Cell], shard: str | None, seeds_at_once: bool) -> list[Cell]:
    """The K-th of N parts of a grid, "K/N": the same on every machine, each with its share of every method."""
    k, n = map(int, (shard or "1/1").split("/"))

    def place(group: list[Cell]) -> tuple[str, int, str, int, str]:
        first, work = group[0], sum(map(work_of, group))
        return first.config["method"], -work, first.variant.label, first.seed, first.key

    mine = {cell.key for group in sorted(together(cells, seeds_at_once), key=place)[k - 1 :: n] for cell in group}
    return [cell for cell in cells if cell.key in mine]


def without_code(config: dict[str, Any]) -> dict[str, Any]:
    """A cell's configuration without what depends on the version of the code."""
    return {name: value for name, value in config.items() if name not in ("code", "numerics")}


def _views(variant: Variant, asked: int | None, views: int | None) -> int | None:
    """Training views per image: as the run asks, else the method's own number, else the recipe's or the suite's, else
    one per epoch; never more than there are epochs, but for methods with an own number, which read all of them."""
    if "views" not in variant.method.needs:
        return None
    if variant.method.own_views:
        return asked or variant.method.own_views
    views = asked or views
    epochs = max((_epochs(params) for params in (variant.params, *variant.by_task.values())), default=0)
    return min(n for n in (views or epochs or 1, epochs or views or 1))


def _epochs(params: Any) -> int:
    """0 where a method has none."""
    return getattr(params, "epochs", 0)


def needed(cell: Cell, draw: Draw, task: str) -> dict[str, tuple[View, tuple[Images, ...]]]:
    """The few-shot features of a task that the cell's method reads, by name: which view, of which images; and those of
    its few-shot validation images, on which every trained method is scored."""
    train, val = draw.train[task], draw.val[task]
    method, params = cell.variant.method, cell.variant.params
    n_views = cell.views or 1
    if not method.own_views:  # a task with fewer epochs than another has no use for the rest
        n_views = min(n_views, _epochs(cell.variant.by_task.get(task, params)) or n_views)
    views = View(cell.seed, 0, n_views, getattr(params, "crop", View.crop))
    all_kinds = {"views": (views, train), "test_view": (View(), train), "flip_view": (View(None, 1, 2), train)}
    all_kinds["val"] = (View(), val)
    needs = method.needs_of(params) | ({"val"} if val else set())
    return {need: all_kinds[need] for need in sorted(needs - {"new_names"})}
