"""What a reader does with the page: sorts, filters, uses the keyboard, reads it in the dark, on a phone, on paper."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parent))
from pages import HOSTILE, READY, browser, choose, columns, rows, soon, toy, visit
from test_reports import put

__all__ = ["browser", "toy", "visit"]


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
