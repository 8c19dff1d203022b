"""What a cell will take, before it starts: memory, disk and time; and `--memory-limit`, which refuses it in time.

Memory is the process's at its peak, of a GPU the device's. Counted are what is there when the first cell is estimated
(libraries and the backbone), features, the views that are encoded at a time, and what a training step keeps for its
gradients: `ACTIVATIONS` numbers of the text tower's width a token and block. Not counted are a method's own tensors
beside these, and what an allocator keeps: docs/performance.md says how far estimates and measured peaks are apart.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from bench.cells import Cell
from bench.features.encode import BATCHES_AHEAD, CROPS_PER_BATCH, PIXELS_ON_CPU
from bench.features.hashes import usable_cores
from bench.features.mapped import IN_MEMORY
from bench.limits import BOUND
from bench.methods import TaskData
from bench.methods.prompt import SIDE_BY_SIDE, PromptMethod
from bench.options import bytes_of
from bench.plan import Plan
from bench.progress import count, duration
from bench.records import read_record

ACTIVATIONS = 16  # kept a token and block: two norms, queries, keys, values, the MLP's 4 + 4 widths, sums
PER_PIXEL = 320  # bytes of an image tower's activations a pixel, without gradients: RN50's largest layers
LIBRARIES = 600e6  # where the system does not tell: torch and what it loads
PER_PREDICTION = 10  # bytes of a test image's row


@dataclass(frozen=True)
class Estimate:
    """Of one cell.

    memory : bytes at the peak. encode : bytes of the features that it finds missing, by what they are of. kept : bytes
    of what is learned and predicted. seconds : of training and test, the mean of measured cells; None where there are
    none.
    """

    memory: float
    encode: dict[Any, float]
    kept: float
    seconds: float | None

    @property
    def disk(self) -> float:
        return sum(self.encode.values()) + self.kept


def memory(plan: Plan, cells: Sequence[Cell]) -> float:
    """Bytes at the peak, of cells that are trained together."""
    kind, backbone = cells[0].variant.method, plan.backbone
    d, on_cpu = backbone.embed_dim * _places(plan, kind.image), backbone.device.type == "cpu"
    few = [pair for cell in cells for pair in plan.few(cell)]
    tests = [pair for cell in cells for pair in plan.tests(cell)]
    sizes = [sum(len(images) * len(view) * 4 * d for images, view in plan.few(cell)) for cell in cells]
    features = sum(min(size, IN_MEMORY) for size in sizes)  # larger ones are read from a mapped file, step by step
    total = (_now() if on_cpu else _weights(plan)) + 2 * features  # as they are mapped, and as they are put together
    if on_cpu:
        total += sum(len(images) * 4 * d for images, _ in tests)
    missing = [
        len(images) * len(view)
        for images, view in [*few, *tests]
        if not plan.features.is_cached(images, view, kind.image)
    ]
    h, w = backbone.image_size
    views = min(sum(missing), max(CROPS_PER_BATCH, max((len(view) for _, view in few), default=1)))  # of a batch
    at_once = min(views, usable_cores() * max(1, PIXELS_ON_CPU // (h * w))) if on_cpu else views
    encoding = float(at_once * h * w * PER_PIXEL + (BATCHES_AHEAD + 1) * views * h * w * 3 * on_cpu)
    return total + max(encoding, _step(plan, cells))


def _step(plan: Plan, cells: Sequence[Cell]) -> float:
    """Bytes that a training step keeps of the text tower."""
    kind, tower, size = cells[0].variant.method, plan.backbone.tower, plan.backbone.tower.dtype.itemsize
    method = cells[0].variant.make()
    tokens, names = [], 0
    for task in map(plan.protocol.trained, plan.trained(cells[0])):
        params = cells[0].variant.by_task.get(task.name, cells[0].variant.params)
        texts = [text for text, vectors in kind.texts(params, task) if vectors or not issubclass(kind, PromptMethod)]
        tokens.append(sum(tower.length(text) - 1 for text in texts))
        names += len(texts)
    encoded = float(sum(tokens)) * tower.width * 8 * size  # to test: each once, without gradients
    if not isinstance(method, PromptMethod):
        return encoded
    weight, params = method.weight, method.params
    if hasattr(params, BOUND):  # an image reads the names of its own task: at most, all of a batch the longest
        read = params.batch * (sum if method.separate else max)(tokens) * len(cells)
        kept = float(max(*tokens, min(getattr(params, BOUND), read)))  # one image's names are encoded at once
    elif method.separate:
        most = SIDE_BY_SIDE["cpu" if plan.backbone.device.type == "cpu" else "cuda"]
        kept = weight * sum(tokens) * len(cells) * min(1.0, most / max(1, weight * names * len(cells)))
    else:
        kept = float(weight * sum(sorted(tokens)[-params.batch :]) * len(cells))
    return max(encoded, kept * len(tower.blocks) * ACTIVATIONS * tower.width * size)


def _places(plan: Plan, kind: str) -> int:
    """Features an image: one, or of local features one for each place of the image tower's map."""
    if kind != "local":
        return 1
    h, w = plan.backbone.image_size
    patch = getattr(plan.backbone.model.visual, "patch_size", None)
    patch = patch[0] if isinstance(patch, tuple | list) else patch
    side = patch if isinstance(patch, int) else 32  # a ResNet's map is a 32nd of the image
    return max(1, h // side) * max(1, w // side)


def _weights(plan: Plan) -> float:
    return float(sum(p.numel() * p.element_size() for p in plan.backbone.model.parameters()))


@lru_cache(maxsize=1)
def _now() -> float:
    """What this process holds when it is first asked for: later, freed memory of earlier cells would count again."""
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii", errors="replace")
        return int(re.findall(r"VmRSS:\s+(\d+) kB", status)[0]) * 1024.0
    except (OSError, IndexError):
        return LIBRARIES


def over_limit(plan: Plan, cells: Sequence[Cell]) -> str:
    """Why cells are not started together under `--memory-limit`; "" where they are."""
    limit = plan.config.memory_limit
    if limit is None or (wanted := memory(plan, cells)) <= bytes_of(limit):
        return ""
    hint = "" if len(cells) == 1 else f" for {count(len(cells), 'seed')} at once"
    return (
        f"needs about {wanted / 1e9:.2g} GB of memory{hint}, more than --memory-limit {limit}: not started; fewer "
        "shots, views or classes take less (docs/performance.md)"
    )


# What a grid takes ------------------------------------------------------------------------------------------------


def estimates(plan: Plan) -> list[Estimate]:
    """Of each cell of a plan, in its order. Features that several cells share are counted with each."""
    times, sizes = _measured(plan)
    found = []
    for cell in plan.cells:
        kind, which = cell.variant.method, _which(cell.name)
        d = plan.backbone.embed_dim * _places(plan, kind.image)
        tests = plan.tests(cell)
        encode = {
            (images.digests, view, kind.image): 4.0 * d * len(images) * len(view)
            for images, view in [*plan.few(cell), *tests]
            if not plan.features.is_cached(images, view, kind.image)
        }
        if which not in sizes:
            sizes[which] = _learned(plan, cell)
        kept = sizes[which] + PER_PREDICTION * sum(len(images) for images, _ in tests) if plan.config.keep else 0.0
        found.append(Estimate(memory(plan, [cell]), encode, kept, times.get(which)))
    return found


def by_setting(plan: Plan, found: Sequence[Estimate]) -> pd.DataFrame:
    """One row for cells that differ in the seed alone: the largest memory and disk, and the time of each; and how often
    each trains for a task, where a search trains more than once."""
    rows: dict[tuple[str, ...], list[Estimate]] = {}
    trainings: dict[tuple[str, ...], int] = {}
    for cell, e in zip(plan.cells, found, strict=True):
        rows.setdefault(_which(cell.name), []).append(e)
        trainings[_which(cell.name)] = cell.variant.method.trainings_of(cell.variant.params)
    table = pd.DataFrame(
        {
            "method": which[2],
            "variant": which[3],
            "shots": which[5],
            "cells": len(own),
            "trainings per task": trainings[which],
            "memory": f"{max(e.memory for e in own) / 1e9:.2f} GB",
            "disk": f"{max(e.disk for e in own) / 1e6:.2f} MB",
            "time of a cell": "no measured cell" if own[0].seconds is None else duration(own[0].seconds),
        }
        for which, own in rows.items()
    )
    return table if any(n > 1 for n in trainings.values()) else table.drop(columns="trainings per task")


def totals(found: Sequence[Estimate]) -> str:
    """What cells that are to run take together; features that they share count once."""
    if not found:
        return ""
    encode: dict[Any, float] = {}
    for e in found:
        encode.update(e.encode)
    known = [e.seconds for e in found if e.seconds is not None]
    took = duration(sum(known)) if known else "no measured cell"
    if 0 < len(known) < len(found):
        took += f" for {len(known)} of {count(len(found), 'cell')}, the others have no measured cell"
    missing, kept = sum(encode.values()) / 1e6, sum(e.kept for e in found) / 1e6
    return (
        f"To run, estimated: {max(e.memory for e in found) / 1e9:.2f} GB of memory at most; on disk {missing:.2f} MB "
        f"of features to encode and {kept:.2f} MB to keep; training and test: {took}"
    )


def _which(name: Mapping[str, Any]) -> tuple[str, ...]:
    """A cell without its seed: its like takes as long."""
    return tuple(str(name.get(k) or "") for k in ("suite", "backbone", "method", "variant", "protocol", "shots"))


def _measured(plan: Plan) -> tuple[dict[tuple[str, ...], float], dict[tuple[str, ...], float]]:
    """Mean seconds, and bytes of what was learned, of the finished cells below the results folder."""
    alike = [cell.config["tasks"] for cell in plan.cells]
    times: dict[tuple[str, ...], list[float]] = {}
    sizes: dict[tuple[str, ...], float] = {}
    for file in plan.store.folder.rglob("*-seed*.json"):
        try:
            record = read_record(file)
            if record.done and record.config.get("tasks") in alike:
                took = (record.train_seconds or 0.0) + (record.test_seconds or 0.0)
                times.setdefault(_which(record.cell), []).append(took)
                if record.learned:
                    sizes[_which(record.cell)] = float(file.with_suffix(".safetensors").stat().st_size)
        except (OSError, ValueError, TypeError):  # a report names damaged records
            continue
    return {which: sum(seconds) / len(seconds) for which, seconds in times.items()}, sizes


def _learned(plan: Plan, cell: Cell) -> float:
    """Bytes of what a cell's method will have learned, from its start values; of a method without, as many numbers as
    there are of the classes' features."""
    method, none = cell.variant.make(), torch.zeros(0, dtype=torch.long)
    tasks, d = [plan.protocol.trained(task) for task in plan.trained(cell)], plan.backbone.embed_dim
    if not isinstance(method, PromptMethod):
        return 4.0 * d * sum(len(task.class_names) for task in tasks)
    views = torch.zeros(1, 0, d)
    names = [
        TaskData(t.name, t.task_name, t.class_names, t.template, views, none, descriptions=t.descriptions, path=t.path)
        for t in tasks
    ]
    try:
        method.setup(plan.backbone, names, seed=0)
    except Exception:  # a method that cannot start says why when it runs
        return 0.0
    return 4.0 * sum(value.numel() for value in method.learned.values())
