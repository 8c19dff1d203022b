"""table.md as a Markdown library reads it: names that look like Markdown or HTML stand in their cells as they are."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import pandas as pd
import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token

from bench.reports import write
from bench.reports.config import ReportConfig

sys.path.append(str(Path(__file__).parent))
from test_reports import put

HOSTILE = [
    "a|b", r"a\|b", "two\nlines", "a\r\n| x | y |", "`code", "``|``", "<script>alert(1)</script>", "</td></table>",
    "<!-- gone", "&lt;b&amp;", "**bold** _it_ ~~no~~", "[x](http://x.example)", "![x](x.png)", "# head", "$x$",
    "--- | ---", r"ends in \\",
]  # fmt: skip
OURS = {"<u>", "</u>", "<sup>", "</sup>"}  # what the report itself writes in HTML

Grid = list[list[str]]


def shown(cell: Token) -> str:
    """The text of a cell as a reader sees it."""
    assert cell.children is not None
    for part in cell.children:
        assert part.type in {"text", "text_special", "strong_open", "strong_close", "html_inline"}, part
        assert part.type != "html_inline" or part.content in OURS, part.content
    return "".join(part.content for part in cell.children if part.type.startswith("text"))


def tables(text: str) -> list[Grid]:
    """Every table, header first."""
    tokens = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(text)
    assert not [token for token in tokens if token.type in {"html_block", "code_block", "fence", "hr"}]
    found: list[Grid] = []
    for token, inside in pairwise(tokens):
        if token.type == "table_open":
            found.append([])
        elif token.type == "tr_open":
            found[-1].append([])
        elif token.type in {"th_open", "td_open"}:
            found[-1][-1].append(shown(inside))
    return found


def plain(names: Sequence[str]) -> list[str]:
    return [" ".join(name.split()) for name in names]


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One method for each name and one task for each name; a method's accuracies are its place and a half."""
    root = tmp_path_factory.mktemp("hostile")
    put(root / "runs", "zero-shot", 0, 0, dict.fromkeys(HOSTILE, 40.0))
    for place, name in enumerate(HOSTILE):
        put(root / "runs", f"m {name}", 4, 1, dict.fromkeys(HOSTILE, place + 0.5))
    write(ReportConfig(root / "runs", root / "out", format=("md", "csv", "parquet")))
    return root / "out"


def test_a_row_of_the_main_table_is_a_method_s_name_and_its_numbers(report: Path) -> None:
    main, *_ = tables((report / "table.md").read_text(encoding="utf-8"))
    assert main[0] == ["method", "params", "0-shot", "4-shot"]
    expected = [["zero-shot", "0", "40.00", "—"]]
    expected += [[f"m {name}", "1,000", "—", f"{place}.50"] for place, name in enumerate(plain(HOSTILE))]
    assert sorted(main[1:]) == sorted(expected)


def test_every_task_s_numbers_stand_below_their_methods(report: Path) -> None:
    (by_task,) = (t for t in tables((report / "table.md").read_text(encoding="utf-8")) if t[0][0] == "task")
    header = ["task", "metric", "classes", "test images", "zero-shot", *(f"m {name}" for name in plain(HOSTILE))]
    assert sorted(by_task[0]) == sorted(header)
    numbers = {"zero-shot": "40.00", "metric": "overall_acc", "classes": "5", "test images": "100"}
    numbers |= {f"m {name}": f"{place}.50" for place, name in enumerate(plain(HOSTILE))}
    assert len(by_task) == 1 + len(HOSTILE) + 1  # the last row has the means
    for task, row in zip(plain(HOSTILE), by_task[1:-1], strict=True):
        assert dict(zip(by_task[0], row, strict=True)) == {"task": task, **numbers}


def test_csv_and_parquet_hold_the_names_as_they_are(report: Path) -> None:
    for frame in (pd.read_csv(report / "records.csv"), pd.read_parquet(report / "records.parquet")):
        assert len(frame) == (len(HOSTILE) + 1) * len(HOSTILE)
        assert set(frame["task"]) == set(HOSTILE)
        assert set(frame["method"]) == {"zero-shot", *(f"m {name}" for name in HOSTILE)}
        own = frame[frame["method"] == f"m {HOSTILE[3]}"]
        assert set(own["accuracy"]) == {3.5} and list(own["task"]) == HOSTILE
