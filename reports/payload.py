"""What the page (`reports/page.py`) shows, as JSON: numbers by block, and where each cell's come from.

Tables of numbers are stored by column, which takes a third of the room of a list of rows.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.colors import to_hex, to_rgb

from bench.records import PARTS, Record
from bench.reports import reference
from bench.reports.closer import Closer
from bench.reports.groups import Block
from bench.reports.looks import Look, looks
from bench.reports.markup import Table
from bench.reports.records import Loaded
from bench.reports.stats import LEVEL
from bench.reports.steadiness import MEASURED
from bench.reports.tables import common, main
from bench.reports.tables.main import AVERAGE

# Of two records of one block and row these may differ; the rest is said once and shared.
_OF_A_CELL = ("key", "finished", "train_seconds", "feature_seconds", "test_seconds", "peak_memory_mb")


def payload(loaded: Loaded, blocks: list[Block]) -> dict[str, Any]:
    """Everything that the page shows, in types that JSON has; numbers that are not there are None."""
    shared = _Shared()
    texts = [text for block in blocks for name in block.labels for text in common.footnotes(block, name)]
    notes = list(dict.fromkeys(texts))
    closer = Closer(loaded)
    found = [_block(block, loaded, notes, shared, closer) for block in blocks]
    failed = [{name: cell.get(name, "") for name in (*_NAMES, "fold", "error")} for cell in loaded.failed]
    missing = [cell for block in blocks for cell in _missing(block, loaded.failed)]
    methods = list(dict.fromkeys(row["method"] for block in found for row in block["rows"]))
    return {
        "blocks": found,
        "methods": methods,
        "looks": [_look(look) for look in looks(methods).values()],
        "notes": notes,
        "shared": shared.values,
        "failed": failed,
        "missing": missing,
        "counts": {"done": loaded.rows["key"].nunique(), "missing": len(missing), "failed": len(failed)},
    }


_NAMES = ("suite", "backbone", "protocol", "method", "variant", "shots", "seed")


def _block(block: Block, loaded: Loaded, notes: list[str], shared: _Shared, closer: Closer) -> dict[str, Any]:
    first = block.rows.iloc[0]
    place = {name: i for i, name in enumerate(block.labels)}
    compared, sentence = reference.comparison(block.rows)
    table = _main_table(block)
    looks_, full = closer.looks(block, place, shared)
    info = block.rows.drop_duplicates("task").set_index("task")
    return {
        "id": block.slug,
        "title": block.title,
        **{name: str(first[name]) for name in ("suite", "backbone", "protocol")},
        "suite_title": str(first["title"]),
        "demo": block.demo,
        "caption": [*table.caption, *([sentence] if sentence else [])],
        "compared": compared,
        "tasks": [
            {"name": name, **{k: _plain(info.at[name, k]) for k in ("metric", "n_classes", "n_test")}}
            for name in block.tasks
        ],
        "parts": [{"name": part, "label": PARTS[part]} for part in block.parts],
        "shots": block.shots,
        "seeds": list(block.seeds),
        "rows": [
            {
                "label": name,
                **{column: block.of(name, column) for column in ("method", "variant", "setting")},
                "main": name in block.main,
                "params": _plain(block.of(name, "params")),
                "selected": block.of(name, "selected"),
                "searched": name in block.searched,
                "notes": [notes.index(text) for text in common.footnotes(block, name)],
            }
            for name in block.labels
        ],
        "scores": _columns(_scores(block, place, compared, table)),
        "task_scores": _columns(_task_scores(block, place)),
        "cells": _columns(_cells(block, loaded, place, shared)),
        "pairs": _columns(_pairs(block, place)),
        "pairs_over": block.compared[1],
        "looks": looks_,
        "looks_left_out": full,
    }


def _scores(block: Block, place: dict[str, int], compared: bool, table: Table) -> pd.DataFrame:
    """One line a row, shots (or AVERAGE) and part: our mean with its spread, and the paper's."""
    scores = _with_interval(block.scores)[[*_SPREAD, "label", "shots", "part", "train_seconds", "params"]]
    if len(block.shots) > 1:
        averages = _averages(block)
        scores = pd.concat([scores, averages], ignore_index=True) if len(averages) else scores
    quoted = [_quoted(block, name, n) if compared else (math.nan, math.nan)
              for name, n in zip(scores["label"], scores["shots"], strict=True)]  # fmt: skip
    scores[["paper", "paper_std"]] = pd.DataFrame(quoted, index=scores.index, dtype=float)
    without = scores["label"].map(lambda name: block.of(name, "method") in reference.NO_DIFFERENCE)
    scores["delta"] = (scores["mean"] - scores["paper"]).mask(without)
    scores["mark"] = _marks(block, scores, table)
    scores["warned"] = _warned(block, scores)
    scores["fewer"] = (scores["shots"] != 0) & (scores["n_seeds"] < len(block.seeds))
    return _placed(block, scores, place)


_SPREAD = ["mean", "std", "low", "high", "n_seeds"]


def _averages(block: Block) -> pd.DataFrame:
    """Of rows that have every shot count: the average over them, and its spread over seeds."""
    lines = []
    for (label, part), found in block.averages(block.shots).items():
        if block.of(label, "shots"):
            low, high = found.interval
            spread = dict(zip(_SPREAD, (found.mean, found.sd, low, high, found.n), strict=True))
            lines.append({"label": label, "part": part, "shots": AVERAGE, **spread})
    return pd.DataFrame(lines)


def _with_interval(frame: pd.DataFrame) -> pd.DataFrame:
    """Adds low and high, the 95 % interval of the mean, which passes neither 0 nor 100."""
    low, high = frame["mean"] - frame["half"], frame["mean"] + frame["half"]
    return frame.assign(low=low.clip(lower=0), high=high.clip(upper=100))


def _main_table(block: Block) -> Table:
    """The report's main table, for its marks and its caption."""
    notes = {text: 0 for name in block.main for text in common.footnotes(block, name)}
    return main.over_shots(block, block.main, block.title, notes)


def _marks(block: Block, scores: pd.DataFrame, table: Table) -> list[str]:
    """ "best", "second" and "tie" of each column as in the main table, which has no variants."""
    shots = sorted(scores.loc[scores["label"].isin(block.main) & (scores["shots"] >= 0), "shots"].unique())
    if block.halves and block.shots:
        shots = block.shots
    shots = [*shots, *([AVERAGE] if len(block.shots) > 1 else [])]
    columns = [(n, part) for n in shots for part in block.parts]
    found: dict[tuple[str, int, str], str] = {}
    for name, row in zip(block.main, table.rows, strict=True):
        found |= {(name, *column): cell.mark for column, cell in zip(columns, row[2:], strict=True)}
    return [found.get(key, "") for key in zip(scores["label"], scores["shots"], scores["part"], strict=True)]


def _warned(block: Block, scores: pd.DataFrame) -> list[int]:
    """Of each number, how many of its cells had a training that is marked, as near chance."""
    cells = block.rows.drop_duplicates("key")
    counts = cells[cells["marks"] != ""].groupby(["label", "shots"]).size()
    trained = counts[counts.index.get_level_values("shots") > 0].groupby("label").sum()
    found = {**counts.to_dict(), **{(label, AVERAGE): n for label, n in trained.items()}}
    return [found.get(key, 0) for key in zip(scores["label"], scores["shots"], strict=True)]


def _quoted(block: Block, name: str, shots: int) -> tuple[float, float]:
    """The paper's mean and standard deviation; of an average it gives no deviation."""
    if shots != AVERAGE:
        return main.quoted(block, name, shots)
    means = [main.quoted(block, name, n)[0] for n in block.shots]
    return sum(means) / len(means), math.nan


def _task_scores(block: Block, place: dict[str, int]) -> pd.DataFrame:
    scores = _with_interval(block.task_scores)
    tasks = {name: i for i, name in enumerate(block.tasks)}
    scores["task"] = scores["task"].map(tasks)
    return _placed(block, scores[[*_SPREAD, "label", "shots", "part", "task"]], place)


def _pairs(block: Block, place: dict[str, int]) -> pd.DataFrame:
    """One line a part and pair of the main table's rows. told : a test tells them apart; few : it has too few pairs."""
    lines = [
        {
            "part": block.parts.index(part), "a": place[c.a], "b": place[c.b], "n": c.n, "difference": c.difference,
            "p": c.p, "better": c.better, "verdict": c.verdict, "told": c.enough and c.p < 1 - LEVEL,
            "few": not c.enough,
        }
        for part, found in block.comparisons.items()
        for c in found
    ]  # fmt: skip
    return pd.DataFrame(lines)


def _placed(block: Block, scores: pd.DataFrame, place: dict[str, int]) -> pd.DataFrame:
    """Labels and parts as their places in the block."""
    parts = {name: i for i, name in enumerate(block.parts)}
    scores = scores.assign(row=scores["label"].map(place), part=scores["part"].map(parts))
    return scores.drop(columns="label").sort_values(["row", "shots", "part"], kind="stable")


def _cells(block: Block, loaded: Loaded, place: dict[str, int], shared: _Shared) -> pd.DataFrame:
    """One line a cell: its numbers, and where they come from."""
    lines = []
    for (label, _, _), rows in block.rows.groupby(["label", "shots", "seed"]):
        record, _ = loaded.cells[rows["key"].iloc[0]]
        places = list(zip(rows["task"], rows["part"], strict=True))
        accuracy, val = (dict(zip(places, rows[name], strict=True)) for name in ("accuracy", "val_accuracy"))
        lines.append(
            {
                "row": place[str(label)], "shots": int(rows["shots"].iloc[0]), "seed": int(rows["seed"].iloc[0]),
                **{name: getattr(record, name) for name in _OF_A_CELL},
                "stability": [_plain(rows[name].iloc[0]) for name in MEASURED],
                "draw": record.fingerprints.get("draw", ""),
                "accuracy": [_plain(accuracy[task, part]) for task in block.tasks for part in block.parts],
                "val": [_plain(val[task, part]) for task in block.tasks for part in block.parts],
                "marks": record.marks,
                "chosen": shared.place(record.chosen),
                "trained": _trained(record),
                "about": shared.place(_about(record)),
                "data": shared.place({"splits": record.splits, "copies": record.copies}),
            }
        )  # fmt: skip
    return pd.DataFrame(lines).sort_values(["row", "shots", "seed"], kind="stable")


def _trained(record: Record) -> list[list[Any]]:
    """Of each training of a cell: its name, its first and last loss, and its last accuracy in percent."""
    losses, accuracies = (record.curves.get(what, {}) for what in ("loss", "accuracy"))
    return [[name, values[0], values[-1], accuracies[name][-1]] for name, values in losses.items() if values]


def _about(record: Record) -> dict[str, Any]:
    """What a reader must know to make a cell again; alike for many cells."""
    config = record.config
    known = {"suite", "backbone", "method", "protocol", "shots", "seed", "tasks", "params", "draw", "weights", "data"}
    return {
        "parameters": config.get("params") or {},
        "settings": {k: v for k, v in config.items() if k not in known and v not in (None, "")},
        "weights": record.fingerprints.get("weights", ""),
        "test_data": record.fingerprints.get("data", ""),
        "recipe": record.recipe,
        "versions": record.versions,
        "device": record.device,
        "processor": record.processor,
        "threads": record.threads,
        "run": record.run,
        "trained_together": record.trained_together or [],
        "draws": record.draws or "",
        "note": record.note,
        "footnote": record.footnote,
    }


# Matplotlib's markers as SVG paths within -1 to 1, which is how Vega takes shapes of one's own.
SHAPES = {
    "o": "M.9,0A.9,.9,0,1,1,-.9,0A.9,.9,0,1,1,.9,0Z",
    "s": "M-.8,-.8H.8V.8H-.8Z",
    "^": "M0,-.95L.95,.75H-.95Z",
    "v": "M0,.95L.95,-.75H-.95Z",
    "<": "M-.95,0L.75,-.95V.95Z",
    ">": "M.95,0L-.75,-.95V.95Z",
    "D": "M0,-1L1,0L0,1L-1,0Z",
    "d": "M0,-1L.6,0L0,1L-.6,0Z",
    "P": "M-.35,-1H.35V-.35H1V.35H.35V1H-.35V.35H-1V-.35H-.35Z",
    "X": "M-.5,-1L0,-.5L.5,-1L1,-.5L.5,0L1,.5L.5,1L0,.5L-.5,1L-1,.5L-.5,0L-1,-.5Z",
    "p": "M0,-1L.95,-.31L.59,.81H-.59L-.95,-.31Z",
    "h": "M0,-1L.87,-.5V.5L0,1L-.87,.5V-.5Z",
    "*": "M0,-1L.24,-.31L.95,-.31L.38,.12L.59,.81L0,.4L-.59,.81L-.38,.12L-.95,-.31L-.24,-.31Z",
}
_PAPER_AT_NIGHT = "#1a1e23"  # --card in page.css


def _look(look: Look) -> dict[str, Any]:
    dash = [round(2 * length, 1) for length in look.dash] or [1, 0]  # lines are two pixels wide
    shape = SHAPES.get(look.marker, SHAPES["o"])
    return {"light": look.colour, "dark": on_dark(look.colour), "shape": shape, "dash": dash}


def on_dark(colour: str, contrast: float = 4.5) -> str:
    """A colour, with as much white as it takes to be seen on the dark page. contrast : as WCAG 2 defines it."""
    colour_, least = np.array(to_rgb(colour)), contrast * (_luminance(np.array(to_rgb(_PAPER_AT_NIGHT))) + 0.05)
    for white in np.linspace(0, 1, 21):
        mixed = colour_ + white * (1 - colour_)
        if _luminance(mixed) + 0.05 >= least:
            break
    return str(to_hex(mixed))


def _luminance(rgb: np.ndarray[Any, Any]) -> float:
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def _missing(block: Block, failed: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The cells that the grid of the block's methods × shots × seeds lacks, but for those that failed.

    Settings that were varied are no part of the grid: they are often run at a single shot count.
    """
    first = block.rows.iloc[0]
    about = {name: str(first[name]) for name in ("suite", "backbone", "protocol")}
    tried = {tuple(cell.get(k) for k in _NAMES if k != "variant") for cell in failed}
    lacking = []
    for name in block.main:
        rows = block.rows[block.rows["label"] == name]
        if not (rows["shots"] > 0).any():
            continue
        there = set(zip(rows["shots"], rows["seed"], strict=True))
        for shots in block.shots:
            for seed in block.seeds:
                cell = {**about, "method": block.of(name, "method"), "shots": shots, "seed": seed}
                if (shots, seed) not in there and tuple(cell.values()) not in tried:
                    lacking.append({**cell, "label": name})
    return lacking


class _Shared:
    """Values that many cells have alike, each once."""

    def __init__(self) -> None:
        self.values: list[Any] = []
        self._places: dict[str, int] = {}

    def place(self, value: Any) -> int:
        text = json.dumps(value, sort_keys=True, default=str)
        if text not in self._places:
            self._places[text] = len(self.values)
            self.values.append(json.loads(text))
        return self._places[text]


def _columns(frame: pd.DataFrame) -> dict[str, list[Any]]:
    return {str(name): [_plain(value) for value in frame[name]] for name in frame}


def _plain(value: Any) -> Any:
    """A number as JSON has it: None for what is not there; eight decimals, so that it is rounded once."""
    if isinstance(value, (str, bool, list)):
        return value
    if value is None or pd.isna(value):
        return None
    if isinstance(value, np.bool_):
        return bool(value)
    if isinstance(value, (int, np.integer)):
        return int(value)
    return round(float(value), 8)
