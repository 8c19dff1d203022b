"""Training loss and training accuracy over epochs, a column of panels per shot count."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd
from matplotlib.figure import Figure as Drawing
from matplotlib.lines import Line2D

from bench.curves import table
from bench.progress import count
from bench.reports.elements import Figure
from bench.reports.figures.common import grid, leaders, legend, short, style, trained
from bench.reports.groups import Block
from bench.reports.looks import GREY

MARK: dict[str, Any] = {"marker": "x", "color": "black", "markersize": 7, "markeredgewidth": 1.4, "linestyle": ""}
COLUMNS = ["label", "shots", "seed", "epoch", "loss", "accuracy", "marked"]


def curves(block: Block) -> pd.DataFrame:
    """Of the main table's cells that have curves, one line an epoch: `COLUMNS`.

    Loss and accuracy (percent) are means of the cell's trainings (its tasks', or the one of all); marked : whether the
    record says that something is wrong.
    """
    cells = block.rows[block.rows["label"].isin(trained(block))].drop_duplicates("key")
    found = []
    for key, label, shots, seed in cells[["key", "label", "shots", "seed"]].itertuples(index=False):
        if key in block.cells:
            record, _ = block.cells[key]
            own = table(record.curves)
            own = own[own["training"].isin(["all", *block.tasks])]
            means = own.groupby("epoch", as_index=False)[["loss", "accuracy"]].mean()
            found.append(means.assign(label=label, shots=shots, seed=seed, marked=bool(record.marks)))
    return pd.concat(found, ignore_index=True)[COLUMNS] if found else pd.DataFrame(columns=COLUMNS)


class Curves(Figure):
    """Means over seeds and trainings. A method has a cross, and its name in the corner, where the record of one of its
    cells is marked; of many methods the best of each family is in colour."""

    name = "curves"
    title = "training loss and training accuracy over epochs"
    order = 85

    def each(self, block: Block) -> Sequence[Curves]:
        return [self] if self.by_epochs(block) else []

    def by_epochs(self, block: Block) -> list[str]:
        """The labels that train in epochs: others have no curves, and are not missed."""
        having = set(block.rows.loc[block.rows["epochs"].notna(), "label"])
        return [name for name in trained(block) if name in having]

    def why_not(self, block: Block) -> str:
        why = "the records have no curves (earlier versions kept none): run the cells again"
        return "" if len(curves(block)) else why

    def draw(self, block: Block) -> Drawing:
        found = curves(block)
        having = [name for name in trained(block) if name in set(found["label"])]
        names = leaders(block, having)
        others = [name for name in having if name not in names]
        looks = {name: {**style(block, name, 0.8), "markevery": [-1]} for name in names}
        means = found.groupby(["label", "shots", "epoch"], as_index=False).agg(
            loss=("loss", "mean"), accuracy=("accuracy", "mean"), marked=("marked", "any")
        )
        shots = sorted(set(means["shots"]))
        size = (max(6.4, 1.0 + 2.1 * len(shots)), 4.2 + 0.2 * (len(names) // 4))
        figure, panels = grid(2 * len(shots), len(shots), size, sharex="col", sharey="row")
        for place, panel in enumerate(panels):
            what, n = ("loss", "accuracy")[place // len(shots)], shots[place % len(shots)]
            crossed: list[str] = []
            for name in others + names:
                line = means[(means["label"] == name) & (means["shots"] == n)]
                if line.empty:
                    continue
                panel.plot(line["epoch"], line[what], **looks.get(name, {"color": GREY, "linewidth": 0.8}))
                if line["marked"].any():
                    panel.plot(line["epoch"].iloc[-1], line[what].iloc[-1], **MARK)
                    crossed.append(short(name, 16))
            if crossed:  # in a corner: ends are too close to each other for names beside them
                told, where = "\n".join(crossed), panel.transAxes
                panel.text(0.98, 0.04, told, transform=where, ha="right", va="bottom", fontsize=6.5)
            panel.set_title(count(n, "shot") if what == "loss" else "")
            panel.set_xlabel("epoch" if what == "accuracy" else "")
            panel.set_ylim(*((0, 101) if what == "accuracy" else (0, None)))
        panels[0].set_ylabel("loss (cross-entropy)")
        panels[len(shots)].set_ylabel("training accuracy (%)")
        more = [Line2D([], [], color=GREY, linewidth=0.8, label="the others")] if others else []
        if means["marked"].any():
            more.append(Line2D([], [], label="marked: near chance, or loss grew", **MARK))
        title = f"means of tasks and seeds{self.lacking(block)}"
        title += "; in colour: of each family the method with the best mean" if others else ""
        legend(figure, block, names, below=True, more=more, title=title, zero=False)
        return figure

    def lacking(self, block: Block) -> str:
        """ "; no curves of some cells of coop, plot"."""
        cells = block.rows[block.rows["label"].isin(self.by_epochs(block)) & (block.rows["shots"] > 0)]
        held = curves(block)[["label", "shots", "seed"]].drop_duplicates()
        missing = cells[["label", "shots", "seed"]].drop_duplicates().merge(held, how="left", indicator=True)
        names = dict.fromkeys(missing.loc[missing["_merge"] == "left_only", "label"])
        return f"; no curves of some cells of {short(', '.join(names), 80)}" if names else ""
