"""The report's page in a real browser: what it shows is right; it works from disk, by keyboard, in the dark, small.

Skipped where no Chromium is installed (Debian: `apt install chromium`).
"""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench import predictions
from bench.errors import UserError
from bench.reports import groups
from bench.reports.config import ReportConfig
from bench.reports.page import page
from bench.reports.payload import SHAPES, on_dark, payload
from bench.reports.records import load
from bench.reports.watch import follow

sys.path.append(str(Path(__file__).parent))
from test_reports import fashion, put, put_halves

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


@pytest.fixture(scope="session")
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

    def open_page(results: Path, best_on: str | None = None, **window: Any) -> Any:
        made = tmp_path / "index.html"
        made.write_text(html(results, best_on), encoding="utf-8")
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


def html(results: Path, best_on: str | None = None, **more: Any) -> str:
    loaded = load(ReportConfig(results=results, best_on=best_on))
    return page(loaded, groups.split(loaded.rows), **more)


def columns(tab: Any) -> list[str]:
    """The headings of the first table that is shown."""
    table = tab.locator(".block:not([hidden]) table.scores").first
    return [text.strip() for text in table.locator("thead th").all_inner_texts()]


def rows(tab: Any, table: int = 0) -> dict[str, list[str]]:
    """The texts of a table's rows by their names, in their order on the screen."""
    lines = tab.locator(".block:not([hidden]) table.scores").nth(table).locator("tbody tr")
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


# ---- what it shows -------------------------------------------------------------------------------------------


def test_it_opens_from_disk_without_an_error_or_a_request(toy: Path, visit: Any) -> None:
    tab = visit(toy)
    assert tab.errors == []
    assert [url for url in tab.requests if not url.startswith("file:")] == [] and len(tab.requests) == 1
    assert tab.locator("#figures svg").count() == 5
    blocked = tab.evaluate(
        """async () => {
            const told = [];
            document.addEventListener("securitypolicyviolation", (event) => told.push(event.effectiveDirective));
            const network = await fetch("https://example.org/").then(() => "reached", () => "refused");
            const script = document.createElement("script");
            script.textContent = "window.hacked = 1";
            document.head.append(script);
            await new Promise((go) => setTimeout(go, 50));
            return [network, window.hacked ?? "not run", ...told.sort()];
        }"""
    )
    assert blocked == ["refused", "not run", "connect-src", "script-src-elem"]


def test_the_table_has_means_deviations_averages_and_marks(toy: Path, visit: Any) -> None:
    tab = visit(toy)
    assert columns(tab) == ["method", "params", "0-shot", "1-shot", "4-shot", "Avg."]
    assert rows(tab) == {
        "zero-shot": ["0", "40.00", "—", "—", "—"],
        "coop": ["1,000", "—", "51.00 ± 1.00", "67.00 ± 2.00", "59.00 ± 1.50"],  # of 57.5, 59, 60.5
        "softcpt": ["1,000", "—", "54.00 ± 1.00", "80.00 ± 0.00 (n=2)", "66.75 ± 0.35 (n=2)"],  # of 66.5, 67
    }
    assert [tab.locator(f"#{name}").inner_text() for name in ("done", "missing", "failed")] == ["12", "1", "0"]


def test_missing_and_failed_cells_are_counted_and_named(toy: Path, visit: Any) -> None:
    put(toy, "kgcoop", 1, 1, {"a": 1.0, "b": 2.0})  # lacks five of the six cells of 1 and 4 shots, seeds 1 to 3
    path = put(toy, "kgcoop", 4, 2, {"a": 0.0, "b": 0.0})
    record = json.loads(path.read_text())
    path.write_text(json.dumps({**record, "status": "failed", "error": "RuntimeError: <b>out of memory</b>"}))
    tab = visit(toy)
    assert [tab.locator(f"#{name}").inner_text() for name in ("done", "missing", "failed")] == ["13", "5", "1"]
    tab.get_by_text("5 missing").click()
    lacking = tab.locator("#summary details").first.locator("tbody tr").all_inner_texts()
    assert [tuple(line.split("\t")[3:]) for line in lacking] == [
        ("kgcoop", "1", "2"), ("kgcoop", "1", "3"), ("kgcoop", "4", "1"), ("kgcoop", "4", "3"), ("softcpt", "4", "3"),
    ]  # fmt: skip
    tab.get_by_text("1 failed").click()
    assert "<b>out of memory</b>" in tab.locator("#summary details").nth(1).inner_text()


def test_a_number_says_where_it_comes_from(toy: Path, visit: Any) -> None:
    about = {"versions": {"torch": "9.8.7"}, "device": "cpu", "processor": "CPU One", "threads": 2,
             "splits": {"a": "file split.json", "b": "folders"}, "copies": {"a": 0, "b": 3}}  # fmt: skip
    path = put(toy, "own", 4, 7, {"a": 12.5, "b": 50.0}, config={"params": {"epochs": 20, "lr": 0.25}}, **about)
    tab = visit(toy)
    tab.get_by_role("button", name="31.25").first.click()
    dialog = tab.get_by_role("dialog")
    text = dialog.inner_text()
    assert "own · 4 shots" in text and "1 seed; a single seed has no interval" in text
    facts = dict(zip(dialog.locator("dt").all_inner_texts(), dialog.locator("dd").all_inner_texts(), strict=True))
    assert facts["key"] == json.loads(path.read_text())["key"]
    assert facts["seed"] == "7" and facts["few-shot draw"] == "4-7" and facts["weights"] == "toy-weights w0"
    assert facts["test data"] == "d0" and facts["parameters"] == "epochs 20, lr 0.25"
    assert facts["versions"] == "torch 9.8.7"
    assert facts["device"] == "cpu, CPU One, 2 threads" and facts["training"] == "8.00 s"
    assert facts["image features"] == "0.40 s" and facts["test"] == "0.10 s" and facts["peak memory"] == "800 MB"
    assert facts["finished"] == "2026-01-01T00:00:00+00:00"
    lines = [line.split("\t") for line in dialog.locator("tbody tr").all_inner_texts()]
    assert lines == [
        ["a", "12.50", "overall_acc", "5", "100", "file split.json", "0"],
        ["b", "50.00", "overall_acc", "5", "100", "folders", "3"],
    ]
    tab.keyboard.press("Escape")
    tab.get_by_role("button", name="67.00").first.click()
    text = dialog.inner_text()
    assert "67.00 ± 2.00" in text and "3 seeds; 95 % interval 62.03 to 71.97" in text  # 4.3027 · 2 / √3 = 4.968
    assert re.findall(r"4 shots, seed (\d): (\S+)", text) == [("1", "65.00"), ("2", "67.00"), ("3", "69.00")]


def test_marked_trainings_and_chosen_settings_are_told_at_the_number(tmp_path: Path, visit: Any) -> None:
    evil, results = HOSTILE["html"], tmp_path / "runs"
    mark = f"training accuracy is near chance: {evil} 21.0 % (chance 20.0 %)"
    curves = {"epochs": [1, 2], "loss": {evil: [1.5, 2.25]}, "accuracy": {evil: [20.0, 21.0]}}
    for shots, seed, more in ((1, 1, {}), (1, 2, {}), (4, 1, {"marks": [mark], "curves": curves}), (4, 2, {})):
        put(results, "coop", shots, seed, {"a": 10.0 * seed, "b": 20.0}, **more)
    for epochs, score in ((20, 61.0), (50, 62.0)):
        put(results, "own", 4, 1, {"a": 40.0, "b": 60.0}, config={"params": {"epochs": epochs}},
            cell={"variant": "" if epochs == 20 else "epochs=50"},
            tasks=[{"task": task, "accuracy": 50.0, "val_accuracy": score + place, "metric": "overall_acc", "n_test": 9,
                    "n_train": 20, "n_classes": 5, "part": "all"} for place, task in enumerate("ab")])  # fmt: skip
    tab = visit(results, best_on="val")
    warned = tab.locator("button.cell", has_text="⚠").all_text_contents()
    assert warned == ["17.50 ± 3.54 ⚠ a training is marked"] * 2
    assert "⚠" not in rows(tab)["coop"][1] and "⚠" in rows(tab)["coop"][2]  # 4 shots and the average
    (chosen,) = [name for name in rows(tab) if name.startswith("own")]
    assert tab.locator("th", has=tab.locator(".name", has_text="own")).inner_text().endswith(" val")
    tab.locator("button.cell", has_text="⚠").first.click()
    dialog = tab.get_by_role("dialog")
    assert dialog.locator(".warning").all_inner_texts() == [f"⚠ 4 shots, seed 1: {mark}"]
    assert [evil, "1.5000", "2.2500", "21.00"] in [
        line.split("\t") for line in dialog.locator("tbody tr").all_inner_texts()
    ]
    tab.keyboard.press("Escape")
    tab.get_by_role("button", name="50.00").first.click()
    said = dialog.locator(".selected").inner_text()
    assert "epochs=50 was chosen by its accuracy on the few-shot validation images alone" in said
    lines = [line.split("\t")[:4] for line in dialog.locator("tbody tr").all_inner_texts()]
    assert lines == [["a", "50.00", "62.00", "overall_acc"], ["b", "50.00", "63.00", "overall_acc"]]
    assert tab.errors == [] and tab.evaluate("window.hacked") is None and chosen


def test_ours_the_papers_and_the_difference_take_turns(tmp_path: Path, visit: Any) -> None:
    fashion(tmp_path / "runs")
    fashion(tmp_path / "runs", method="protonet")
    tab = visit(tmp_path / "runs")
    assert columns(tab)[2] == "1-shot" and rows(tab)["coop"][1] == "62.00 ± 1.00 ≈"  # as protonet
    tab.get_by_role("radio", name="Paper").check()
    assert columns(tab)[2] == "1-shot paper" and rows(tab)["coop"][1] == "50.50 ± 0.63"
    tab.get_by_role("radio", name="Difference").check()
    assert columns(tab)[2] == "1-shot Δ" and rows(tab)["coop"][1] == "+11.50"
    assert rows(tab)["protonet"][1] == "—"  # the paper's is another method
    tab.get_by_role("radio", name="All three").check()
    assert columns(tab)[2:5] == ["1-shot", "1-shot paper", "1-shot Δ"] and len(columns(tab)) == 2 + 3 * 6


def test_where_nothing_is_comparable_the_switch_is_off_and_says_so(toy: Path, visit: Any) -> None:
    tab = visit(toy)
    assert [tab.locator(f"input[name=show][value={kind}]").is_disabled() for kind in ("ours", "paper", "delta")] == [
        False, True, True,
    ]  # fmt: skip
    assert "No table here is comparable with the paper" in tab.locator("#results").inner_text()


def test_base_and_new_classes_stand_in_columns_of_their_own(tmp_path: Path, visit: Any) -> None:
    put_halves(tmp_path / "runs", "zero-shot", 0, 0, {"a": (40.0, 60.0), "b": (60.0, 60.0)})
    put_halves(tmp_path / "runs", "coop", 4, 1, {"a": (80.0, 20.0), "b": (60.0, 60.0)})
    tab = visit(tmp_path / "runs")
    assert columns(tab)[2:] == ["4-shot Base", "4-shot New", "4-shot H"]
    assert rows(tab)["zero-shot"][1:] == ["50.00", "60.00", "54.00"]
    assert rows(tab)["coop"][1:] == ["70.00", "40.00", "46.00"]
    put_halves(tmp_path / "runs", "coop", 8, 1, {"a": (90.0, 30.0), "b": (70.0, 70.0)})
    tab = visit(tmp_path / "runs")
    assert columns(tab)[5:] == ["8-shot Base", "8-shot New", "8-shot H", "Avg. Base", "Avg. New", "Avg. H"]
    assert rows(tab)["coop"][7:9] == ["75.00", "45.00"]  # of 70 and 80, of 40 and 50


def test_charts_have_their_numbers_as_tables(toy: Path, visit: Any) -> None:
    tab = visit(toy)
    found = {}
    for name in ("shots", "tasks", "gain", "params"):
        tab.locator(f"#chart-{name} summary").click()
        tab.locator(f"#chart-{name} tbody tr").first.wait_for()
        found[name] = [line.split("\t") for line in tab.locator(f"#chart-{name} tbody tr").all_inner_texts()]
        assert "in the table below" in tab.locator(f"#chart-{name} [role=img]").get_attribute("aria-label")
    assert found["shots"][0] == ["zero-shot", "0", "40.00", "—", "—", "—", "1"]
    assert ["coop", "4", "67.00", "2.00", "62.03", "71.97", "3"] in found["shots"]
    assert ["b", "coop", "1", "61.00", "1.00", "58.52", "63.48", "3"] in found["tasks"]
    assert found["gain"] == [["a", "+32.00", "+60.00"], ["b", "+22.00", "+20.00"]]  # over 30 and 50, at 4 shots
    assert found["params"] == [["zero-shot", "0", "40.00", "—"], ["coop", "1,000", "67.00", "2.00"],
                               ["softcpt", "1,000", "80.00", "0.00"]]  # fmt: skip


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    """Two seeds of coop with predictions on task a, among classes of hostile names; zero-shot without any.

    Class 0 was right 1 + 0 times of 2 + 2, class 1 2 + 1 of 2 + 2, class 2 1 + 1 of 1 + 1; class 3 has no image.
    """
    results, names = tmp_path / "runs", [HOSTILE["html"], HOSTILE["lines"], HOSTILE["long"], HOSTILE["end"]]
    put(results, "zero-shot", 0, 0, {"a": 30.0, "b": 50.0})
    for seed, predicted in ((1, [0, 1, 1, 1, 2]), (2, [1, 1, 1, 0, 2])):
        curves = {"epochs": [1, 2], "loss": {"a": [2.0 * seed, 1.0 * seed]},
                  "accuracy": {"a": [20.0 + 20 * seed, 60.0 + 20 * seed]}}  # fmt: skip
        path = put(results, "coop", 4, seed, {"a": 60.0, "b": 70.0}, curves=curves)
        columns = {"image": range(5), "label": [0, 0, 1, 1, 2], "predicted": predicted, "margin": [0.1] * 5,
                   "confidence": [0.5, 0.5, 0.5, 0.5, 0.9]}  # fmt: skip
        part = predictions.PartPredictions(
            "a", "all", "overall_acc", names, "images", {k: np.array(v) for k, v in columns.items()}
        )
        predictions.write(path.with_suffix(predictions.SUFFIX), json.loads(path.read_text())["key"], [part])
    return results


def closer(tab: Any, name: str) -> tuple[list[list[str]], str]:
    """The numbers of a figure of the closer look, and its note."""
    tab.locator(f"#look-{name} summary").click()
    lines = tab.locator(f"#look-{name} tbody tr")
    lines.first.wait_for()
    cells = [lines.nth(i).locator("th, td").all_text_contents() for i in range(lines.count())]
    return cells, tab.locator(f"#look-{name} .caption").first.inner_text()


def test_a_closer_look_sums_seeds_by_class_and_pair_and_draws_calibration_and_training(kept: Path, visit: Any) -> None:
    tab = visit(kept)
    html_, lines, long, end = (HOSTILE[name] for name in ("html", "lines", "long", "end"))
    cells, note = closer(tab, "classes")
    assert cells == [[html_, "25.00", "1", "4"], [lines, "75.00", "3", "4"], [long, "100.00", "2", "2"],
                     [end, "—", "0", "0"]]  # fmt: skip
    assert "1 without test images" in note
    cells, note = closer(tab, "confusion")
    assert cells == [[html_, lines, "3"], [lines, html_, "1"]]
    assert "4 of 4 wrong answers" in note and note.endswith("the table has all.")
    cells, note = closer(tab, "reliability")
    assert cells == [["0.53", "8", "50.00", "50.00"], ["0.93", "2", "90.00", "100.00"]]
    # Of seed 1: 4 images, 75 % right at 50 %, 1 right at 90 %: (4 · 25 + 10) / 5; of seed 2 the same with 25 %.
    assert note.startswith("Expected calibration error 22.00 points, the mean of 2 seeds.")
    cells, _ = closer(tab, "training")
    assert cells == [["1", "3.0000", "50.00"], ["2", "1.5000", "90.00"]]
    assert tab.locator("#closer-figures svg").count() == 4
    assert tab.errors == [] and tab.evaluate("window.hacked") is None
    assert tab.locator("main img, main script").count() == 0
    assert tab.evaluate("document.documentElement.scrollWidth") == 1200


def test_a_closer_look_says_what_a_cell_did_not_keep(kept: Path, visit: Any) -> None:
    tab = visit(kept)
    pick = tab.locator("#closer-controls")
    pick.locator("[data-name=task] select").select_option("b")
    notes = tab.locator("#closer-figures figure > .caption")
    without = "Its kept predictions do not have this task."
    curveless = "Its cells kept no training curves, or curves of different epochs."
    assert soon(notes.all_inner_texts, [without] * 3 + [curveless])
    pick.locator("[data-name=row] select").select_option("zero-shot")
    without = "Predictions of single images were kept by none of its cells (there are 1)."
    assert soon(notes.all_inner_texts, [without] * 3 + ["Nothing was trained."])


def test_a_closer_look_is_bounded_and_says_what_it_left_out(kept: Path, visit: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr("bench.reports.closer.PAIRS", 1)
    cells, note = closer(visit(kept), "confusion")
    assert len(cells) == 1 and cells[0][2] == "3"
    assert "3 of 4 wrong answers" in note and note.endswith("the 1 most frequent of 2 pairs, 3 answers.")
    loaded = load(ReportConfig(results=kept))
    (block,) = payload(loaded, groups.split(loaded.rows))["blocks"]
    trained = [look for look in block["looks"] if look["shots"] == 4]
    room = len(json.dumps(trained, separators=(",", ":"))) + 1  # for coop's looks, which come first, alone
    monkeypatch.setattr("bench.reports.closer.MOST", room)
    (block,) = payload(loaded, groups.split(loaded.rows))["blocks"]
    assert {look["shots"] for look in block["looks"]} == {4} and block["looks_left_out"] == 1
    assert "1 row of this table at single shot counts" in visit(kept).locator("#closer-said").inner_text()


def test_demo_says_that_it_is_one(toy: Path, tmp_path: Path, visit: Any) -> None:
    assert "Demo" not in visit(toy).locator("main").inner_text()
    put(tmp_path / "demo", "coop", 4, 1, {"a": 40.0}, demo=True)
    tab = visit(tmp_path / "demo")
    assert "says nothing about real photographs" in tab.locator("#summary").inner_text()
    assert tab.locator(".block h3").inner_text().lower().startswith("demo")


# ---- what a reader does --------------------------------------------------------------------------------------


def test_headings_sort_and_say_so(toy: Path, visit: Any) -> None:
    tab = visit(toy)
    heading = tab.get_by_role("columnheader", name="4-shot")
    heading.click()
    assert soon(lambda: list(rows(tab)), ["softcpt", "coop", "zero-shot"])
    assert heading.get_attribute("aria-sort") == "descending"
    heading.click()
    assert soon(lambda: list(rows(tab)), ["zero-shot", "coop", "softcpt"])
    assert heading.get_attribute("aria-sort") == "ascending"


def test_filters_choose_tables_rows_and_columns(toy: Path, visit: Any) -> None:
    put(toy, "coop", 4, 1, {"a": 10.0, "b": 20.0}, cell={"suite": "other", "backbone": "RN50"}, title="Another suite")
    change = {"cell": {"variant": "context=8"}, "config": {"params": {"epochs": 20, "context": 8}}}
    put(toy, "softcpt", 4, 1, {"a": 1.0, "b": 2.0}, **change)
    tab = visit(toy)
    found = tab.locator("#found")
    assert found.inner_text() == "2 tables, 5 rows"
    choose(tab, "suite").select_option("Another suite")
    assert found.inner_text() == "1 table, 1 row" and rows(tab)["coop"][1] == "15.00"
    assert "Another suite" in tab.locator("#chart-shots [role=img]").get_attribute("aria-label")
    choose(tab, "backbone").select_option("tiny")
    assert tab.locator("#nothing").is_visible() and found.inner_text() == "0 tables, 0 rows"
    tab.get_by_text("Reset").click()
    assert soon(found.inner_text, "2 tables, 5 rows")
    choose(tab, "variant").select_option("Default settings")
    assert list(rows(tab, 1)) == ["zero-shot", "coop", "softcpt"]
    choose(tab, "variant").select_option("context=8")
    assert list(rows(tab)) == ["softcpt (context=8)"]
    choose(tab, "variant").select_option("All")
    tab.get_by_text("Methods (3 of 3)").click()
    tab.locator(".sheet").get_by_text("coop", exact=True).click()
    assert list(rows(tab)) == ["zero-shot", "softcpt", "softcpt (context=8)"]
    tab.keyboard.press("Escape")
    tab.get_by_role("checkbox", name="1", exact=True).uncheck()
    assert columns(tab) == ["method", "params", "0-shot", "4-shot"]  # no average over shots that are not shown


def test_it_can_be_used_with_the_keyboard_alone(toy: Path, visit: Any) -> None:
    tab = visit(toy)
    tab.keyboard.press("Tab")
    assert tab.evaluate("document.activeElement.textContent") == "Skip to the results"
    for _ in range(60):
        tab.keyboard.press("Tab")
        if tab.evaluate("document.activeElement.matches('button.cell')"):
            break
    assert tab.evaluate("document.activeElement.textContent") == "40.00"  # the table's first number
    tab.keyboard.press("ArrowDown")  # below it stands none in its column
    assert tab.evaluate("document.activeElement.textContent") == "40.00"
    tab.locator("button.cell", has_text="51.00").focus()
    tab.keyboard.press("ArrowDown")
    tab.keyboard.press("ArrowRight")
    assert tab.evaluate("document.activeElement.textContent") == "80.00 ± 0.00 (n=2)"
    outline = tab.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"
    tab.keyboard.press("Enter")
    assert tab.get_by_role("dialog").is_visible()
    assert tab.evaluate("document.querySelector('dialog').contains(document.activeElement)")
    tab.keyboard.press("Escape")
    assert not tab.get_by_role("dialog").is_visible()
    assert tab.evaluate("document.activeElement.textContent") == "80.00 ± 0.00 (n=2)"


def test_dark_follows_the_system_and_the_switch_and_is_remembered(toy: Path, visit: Any) -> None:
    light = "getComputedStyle(document.body).backgroundColor"
    assert visit(toy).evaluate(light) == "rgb(252, 252, 251)"
    tab = visit(toy, color_scheme="dark")
    assert tab.evaluate(light) == "rgb(20, 23, 27)"
    tab.get_by_role("radio", name="Light").check()
    assert tab.evaluate(light) == "rgb(252, 252, 251)"
    tab.reload()
    tab.wait_for_selector(READY)
    assert tab.evaluate(light) == "rgb(252, 252, 251)"


def test_on_a_phone_the_page_does_not_scroll_sideways(toy: Path, visit: Any) -> None:
    for name in HOSTILE.values():
        put(toy, name, 4, 1, {"a": 10.0, "b": 20.0}, footnote=name, marks=[name])
    tab = visit(toy, viewport={"width": 360, "height": 740})
    assert tab.evaluate("document.documentElement.scrollWidth") == 360
    tab.locator("button.cell").nth(3).click()
    assert tab.get_by_role("dialog").bounding_box()["width"] <= 360
    assert tab.evaluate("document.querySelector('dialog').scrollWidth") <= 360


def test_print_leaves_out_what_paper_cannot_use(toy: Path, visit: Any) -> None:
    tab = visit(toy, color_scheme="dark")
    tab.emulate_media(media="print", color_scheme="dark")
    assert not tab.locator("#filters").is_visible() and not tab.locator(".top").is_visible()
    assert tab.locator("table.scores").is_visible() and tab.locator("#chart-gain svg").is_visible()
    assert tab.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert tab.pdf(format="A4")[:5] == b"%PDF-"


# ---- what may come -------------------------------------------------------------------------------------------


def test_names_from_records_are_never_markup(tmp_path: Path, visit: Any) -> None:
    tasks = dict.fromkeys(HOSTILE.values(), 50.0)
    for kind, name in HOSTILE.items():
        put(tmp_path / "runs", name, 4, 1, tasks, note=name, footnote=name, versions={name: name},
            cell={"backbone": name if kind != "long" else "tiny"}, title=name, splits=tasks, recipe=name)  # fmt: skip
    put(tmp_path / "runs", "zero-shot", 0, 0, tasks)
    tab = visit(tmp_path / "runs")
    for article in range(tab.locator(".block").count()):
        tab.locator(".block").nth(article).locator("button.cell").first.click()
        tab.keyboard.press("Escape")
    for summary in tab.locator("#figures figure:not(.empty) summary").all():
        summary.click()
    assert tab.errors == [] and tab.evaluate("window.hacked") is None
    assert tab.locator("main img, dialog img, main script, dialog script").count() == 0
    names = "".join(tab.locator(".scores .name").all_text_contents())
    assert HOSTILE["html"] in names and HOSTILE["right-to-left"] in names and "{{ 7 * 7 }}" in names
    assert tab.evaluate("document.documentElement.scrollWidth") == 1200


def test_no_text_of_a_record_ends_the_script_it_stands_in(tmp_path: Path) -> None:
    put(tmp_path / "runs", "</ScRiPt><!--", 4, 1, {"]]>": 1.0}, note="</SCRIPT>")
    made = html(tmp_path / "runs")
    data = re.findall(r'<script type="application/json" id="data">(.*?)</script>', made, flags=re.DOTALL)
    assert len(data) == 1 and "<" not in data[0] and ">" not in data[0]
    assert json.loads(data[0])["methods"] == ["</ScRiPt><!--"]
    assert made.lower().count("</script>") == made.lower().count("<script ") - made.count('"<script ')
    made.encode("utf-8")


def test_five_thousand_cells_open_in_three_seconds_and_are_right(tmp_path: Path, visit: Any) -> None:
    """Ten backbones × (33 methods × 5 shot counts × 3 seeds + 5 of zero-shot) on five tasks."""
    for backbone in range(10):
        cell = {"backbone": f"backbone-{backbone}"}
        for seed in range(5):
            put(tmp_path / "runs", "zero-shot", 0, seed, dict.fromkeys("abcde", 20.0), cell=cell)
        for method in range(33):
            for shots in (1, 2, 4, 8, 16):
                for seed in (1, 2, 3):
                    scores = {task: backbone + method + shots + seed for task in "abcde"}
                    put(tmp_path / "runs", f"method-{method}", shots, seed, scores, cell=cell)
    tab = visit(tmp_path / "runs")
    times = [int(tab.locator("html").get_attribute("data-ready"))]
    for _ in range(2):  # other work on the machine may have slowed one of them
        tab.reload()
        tab.wait_for_selector(READY)
        times.append(int(tab.locator("html").get_attribute("data-ready")))
    assert min(times) < 3000, times
    assert tab.locator("#done").inner_text() == "5,000" and tab.locator("#missing").inner_text() == "0"
    assert tab.locator("#found").inner_text() == "10 tables, 340 rows"
    assert rows(tab, 7)["method-20"][-2:] == ["45.00 ± 1.00", "35.20 ± 1.00"]  # 7 + 20 + 16 + 2; 29 + 31 / 5
    choose(tab, "backbone").select_option("backbone-9")
    assert tab.locator("#found").inner_text() == "1 table, 34 rows"
    assert tab.errors == []


def test_numbers_that_are_not_there_are_null(tmp_path: Path) -> None:
    put(tmp_path / "runs", "coop", 4, 1, {"a": 50.0}, n_params=None, peak_memory_mb=None)
    loaded = load(ReportConfig(results=tmp_path / "runs"))
    data = payload(loaded, groups.split(loaded.rows))
    json.dumps(data, allow_nan=False)
    (block,) = data["blocks"]
    assert block["scores"]["std"] == block["scores"]["low"] == [None] and block["cells"]["peak_memory_mb"] == [None]


def test_intervals_pass_neither_0_nor_100(tmp_path: Path) -> None:
    for seed, extra in ((1, 0.0), (2, 2.0)):  # mean ± 12.7062 · √2 / √2
        put(tmp_path / "runs", "coop", 4, seed, {"a": 97.0 + extra, "b": 97.0 + extra})
        put(tmp_path / "runs", "own", 4, seed, {"a": 1.0 + extra, "b": 1.0 + extra})
    loaded = load(ReportConfig(results=tmp_path / "runs"))
    (block,) = payload(loaded, groups.split(loaded.rows))["blocks"]
    found = sorted(zip(block["scores"]["low"], block["scores"]["high"], strict=True))
    assert found == [pytest.approx((0, 14.7062), abs=1e-3), pytest.approx((85.2938, 100), abs=1e-3)]


def test_every_marker_has_a_shape_and_every_colour_is_seen_in_the_dark() -> None:
    from bench.reports.looks import FAMILIES, MARKERS, OTHERS

    assert set(MARKERS) <= set(SHAPES)

    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    assert on_dark("#ffffff") == "#ffffff" and luminance("#ffffff") == pytest.approx(1)
    for group in (*FAMILIES, OTHERS):
        for colour in group.colours:
            assert (luminance(on_dark(colour)) + 0.05) / (luminance("#1a1e23") + 0.05) >= 4.45


# ---- while a run goes on -------------------------------------------------------------------------------------


def test_watch_writes_the_page_again_as_records_come_and_ctrl_c_ends_it(tmp_path: Path, interruptible: None) -> None:
    results, out = tmp_path / "runs", tmp_path / "out"
    results.mkdir()
    command = [sys.executable, "-m", "bench", "report", "--watch", "--results", str(results), "--out", str(out)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:  # noqa: S603 - a list of our own words, and no shell
        try:
            assert process.stdout is not None
            assert process.stdout.readline().startswith(f"Watching {results}; open {out / 'index.html'}")
            for seed in (1, 2):
                put(results, "coop", 4, seed, {"a": 50.0 + seed})
                assert re.fullmatch(rf"\S+  {seed} cells?\n", process.stdout.readline())
                made = (out / "index.html").read_text(encoding="utf-8")
                assert '<meta http-equiv="refresh" content="5">' in made
                assert f'id="done">{seed}<' in made
            process.send_signal(signal.SIGINT)
            said, errors = process.communicate(timeout=60)
        finally:
            process.kill()
    assert (process.returncode, errors) == (0, "")
    assert said.startswith("Wrote index.html, table.md") and "and no figure, from 2 cells." in said
    assert 'http-equiv="refresh"' not in (out / "index.html").read_text(encoding="utf-8")
    assert not (out / "figures").exists()


def test_watch_without_the_page_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="add html to --format"):
        follow(ReportConfig(results=tmp_path, out=tmp_path / "out", format="md", watch=True))
