"""Every cell of the SoftCPT paper's table beside ours: the difference, whether the spreads explain it, what differs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any

import pandas as pd

from bench.datasets.spec import load_suite
from bench.progress import count
from bench.reports import markup, reference, stats
from bench.reports.elements import Contents, Overview
from bench.reports.groups import Block
from bench.reports.markup import Cell
from bench.reports.tables.common import missing, number, signed

SEEDS = 3  # of the paper
NO_SPREAD = 0.1  # points: what trains on nothing has no spread; decoders and rounding move it by less
NOT_CLIP = "The paper's ProtoNet did not use CLIP's features."
STAR = "SoftCPT* is not in public code: ours is our interpretation."
RS8 = "The composition of RS-8 is our interpretation."
WITHIN, OUTSIDE, UNTOLD, OTHER, MISSING = "within", "outside", "one seed", "other set-up", "not run"


@dataclass(frozen=True)
class PaperCell:
    """One cell of the paper's table and ours. differs : kinds of difference in the set-up ("views") → a sentence."""

    suite: str
    method: str
    shots: int
    paper: stats.Spread  # sd : the sample deviation that belongs to the printed one
    printed_std: float
    ours: stats.Spread | None = None
    differs: dict[str, str] = field(default_factory=dict)

    @property
    def comparable(self) -> bool:
        """Whether a difference means anything: the same method, backbone, weights and tasks."""
        return self.ours is not None and not {"method", "backbone", "weights", "tasks"} & set(self.differs)

    @property
    def difference(self) -> stats.Difference:
        """Ours − the paper's, and how much of it the spreads over seeds explain."""
        if self.ours is None or not self.comparable:
            return stats.Difference(float("nan"), float("nan"), "")
        if not self.shots:
            return stats.Difference(self.ours.mean - self.paper.mean, NO_SPREAD, "")
        return stats.unpaired(self.ours, self.paper)

    @property
    def verdict(self) -> str:
        if self.ours is None:
            return MISSING
        if not self.comparable:
            return OTHER
        return {True: WITHIN, False: OUTSIDE, None: UNTOLD}[self.difference.within]


class Paper(Overview):
    """All 244 cells of the paper's table, in paper.md."""

    name = "paper"
    title = "The paper's cells"
    order = 50
    file = "paper"

    def why_none(self, contents: Contents) -> str:
        return "" if any(_is_the_papers(block) for block in contents.blocks) else "no record of the paper's suites"

    def over(self, contents: Contents) -> list[markup.Table]:
        found = cells(contents.blocks)
        return [self._table(suite, [cell for cell in found if cell.suite == suite]) for suite in reference.SUITE_SIZES]

    def summary(self, contents: Contents) -> str:
        found = cells(contents.blocks)
        told = Counter(cell.verdict for cell in found)
        rest = {OTHER: "in another set-up", UNTOLD: "of one seed, which cannot be told"}
        parts = [f"{told[WITHIN]} within the joint spread", f"{told[OUTSIDE]} outside"]
        parts += [f"{told[kind]} {words}" for kind, words in rest.items() if told[kind]]
        return f"Of the paper's {len(found)} cells {len(found) - told[MISSING]} were run: {', '.join(parts)}."

    def data(self, contents: Contents) -> dict[str, pd.DataFrame]:
        """paper.csv: a line a cell of the paper. paper_std: as printed there, divided by n; half: half the width of the
        difference's 95 % interval, points."""
        lines = [
            {
                "suite": cell.suite,
                "method": cell.method,
                "shots": cell.shots,
                "paper_mean": cell.paper.mean,
                "paper_std": cell.printed_std,
                "mean": cell.ours.mean if cell.ours else None,
                "std": cell.ours.sd if cell.ours else None,
                "n_seeds": cell.ours.n if cell.ours else 0,
                "difference": cell.difference.mean,
                "half": cell.difference.half,
                "verdict": cell.verdict,
                "set_up": " ".join(cell.differs.values()),
            }
            for cell in cells(contents.blocks)
        ]
        return {"paper": pd.DataFrame(lines)}

    def _table(self, suite: str, found: list[PaperCell]) -> markup.Table:
        notes: dict[str, int] = {}
        rows = []
        for cell in found:
            numbers = tuple(notes.setdefault(text, len(notes) + 1) for text in cell.differs.values())
            ours = Cell("—") if cell.ours is None else Cell(number(cell.ours.mean, cell.ours.sd))
            difference = cell.difference
            rows.append(
                [
                    Cell(f"{cell.method}, {cell.shots}-shot"),
                    ours,
                    Cell(number(cell.paper.mean, cell.printed_std)),
                    Cell(signed(difference.mean)),
                    Cell("—" if pd.isna(difference.half) else f"± {difference.half:.2f}"),
                    Cell(cell.verdict),
                    Cell(", ".join(cell.differs) or "", "", numbers),
                ]
            )
        header = [
            Cell(text) for text in ("cell", "ours", "paper", "difference", "95 %", "joint spread", "differs in")
        ]
        run = [cell for cell in found if cell.ours is not None]
        caption = [
            f"{count(len(run), 'cell')} of {len(found)} run.",
            f"Column paper: quoted from {reference.SOURCE}, with a ± that divides by n = {SEEDS}; all others are "
            "measured, with a ± that divides by n − 1.",
            "95 %: Welch's interval of the difference over the seeds of both, with the paper's deviation made a sample "
            f"one. Within: the difference is inside; of what trains on nothing, at most {NO_SPREAD} points.",
            "Other set-up: another method, backbone, weights or tasks, so that no difference is taken.",
        ]
        title = f"{load_suite(suite).title}: the paper's cells and ours"
        footnotes = {number: text for text, number in notes.items()}
        about = tuple({"suite": suite, "method": cell.method, "shots": cell.shots} for cell in found)
        return markup.Table(title, caption, header, rows, footnotes, False, f"paper-{suite}", about=about)


def cells(blocks: list[Block]) -> list[PaperCell]:
    """The paper's cells in its order, each with ours of the set-up that is nearest to its own."""
    ours: dict[tuple[str, str, int], PaperCell] = {}
    for cell in (cell for block in blocks if _is_the_papers(block) for cell in _of(block)):
        place = (cell.suite, cell.method, cell.shots)
        if place not in ours or _distance(cell) < _distance(ours[place]):
            ours[place] = cell
    table = reference.published()[["suite", "method", "shots"]].itertuples(index=False)
    return [ours.get((s, m, int(n))) or PaperCell(s, m, int(n), *_printed(s, m, int(n))) for s, m, n in table]


def _distance(cell: PaperCell) -> tuple[bool, int]:
    return not cell.comparable, len(cell.differs)


def _is_the_papers(block: Block) -> bool:
    first = block.rows.iloc[0]
    return first["suite"] in reference.SUITE_SIZES and first["protocol"] == "few-shot" and not block.demo


def _printed(suite: str, method: str, shots: int) -> tuple[stats.Spread, float]:
    mean, std = reference.quoted(suite, method, shots)
    return stats.Spread(SEEDS, mean, std * (SEEDS / (SEEDS - 1)) ** 0.5, float("nan")), std


def _of(block: Block) -> Iterator[PaperCell]:
    columns = ["label", "method", "shots", "mean", "std", "n_seeds", "half"]
    in_part = " ".join(missing(block))
    for label, method, shots, mean, std, n, half in block.scores[columns].itertuples(index=False):
        paper, printed = _printed(block.of(label, "suite"), method, int(shots))
        if pd.notna(paper.mean):
            ours = stats.Spread(int(n), mean, std, half)
            differs = _set_up(block, label, int(shots), int(n), in_part)
            yield PaperCell(block.of(label, "suite"), method, int(shots), paper, printed, ours, differs)


def _set_up(block: Block, label: str, shots: int, n_seeds: int, in_part: str) -> dict[str, str]:
    """What differs from the paper's set-up, by kind. in_part : what is said of data that is there in part."""
    first = block.rows[(block.rows["label"] == label) & (block.rows["shots"] == shots)].iloc[0]
    size, tasks = reference.SUITE_SIZES[first["suite"]], len(block.tasks)
    told = {"method": NOT_CLIP if first["method"] in reference.NO_DIFFERENCE else ""}
    told["interpretation"] = STAR if first["method"] == "softcpt-star" else ""
    told["backbone"] = f"Backbone {first['backbone']}, not RN50." if first["backbone"] != "RN50" else ""
    told["weights"] = f"Weights {first['pretrained']}, not OpenAI's." if first["pretrained"] != "openai" else ""
    whole = tasks == size and bool(block.rows["complete"].all())
    told["tasks"] = "" if whole else f"{count(tasks, 'task')}, not the {size} of the suite: {', '.join(block.tasks)}."
    told["data"] = in_part
    told["composition"] = RS8 if first["suite"] == "rs8" else ""
    if shots:
        recipe = _recipe(first["method"], first["parameters"])
        told["recipe"] = f"{first['method']}: {recipe} in the paper's recipe." if recipe else ""
        views, epochs = first["views"], first["epochs"]
        stored = pd.notna(views) and pd.notna(epochs) and views < epochs
        told["views"] = f"{count(int(views), 'stored view')} per image, not a fresh one each epoch." if stored else ""
        told["seeds"] = f"{count(n_seeds, 'seed')}, not {SEEDS}." if n_seeds != SEEDS else ""
    return {kind: text for kind, text in told.items() if text}


def _recipe(method: str, values: dict[str, Any]) -> str:
    """ "lr = 0.01 instead of 0.002": a method's parameters that are not the paper's."""
    wanted = {**_paper().get("all", {}), **_paper().get(method, {})}
    others = [
        f"{name} = {values[name]} instead of {value}"
        for name, value in wanted.items()
        if name in values and values[name] != value
    ]
    return ", ".join(others)


@cache
def _paper() -> dict[str, Any]:
    from bench.datasets.yamlfiles import read_yaml

    return dict(read_yaml(files("bench.recipes") / "paper.yaml"))  # type: ignore[arg-type]
