"""Record files → one table, one row per cell, task and part."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from bench.errors import UserError, nearest
from bench.files import user_path
from bench.packs import records_below
from bench.progress import count
from bench.records import SHUFFLED, Record
from bench.reports.config import ReportConfig
from bench.reports.steadiness import with_stability
from bench.settings import many

# Records are comparable when they agree in these; each combination gets its own tables and figures.
BLOCK = ["suite", "backbone", "weights", "data", "protocol", "tasks", "demo"]
ROW = ["method", "variant", "setting"]  # one row of a table
TEXTS = ("note", "footnote")
FOLDED = ("protocol", "data", "draw", "fold", "trained", "scored")  # of a configuration: what makes a cell one of folds

# Settings that are part of the cell's name or of BLOCK: no reason to tell two records of a method apart.
_NAMED = {"suite", "backbone", "method", "protocol", "shots", "seed", "tasks", "pretrained"}
_NAMED |= {"weights", "data", "draw", "complete_suite", "code", "numerics", "fold", "trained", "scored", "sample"}


@dataclass(frozen=True)
class Loaded:
    """rows: done cells, one row per cell and task (COLUMNS and what tables need); failed: one dict per failed cell.

    cells : the records of the done cells and their files, by key.
    """

    rows: pd.DataFrame
    failed: list[dict[str, Any]]
    cells: dict[str, tuple[Record, Path]]


def load(config: ReportConfig) -> Loaded:
    """Every record below `results` that the configuration asks for. A file that is not a record is named in a warning
    and left out."""
    results = user_path(config.results)
    rows: list[dict[str, Any]] = []
    failed: list[dict[str, Any]] = []
    cells: dict[str, tuple[Record, Path]] = {}
    for path, record in records_below(results):
        if record.done:
            pairs = zip(record.rows(), record.tasks, strict=True)
            rows += [{**_reworded(row), "val_accuracy": task.get("val_accuracy")} for row, task in pairs]
            cells[record.key] = record, path
        else:
            failed.append({**record.failure, "fold": record.config.get("fold", "")})
    if not rows and failed:
        first = str(failed[0]["error"]).splitlines()[0]
        n = count(len(failed), "cell")
        raise UserError(f"no finished cell below '{results}': {n} failed, the first with: {first}")
    if not rows:
        raise UserError(f"no records below '{results}': run `python -m bench run` first, or name its --results folder")
    # All rows of a record share one text with the names of its tasks; as pandas' own texts each would have a copy.
    tasks = pd.Series([row.pop("tasks") for row in rows], dtype=object)
    table = _with_variants(_asked_for(_whole(pd.DataFrame(rows).assign(tasks=tasks)), config)).assign(selected="")
    if config.best_on:
        table = _best_on_val(table)
    found = _distinct(_with_settings(table))
    return Loaded(with_stability(found, results), failed, cells)


def seen_twins(cells: Mapping[str, tuple[Record, Path]]) -> dict[str, Record]:
    """By the key of a cell of unseen-task, the record of the few-shot cell that was trained on all of its tasks and is
    otherwise the same: in settings, shots, seed, weights, code, few-shot and test images."""
    records = [record for record, _ in cells.values()]
    unseen = [record for record in records if record.cell["protocol"].startswith("unseen-task")]
    few = {_but_folds(r): r for r in records if r.cell["protocol"] == "few-shot"} if unseen else {}
    return {record.key: few[same] for record in unseen if (same := _but_folds(record)) in few}


def _but_folds(record: Record) -> str:
    """What a cell's numbers follow from, but for what is trained and what is scored."""
    own = _but(record.config, *FOLDED)
    names = {name: record.cell[name] for name in ("suite", "backbone", "method", "shots", "seed")}
    return json.dumps([own, names, record.fingerprints, record.draws, record.demo], sort_keys=True)


def _but(config: Mapping[str, Any], *names: str) -> dict[str, Any]:
    """A configuration without some of its settings."""
    return {name: value for name, value in config.items() if name not in names}


def _whole(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows without those of trainings in folds of tasks of which some are missing: a mean over the rest would stand
    beside means over all tasks."""
    by = ["suite", "backbone", "weights", "protocol", "method", "variant", "shots", "seed", "code", "numerics", "draws"]
    by += ["train_tasks"]
    left_out = []
    folded = rows[rows["fold"] != ""]
    cells = folded.drop_duplicates("key").set_index("key")["config"]
    settings = {key: json.dumps(_but(own, *FOLDED, "paths"), sort_keys=True) for key, own in cells.items()}
    for _, group in folded.groupby([*by, folded["key"].map(settings)], sort=False, dropna=False):
        tasks = json.loads(group["tasks"].iloc[0])
        if gone := sorted(set(tasks) - set(group["task"])):
            left_out += group.index.tolist()
            one = group.iloc[0]
            cell = f"{one['method']} {one['variant']}".strip()
            cell += f", {count(int(one['shots']), 'shot')}, seed {one['seed']}"
            warnings.warn(f"{cell} is left out: the fold that scores {gone[0]} is not finished", stacklevel=3)
    return rows.drop(index=left_out)


def _best_on_val(rows: pd.DataFrame) -> pd.DataFrame:
    """Of every method the variant with the highest accuracy on the few-shot validation images: the mean over the tasks,
    seeds and shots that all its variants have. Of equal ones the default, else the first. Test images have no say.

    Controls stay beside it, and are never chosen instead: each is a choice of its own, among settings with it.
    """
    kept = []
    several = rows.groupby("method")["variant"].transform("nunique") > 1
    if not several.any():
        warnings.warn("--best-on val: no method has several settings here to choose from", stacklevel=3)
    known = {method: _controls(method) for method in rows.loc[several, "method"].unique()}
    control = rows.apply(lambda row: _control(row, known.get(row["method"], {})), axis=1)
    for (*_, method, _), group in rows.groupby([*BLOCK, "method", control], sort=False):
        variants = sorted(group["variant"].unique(), key=lambda variant: (variant != "", variant))
        if len(variants) > 1:
            seen = group[group["part"].isin(["all", "base"])]
            values = seen.assign(value=pd.to_numeric(seen["val_accuracy"])).pivot_table(
                index=["task", "shots", "seed"], columns="variant", values="value"
            )
            values = values.reindex(columns=variants).dropna()
            if values.empty:
                raise UserError(
                    f"--best-on val: the records of {method} ({'; '.join(map(repr, variants))}) have no validation "
                    "accuracy for the same cells; run them again with this version"
                )
            means = values.mean()
            best = max(variants, key=lambda variant: means[variant])
            told = "; ".join(f"{variant or 'default'} {means[variant]:.2f}" for variant in variants)
            said = (
                f"Of {count(len(variants), 'setting')} of {method}, {best or 'its default'} was chosen by its accuracy "
                f"on the few-shot validation images alone ({told})."
            )
            group = group[group["variant"] == best].assign(selected=said)
        kept.append(group)
    return pd.concat(kept, ignore_index=True)


def _controls(method: str) -> dict[str, Any]:
    """The parameters of which every value but the default makes a control of a method, with these defaults."""
    from bench.methods import find_method, method_names  # brings torch, which other reports do without

    if method not in method_names():  # nor is code run that a record names
        told = "is not installed here; should some of its settings be controls, one may be chosen"
        warnings.warn(f"--best-on val: {method} {told}", stacklevel=4)
        return {}
    kind = find_method(method, "--best-on val:")
    plain = kind.Params()
    return {name: getattr(plain, name) for name in kind.controls}


def _control(row: pd.Series, defaults: Mapping[str, Any]) -> str:
    """What makes a row a control, "" if nothing does: names exchanged between tasks, or parameters of the method."""
    values = {**row["parameters"], **changes(row["variant"])}
    told = [f"{k}={values[k]}" for k, default in defaults.items() if str(values.get(k, default)) != str(default)]
    return ",".join([*told, *([SHUFFLED] if "names" in row["config"] else [])])


def _reworded(row: dict[str, Any]) -> dict[str, Any]:
    """A row with the texts of older records as they would be written today."""
    return {**row, **{name: re.sub(r"\b([Oo])ur reading\b", r"\1ur interpretation", row[name]) for name in TEXTS}}


def _asked_for(rows: pd.DataFrame, config: ReportConfig) -> pd.DataFrame:
    """The rows of the methods, tasks and shots that were named; of names that no record has, an error."""
    asked: dict[str, Any] = {"method": config.methods, "task": config.tasks, "shots": config.shots}
    for column, wanted in asked.items():
        for value in many(wanted) if wanted is not None else ():
            known = dict.fromkeys(rows[column])
            if value not in known:
                hint = nearest(str(value), map(str, known))
                raise UserError(f"--{column.rstrip('s')}s {value}: no finished cell has it; {hint}")
    if config.methods is not None:
        rows = rows[rows["method"].isin(many(config.methods))]
    if config.shots is not None:
        rows = rows[rows["shots"].isin([0, *many(config.shots)])]
    if config.tasks is not None:
        asked_for: tuple[str, ...] = many(config.tasks)
        rows = rows[rows["task"].isin(asked_for)]
        some = {text: json.dumps([task for task in json.loads(text) if task in asked_for]) for text in {*rows["tasks"]}}
        held = rows["tasks"].map(some)  # of a fold those of all folds, as before
        rows = rows.assign(tasks=held, complete=rows["complete"] & (held == rows["tasks"]))
    if rows.empty:
        raise UserError(f"no finished cell below '{config.results}' has all of the methods, tasks and shots named")
    return rows.reset_index(drop=True)


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
            said if by_recipe(said) else _variant(values, defaults, changes(said), order)
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


def by_recipe(variant: str) -> bool:
    """Whether a variant is a recipe with values that depend on shots or task: one row, whatever they are."""
    return variant.startswith("recipe=")


def _with_settings(rows: pd.DataFrame) -> pd.DataFrame:
    """Add `setting`: within a block, records of one method and variant that differ in any setting are told apart.

    Without it a run with `--views 10` and one with 50 would be averaged as if they were seeds of one experiment.
    The parameters that a recipe sets by shots are compared among records of one shot count; tasks' places in a tree
    among records that have the task, since each fold of tasks has its own.
    """
    for (*_, variant), group in rows.groupby([*BLOCK, "method", "variant"], sort=False):
        pairs = zip(group["config"], group["draws"], strict=True)
        configs = [{**dict(_flat(config)), "draws": draws} for config, draws in pairs]
        names = sorted({name for config in configs for name in config})
        shots = list(group["shots"]) if by_recipe(str(variant)) else []
        if shots:
            for config in configs:
                if config.get("views") == config.get("params.epochs"):  # one per epoch, however many these are
                    config["views"] = "epochs"
        differing = [
            name
            for name in names
            if _differ(
                [config.get(name) for config in configs if name in config or not name.startswith("paths.")],
                shots if name.startswith("params") else [],
            )
        ]
        told = [", ".join(f"{n.rsplit('.')[-1]}={config.get(n, '—')}" for n in differing) for config in configs]
        rows.loc[group.index, "setting"] = told
    return rows


def _differ(values: Sequence[Any], among: Sequence[Any]) -> bool:
    """Whether values are not all the same; with `among`, whether those of the same mark are not."""
    return len({*zip(values, among, strict=True)} if among else {*values}) > (len({*among}) or 1)


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
    for name in ("params", "epochs", "views", "train_tasks", "n_test", "n_train", "n_classes"):
        rows[name] = pd.to_numeric(rows[name], errors="coerce").astype("Int64")
    for name in ("train_seconds", "feature_seconds", "test_seconds", "peak_memory_mb", "val_accuracy"):
        rows[name] = pd.to_numeric(rows[name], errors="coerce")
    return rows.sort_values(["suite", "backbone", *ROW, "shots", "seed"], kind="stable",
                            ignore_index=True)  # fmt: skip
