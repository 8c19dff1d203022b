"""What the tests of the report's page share: a headless Chromium, records for it to show, and what it shows.

Skipped where no Chromium is installed (Debian: `apt install chromium`).
"""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.reports import groups, tables
from bench.reports.config import ReportConfig
from bench.reports.elements import Contents
from bench.reports.page import page
from bench.reports.records import load

sys.path.append(str(Path(__file__).parent))
from test_reports import put

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update",
         "--disable-sync"]  # fmt: skip
READY = "html[data-ready]"
HOSTILE = {
    "html": '<img src=x onerror="window.hacked=1"><script>window.hacked=2</script>',
    "end": "</script><script>window.hacked=3</script>",
    "lines": "two\nlines\tand a tab",
    "right-to-left": "\u202eשלום עולם",
    "template": "{{ 7 * 7 }} ${window.hacked=4} {% raw %}",
    "long": "x" * 1000,
    "quotes": "\"'`&amp;&lt;",
}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine")
    with sync_api.sync_playwright() as playwright:
        try:
            started = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        except sync_api.Error as error:
            pytest.skip(f"{CHROMIUM} does not start: {str(error).splitlines()[0]}")
        yield started
        started.close()


@pytest.fixture
def visit(browser: Any, tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Opens a page made from records, in a window of its own, and waits until everything is drawn."""
    contexts = []

    def open_page(results: Path, best_on: str | None = None, compare: Path | None = None, **window: Any) -> Any:
        made = tmp_path / "index.html"
        made.write_text(html(results, best_on, compare), encoding="utf-8")
        contexts.append(browser.new_context(**{"viewport": {"width": 1200, "height": 800}, **window}))
        tab = contexts[-1].new_page()
        tab.errors, tab.requests = [], []
        tab.on("console", lambda said: tab.errors.append(said.text) if said.type in ("error", "warning") else None)
        tab.on("pageerror", lambda error: tab.errors.append(str(error)))
        tab.on("request", lambda request: tab.requests.append(request.url))
        tab.goto(made.as_uri())
        tab.wait_for_selector(READY, timeout=30_000)
        return tab

    yield open_page
    for context in contexts:
        context.close()


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    """Two tasks; zero-shot 40; coop 50, 51, 52 and 65, 67, 69; softcpt 53, 54, 55 at 1 shot and two seeds at 4."""
    root = tmp_path / "runs"
    put(root, "zero-shot", 0, 0, {"a": 30.0, "b": 50.0})
    for seed, extra in ((1, 0.0), (2, 1.0), (3, 2.0)):
        put(root, "coop", 1, seed, {"a": 40 + extra, "b": 60 + extra})
        put(root, "coop", 4, seed, {"a": 60 + 2 * extra, "b": 70 + 2 * extra})
        put(root, "softcpt", 1, seed, {"a": 45 + extra, "b": 61 + extra})
    for seed in (1, 2):
        put(root, "softcpt", 4, seed, {"a": 90.0, "b": 70.0})
    return root


def html(results: Path, best_on: str | None = None, compare: Path | None = None, **more: Any) -> str:
    loaded = load(ReportConfig(results=results, best_on=best_on))
    other = load(ReportConfig(results=compare)).rows if compare else None
    names = (results.name, compare.name) if compare else ("", "")
    contents = Contents(groups.split(loaded.rows, loaded.cells), loaded.failed, loaded.rows, other, names)
    return page(loaded, contents, tables.build(contents), **more)


def columns(tab: Any) -> list[str]:
    """The headings of the first table that is shown."""
    table = tab.locator("#results .block:not([hidden]) table.scores").first
    return [text.strip() for text in table.locator("thead th").all_inner_texts()]


def rows(tab: Any, table: int = 0) -> dict[str, list[str]]:
    """The texts of a table's rows by their names, in their order on the screen."""
    lines = tab.locator("#results .block:not([hidden]) table.scores").nth(table).locator("tbody tr")
    found = {}
    for i in range(lines.count()):
        cells = lines.nth(i).locator("td").all_inner_texts()
        found[lines.nth(i).locator(".name").inner_text()] = [cell.strip() for cell in cells]
    return found


def soon(look: Callable[[], Any], wanted: Any) -> bool:
    """Whether it comes to what is wanted; the page draws after it has answered."""
    until = time.monotonic() + 5
    while (found := look()) != wanted and time.monotonic() < until:
        time.sleep(0.02)
    assert found == wanted
    return True


def choose(tab: Any, label: str) -> Any:
    return tab.locator("#filters label", has_text=label).locator("select")
