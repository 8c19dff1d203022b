"""Learned numbers: at RN50's widths and the suites' sizes every method has as many as the paper's table says."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
import torch

from bench.clip.projection import Projection
from bench.datasets.spec import load_suite
from bench.methods import TaskData, find_method

TABLE = Path(__file__).parents[1] / "reports" / "softcpt_main_table.csv"
EMBED, WIDTH = 1024, 512  # RN50: joint embedding d, text width w

# Classes of each task. Fashion-20's class list comes with the user's copy; 20 tasks and 78 classes are published.
SUITES = {
    "general10": [100, 47, 10, 100, 101, 102, 37, 196, 397, 101],
    "plant6": [36, 5, 9, 15, 12, 39],
    "rs8": [30, 45, 21, 19, 7, 31, 45, 10],
    "fashion20": [4] * 18 + [3] * 2,
}

with TABLE.open(encoding="utf-8") as file:
    METHODS_OF_THE_TABLE = {row["method"] for row in csv.DictReader(file)}


class StubTower:
    """A text side of the right widths that computes nothing."""

    width = WIDTH
    device = torch.device("cpu")

    def word_vectors(self, text: str) -> torch.Tensor:
        return torch.zeros(len(text.split()), WIDTH)

    def encode_texts(self, texts: list[str]) -> torch.Tensor:
        return torch.ones(len(texts), EMBED)


NONE = torch.zeros(0, dtype=torch.long)


class StubClip:
    tower = StubTower()
    scale = 100.0
    embed_dim = EMBED
    projection = Projection(torch.zeros(2048, EMBED), torch.zeros(EMBED))
    device = torch.device("cpu")


def count(method: str, suite: str, **params: Any) -> int:
    """How many numbers a method learns on a suite."""
    paths = [spec.path for spec in load_suite(suite).tasks]
    tasks = [
        TaskData(f"task {t}", "recognition", tuple(f"class {c}" for c in range(n)), "a {}.", NONE, NONE, path=path)
        for t, (n, path) in enumerate(zip(SUITES[suite], paths, strict=True))
    ]
    chosen = find_method(method)
    made: Any = chosen(chosen.Params(**params))
    made.setup(StubClip(), tasks, seed=1)
    return made.n_params


def published(method: str, suite: str) -> int:
    with TABLE.open(encoding="utf-8") as file:
        counts = {row["params"] for row in csv.DictReader(file) if (row["suite"], row["method"]) == (suite, method)}
    assert len(counts) == 1
    return int(counts.pop())


@pytest.mark.parametrize("suite", SUITES)
@pytest.mark.parametrize("method", ["coop", "coop-cs", "shared-coop", "cocoop", "prograd", "kgcoop", "softcpt-star"])
def test_count_is_the_paper_s(method: str, suite: str) -> None:
    assert count(method, suite) == published(method, suite)


@pytest.mark.parametrize("suite", SUITES)
def test_plot_s_count_is_the_paper_s_with_two_prompts_on_general10_and_four_elsewhere(suite: str) -> None:
    assert count("plot", suite, prompts=2 if suite == "general10" else 4) == published("plot", suite)


def test_plot_has_four_prompts_by_default() -> None:
    assert count("plot", "rs8") == published("plot", "rs8")


@pytest.mark.parametrize("suite", SUITES)
def test_nats_counts_d_16_w_and_a_task_context_for_each_task(suite: str) -> None:
    assert count("softcpt-nats", suite, task_context=8) == EMBED * 16 * WIDTH + len(SUITES[suite]) * 8 * WIDTH


@pytest.mark.parametrize("suite", SUITES)
def test_nats_published_count_is_rs8_s_for_every_suite(suite: str) -> None:
    """The table repeats one number, which fits 8 tasks and a task context of 8 vectors: RS-8's."""
    assert published("softcpt-nats", suite) == count("softcpt-nats", "rs8", task_context=8)


@pytest.mark.parametrize("suite", SUITES)
def test_nata_s_count_is_the_paper_s_with_a_task_context_of_eight(suite: str) -> None:
    assert count("softcpt", suite, task_context=8) == published("softcpt", suite)


@pytest.mark.parametrize(
    ("method", "class_contexts", "task_contexts"),
    [("softcpt-cata", 1, 1), ("softcpt-cats", 1, 6), ("softcpt-csta", 116, 1), ("softcpt-csts", 116, 6)],
)
def test_class_conditional_count_is_the_formula_s(method: str, class_contexts: int, task_contexts: int) -> None:
    """Plant-6: 6 tasks, 116 classes; K = M = 4. The paper's table has no such row."""
    expected = 2 * EMBED * 16 * WIDTH + class_contexts * 4 * WIDTH + task_contexts * 4 * WIDTH
    assert count(method, "plant6") == expected


@pytest.mark.parametrize(("kernel", "rows"), [("features", EMBED), ("identity", 10), ("ones", 1)])
def test_a_kernel_counts_a_context_for_each_column_of_its_matrix(kernel: str, rows: int) -> None:
    assert count("coop-kernel", "general10", kernel=kernel) == rows * 16 * WIDTH


def test_a_graph_adds_no_number_to_softcpt() -> None:
    assert count("softcpt-graph", "general10") == EMBED * 16 * WIDTH + 4 * WIDTH == 8_390_656


@pytest.mark.parametrize(
    ("method", "params", "expected"),
    [
        ("softcpt-rank", {}, 75_776),
        ("softcpt-rank", {"rank": 10}, 94_208),
        ("coop-mix", {}, 73_728),
        ("coop-mix", {"task_context": 4}, 75_776),
        ("softcpt-mix", {}, 8_390_656 + 73_728),
        ("coop-mpt", {}, 13_472),
        ("coop-mpt", {"conditioned": True}, 8_192 + 524_288),
        ("shared-cocoop", {}, 2_048 + 65_536 + 64 + 32_768 + 512),  # a tenth of the paper's CoCoOp on ten tasks
    ],
)
def test_methods_that_share_count_as_worked_out_for_general10(
    method: str, params: dict[str, Any], expected: int
) -> None:
    assert count(method, "general10", **params) == expected


def test_trees_count_their_nodes() -> None:
    """Fashion-20: root, pants, tops, shoes, socks, 20 leaves; 16 · 512 numbers each; two depths with inner nodes."""
    softcpt = count("softcpt", "fashion20")
    assert count("coop-tree", "fashion20") == 25 * 8192 == 204_800
    assert count("softcpt-residual", "fashion20") == softcpt + 204_800
    assert count("softcpt-tree", "fashion20") == softcpt + 2
    assert count("coop-tree", "fashion20", nodes="root") == count("shared-coop", "fashion20")
    assert count("coop-tree", "fashion20", nodes="leaves") == count("coop", "fashion20")


def test_methods_that_learn_nothing_count_nothing() -> None:
    assert find_method("protonet")().n_params == find_method("zero-shot")().n_params == 0


def test_the_docs_count_as_the_code_does() -> None:
    page = (Path(__file__).parents[1] / "docs" / "methods.md").read_text(encoding="utf-8")
    table = [line.split("|") for line in page.replace("\\|", "").splitlines() if line.startswith("| `")]
    found = {name.strip(" `"): cells[2:6] for cells in table for name in cells[1].split(",")}
    assert set(found) >= {row for row in METHODS_OF_THE_TABLE if row not in ("zero-shot", "protonet", "linear-probe")}
    for name, cells in found.items():
        assert [int(cell.replace(",", "")) for cell in cells] == [count(name, suite) for suite in SUITES], name
    with_eight = [f"{count('softcpt-nats', suite, task_context=8):,}" for suite in ("general10", "plant6", "fashion20")]
    assert all(number in page for number in with_eight)
    for name in ("plot", "softcpt", "softcpt-nats"):  # where it says that the paper's table has another number
        assert f"{published(name, 'general10'):,}" in page
