"""A reliability diagram, and the expected calibration error of every method."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure as Drawing

from bench.predictions import BINS
from bench.progress import count
from bench.reports.elements import Figure
from bench.reports.figures.common import INTERVALS, ZERO, bars, grid, leaders, marked, named, short, style
from bench.reports.groups import Block
from bench.reports.looks import GREY

FEWEST = 10  # images of a bin whose accuracy is drawn: of fewer it is chance


class Reliability(Figure):
    """Above the diagonal a method is more often right than it says, below it less often. Of many methods the best of
    each family is in colour, the others are grey; all have their error on the right, the smallest on top."""

    name = "reliability"
    title = "confidence against accuracy, and calibration error"
    order = 90

    def each(self, block: Block) -> Sequence[Reliability]:
        return [self] if marked(block) and not block.halves else []

    def heading(self, block: Block) -> str:
        return f"{self.title} at {count(max(block.shots), 'shot')}"

    def why_not(self, block: Block) -> str:
        if not block.calibration.errors.empty:
            return ""
        return (
            "the predictions of test images are not beside the records (`--discard` and earlier versions keep none): "
            "run the cells again"
        )

    def draw(self, block: Block) -> Drawing:
        found = block.calibration
        errors = found.errors.sort_values("mean", ascending=False, kind="stable", ignore_index=True)
        figure, (left, right) = grid(2, 2, (7.6, max(3.7, 1.4 + 0.2 * len(errors))), width_ratios=[1.25, 1])
        left.plot([0, 100], [0, 100], color="0.6", linewidth=0.8, zorder=1)
        names = leaders(block, [name for name in marked(block) if name in set(errors["label"])])
        for label, line in found.bins[found.bins["n"] >= FEWEST].groupby("label", sort=False):
            label = str(label)
            zero = block.of(label, "method") == "zero-shot"
            look = ZERO if zero else style(block, label, 0.8) if label in names else {"color": GREY, "linewidth": 0.8}
            left.plot(line["confidence"], line["accuracy"], zorder=2 if zero or label in names else 0.9, **look)
        bins = f"{BINS} bins of equal width, of all tasks' and seeds' images;\nfewer than {FEWEST} in a bin: not drawn"
        left.set(xlim=(0, 101), ylim=(0, 101), aspect="equal", ylabel="accuracy (%)")
        left.set_xlabel(f"mean confidence of a bin (%)\n{bins}")
        for place, label in enumerate(errors["label"]):
            zero = block.of(label, "method") == "zero-shot"
            look = {**ZERO, "marker": "o", "markersize": 5.5} if zero else style(block, label)
            line = errors[errors["label"] == label]
            right.errorbar(line["mean"], [place], xerr=bars(line), elinewidth=1, **{**look, "linestyle": ""})
        right.set_yticks(range(len(errors)), [named(block, label) for label in errors["label"]])
        right.set(xlim=(0, 1.08 * errors[["mean", "half"]].sum(axis=1).max()), ylim=(-0.6, len(errors) - 0.4))
        lacking = f"\nwithout {short(', '.join(found.lacking), 60)}: predictions missing" if found.lacking else ""
        right.set_xlabel(f"expected calibration error (points),\nmean of {block.n_tasks}\n{INTERVALS}{lacking}")
        return figure
