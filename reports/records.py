"""Record files → one table, one row per cell, task and part."""

from __future__ import annotations

import json
import math
import re
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from bench.errors import UserError
from bench.progress import count

# The columns of records.csv. accuracy: percent, by the task's metric; part: one of PARTS;
# setting: what else differs among records of one method and variant ("views=10"); views, epochs: empty where the method
# has none; weights, data (the test sets): fingerprints; code, numerics: of the method's own code and of what all share
# (bench/numerics.py; empty in older records); times in seconds of the whole cell (all its tasks).
COLUMNS = [
    "suite", "backbone", "method", "variant", "setting", "protocol", "shots", "seed", "task", "part", "metric",
    "accuracy", "n_test", "n_train", "n_classes", "params", "epochs", "views", "train_seconds", "feature_seconds",
    "test_seconds", "peak_memory_mb", "device", "pretrained", "weights", "data", "code", "numerics", "demo", "key",
    "finished",
]  # fmt: skip

# What is scored of a task and how tables call it, in their order: all its classes, or base2new's two halves of them and
# the two accuracies' harmonic mean.
PARTS = {"all": "", "base": "Base", "new": "New", "harmonic": "H"}

# Records are comparable when they agree in these; each combination gets its own tables and figures.
BLOCK = ["suite", "backbone", "weights", "data", "protocol", "tasks", "demo"]
ROW = ["method", "variant", "setting"]  # one row of a table

# Settings that are part of the cell's name or of BLOCK: no reason to tell two records of a method apart.
_NAMED = {"suite", "backbone", "method", "variant", "protocol", "shots", "seed", "tasks", "part", "demo", "pretrained"}
_NAMED |= {"weights", "data", "draw", "suite_tasks", "complete_suite", "schema", "code", "numerics"}


@dataclass(frozen=True)
class Loaded:
    """rows: done cells, one row per cell and task (COLUMNS and what tables need); failed: one dict per failed cell."""

    rows: pd.DataFrame
    failed: list[dict[str, Any]]


def load(results: Path) -> Loaded:
    """Every record below `results`. A file that is not a record is named in a warning and left out."""
    rows: list[dict[str, Any]] = []
    failed: list[dict[str, Any]] = []
    for path in sorted(results.rglob("*.json")):
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            if record["status"] == "failed":
                failed.append({**record["cell"], "error": str(record.get("error") or "no reason recorded")})
            else:
                rows.extend(rows_of(record))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            reason = f"{type(error).__name__}: {error}".splitlines()[0]
            warnings.warn(f"{path} is not a readable record and is left out ({reason})", stacklevel=2)
    if not rows and failed:
        first = str(failed[0]["error"]).splitlines()[0]
        n = count(len(failed), "cell")
        raise UserError(f"no finished cell below '{results}': {n} failed, the first with: {first}")
    if not rows:
        raise UserError(f"no records below '{results}': run `python -m bench run` first, or name its --results folder")
    return Loaded(_distinct(_with_settings(_with_variants(pd.DataFrame(rows)))), failed)


def rows_of(record: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows of one done record; raises what `load` catches when something needed is missing or makes no sense."""
    if record["status"] != "done" or record.get("schema", 1) != 1:
        raise ValueError(f"status {record['status']!r}, schema {record.get('schema')!r}")
    cell, config, prints = record["cell"], record["config"], record.get("fingerprints") or {}
    parameters = config.get("params") or {}
    common = {
        **{name: str(cell[name]) for name in ("suite", "backbone", "method", "protocol")},
        "variant": str(cell.get("variant") or ""),
        "shots": int(cell["shots"]),
        "seed": int(cell["seed"]),
        "setting": "",
        "params": record.get("n_params"),
        "epochs": parameters.get("epochs"),
        "views": config.get("views"),
        **{name: record.get(name) for name in ("train_seconds", "feature_seconds", "test_seconds", "peak_memory_mb")},
        "device": _device(record),
        **{name: str(record.get(name) or "") for name in ("key", "finished", "note", "footnote")},
        "title": str(record.get("title") or config.get("title") or cell["suite"]),
        "pretrained": _file_name(str(config.get("pretrained") or "")),
        "weights": str(prints.get("weights") or ""),
        "data": str(prints.get("data") or ""),
        "draw": str(prints.get("draw") or ""),
        "code": str(config.get("code") or ""),
        "numerics": str(config.get("numerics") or ""),
        "demo": bool(record.get("demo")),
        "recipe": str(record.get("recipe") or ""),
        "defaults": record.get("defaults") or {},
        "complete": _complete(config),
        "parameters": parameters,
        "config": dict(_flat(config)),
    }
    rows = []
    for task in record["tasks"]:
        accuracy = float(task["accuracy"])
        if not 0 <= accuracy <= 100 or math.isnan(accuracy):
            raise ValueError(f"accuracy {accuracy} of task {task['task']!r} is not a percentage")
        counts = {name: task.get(name) for name in ("n_test", "n_train", "n_classes")}
        names = {"task": str(task["task"]), "part": str(task.get("part") or "all"), "metric": str(task.get("metric"))}
        rows.append({**common, **names, "accuracy": accuracy, **counts})
    if not rows:
        raise ValueError("no tasks")
    # What the mean is taken over is what the record holds, not what its configuration promised.
    tasks = list(dict.fromkeys(row["task"] for row in rows))
    parts = {row["part"] for row in rows}
    if parts not in ({"all"}, set(PARTS) - {"all"}) or len(rows) != len(tasks) * len(parts):
        raise ValueError(f"the tasks' parts are {sorted(parts)}, {len(rows)} for {len(tasks)} tasks")
    return [{**row, "tasks": json.dumps(tasks)} for row in rows]


def _device(record: dict[str, Any]) -> str:
    """The name of the GPU, or of the CPU where the record has it."""
    device = str(record.get("device") or "")
    return str(record.get("processor") or device) if device == "cpu" else device


def _complete(config: dict[str, Any]) -> bool:
    """False where the configuration says that tasks of the suite were left out."""
    whole = config.get("suite_tasks")
    if config.get("complete_suite") is not None or whole is None:
        return bool(config.get("complete_suite", True))
    return len(config.get("tasks") or []) == (whole if isinstance(whole, int) else len(whole))


def _file_name(weights: str) -> str:
    """A weights file's name without the folders of the machine it was on; a tag stays as it is."""
    return Path(weights).name if Path(weights).suffix in {".safetensors", ".pt", ".pth", ".bin"} else weights


def _flat(config: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Every setting of a configuration as ("params.epochs", "50")."""
    pairs: list[tuple[str, str]] = []
    for name, value in config.items():
        if isinstance(value, dict):
            pairs += _flat(value, f"{prefix}{name}.")
        elif prefix or name not in _NAMED:
            pairs.append((prefix + name, value if isinstance(value, str) else json.dumps(value)))
    return pairs


def _with_variants(rows: pd.DataFrame) -> pd.DataFrame:
    """`variant` computed again, from the parameters against the method's defaults in the suite.

    What a record says of itself depends on how its run was typed, where it was made before records held the defaults.
    """
    for _, group in rows.groupby(["suite", "method"], sort=False):
        defaults = _defaults(group)
        order = list(dict.fromkeys(name for values in group["parameters"] for name in values))
        rows.loc[group.index, "variant"] = [
            _variant(values, defaults, changes(said), order)
            for values, said in zip(group["parameters"], group["variant"], strict=True)
        ]
    return rows


def _variant(
    values: dict[str, Any], defaults: dict[str, Any], said: dict[str, str], order: list[str]
) -> str:
    """What differs from the defaults; of a parameter whose default is unknown, what the record says of itself."""
    told = {}
    for name in [*order, *(name for name in said if name not in order)]:
        known = name in defaults and name in values
        if values[name] != defaults[name] if known else name in said:
            told[name] = str(values[name]) if name in values else said[name]
    return ",".join(f"{name}={value}" for name, value in told.items())


def _defaults(group: pd.DataFrame) -> dict[str, Any]:
    """A method's defaults in a suite: as its records hold them, or, where none does, those parameters that runs without
    options and recipe had. Of one in which they disagree none is known."""
    held = [record for record in group["defaults"] if record]
    if not held:
        plain = group[group["recipe"] == ""]
        held = [
            {name: value for name, value in values.items() if name not in changes(said)}
            for values, said in zip(plain["parameters"], plain["variant"], strict=True)
        ]
    values: dict[str, list[Any]] = {}
    for record in held:
        for name, value in record.items():
            values.setdefault(name, []).append(value)
    return {name: several[0] for name, several in values.items() if all(v == several[0] for v in several)}


def changes(variant: str) -> dict[str, str]:
    """{"context": "8", "epochs": "5"} of "context=8,epochs=5"; a value may have commas of its own."""
    return dict(text.split("=", 1) for text in re.findall(r"\w+=.*?(?=,\s*\w+=|$)", variant))


def _with_settings(rows: pd.DataFrame) -> pd.DataFrame:
    """Add `setting`: within a block, records of one method and variant that differ in any setting are told apart.

    Without it a run with `--views 10` and one with 50 would be averaged as if they were seeds of one experiment.
    """
    for _, group in rows.groupby([*BLOCK, "method", "variant"], sort=False):
        configs = list(group["config"])
        names = sorted({name for config in configs for name in config})
        differing = [name for name in names if len({config.get(name) for config in configs}) > 1]
        told = [", ".join(f"{n.rsplit('.')[-1]}={config.get(n, '—')}" for n in differing) for config in configs]
        rows.loc[group.index, "setting"] = told
    return rows


def _distinct(rows: pd.DataFrame) -> pd.DataFrame:
    """One row per cell, task and part: of two records of one cell the latest finished counts."""
    rows = rows.sort_values("finished", kind="stable")
    twice = rows.duplicated([*BLOCK, *ROW, "shots", "seed", "task", "part"], keep="last")
    if twice.any():
        found = rows.groupby([*BLOCK, *ROW, "shots", "seed", "task", "part"])[["code", "numerics"]].transform("nunique")
        unlike = (twice & (found > 1).any(axis=1)).sum()
        told = f", {unlike} of them by different code" if unlike else ""
        warnings.warn(f"{twice.sum()} results are recorded twice{told}; the latest finished are used", stacklevel=3)
    rows = rows[~twice].drop(columns=["config", "recipe", "defaults"])
    for name in ("params", "epochs", "views", "n_test", "n_train", "n_classes"):
        rows[name] = pd.to_numeric(rows[name], errors="coerce").astype("Int64")
    for name in ("train_seconds", "feature_seconds", "test_seconds", "peak_memory_mb"):
        rows[name] = pd.to_numeric(rows[name], errors="coerce")
    return rows.sort_values(["suite", "backbone", *ROW, "shots", "seed"], kind="stable",
                            ignore_index=True)  # fmt: skip
