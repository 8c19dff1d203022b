"""Every task alone at the largest shot count."""

from __future__ import annotations

from itertools import product

from bench.progress import count
from bench.records import PARTS
from bench.reports import markup, stats
from bench.reports.elements import Table
from bench.reports.groups import Block
from bench.reports.markup import Cell
from bench.reports.tables.common import (
    FEWER,
    about,
    marks_said,
    names,
    of,
    ranked,
    searched_said,
    spread_said,
    used,
    whole,
)

MEAN = "mean of the tasks"


class Tasks(Table):
    """Tasks (and their parts) × methods, turned where there are more methods than tasks."""

    name = "tasks"
    title = "Every task alone"
    order = 20

    def why_not(self, block: Block) -> str:
        varied = "" if block.main else "every method was run in several settings, none of which is its default"
        return block.too_many or varied

    def build(self, block: Block, notes: dict[str, int]) -> list[markup.Table]:
        largest = max(block.shots, default=0)
        at = block.at(largest, block.task_scores)
        labels = [name for name in block.main if name in set(at["label"])]
        info = block.rows.drop_duplicates(["task", "part"]).set_index(["task", "part"])
        body, tested = [], []
        for task, part in product([*block.tasks, *([MEAN] if len(block.tasks) > 1 else [])], block.parts):
            name = Cell(" · ".join(filter(None, [task, PARTS[part]])))
            values = block.values(part, [largest], labels)
            if task == MEAN:
                scores = block.at(largest, block.scores)
                scores, told, test = scores[scores["part"] == part], [Cell("")] * 3, stats.OVER_TASKS
            else:
                scores = at[(at["task"] == task) & (at["part"] == part)]
                values = values[values.index.get_level_values("task") == task]
                test, first = stats.OVER_SEEDS, info.loc[(task, part)]
                told = [Cell(str(first["metric"])), Cell(whole(first["n_classes"])), Cell(whole(first["n_test"]))]
            scores = scores.set_index("label").reindex(labels)
            cells, could = ranked(values, scores["mean"].tolist(), scores["std"].tolist(), len(block.seeds), test)
            tested += [could] if test is stats.OVER_SEEDS else []
            body.append([name, *told, *cells])
        header = [*map(Cell, ("task", "metric", "classes", "test images")), *names(block, labels, notes)]
        caption = [*about(block), spread_said(block), *marks_said(tested, "task", stats.OVER_SEEDS)]
        if len(block.tasks) > 1:
            caption.append("The mean of the tasks has the marks of the main table.")
        caption += searched_said(block, labels)
        if any("(n=" in cell.text for row in body for cell in row):
            caption.append(FEWER.format(count(len(block.seeds), "seed")))
        title = f"{block.title} · every task at {count(largest, 'shot')}"
        notes_used = used(block, labels, notes)
        across = ({}, {}, {}, {}, *of(labels))
        own = f"{block.slug}-tasks"
        table = markup.Table(title, caption, header, body, notes_used, block.demo, own, across=across)
        return [markup.turned(table, "method") if len(labels) > len(body) else table]
