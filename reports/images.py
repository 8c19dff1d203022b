"""Methods on the very same test images of each task: differences of accuracy, with a paired bootstrap over images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench.errors import UserError
from bench.predictions import paired
from bench.reports.stats import image_bootstrap

if TYPE_CHECKING:
    import pandas as pd

    from bench.reports.groups import Block


@dataclass(frozen=True)
class OverImages:
    """Method a − method b on a task's part, in points of its metric, with the 95 % interval over its test images."""

    a: str
    b: str
    task: str
    part: str
    images: int
    seeds: int
    difference: float
    low: float
    high: float

    @property
    def apart(self) -> bool:
        """Whether the interval leaves out 0."""
        return self.low > 0 or self.high < 0


def against_best(block: Block) -> dict[str, tuple[str, list[OverImages]]]:
    """By part, the method with the highest mean at the largest shot count among those that have kept their predictions,
    and every other one against it on every task; without tasks that the two were tested on with other images."""
    return {part: _against_best(block, part) for part in block.parts if part != "harmonic" and len(block.kept) > 1}


def _against_best(block: Block, part: str) -> tuple[str, list[OverImages]]:
    scores = block.at(max(block.shots, default=0), block.scores)
    scores = scores[(scores["part"] == part) & scores["label"].isin(block.kept)].set_index("label")
    # A single seed is not set above three.
    full = (scores["n_seeds"] == scores["n_seeds"].max()) | (scores["shots"] == 0)
    best = str(scores.loc[full, "mean"].idxmax())
    kept = {  # what trains on nothing stands at every seed of the trained cells
        label: frames if block.of(label, "shots") else dict.fromkeys(block.seeds, next(iter(frames.values())))
        for label, frames in block.kept.items()
    }
    others = [label for label in kept if label != best]
    found = [over_images(label, best, kept, task, part) for task in block.tasks for label in others]
    return best, [pair for pair in found if pair is not None]


def over_images(
    a: str, b: str, kept: Mapping[str, Mapping[int, pd.DataFrame]], task: str, part: str
) -> OverImages | None:
    """Of the seeds that both have; None where there is none, or the two were tested on other images or classes.

    kept : by label and seed, as `Block.kept`.
    """
    import pandas as pd

    seeds = [seed for seed in kept[a] if seed in kept[b]]
    try:
        pairs = [paired(_of(kept[a][seed], task, part), _of(kept[b][seed], task, part)) for seed in seeds]
    except UserError:
        return None
    if not pairs or len({len(pair) for pair in pairs}) > 1:
        return None
    means = pd.concat(pairs).groupby("image").agg({"difference": "mean", "label": "first"})
    metric = kept[a][seeds[0]].attrs["metrics"][task, part]
    classes = means["label"].to_numpy() if metric == "mean_acc" else None
    found = image_bootstrap(means["difference"].to_numpy(), classes)
    return OverImages(a, b, task, part, len(means), len(seeds), *found)


def _of(frame: pd.DataFrame, task: str, part: str) -> pd.DataFrame:
    """A cell's predictions of one task and part."""
    own = frame[(frame["task"] == task) & (frame["part"] == part)]
    by_part = ("classes", "images", "metrics")
    own.attrs = {name: {(task, part): frame.attrs[name][task, part]} for name in by_part}
    return own
