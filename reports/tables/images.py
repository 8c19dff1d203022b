"""Every method against the best one on the very same test images of each task."""

from __future__ import annotations

import pandas as pd

from bench.progress import count
from bench.records import PARTS
from bench.reports import markup, stats
from bench.reports.elements import Table
from bench.reports.groups import Block
from bench.reports.images import OverImages
from bench.reports.markup import Cell
from bench.reports.tables.common import names, number, of, searched_said, signed, used

COLUMNS = ["a", "b", "task", "part", "images", "seeds", "difference", "low", "high"]


class Images(Table):
    """At the largest shot count: the difference to the method with the highest mean, and its interval over images."""

    name = "images"
    title = "On the same test images"
    order = 35

    def why_not(self, block: Block) -> str:
        few = "fewer than two methods have kept, for each of their cells, the predictions of single test images"
        return "" if any(pairs for _, pairs in block.over_images.values()) else few

    def build(self, block: Block, notes: dict[str, int]) -> list[markup.Table]:
        found = block.over_images.items()
        return [self._table(block, part, best, pairs, notes) for part, (best, pairs) in found if pairs]

    def data(self, block: Block) -> dict[str, pd.DataFrame]:
        """images.csv: a line a method, task and part: a (the method) − b (the one with the highest mean), in points."""
        lines = [vars(pair) for _, pairs in block.over_images.values() for pair in pairs]
        known = {"block": block.slug, "shots": max(block.shots, default=0)}
        return {"images": pd.DataFrame(lines, columns=COLUMNS).assign(**known)} if lines else {}

    def _table(
        self, block: Block, part: str, best: str, pairs: list[OverImages], notes: dict[str, int]
    ) -> markup.Table:
        largest = max(block.shots, default=0)
        scores = block.at(largest, block.task_scores)
        means = scores[scores["part"] == part].set_index(["label", "task"])["mean"]
        by = {(pair.a, pair.task): pair for pair in pairs}
        labels = list(block.kept)
        rows = []
        for cell, label in zip(names(block, labels, notes), labels, strict=True):
            own = [number(means[best, task]) if label == best else _said(by.get((label, task))) for task in block.tasks]
            rows.append([cell, *map(Cell, own)])
        lacking = [name for name in block.main if name not in block.kept]
        caption = [
            f"At {count(largest, 'shot')}: accuracy minus that of {best}, in points of each task's metric, and in "
            f"brackets its 95 % interval, a paired bootstrap over test images ({stats.RESAMPLES:,} resamples; of "
            f"mean_acc within each class), with seeds averaged image by image. The row of {best}, the highest mean, "
            "has its accuracy.",
            "*: the interval leaves out 0. It tells what other test images would have changed, not other few-shot "
            f"images or seeds; of {count(len(pairs), 'interval')}, one in twenty is expected to miss.",
            *searched_said(block, labels),
            *([f"Without {', '.join(lacking)}: not every cell has kept its predictions."] if lacking else []),
        ]
        title = " · ".join(filter(None, [block.title, "on the same test images", PARTS[part]]))
        own_name = f"{block.slug}-images{f'-{part}' if block.halves else ''}"
        header = [Cell("method"), *map(Cell, block.tasks)]
        footnotes = used(block, labels, notes)
        return markup.Table(title, caption, header, rows, footnotes, block.demo, own_name, about=of(labels))


def _said(pair: OverImages | None) -> str:
    if pair is None:
        return "—"
    return f"{signed(pair.difference)} ({signed(pair.low)} to {signed(pair.high)}){'*' * pair.apart}"
