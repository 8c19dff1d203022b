"""The report's page in a real browser: what it shows is right, and where each number comes from."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parent))
from pages import HOSTILE, browser, columns, rows, toy, visit
from test_reports import fashion, put, put_halves

__all__ = ["browser", "toy", "visit"]


def test_it_opens_from_disk_without_an_error_or_a_request(toy: Path, visit: Any) -> None:
    tab = visit(toy)
    assert tab.errors == []
    assert [url for url in tab.requests if not url.startswith("file:")] == [] and len(tab.requests) == 1
    assert tab.locator("#figures svg").count() == 6
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
    own = tab.locator("#results th", has=tab.locator(".name", has_text="own")).locator(".few")
    assert own.text_content() == " † used labels of validation images"
    assert "epochs=50 was chosen" in own.get_attribute("title")
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


def test_demo_says_that_it_is_one(toy: Path, tmp_path: Path, visit: Any) -> None:
    assert "Demo" not in visit(toy).locator("main").inner_text()
    put(tmp_path / "demo", "coop", 4, 1, {"a": 40.0}, demo=True)
    tab = visit(tmp_path / "demo")
    assert "says nothing about real photographs" in tab.locator("#summary").inner_text()
    assert tab.locator("#results .block h3").inner_text().lower().startswith("demo")
