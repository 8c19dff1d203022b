"""What a reader does with the page: sorts, filters, uses the keyboard, reads it in the dark, on a phone, on paper."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

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
    assert tab.locator("#results table.scores").is_visible() and tab.locator("#chart-gain svg").is_visible()
    assert tab.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert tab.pdf(format="A4")[:5] == b"%PDF-"


CONTRAST = """() => {
  const luminance = (rgb) => rgb.map((c) => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const numbers = (text) => (text.match(/[\\d.]+/g) || []).map(Number);
  const over = (top, alpha, under) => top.map((c, i) => alpha * c + (1 - alpha) * under[i]);
  const ground = (element) => {
    for (let e = element; e; e = e.parentElement) {
      const [r, g, b, a = 1] = numbers(getComputedStyle(e).backgroundColor);
      if (a > 0) return [r, g, b];
    }
  };
  const ratio = (a, b) => {
    const both = [luminance(a), luminance(b)];
    return (Math.max(...both) + 0.05) / (Math.min(...both) + 0.05);
  };
  const found = [];
  for (const e of document.querySelectorAll("main *, header *")) {
    const own = [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
    const off = e.closest("svg, .away, .none, [hidden], label:has(:disabled), .dt-column-order, .swatch");
    if (!own || off || !e.getClientRects().length || e.closest("[aria-pressed=false]")) continue;
    found.push([ratio(numbers(getComputedStyle(e).color).slice(0, 3), ground(e)), e.textContent.slice(0, 40)]);
  }
  for (const svg of document.querySelectorAll("#chart-gain svg, #chart-pairs svg")) {
    const card = ground(svg);
    const ink = numbers(getComputedStyle(svg.querySelector(".mark-text.role-mark text")).fill).slice(0, 3);
    for (const e of svg.querySelectorAll(".mark-rect.role-mark path")) {
      const look = getComputedStyle(e);
      const fill = over(numbers(look.fill).slice(0, 3), Number(look.fillOpacity), card);
      found.push([ratio(ink, fill), "a number in a heat map"]);
    }
  }
  return found;
}"""


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_texts_and_numbers_on_colours_can_be_read(theme: str, toy: Path, visit: Any) -> None:
    """WCAG 2, AA: a contrast of 4.5 at least."""
    found = visit(toy, color_scheme=theme).evaluate(CONTRAST)
    assert len(found) > 60 and sum(text == "a number in a heat map" for _, text in found) >= 10
    assert [(round(ratio, 2), text) for ratio, text in found if ratio < 4.5] == []


def test_on_a_phone_the_filters_cover_nothing(toy: Path, visit: Any) -> None:
    tab = visit(toy, viewport={"width": 360, "height": 740})
    filters, heading = (tab.locator(name).bounding_box() for name in ("#filters", "#results-title"))
    assert filters["y"] + filters["height"] <= heading["y"]


def test_names_in_the_cost_charts_do_not_overlap(tmp_path: Path, visit: Any) -> None:
    for i in range(8):  # all at the same cost, within two points
        for seed in (1, 2):
            put(tmp_path / "runs", f"a-method-called-{i}", 4, seed, {"a": 50 + 0.2 * i + seed})
    tab = visit(tmp_path / "runs")
    boxes = tab.locator("#chart-time svg .mark-text text").evaluate_all(
        "all => all.filter(e => /method/.test(e.textContent)).map(e => e.getBoundingClientRect().toJSON())"
    )
    assert boxes
    for i, a in enumerate(boxes):
        for b in boxes[:i]:
            beside = a["right"] <= b["left"] or b["right"] <= a["left"]
            # A box has room above its letters.
            assert beside or a["bottom"] - 3 <= b["top"] or b["bottom"] - 3 <= a["top"]
