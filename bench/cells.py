"""Cells: what each one is (its configuration and key), and which images and views it needs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

from bench.clip.backbone import Backbone
from bench.datasets.draws import VAL_SHOTS, find_draw, read_draw
from bench.datasets.fewshot import few_shot, seeded_order
from bench.datasets.spec import Suite
from bench.datasets.splits import Task
from bench.datasets.types import Item
from bench.errors import UserError
from bench.features import ImageFeatures, View
from bench.numerics import method_code, numerics
from bench.options import Variant
from bench.protocols import Protocol
from bench.records import cell_key
from bench.wording import wording


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
    features: ImageFeatures,
    settings: Sequence[Variant],
    shots: Sequence[int],
    seeds: Sequence[int],
    views: int | None,
    draws: Path | None,
) -> Iterator[Cell]:
    """All cells, seed by seed and shots ascending, so that a stopped run leaves complete columns.

    A method that does not train has one cell, with 0 shots and seed 0.
    """
    data = _digest([_description(t, features, t.split.test) for t in tasks])
    version = numerics()
    for seed, n in [(0, 0)] + [(seed, n) for seed in seeds for n in shots]:
        chosen = [v for v in settings if v.method.trains == (n > 0)]
        draw = ""
        if n and chosen:
            images = [drawn(t, protocol, n, seed, draws) for t in tasks]
            seen = protocol.trained_tasks(tasks)
            draw = _digest([_description(t, features, items) for t, items in zip(seen, images, strict=True)])
        for variant in (v.at(n, [t.name for t in tasks]) for v in chosen):
            params = asdict(variant.params)
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
                "views": _views(variant, views, params.get("epochs")),
                "tasks": [t.name for t in tasks],
                "complete_suite": len(tasks) == len(suite.tasks),
                "data": data,
                "draw": draw,
                "code": method_code(variant.method),
                "numerics": version,
                **({} if backbone.precision == "float32" else {"precision": backbone.precision}),
                **({"params_by_task": by_task} if by_task else {}),
            }
            yield Cell(variant, config, cell_key(config))


def without_code(config: dict[str, Any]) -> dict[str, Any]:
    """A cell's configuration without what depends on the version of the code."""
    return {name: value for name, value in config.items() if name not in ("code", "numerics")}


def _views(variant: Variant, views: int | None, epochs: int | None) -> int | None:
    """Training views per image: as asked for, but never more than there are epochs; by default one per epoch."""
    if "views" not in variant.method.needs:
        return None
    return min(n for n in (views or epochs or 1, epochs or views or 1))


def _description(task: Task, features: ImageFeatures, items: Sequence[Item]) -> list[Any]:
    """What a method's numbers follow from: names, and the images' content with their labels."""
    digests = features.hashes.of(paths(task, items))
    images = [(digest, item.label) for digest, item in zip(digests, items, strict=True)]
    return [task.name, task.task_name, wording(task), task.metric, task.class_names, images]


def _digest(what: Any) -> str:
    return hashlib.blake2b(json.dumps(what).encode(), digest_size=12).hexdigest()


def paths(task: Task, items: Sequence[Item]) -> list[Path]:
    return [task.split.root / item.path for item in items]


def drawn(task: Task, protocol: Protocol, shots: int, seed: int, draws: Path | None) -> list[Item]:
    """All few-shot images of a task: those to train on, then those to validate on, by class and the seed's order.

    task : complete, as in `few_shot_set`.
    draws : folder of the user's own draws; a file that fixes the seed's own draw gives the same list.
    """
    parts = few_shot_set(task, protocol, shots, seed, draws)
    return [
        item
        for part in parts
        for item in sorted(chain(*part), key=lambda item: (item.label, seeded_order(item.path, seed)))
    ]


def few_shot_set(
    task: Task, protocol: Protocol, shots: int, seed: int, draws: Path | None
) -> tuple[list[list[Item]], list[list[Item]]]:
    """The images to train on and those to validate on, each in the blocks that their features are kept in.

    task : complete, because a draw's file holds images of all classes; those the protocol trains on are taken.
    """
    split = task.split
    if draws is None or not shots:
        train, val = shards(split.train, shots, seed), shards(split.val, min(shots, VAL_SHOTS), seed)
    else:
        file = find_draw(task, draws, shots, seed)
        if file is None:
            wanted = draws / task.name / f"shot_{shots}-seed_{seed}.json"
            raise UserError(f"--draws {draws}: {wanted} is missing; `python -m bench data splits` writes such files")
        train, val = ([items] for items in read_draw(file, split))
    return _trained(task, protocol, train), _trained(task, protocol, val)


def _trained(task: Task, protocol: Protocol, blocks: list[list[Item]]) -> list[list[Item]]:
    kept = [list(protocol.trained_items(task, block)) for block in blocks]
    return [block for block in kept if block]  # a block is empty where classes are small


def shards(items: Sequence[Item], shots: int, seed: int) -> list[list[Item]]:
    """The few-shot set cut at ranks 1, 2, 4, 8, …: 16 shots reuse the blocks that 1, 2, 4 and 8 shots left."""
    edges = [0, *(2**i for i in range(shots.bit_length()) if 2**i < shots), shots]
    return [few_shot(items, b, seed, first=a) for a, b in pairwise(edges)] if shots else []


def needed(
    cell: Cell, train: list[list[Item]], val: list[list[Item]]
) -> dict[str, tuple[View, list[list[Item]]]]:
    """The few-shot features that the cell's method reads, by name: which view, of which images."""
    views = View(cell.seed, 0, cell.views or 1)
    all_kinds = {"views": (views, train), "test_view": (View(), train), "val": (View(), val)}
    return {need: all_kinds[need] for need in sorted(cell.variant.method.needs)}
