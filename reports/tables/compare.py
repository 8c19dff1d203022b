"""Two folders of records side by side: which cells moved by more than the spread over seeds."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from bench.progress import count
from bench.records import PARTS
from bench.reports import markup, stats
from bench.reports.elements import Contents, Overview
from bench.reports.markup import Cell
from bench.reports.tables.common import number, signed

PLACE = ["suite", "backbone", "protocol", "tasks"]
CELL = ["method", "variant", "setting", "shots", "part"]
MADE_WITH = {
    "weights": "weights", "data": "test data", "draw": "few-shot images", "views": "training views",
    "parameters": "parameters", "code": "the method's code", "numerics": "shared numerics", "device": "device",
}  # fmt: skip


@dataclass(frozen=True)
class Moved:
    """A cell (all its seeds) in both folders. task : "" for the mean over tasks. differs : what it was made with."""

    key: dict[str, object]
    task: str
    ours: stats.Spread
    other: stats.Spread
    difference: stats.Difference
    differs: tuple[str, ...]

    @property
    def said(self) -> str:
        """Whether it moved: "yes", "no", or that a single seed cannot tell."""
        if self.difference.within is None:
            return "one seed" if abs(self.difference.mean) >= stats.SAME else "no"
        return "no" if self.difference.within or abs(self.difference.mean) < stats.SAME else "yes"


class Compare(Overview):
    """--compare: a line a cell that both folders have, and what only one of them has."""

    name = "compare"
    title = "Compared"
    order = 60

    def why_none(self, contents: Contents) -> str:
        return "" if contents.other is not None else "no --compare folder"

    def over(self, contents: Contents) -> list[markup.Table]:
        assert contents.rows is not None and contents.other is not None  # noqa: S101 - for mypy: `why_none` has said so
        found = pairs(contents.rows, contents.other)
        suites = [cell for cell in found if not cell.task]
        moved = [cell for cell in found if cell.said != "no"]
        a, b = contents.folders
        tables = [self._table(f"{a} and {b}", suites, contents, "all")]
        tables[0].caption.extend(self._alone(contents))
        if moved:
            tables.append(self._table(f"{a} and {b}: moved by more than the spread", moved, contents, "moved"))
        return tables

    def summary(self, contents: Contents) -> str:
        if contents.rows is None or contents.other is None:
            return ""
        suites = [cell for cell in pairs(contents.rows, contents.other) if not cell.task]
        moved = sum(cell.said == "yes" for cell in suites)
        untold = sum(cell.said == "one seed" for cell in suites)
        more = f", {untold} differ and have too few seeds to tell" if untold else ""
        a, b = contents.folders
        return f"Of {count(len(suites), 'cell')} in both {a} and {b} {moved} moved by more than the spread{more}."

    def data(self, contents: Contents) -> dict[str, pd.DataFrame]:
        """compare.csv: a line a cell and task (empty: the mean over tasks); half: of the difference's 95 % interval."""
        assert contents.rows is not None and contents.other is not None  # noqa: S101 - for mypy: `why_none` has said so
        lines = [
            {
                **cell.key, "task": cell.task, "mean": cell.ours.mean, "std": cell.ours.sd, "n_seeds": cell.ours.n,
                "other_mean": cell.other.mean, "other_std": cell.other.sd, "other_n_seeds": cell.other.n,
                "difference": cell.difference.mean, "half": cell.difference.half, "interval": cell.difference.how,
                "moved": cell.said, "differs": ", ".join(cell.differs),
            }
            for cell in pairs(contents.rows, contents.other)
        ]  # fmt: skip
        return {"compare": pd.DataFrame(lines)}

    def _table(self, title: str, cells: list[Moved], contents: Contents, name: str) -> markup.Table:
        notes: dict[str, int] = {}
        rows = []
        for cell in cells:
            told = f"Made with other {', '.join(cell.differs)}." if cell.differs else ""
            numbers = (notes.setdefault(told, len(notes) + 1),) if told else ()
            rows.append(
                [
                    Cell(_named(cell), "", numbers),
                    Cell(number(cell.ours.mean, cell.ours.sd)),
                    Cell(number(cell.other.mean, cell.other.sd)),
                    Cell(signed(cell.difference.mean)),
                    Cell("—" if pd.isna(cell.difference.half) else f"± {cell.difference.half:.2f}"),
                    Cell(cell.said),
                ]
            )
        header = [Cell(text) for text in ("cell", *contents.folders, "difference", "95 %", "moved")]
        caption = [
            f"Difference: {contents.folders[0]} − {contents.folders[1]}, points. 95 %: its interval over seeds, paired "
            "where both have the same seeds, else Welch's. Moved: the difference is outside."
        ]
        about = tuple(
            {name: cell.key[name] for name in ("suite", "backbone", "protocol", "method", "shots")}
            | {"settings": _settings(cell)}
            for cell in cells
        )
        footnotes = {n: text for text, n in notes.items()}
        return markup.Table(title, caption, header, rows, footnotes, False, f"compare-{name}", about=about)

    def _alone(self, contents: Contents) -> list[str]:
        """What only one of the folders has."""
        assert contents.rows is not None and contents.other is not None  # noqa: S101 - for mypy: `why_none` has said so
        sets = [set(_scores(rows)) for rows in (contents.rows, contents.other)]
        said = []
        for folder, own, others in zip(contents.folders, sets, reversed(sets), strict=True):
            only = sorted({f"{key[0]} · {key[4]}" for key in own - others})
            if only:
                said.append(f"Only in {folder}: {count(len(own - others), 'cell')} ({', '.join(only)}).")
        return said


def pairs(rows: pd.DataFrame, other: pd.DataFrame) -> list[Moved]:
    """The cells that both have, in the order of the first: the mean over tasks, then each task."""
    ours, theirs = _scores(rows), _scores(other)
    found = []
    for key in ours:
        if key not in theirs:
            continue
        a, b = ours[key], theirs[key]
        differs = tuple(words for name, words in MADE_WITH.items() if _made(a, name) != _made(b, name))
        named = dict(zip([*PLACE, *CELL], key, strict=True))
        tasks = list(dict.fromkeys(a["task"]))
        for task in ["", *(tasks if len(tasks) > 1 else [])]:
            x, y = (
                (cell[cell["task"] == task] if task else cell).groupby("seed")["accuracy"].mean() for cell in (a, b)
            )
            both = (stats.spread(x.to_numpy()), stats.spread(y.to_numpy()))
            found.append(Moved(named, task, *both, stats.by_seed(x, y), differs))
    return found


def _scores(rows: pd.DataFrame) -> dict[tuple[object, ...], pd.DataFrame]:
    return {key: cell for key, cell in rows.groupby([*PLACE, *CELL], sort=False)}


def _made(cell: pd.DataFrame, column: str) -> set[str]:
    return set(cell[column].astype(str))


def _settings(cell: Moved) -> str:
    return ", ".join(filter(None, [str(cell.key["variant"]), str(cell.key["setting"])]))


def _named(cell: Moved) -> str:
    key = cell.key
    told = _settings(cell)
    method = f"{key['method']} ({told})" if told else str(key["method"])
    where = f"{key['suite']} · {key['backbone']}" + (f" · {key['protocol']}" if key["protocol"] != "few-shot" else "")
    return " · ".join(filter(None, [where, method, f"{key['shots']}-shot", PARTS[str(key["part"])], cell.task]))
