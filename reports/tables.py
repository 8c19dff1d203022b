"""The report's tables: methods × shots beside the paper's values, each task on its own, and ablations."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from itertools import product
from typing import Any

import pandas as pd

from bench.progress import count
from bench.records import PARTS
from bench.reports import reference
from bench.reports.groups import Block
from bench.reports.markup import Cell, Table, escape_markdown, latex, markdown
from bench.reports.steadiness import sentences

SPREAD = "Accuracy in percent, mean ± sample standard deviation (n − 1) over seeds."
AVERAGING = "Avg. is the mean over the shot counts of the means, and of the standard deviations."
HALVES = (
    "Trained on the first half of each task's classes at {}. Base and New: that half and the other, each scored "
    "among its own classes. H: their harmonic mean, taken for each task and seed, then averaged; the average H in "
    "CoCoOp's paper is another number, the harmonic mean of the averaged Base and New."
)
NONE = (float("nan"), float("nan"))  # no mean, no standard deviation
AVERAGE = -1  # the shot count that stands for the column "Avg."


@dataclass(frozen=True)
class Tables:
    """All tables of a report; `main` by the slug of its block."""

    main: dict[str, Table]
    tasks: list[Table]
    ablations: list[Table]


def build(blocks: list[Block]) -> Tables:
    texts = [text for block in blocks for name in block.labels for text in _footnotes(block, name)]
    notes = {text: number for number, text in enumerate(dict.fromkeys(texts), start=1)}
    shown = [block for block in blocks if block.main]  # a block of ablations alone has no main table
    return Tables(
        {block.slug: main_table(block, notes) for block in shown},
        [task_table(block, notes) for block in shown],
        [ablation_table(block, method, notes) for block in blocks for method in block.ablations],
    )


def markdown_report(
    tables: Tables, cells: int, drawn: dict[str, list[str]], failed: list[dict[str, Any]]
) -> str:
    """table.md; `drawn` has the figures' files (relative to it) by block."""
    made = "Made by `python -m bench report` from the records."
    parts = [f"# Results\n\n{count(cells, 'cell')} done, {len(failed)} failed. {made}\n"]
    for slug, files in drawn.items():
        parts += [markdown(tables.main[slug])] if slug in tables.main else []
        parts += [f"![{file.rpartition('/')[2]}]({file})\n" for file in files]
    parts += ["# Every task alone\n", *map(markdown, tables.tasks)] if tables.tasks else []
    parts += ["# Ablation\n", *map(markdown, tables.ablations)] if tables.ablations else []
    parts += [f"# Failed cells ({len(failed)})\n", _failures(failed)] if failed else []
    return "\n".join(parts)


def latex_report(tables: Tables) -> str:
    r"""table.tex: the same tables, to be taken in by `\input`."""
    found = [*tables.main.values(), *tables.tasks, *tables.ablations]
    return "% Made by `python -m bench report`; needs no package.\n" + "\n".join(map(latex, found))


def tidy(blocks: list[Block]) -> pd.DataFrame:
    """table.csv: one row per block, method, variant, setting, shots and part.

    mean, std: percent, over n_seeds seeds of the mean over n_tasks tasks; paper_mean, paper_std, delta (mean −
    paper_mean): filled only where the block may be compared with the paper.
    """
    frames = []
    for block in blocks:
        first = block.rows.iloc[0]
        about = {name: first[name] for name in ("suite", "backbone", "weights", "data", "protocol", "demo")}
        frame = block.scores.assign(**about, n_tasks=len(block.tasks))
        compared, _ = reference.comparison(block.rows)
        cells = zip(frame["label"], frame["shots"], strict=True)
        quoted = [_quoted(block, name, shots) if compared else NONE for name, shots in cells]
        frame[["paper_mean", "paper_std"]] = pd.DataFrame(quoted, index=frame.index, dtype=float)
        frame["delta"] = (frame["mean"] - frame["paper_mean"]).mask(frame["method"].isin(reference.NO_DIFFERENCE))
        frame["seeds"] = frame["seeds"].map(lambda seeds: " ".join(map(str, seeds)))
        frames.append(frame)
    return pd.concat(frames)[TIDY]


TIDY = [
    "suite", "backbone", "weights", "data", "protocol", "part", "n_tasks", "method", "variant", "setting", "shots",
    "mean", "std", "n_seeds", "seeds", "params", "train_seconds", "paper_mean", "paper_std", "delta", "demo",
]  # fmt: skip


def main_table(block: Block, notes: dict[str, int]) -> Table:
    """Methods × shots (and parts), the paper's values and the differences beside ours where they may be compared."""
    compared, sentence = reference.comparison(block.rows)
    return _shots_table(block, block.main, block.title, notes, compared, sentence)


def ablation_table(block: Block, method: str, notes: dict[str, int]) -> Table:
    """A method's variants × shots (and parts)."""
    names = block.ablations[method]
    changed = dict.fromkeys(parameter for name in names for parameter in block.changed(name))
    default = [block.of(name, "parameters") for name in names if not block.changed(name)][:1]
    values = ", ".join(f"{parameter}={values.get(parameter)}" for values in default for parameter in changed)
    sentence = f"The first row has the method's default ({values})." if default else ""
    return _shots_table(block, names, f"{block.title} · {method}", notes, False, sentence)


def _shots_table(
    block: Block, names: list[str], title: str, notes: dict[str, int], compared: bool, sentence: str
) -> Table:
    scores = block.scores[block.scores["label"].isin(names)]
    short = scores[(scores["shots"] > 0) & scores["seeds"].map(lambda seeds: seeds != block.seeds)]
    if block.halves:  # as the field prints them: zero-shot in the columns of the trained methods
        scores = pd.concat([block.at(n, scores).assign(shots=n) for n in block.shots or [0]])
    shots = sorted(int(n) for n in scores["shots"].unique())
    trained = [n for n in shots if n]
    columns = pd.MultiIndex.from_product([shots, block.parts])
    found = scores.pivot(index="label", columns=["shots", "part"], values=["mean", "std"]).reindex(names)
    mean, std = (found[value].reindex(columns=columns) for value in ("mean", "std"))
    quoted = {(n, part): [_quoted(block, name, n) for name in names] for n, part in columns}
    paper_mean = pd.DataFrame({column: [m for m, _ in pairs] for column, pairs in quoted.items()}, index=names)
    paper_std = pd.DataFrame({column: [s for _, s in pairs] for column, pairs in quoted.items()}, index=names)
    if len(trained) > 1:  # a row that lacks a shot count has no average
        for frame in (mean, std, paper_mean, paper_std):
            for part in block.parts:
                frame[AVERAGE, part] = frame[[(n, part) for n in trained]].mean(axis=1, skipna=False)
    delta = mean - paper_mean
    delta[mean.index.isin(reference.NO_DIFFERENCE)] = float("nan")

    header, body = [Cell("method"), Cell("params")], [_names(block, names, notes)]
    body.append([Cell(_count(scores.loc[scores["label"] == name, "params"].max())) for name in names])
    for n, part in mean:
        at = "Avg." if n == AVERAGE else f"{n}-shot"
        head = PARTS[part] if block.halves and len(shots) == 1 else f"{at} {PARTS[part]}".strip()
        header.append(Cell(f"{head} measured" if compared else head))
        fewer = (short if n == AVERAGE else short[short["shots"] == n]).groupby("label")["n_seeds"].min()
        body.append(_ranked(mean[n, part], std[n, part], fewer))
        if compared:
            header += [Cell(f"{head} paper"), Cell(f"{head} Δ")]
            quotes = zip(paper_mean[n, part], paper_std[n, part], strict=True)
            body.append([Cell(_number(*value)) for value in quotes])
            body.append([Cell("—" if pd.isna(d) else f"{d:+.2f}".replace("-", "−")) for d in delta[n, part]])

    caption = [*_about(block), SPREAD, "Best of a column bold, second underlined."]
    caption += [AVERAGING] if len(trained) > 1 else []
    if not short.empty:
        caption.append(f"(n=…): measured with n seeds, not with the table's {len(block.seeds)}.")
    caption += [sentence] if sentence else []
    rows = [list(row) for row in zip(*body, strict=True)]
    return Table(title, caption, header, rows, _used(block, names, notes), block.demo)


def task_table(block: Block, notes: dict[str, int]) -> Table:
    """Tasks (and their parts) × methods at the block's largest shot count (methods without training at none)."""
    largest = max(block.shots, default=0)
    at = block.at(largest, block.task_scores)
    whole = block.at(largest, block.scores).assign(task="mean of the tasks")
    names = [name for name in block.main if name in set(at["label"])]
    info = block.rows.drop_duplicates(["task", "part"]).set_index(["task", "part"])
    body = []
    for scores, tasks in ((at, block.tasks), (whole, ["mean of the tasks"])):
        mean, std = (scores.pivot(index=["task", "part"], columns="label", values=v)[names] for v in ("mean", "std"))
        for key in product(tasks, block.parts):
            task, part = key
            cells = [Cell(" · ".join(filter(None, [task, PARTS[part]]))), Cell(""), Cell(""), Cell("")]
            if scores is at:
                counts = [_count(info.at[key, name]) for name in ("n_classes", "n_test")]
                cells[1:] = [Cell(str(info.at[key, "metric"])), *map(Cell, counts)]
            body.append([*cells, *_ranked(mean.loc[key], std.loc[key])])
    header = [*map(Cell, ("task", "metric", "classes", "test images")), *_names(block, names, notes)]
    caption = [*_about(block), SPREAD, "Best of a row bold, second underlined."]
    title = f"{block.title} · every task at {count(largest, 'shot')}"
    return Table(title, caption, header, body, _used(block, names, notes), block.demo)


def _about(block: Block) -> list[str]:
    """The sentences every caption begins with: what was measured, with what, and how."""
    first = block.rows.iloc[0]
    weights = f"{first['pretrained']} ({first['weights'][:8] or 'no fingerprint'})".strip()
    said = [
        f"Suite {first['title']}, backbone {first['backbone']}, weights {weights}.",
        f"{block.n_tasks}{'' if block.rows['complete'].all() else ' (not the whole suite)'}: {', '.join(block.tasks)}.",
        f"Protocol {first['protocol']}, seeds {', '.join(map(str, block.seeds))}.",
        HALVES.format(_shots(block)) if block.halves else "",
        _recipe(block),
    ]
    if block.differs:
        words = {"tasks": "task list", "data": "data fingerprint", "weights": "weights' fingerprint"}
        what = ", ".join(words.get(name, name) for name in block.differs)
        said.append(f"The records of this suite and backbone differ in {what}: each kind has its own table.")
    versions = sorted(set(block.rows["numerics"]) - {""})
    if len(versions) > 1:
        kinds = block.rows[block.rows["numerics"] != ""].groupby("numerics")["label"].unique()
        told = "; ".join(f"{version}: {', '.join(kinds[version])}" for version in versions)
        said.append(f"Made by several versions of the shared numerics ({told}): differences may come from these.")
    if (block.rows.groupby(["shots", "seed"])["draw"].nunique() > 1).any():
        said.append("Not all methods were trained on the same few-shot images: do not compare them.")
    return [*said, *(note for note in block.rows["note"].unique() if note)]


def _shots(block: Block) -> str:
    """ "1 shot", "1, 4 shots"."""
    *first, last = block.shots or [0]
    return ", ".join([*map(str, first), count(last, "shot")])


def _recipe(block: Block) -> str:
    """Epochs, views, learning rate and batch of the trained methods: the common ones, then who differs."""
    trained = block.rows[block.rows["epochs"].notna() & (block.rows["shots"] > 0)]
    told = {}
    for name, row in trained.groupby("label", sort=False)[["epochs", "views", "parameters"]].first().iterrows():
        views = "a view each" if pd.isna(row["views"]) else f"{count(row['views'], 'view')} per image"
        more = {"lr": "learning rate", "batch": "batch"}
        rest = [f"{text} {row['parameters'][key]}" for key, text in more.items() if key in row["parameters"]]
        told[str(name)] = ", ".join([count(row["epochs"], "epoch"), views, *rest])
    if not told:
        return ""
    common = Counter(told.values()).most_common(1)[0][0]
    others = "; ".join(f"{name}: {recipe}" for name, recipe in told.items() if recipe != common)
    return f"Recipe: {common}{f' ({others})' if others else ''}."


def _quoted(block: Block, name: str, shots: int) -> tuple[float, float]:
    """The paper's mean and standard deviation for a method as the paper has it, else NaN."""
    if block.of(name, "variant"):
        return NONE
    return reference.quoted(block.of(name, "suite"), block.of(name, "method"), shots)


def _ranked(mean: pd.Series, std: pd.Series, fewer: pd.Series | None = None) -> list[Cell]:
    """Best and second by what is printed, so that equal numbers get equal marks; a single value is not marked."""
    printed = mean.round(2)
    order = sorted(printed.dropna().unique(), reverse=True)
    marks = dict(zip(order, ("best", "second"), strict=False)) if printed.count() > 1 else {}
    cells = []
    for name in mean.index:
        seeds = f" (n={fewer[name]})" if fewer is not None and name in fewer and pd.notna(mean[name]) else ""
        cells.append(Cell(_number(mean[name], std[name]) + seeds, marks.get(printed[name], "")))
    return cells


def _number(mean: float, std: float) -> str:
    return "—" if pd.isna(mean) else f"{mean:.2f}" + ("" if pd.isna(std) else f" ± {std:.2f}")


def _count(value: Any) -> str:
    return "—" if pd.isna(value) else f"{int(value):,}"


def _footnotes(block: Block, name: str) -> list[str]:
    """What must be known of a row: what its method says, which code made its cells where that is not one, and which of
    them were trained with other seeds."""
    rows = block.rows[block.rows["label"] == name]
    cells = rows.drop_duplicates(["shots", "seed"])
    made = Counter(_code(code, numerics) for code, numerics in zip(cells["code"], cells["numerics"], strict=True))
    told = "; ".join(f"{count(n, 'cell')} {by}" for by, n in sorted(made.items()))
    mixed = [f"Made by different code, of {name}: {told}."] if len(made) > 1 else []
    together = f"{(cells['together'] != '').sum()} of {count(len(cells), 'cell')}"
    beside = [
        f"Trained with other seeds side by side (--seeds-at-once), of {name}: {together}. As alone but for the "
        "rounding of sums, which an unstable training makes a difference of points."
    ]
    measured = sentences(name, cells)
    return [*filter(None, rows["footnote"].unique()), *mixed, *(beside if any(cells["together"]) else []), *measured]


def _code(code: str, numerics: str) -> str:
    """The beginning of a code's hash (a plug-in's after its module and class), and the version of what all share."""
    if not code and not numerics:
        return "of code not recorded"
    *_, found = code.split(":")
    return f"of code {found[:8] or 'not recorded'}, numerics {numerics or 'not recorded'}"


def _names(block: Block, names: list[str], notes: dict[str, int]) -> list[Cell]:
    return [Cell(name, "", tuple(notes[text] for text in _footnotes(block, name))) for name in names]


def _used(block: Block, names: list[str], notes: dict[str, int]) -> dict[int, str]:
    """The footnotes below a table, with the numbers they have in all tables."""
    return dict(sorted((notes[text], text) for name in names for text in _footnotes(block, name)))


def _failures(failed: list[dict[str, Any]]) -> str:
    """A line for the seeds of a cell that failed for one reason."""
    seeds: dict[tuple[str, str], list[str]] = {}
    for cell in failed:
        columns = ("suite", "backbone", "method", "variant", "protocol", "shots")
        named = ", ".join(f"{name} {cell[name]}" for name in columns if cell.get(name) not in (None, ""))
        seeds.setdefault((named, str(cell["error"])), []).append(str(cell.get("seed")))
    lines = []
    for (named, reason), numbers in seeds.items():
        named += f", seed{'s' * (len(numbers) > 1)} {', '.join(sorted(numbers, key=lambda seed: (len(seed), seed)))}"
        lines.append(f"- {escape_markdown(named)}: {escape_markdown(reason[:300] + '…' * (len(reason) > 300))}\n")
    return "".join(lines)
