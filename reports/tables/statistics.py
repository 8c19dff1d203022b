"""What the differences between methods amount to: intervals, paired comparisons, ranks."""

from __future__ import annotations

import numpy as np
import pandas as pd

from bench.progress import count
from bench.records import PARTS
from bench.reports import markup, stats
from bench.reports.elements import Table
from bench.reports.groups import Block
from bench.reports.markup import Cell
from bench.reports.tables.common import names, number, of, probability, searched_said, signed, used

THRESHOLDS = range(0, 101)  # of the performance profiles, percent


class Statistics(Table):
    """Methods × what can be said of them over tasks and seeds, at the shot counts that all have."""

    name = "statistics"
    title = "Statistics"
    order = 30

    def why_not(self, block: Block) -> str:
        labels, shots = block.compared
        if len(labels) < 2:
            return "there are no two methods to compare"
        return "" if shots else "the methods have no shot count in common"

    def build(self, block: Block, notes: dict[str, int]) -> list[markup.Table]:
        return [self._table(block, part, notes) for part in block.parts]

    def data(self, block: Block) -> dict[str, pd.DataFrame]:
        """comparisons.csv: one row a pair of methods (Holm's adjustment over all pairs of a block and part).
        profiles.csv: of every method, the share of its cells (task, seed) above each accuracy in percent."""
        if self.why_not(block):
            return {}
        labels, shots = block.compared
        pairs, profiles = [], []
        for part in block.parts:
            known = {"block": block.slug, "part": part, "shots": " ".join(map(str, shots))}
            values = block.values(part, shots, labels)
            for c in block.comparisons[part]:
                pairs.append({**known, **vars(c), "verdict": c.verdict})
            for name in labels:
                shares = stats.performance_profile(values[name].dropna(), THRESHOLDS)
                for above, share in zip(THRESHOLDS, shares, strict=True):
                    profiles.append({**known, "method": name, "above": above, "share": share})
        return {"comparisons": pd.DataFrame(pairs), "profiles": pd.DataFrame(profiles)}

    def _table(self, block: Block, part: str, notes: dict[str, int]) -> markup.Table:
        labels, shots = block.compared
        values = block.values(part, shots, labels)
        averages = block.averages(shots) if shots != [0] else {}
        means, there = values.mean(), values.notna().sum()
        full = [name for name in labels if there[name] == there.max()]  # a single seed is not set above three
        best = str(means[full].idxmax())
        against = {c.b: c for c in stats.adjusted([stats.compare(values, best, n) for n in labels if n != best])}
        found = stats.ranks(values, full)
        rows = []
        for name, cell in zip(labels, names(block, labels, notes), strict=True):
            c = against.get(name)
            spread = averages.get((name, part), stats.spread([means[name]]))
            low, high = spread.interval
            interval = "—" if np.isnan(spread.half) else f"{low:.2f} to {high:.2f}"
            iqm = stats.interquartile_mean(values[name].dropna())
            rows.append(
                [
                    cell,
                    Cell(number(spread.mean, spread.sd)),
                    Cell(interval),
                    Cell(number(iqm)),
                    Cell(number(found.mean.get(name, float("nan")))),
                    *(
                        [Cell("—")] * 3
                        if c is None
                        else [Cell(signed(-c.difference)), Cell(probability(c.p)), Cell(number(1 - c.better))]
                    ),
                    Cell("the highest mean" if c is None else self._verdict(c)),
                ]
            )
        header = [
            *("method", "mean", "95 % interval", "IQM", "rank", "difference", "p", "P(better)", "verdict"),
        ]
        over = f" averaged over {', '.join(map(str, shots))} shots" if len(shots) > 1 else ""
        over = over or (f" at {count(shots[0], 'shot')}" if shots != [0] else "")
        n_seeds = values.index.get_level_values("seed").nunique()
        caption = [
            f"Of {count(len(block.tasks), 'task')} and {count(n_seeds, 'seed')}, accuracy in percent{over}.",
            "95 % interval of the mean over seeds (t); IQM: the mean of the middle half of the cells (a task and a "
            "seed); rank: the mean over these cells (1 is best).",
            f"Difference, p (Wilcoxon's signed-rank test, two-sided, Holm over these {len(labels) - 1}) and P(better), "
            f"the probability that a run on a task is better: against {best}, the highest mean.",
            "Seeds of one task share its test images: with few tasks, p is optimistic.",
            *self._ranks_said(found, len(full)),
            *searched_said(block, labels),
        ]
        title = f"{block.title} · statistics{f' · {PARTS[part]}' if PARTS[part] else ''}"
        own = f"{block.slug}-statistics{f'-{part}' if block.halves else ''}"
        cells = [Cell(text) for text in header]
        return markup.Table(title, caption, cells, rows, used(block, labels, notes), block.demo, own, about=of(labels))

    def _verdict(self, c: stats.Comparison) -> str:
        if not c.enough:
            return f"too few pairs ({c.n} of {c.needed})"
        if c.p >= 1 - stats.LEVEL:
            return "no difference shown"
        return "worse" if c.effect > 0 else "better on most pairs"

    def _ranks_said(self, found: stats.Ranks, methods: int) -> list[str]:
        if np.isnan(found.critical):
            least = f"three methods and {stats.pairs_needed()} cells that all of them have"
            return [f"Ranks are not tested: that takes {least} (here {methods} and {found.n})."]
        alike = f"Friedman's test that all are alike: p {probability(found.p)}"
        return [f"{alike}; mean ranks closer than {found.critical:.2f} are not told apart (Nemenyi, 5 %)."]
