"""Tables of a report: the paper's cells, sweeps, what was chosen by validation, two folders, LaTeX that fits."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import bench
from bench.datasets.spec import load_suite
from bench.errors import UserError
from bench.reports import reference
from bench.reports.tables.common import signed

sys.path.append(str(Path(__file__).parent))
from test_reports import no_figures, put, row, table, toy

__all__ = ["no_figures", "toy"]


def reproduction(root: Path, **off: float) -> None:
    """Records of all 244 cells in the paper's set-up: three seeds at the paper's mean and half a point beside it.

    off : points to add at 16 shots of General-10, by method.
    """
    for suite, method, shots, mean in reference.published()[
        ["suite", "method", "shots", "accuracy_mean"]
    ].itertuples(index=False):
        more = off.get(method, 0.0) if (suite, shots) == ("general10", 16) else 0.0
        tasks = [task.name for task in load_suite(suite).tasks]
        for seed in (1, 2, 3) if shots else (0,):
            accuracy = mean + more + (0.5 * (seed - 2) if shots else 0)
            config = {"pretrained": "openai", "views": 50 if shots else None, "params": {"epochs": 50} if shots else {}}
            cell = {"suite": suite, "backbone": "RN50"}
            put(root, method, int(shots), seed, dict.fromkeys(tasks, accuracy), cell=cell, config=config)


def test_a_whole_reproduction_is_judged_cell_by_cell(tmp_path: Path) -> None:
    """ProtoNet's 20 cells are another method's; coop is 10 points off in one cell: 244 − 20 − 1 are within."""
    reproduction(tmp_path / "runs", coop=10)
    bench.report(tmp_path / "runs", tmp_path / "out", format="md,csv")
    said = "Of the paper's 244 cells 244 were run: 223 within the joint spread, 1 outside, 20 in another set-up."
    assert said in (tmp_path / "out" / "table.md").read_text()
    paper = pd.read_csv(tmp_path / "out" / "paper.csv").set_index(["suite", "method", "shots"])
    assert len(paper) == 244 and set(paper["n_seeds"]) == {1, 3}
    off = paper.loc[("general10", "coop", 16)]
    # Ours: 0.5 over three seeds. The paper's 0.17 is divided by n: √(3/2) · 0.17 = 0.2082 divides by n − 1.
    # Welch: variance (0.25 + 0.04335) / 3 = 0.09778, degrees of freedom 0.29335² / ((0.25² + 0.04335²) / 2) = 2.673.
    assert off["difference"] == pytest.approx(10) and off["verdict"] == "outside"
    assert off["half"] == pytest.approx(3.4155 * 0.09778**0.5, rel=1e-3)
    assert paper.loc[("rs8", "softcpt", 1), "set_up"].endswith("The composition of RS-8 is our interpretation.")
    assert paper.loc[("plant6", "protonet", 1), "verdict"] == "other set-up"
    assert pd.isna(paper.loc[("plant6", "protonet", 1), "difference"])
    text = (tmp_path / "out" / "paper.md").read_text()
    assert len(re.findall(r"(?m)^\| [\w-]+, \d+-shot", text)) == 244


def test_a_cell_of_another_set_up_is_not_compared_and_says_in_what(tmp_path: Path) -> None:
    put(tmp_path / "runs", "coop", 4, 1, {"AID": 50.0}, cell={"suite": "rs8"}, config={"views": 5})
    bench.report(tmp_path / "runs", tmp_path / "out", format="md,csv")
    assert "Of the paper's 244 cells 1 were run: 0 within" in (tmp_path / "out" / "table.md").read_text()
    (cell,) = pd.read_csv(tmp_path / "out" / "paper.csv").query("n_seeds > 0").to_dict("records")
    assert (cell["suite"], cell["method"], cell["shots"], cell["verdict"]) == ("rs8", "coop", 4, "other set-up")
    for said in (
        "Backbone tiny, not RN50.", "Weights toy-weights, not OpenAI's.", "1 task, not the 8 of the suite: AID.",
        "5 stored views per image, not a fresh one each epoch.", "epochs = 20 instead of 50", "1 seed, not 3.",
        "AID 5 of 30 classes, 100 of about 3,000 test images",
    ):  # fmt: skip
        assert said in cell["set_up"]


def swept(root: Path, method: str, val: dict[int, float] | None = None, **accuracy: float) -> None:
    """A method at 4 shots with 50 epochs (its default) and 200."""
    for epochs in (50, 200):
        config = {"params": {"epochs": epochs}, "views": epochs}
        cell = {"variant": "" if epochs == 50 else "epochs=200"}
        accuracies, seen = {"a": accuracy[f"e{epochs}"]}, val[epochs] if val else None
        put(root, method, 4, 1, accuracies, cell=cell, config=config, val=seen)


def test_methods_and_the_settings_that_all_were_run_in_meet_in_one_table(tmp_path: Path) -> None:
    for method, first in (("coop", 50.0), ("kgcoop", 60.0), ("softcpt", 70.0)):
        swept(tmp_path / "runs", method, e50=first, e200=first + 1)
    bench.report(tmp_path / "runs", tmp_path / "out", format="md")
    assert table(tmp_path / "out", "toy · tiny · epochs varied") == [
        ["method", "4-shot epochs=50", "4-shot epochs=200"],
        ["coop", "50.00", "51.00"], ["kgcoop", "60.00", "61.00"], ["softcpt", "70.00", "71.00"],
    ]  # fmt: skip


def test_what_all_methods_share_is_said_once_in_the_caption(tmp_path: Path) -> None:
    for method in ("coop", "softcpt"):
        put(tmp_path / "runs", method, 4, 1, {"a": 50.0}, cell={"variant": "epochs=20"})
    bench.report(tmp_path / "runs", tmp_path / "out", format="md")
    assert [cells[0] for cells in table(tmp_path / "out")] == ["method", "coop", "softcpt"]
    assert "All methods that have it with epochs=20." in (tmp_path / "out" / "table.md").read_text()


def test_a_choice_among_single_settings_is_told(tmp_path: Path) -> None:
    put(tmp_path / "runs", "coop", 4, 1, {"a": 50.0}, val=60.0)
    with pytest.warns(UserWarning, match="--best-on val: no method has several settings here to choose from"):
        bench.report(tmp_path / "runs", tmp_path / "out", format="csv", best_on="val")


def test_a_setting_is_chosen_by_validation_accuracy_alone(tmp_path: Path) -> None:
    swept(tmp_path / "runs", "coop", {50: 60.0, 200: 70.0}, e50=90.0, e200=40.0)  # worse on the test images
    bench.report(tmp_path / "runs", tmp_path / "out", format="md", best_on="val")
    assert row(tmp_path / "out", "coop (epochs=200)")["4-shot"] == "40.00"
    text = (tmp_path / "out" / "table.md").read_text()
    assert "90.00" not in text
    said = "Of 2 settings of coop, epochs=200 was chosen by its accuracy on the few-shot validation images alone"
    assert f"{said} (default 60.00; epochs=200 70.00)." in text
    swept(tmp_path / "old", "coop", e50=90.0, e200=40.0)
    with pytest.raises(UserError, match=r"--best-on val: the records of coop .* have no validation accuracy"):
        bench.report(tmp_path / "old", tmp_path / "out", best_on="val")


def test_a_control_is_never_chosen_as_a_methods_best_setting(tmp_path: Path) -> None:
    """Of a random graph and of shuffled names, the best on validation images, and of settings that are no controls."""
    settings = [("", 60.0, 50.0), ("nearest=3", 70.0, 40.0), ("graph=permuted", 90.0, 30.0)]
    settings += [("nearest=3,graph=permuted", 80.0, 20.0), ("names=shuffled", 95.0, 10.0)]
    for variant, val, accuracy in settings:
        given = {"epochs": 50, "nearest": 0, "graph": "names", **dict(re.findall(r"(\w+)=(\w+)", variant))}
        config = {"names": given.pop("names")} if "names" in given else {}
        cell, config = {"variant": variant}, {**config, "params": given}
        put(tmp_path / "runs", "softcpt-graph", 4, 1, {"a": accuracy}, cell=cell, config=config, val=val)
    swept(tmp_path / "runs", "coop", {50: 60.0, 200: 70.0}, e50=90.0, e200=40.0)
    for names, val in (("own", 60.0), ("all", 70.0)):  # a setting of LASP's, and no control
        config = {"params": {"epochs": 50, "names": names}}
        cell = {"variant": "names=all" if names == "all" else ""}
        put(tmp_path / "runs", "lasp", 4, 1, {"a": val}, cell=cell, config=config, val=val)
    bench.report(tmp_path / "runs", tmp_path / "out", format="csv", best_on="val")
    rows = pd.read_csv(tmp_path / "out" / "records.csv", keep_default_na=False)
    assert sorted(zip(rows["method"], rows["variant"], strict=True)) == [
        ("coop", "epochs=200"), ("lasp", "names=all"), ("softcpt-graph", "graph=permuted"),
        ("softcpt-graph", "names=shuffled"), ("softcpt-graph", "nearest=3"),
    ]  # fmt: skip


def test_the_settings_of_a_method_that_is_not_installed_may_hold_controls_and_it_is_told(tmp_path: Path) -> None:
    swept(tmp_path / "runs", "os:system", {50: 60.0, 200: 70.0}, e50=90.0, e200=40.0)
    with pytest.warns(UserWarning, match="--best-on val: os:system is not installed here; should some of its settings"):
        bench.report(tmp_path / "runs", tmp_path / "out", format="csv", best_on="val")


def test_rows_that_used_validation_labels_are_marked_in_every_table(tmp_path: Path) -> None:
    """A search of the method's own, in its record, or --best-on; the others' rows have no mark."""
    choice = {"values": {"alpha": 0.25}, "accuracy": 71.5, "images": 20, "tried": 21, "ties": 3}
    for seed in (1, 2):
        put(tmp_path / "runs", "tip-adapter", 4, seed, {"a": 60.0, "b": 61.0}, chosen={"a": choice, "b": choice})
        put(tmp_path / "runs", "coop", 4, seed, {"a": 50.0, "b": 51.0})
    bench.report(tmp_path / "runs", tmp_path / "out", format="md,tex,csv")
    text, tex = ((tmp_path / "out" / f"table.{kind}").read_text() for kind in ("md", "tex"))
    assert [cells[0] for cells in table(tmp_path / "out")][1:] == ["coop", "tip-adapter †"]
    assert [cells[0] for cells in table(tmp_path / "out", "toy · tiny · statistics")][1:] == ["coop", "tip-adapter †"]
    assert table(tmp_path / "out", "toy · tiny · every task")[0][4:] == ["coop", "tip-adapter †"]
    said = "†: values or settings were chosen by accuracy on the few-shot validation images"
    assert text.count(said) == 3 and r"tip-adapter $\dagger$" in tex
    assert not (tmp_path / "out" / "unseen.csv").exists()  # of another protocol
    data = pd.read_csv(tmp_path / "out" / "table.csv").set_index("method")["searched"]
    assert data["tip-adapter"] and not data["coop"]
    cell = {"protocol": "unseen-task"}
    for task in "ab":
        config = {"tasks": ["a", "b"], "scored": [task], "fold": f"{task} of 2"}
        put(tmp_path / "unseen", "coop", 4, 1, {task: 60.0}, cell=cell, config=config, chosen={task: choice})
    bench.report(tmp_path / "unseen", tmp_path / "fold", format="md,csv")
    assert (tmp_path / "fold" / "unseen.csv").exists()
    assert "| coop † " in (tmp_path / "fold" / "table.md").read_text().partition("# Tasks never trained on")[2]
    swept(tmp_path / "swept", "coop", {50: 60.0, 200: 70.0}, e50=90.0, e200=40.0)
    bench.report(tmp_path / "swept", tmp_path / "best", format="md", best_on="val")
    assert table(tmp_path / "best")[1][0] == "coop (epochs=200) †"
    bench.report(tmp_path / "swept", tmp_path / "all", format="md")
    assert "†" not in (tmp_path / "all" / "table.md").read_text()


def test_two_folders_stand_side_by_side_and_what_moved_is_listed(toy: Path, tmp_path: Path) -> None:
    shutil.copytree(toy, tmp_path / "other")
    for path in sorted((tmp_path / "other").glob("*.json")):
        record = json.loads(path.read_text())
        if (record["cell"]["method"], record["cell"]["shots"]) == ("softcpt", 1):
            path.unlink()
        elif (record["cell"]["method"], record["cell"]["shots"]) == ("coop", 4):
            for task in record["tasks"]:
                task["accuracy"] += 5
            path.write_text(json.dumps(record))
    bench.report(toy, tmp_path / "out", compare=tmp_path / "other", format="md,csv")
    text = (tmp_path / "out" / "table.md").read_text()
    assert "Of 4 cells in both runs and other 1 moved by more than the spread." in text
    assert "Only in runs: 1 cell (toy · softcpt)." in text
    moved = table(tmp_path / "out", "runs and other: moved")[1:]
    assert [cells[0] for cells in moved] == [f"toy · tiny · coop · 4-shot{task}" for task in ("", " · a", " · b")]
    assert moved[0][1:] == ["67.00 ± 2.00", "72.00 ± 2.00", "−5.00", "± 0.00", "yes"]
    data = pd.read_csv(tmp_path / "out" / "compare.csv", keep_default_na=False)
    assert len(data) == 4 * 3 and set(data["interval"]) == {"paired", ""}


def test_tasks_and_classes_that_are_missing_are_said(tmp_path: Path) -> None:
    config: dict[str, Any] = {"complete_suite": False}
    put(tmp_path / "runs", "coop", 4, 1, {"RSSCN7": 50.0}, cell={"suite": "rs8"}, config=config)
    bench.report(tmp_path / "runs", tmp_path / "out", format="md")
    text = (tmp_path / "out" / "table.md").read_text()
    assert "1 task of the suite's 8: RSSCN7." in text
    assert "Data in part: RSSCN7 5 of 7 classes, 100 of about 840 test images." in text
    assert "mean of the tasks" not in text


DOCUMENT = r"""\documentclass[twocolumn]{article}
\usepackage{booktabs}
\begin{document}
Text, see \ref{tab:toy-tiny-main}.
\input{table}
\end{document}
"""


@pytest.mark.skipif(not shutil.which("pdflatex"), reason="no pdflatex here")
@pytest.mark.parametrize(("methods", "tasks"), [(4, 20), (17, 4), (30, 20)])
def test_tables_fit_a_two_column_page(tmp_path: Path, methods: int, tasks: int) -> None:
    names = [f"a-method-with-a-name-{i:02d}" for i in range(methods)]
    for i, name in enumerate(names):
        for shots in (1, 2, 4, 8, 16):
            for seed in (1, 2):
                scores = {f"neckline design {t:02d}": 50 + i + seed + t / 10 for t in range(tasks)}
                put(tmp_path / "runs", name, shots, seed, scores)
    bench.report(tmp_path / "runs", tmp_path / "out", format="tex")
    (tmp_path / "out" / "paper.tex").write_text(DOCUMENT)
    command = ["pdflatex", "-interaction=nonstopmode", "paper.tex"]
    for _ in range(2):
        done = subprocess.run(command, cwd=tmp_path / "out", capture_output=True, text=True, errors="replace")  # noqa: S603 - a list of our own words, and no shell
    log = (tmp_path / "out" / "paper.log").read_text(errors="replace")
    assert done.returncode == 0, log[-2000:]
    wide = [float(points) for points in re.findall(r"Overfull \\hbox \(([\d.]+)pt too wide\)", log)]
    assert not [points for points in wide if points > 5]
    assert "undefined" not in log and "Float too large" not in log
    assert (tmp_path / "out" / "paper.pdf").stat().st_size > 10_000


def test_a_difference_that_rounds_to_nothing_has_no_minus() -> None:
    assert [signed(x) for x in (-0.001, 0.004, -0.006, 1.5, float("nan"))] == ["+0.00", "+0.00", "−0.01", "+1.50", "—"]
