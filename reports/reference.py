"""The SoftCPT paper's main table (arXiv 2208.13474), quoted: what ours may be compared with, and when."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

import pandas as pd

SOURCE = "SoftCPT, arXiv 2208.13474, main table (RN50, OpenAI weights)"
SUITE_SIZES = {"general10": 10, "plant6": 6, "rs8": 8, "fashion20": 20}
# The paper's ProtoNet did not use CLIP's features (28 % at 16 shots on General-10): quoted, but no difference taken.
NO_DIFFERENCE = {"protonet"}

SPREAD = (
    "The paper's ± is as printed: its public code takes the population's standard deviation (÷ n), which is smaller "
    "than the sample's (÷ n − 1), ours, by a factor of 0.816 for three seeds."
)
PROBE = (
    "The linear probe's few-shot images are drawn otherwise in the paper's public code than those of its other rows, "
    "and that code has the names of the two metrics swapped; whether its row was made so is not known."
)


@cache
def published() -> pd.DataFrame:
    """Columns suite, method, shots, accuracy_mean, accuracy_std (percent), params."""
    with (files("bench.reports") / "softcpt_main_table.csv").open(encoding="utf-8") as file:
        return pd.read_csv(file)


@cache
def methods() -> tuple[str, ...]:
    """The methods in the paper's order, which is ours for rows and colours."""
    return tuple(published()["method"].unique())


def quoted(suite: str, method: str, shots: int) -> tuple[float, float]:
    """The paper's mean and standard deviation of a cell of its table, NaN where it has none."""
    table = published()
    hit = table[(table["suite"] == suite) & (table["method"] == method) & (table["shots"] == shots)]
    nan = float("nan")
    return (nan, nan) if hit.empty else (float(hit["accuracy_mean"].iloc[0]), float(hit["accuracy_std"].iloc[0]))


def comparison(rows: pd.DataFrame) -> tuple[bool, str]:
    """Whether the records of a block may stand beside the paper's, and the sentence that says why not."""
    first = rows.iloc[0]
    if first["suite"] not in SUITE_SIZES or first["demo"]:
        return False, ""
    if first["protocol"] != "few-shot":
        return False, "Another protocol than the paper's table: its values are not shown."
    if first["backbone"] != "RN50" or set(rows["pretrained"]) != {"openai"}:
        return False, "Another backbone than the paper's (RN50 with OpenAI weights): not comparable with its values."
    present, whole = rows["task"].nunique(), SUITE_SIZES[first["suite"]]
    if present != whole or not rows["complete"].all():
        return False, f"{present} of the suite's {whole} tasks: not comparable with the paper's means over all of them."
    quoted = f"Columns “paper” are quoted from {SOURCE}; Δ = measured − quoted; all other columns are measured."
    return True, " ".join([quoted, SPREAD, *([PROBE] if "linear-probe" in set(rows["method"]) else [])])
