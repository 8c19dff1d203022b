"""The report prints what the records say: statistics, marks, blocks, quotations, and nothing that was not measured."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pandas as pd
import pytest
from matplotlib.figure import Figure
from PIL import Image

from bench.cli import main
from bench.errors import UserError
from bench.records import COLUMNS
from bench.reports import figures, fonts, reference, report, write
from bench.reports.config import ReportConfig
from bench.reports.figures.common import style
from bench.reports.figures.cost import Time
from bench.reports.groups import split
from bench.reports.latex import escape_latex
from bench.reports.markup import escape_markdown
from bench.reports.records import load


def put(root: Path, method: str, shots: int, seed: int, scores: dict[str, float], **more: Any) -> Path:
    """Write a record: `scores` has each task's accuracy, `val` that on validation images; `more` overrides parts."""
    cell = {"suite": "toy", "backbone": "tiny", "method": method, "protocol": "few-shot", "variant": ""}
    cell |= {"shots": shots, "seed": seed, **more.pop("cell", {})}
    config = {"params": {"epochs": 20} if shots else {}, "views": 20 if shots else None, "tasks": list(scores)}
    config |= {"pretrained": "toy-weights", "complete_suite": True, **more.pop("config", {})}
    counts = {"metric": "overall_acc", "n_test": 100, "n_train": 5 * shots, "n_classes": 5, "part": "all"}
    counts |= {"val_accuracy": val} if (val := more.pop("val", None)) is not None else {}
    record = {
        "schema": 1,
        "status": "done",
        "cell": cell,
        "config": config,
        "tasks": [{"task": name, "accuracy": accuracy, **counts} for name, accuracy in scores.items()],
        "n_params": 1000 if shots else 0,
        "train_seconds": 2.0 * shots,
        "test_seconds": 0.1,
        "feature_seconds": 0.4,
        "peak_memory_mb": 800.0,
        "device": "cpu",
        "demo": False,
        "fingerprints": {"weights": "w0", "data": "d0", "draw": f"{shots}-{seed}"},
        "finished": "2026-01-01T00:00:00+00:00",
        **more,
    }
    record["key"] = f"{abs(hash(json.dumps(record, sort_keys=True))):x}"
    path = root / f"{shots}-{seed}-{record['key']}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record))
    return path


def table(out: Path, heading: str = "") -> list[list[str]]:
    """The cells of the first table of table.md below the first heading that begins with `heading`."""
    text = (out / "table.md").read_text()
    lines = text[text.index(f"## {heading}") if heading else 0 :].splitlines()
    first = next(i for i, line in enumerate(lines) if line.startswith("|"))
    rows = []
    for line in lines[first:]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]])
    return [rows[0], *rows[2:]]


def row(out: Path, name: str, heading: str = "") -> dict[str, str]:
    header, *rows = table(out, heading)
    return next(dict(zip(header, cells, strict=True)) for cells in rows if cells[0].startswith(name))


@pytest.fixture
def drawn() -> None:
    """For tests that look at the figures; the others do without, which makes them fast."""


@pytest.fixture(autouse=True)
def no_figures(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if "drawn" not in request.fixturenames:
        monkeypatch.setattr("bench.reports.figures.draw", lambda *_, **__: [])


def put_halves(root: Path, method: str, shots: int, seed: int, scores: dict[str, tuple[float, float]]) -> None:
    """Write a record of base2new: `scores` has the accuracy of each task on base and new classes."""
    path = put(root, method, shots, seed, dict.fromkeys(scores, 0.0), cell={"protocol": "base2new"})
    record = json.loads(path.read_text())
    counts = {"metric": "overall_acc", "n_train": 3 * shots, "n_test": 50, "n_classes": 3}
    record["tasks"] = []
    for task, (base, new) in scores.items():
        values = {"base": base, "new": new, "harmonic": 2 * base * new / (base + new)}
        record["tasks"] += [{**counts, "task": task, "part": part, "accuracy": a} for part, a in values.items()]
    path.write_text(json.dumps(record))


@pytest.fixture
def halves(tmp_path: Path) -> Path:
    """base2new on two tasks: zero-shot, and coop with two seeds at 4 shots."""
    root = tmp_path / "halves"
    put_halves(root, "zero-shot", 0, 0, {"a": (40.0, 60.0), "b": (60.0, 60.0)})
    put_halves(root, "coop", 4, 1, {"a": (80.0, 20.0), "b": (60.0, 60.0)})
    put_halves(root, "coop", 4, 2, {"a": (80.0, 20.0), "b": (64.0, 64.0)})
    return root


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    """Two tasks; coop at 1 and 4 shots, softcpt better at both, zero-shot once."""
    root = tmp_path / "runs"
    put(root, "zero-shot", 0, 0, {"a": 30.0, "b": 50.0})
    for seed, extra in ((1, 0.0), (2, 1.0), (3, 2.0)):
        put(root, "coop", 1, seed, {"a": 40 + extra, "b": 60 + extra})  # suite: 50, 51, 52
        put(root, "coop", 4, seed, {"a": 60 + 2 * extra, "b": 70 + 2 * extra})  # 65, 67, 69
        put(root, "softcpt", 1, seed, {"a": 45 + extra, "b": 61 + extra})  # 53, 54, 55
        put(root, "softcpt", 4, seed, {"a": 66 + extra, "b": 70 + extra})  # 68, 69, 70
    return root


def test_means_sample_deviations_and_average_are_right(toy: Path, tmp_path: Path) -> None:
    report(toy, tmp_path / "out")
    coop = row(tmp_path / "out", "coop")
    assert coop["1-shot"] == "51.00 ± 1.00"
    assert coop["4-shot"] == "67.00 ± 2.00 ≈"
    assert coop["Avg."] == "59.00 ± 1.50 ≈"  # of 57.5, 59, 60.5
    assert coop["0-shot"] == "—" and coop["params"] == "1,000"
    assert row(tmp_path / "out", "zero-shot")["0-shot"] == "40.00"  # one value: no spread, and no contest
    assert row(tmp_path / "out", "zero-shot")["Avg."] == "—"


def ranking(root: Path, **above: tuple[float, float]) -> None:
    """Four tasks, three seeds at 4 shots; `above`: a method's points above 50 on the first two tasks and on the others.

    The seeds add 0, 1 and 2, so the mean of a method that is above by x and y is 51 + (x + y) / 2, the deviation 1.
    """
    for method, (x, y) in above.items():
        for seed in (1, 2, 3):
            put(root, method, 4, seed, {name: 49 + seed + (x if name in "ab" else y) for name in "abcd"})


def test_best_is_bold_and_second_underlined_where_tests_tell_them_apart(tmp_path: Path) -> None:
    """All twelve pairs (task, seed) agree: p = 2 / 2^12, times three others."""
    ranking(tmp_path / "runs", plot=(1, 1), coop=(3, 3), prograd=(0, 0), softcpt=(6, 6))
    report(tmp_path / "runs", tmp_path / "out")
    shown = {name: row(tmp_path / "out", name)["4-shot"] for name in ("softcpt", "coop", "plot", "prograd")}
    assert shown == {
        "softcpt": "**57.00 ± 1.00**", "coop": "<u>54.00 ± 1.00</u>", "plot": "52.00 ± 1.00", "prograd": "51.00 ± 1.00",
    }  # fmt: skip
    tex = (tmp_path / "out" / "table.tex").read_text()
    assert r"\textbf{57.00 $\pm$ 1.00}" in tex and r"\underline{54.00 $\pm$ 1.00}" in tex
    said = "Bold: better than every other of its column; underlined: second, and better than all that follow; ≈:"
    assert said in (tmp_path / "out" / "table.md").read_text()


def test_a_mean_of_fewer_seeds_is_never_ranked_with_those_of_all(tmp_path: Path) -> None:
    """It is the highest by far, of one seed on twelve tasks: enough pairs, had its seed counted like three."""
    for seed in (1, 2, 3):
        for method, above in (("coop", 3.0), ("prograd", 0.0)):
            put(tmp_path / "runs", method, 4, seed, dict.fromkeys("abcdefghijkl", 49 + seed + above))
    put(tmp_path / "runs", "softcpt", 4, 1, dict.fromkeys("abcdefghijkl", 90.0))
    report(tmp_path / "runs", tmp_path / "out")
    shown = {name: row(tmp_path / "out", name)["4-shot"] for name in ("softcpt", "coop", "prograd")}
    assert shown == {"softcpt": "90.00 (n=1)", "coop": "**54.00 ± 1.00**", "prograd": "51.00 ± 1.00"}


def test_what_is_not_told_from_the_best_is_marked_as_a_tie_and_nothing_is_bold(tmp_path: Path) -> None:
    """softcpt beats coop by 6 on six pairs and loses by 5 on six; plot loses to softcpt on all twelve."""
    ranking(tmp_path / "runs", softcpt=(12, 1), coop=(6, 6), plot=(0, 0))
    report(tmp_path / "runs", tmp_path / "out")
    shown = {name: row(tmp_path / "out", name)["4-shot"] for name in ("softcpt", "coop", "plot")}
    assert shown == {"softcpt": "57.50 ± 1.00 ≈", "coop": "57.00 ± 1.00 ≈", "plot": "51.00 ± 1.00"}


def test_too_few_tasks_and_seeds_are_said_and_nothing_is_marked(tmp_path: Path) -> None:
    for method, accuracy in (("coop", 50.0), ("softcpt", 90.0)):
        put(tmp_path / "runs", method, 4, 1, {"a": accuracy, "b": accuracy})
    report(tmp_path / "runs", tmp_path / "out")
    assert row(tmp_path / "out", "softcpt")["4-shot"] == "90.00"
    text = (tmp_path / "out" / "table.md").read_text()
    said = "Nothing is marked as the best: to tell 2 methods apart takes at least"
    assert f"{said} 6 pairs of a task and a seed." in text and f"{said} 2 seeds." in text
    assert "Accuracy in percent, of one seed." in text and "deviation" not in text and "seeds 1" not in text


def test_no_average_where_a_shot_count_is_missing(toy: Path, tmp_path: Path) -> None:
    put(toy, "kgcoop", 4, 1, {"a": 90.0, "b": 90.0})
    report(toy, tmp_path / "out")
    kgcoop = row(tmp_path / "out", "kgcoop")
    assert kgcoop["1-shot"] == kgcoop["Avg."] == "—"
    assert kgcoop["4-shot"] == "90.00 (n=1)"  # one seed of three: no spread, and no mark though it is the highest
    assert "(n=…)" in (tmp_path / "out" / "table.md").read_text()
    assert "(n=3)" not in (tmp_path / "out" / "table.md").read_text()


def test_every_task_alone_at_the_largest_shot_count(toy: Path, tmp_path: Path) -> None:
    report(toy, tmp_path / "out")
    task = row(tmp_path / "out", "a", "toy · tiny · every task at 4 shots")
    assert task["metric"] == r"overall\_acc" and task["test images"] == "100"
    # softcpt − coop: 6, 5, 4, t = 5 √3 = 8.66, p = 0.013; − zero-shot 36, 37, 38, p = 0.0002
    assert (task["zero-shot"], task["coop"], task["softcpt"]) == ("30.00", "<u>62.00 ± 2.00</u>", "**67.00 ± 1.00**")
    b = row(tmp_path / "out", "b", "toy · tiny · every task at 4 shots")
    assert (b["zero-shot"], b["coop"], b["softcpt"]) == ("50.00", "72.00 ± 2.00 ≈", "71.00 ± 1.00 ≈")  # 0, 1, 2
    mean = row(tmp_path / "out", "mean", "toy · tiny · every task at 4 shots")
    assert mean["softcpt"] == "69.00 ± 1.00" and mean["zero-shot"] == "40.00"  # three methods take 7 pairs, not 6


def test_base_new_and_harmonic_mean_stand_in_one_table(halves: Path, tmp_path: Path) -> None:
    report(halves, tmp_path / "out")
    assert table(tmp_path / "out") == [
        ["method", "params", "Base", "New", "H"],
        ["zero-shot", "0", "50.00", "60.00", "54.00"],  # in the columns of the trained methods; four pairs: no marks
        ["coop", "1,000", "71.00 ± 1.41", "41.00 ± 1.41", "47.00 ± 1.41"],  # H: of 32 and 62 ± 2
    ]
    tasks = table(tmp_path / "out", "toy · tiny · base2new · every task at 4 shots")
    assert [cells[0] for cells in tasks[1:4]] == ["a · Base", "a · New", "a · H"]
    assert tasks[1][-2:] == ["40.00", "**80.00 ± 0.00**"]
    assert tasks[3][-2:] == ["**48.00**", "32.00 ± 0.00"]
    assert tasks[-1] == ["mean of the tasks · H", "", "", "", "54.00", "47.00 ± 1.41"]
    text = (tmp_path / "out" / "table.md").read_text()
    assert "3 cells done" in text and text.count("taken for each task and seed, then averaged") == 2
    assert "at 4 shots. Base and New" in text and "differ in" not in text
    assert r"zero-shot & 0 & 50.00 & 60.00 & 54.00" in (tmp_path / "out" / "table.tex").read_text()
    tidy = pd.read_csv(tmp_path / "out" / "table.csv").set_index(["method", "part"])
    assert len(tidy) == 6 and tidy.loc[("coop", "harmonic"), "mean"] == pytest.approx(47)


def test_base_to_new_has_a_group_of_columns_for_each_shot_count(halves: Path, tmp_path: Path) -> None:
    for seed in (1, 2):
        put_halves(halves, "coop", 16, seed, {"a": (90.0, 10.0), "b": (90.0, 10.0)})
    report(halves, tmp_path / "out")
    coop, zero = row(tmp_path / "out", "coop"), row(tmp_path / "out", "zero-shot")
    assert [key for key in coop if key.endswith("H")] == ["4-shot H", "16-shot H", "Avg. H"]
    assert (coop["16-shot New"], coop["Avg. Base"]) == ("10.00 ± 0.00", "80.50 ± 0.71")  # of 80 and 81
    assert zero["4-shot New"] == zero["16-shot New"] == zero["Avg. New"] == "60.00"


@pytest.mark.usefixtures("drawn")
@pytest.mark.parametrize("shots", [[4], [4, 8, 16]])
def test_base_to_new_has_one_figure(halves: Path, tmp_path: Path, shots: list[int]) -> None:
    for n in shots:
        put_halves(halves, "kgcoop", n, 1, {"a": (90.0, 0.5), "b": (100.0, 100.0)})
    report(halves, tmp_path / "out")
    names = {path.name for path in (tmp_path / "out" / "figures").glob("*.png")}
    assert names == {"toy-tiny-base2new-new-over-base.png"}


def test_the_time_figure_names_the_processors_and_cards_it_was_taken_on(tmp_path: Path) -> None:
    where = [{}, {"processor": "CPU One"}, {"processor": "CPU Two"}, {"device": "Card", "processor": "CPU Two"}]
    for seed, more in enumerate(where, 1):
        put(tmp_path / "runs", "coop", 4, seed, {"a": 50.0}, **more)
    records = report(tmp_path / "runs", tmp_path / "out")
    assert sorted(records["device"]) == ["CPU One", "CPU Two", "Card", "cpu"]
    (block,) = split(records)
    assert Time().draw(block).axes[0].get_xlabel() == "training time, seconds, on CPU One, CPU Two, Card and 1 more"


def test_records_csv_has_a_row_a_cell_and_task(toy: Path, tmp_path: Path) -> None:
    frame = report(toy, tmp_path / "out")
    stored = pd.read_csv(tmp_path / "out" / "records.csv")
    assert list(stored.columns) == COLUMNS
    assert len(stored) == len(frame) == 13 * 2
    one = stored.query("method == 'coop' and shots == 4 and seed == 3 and task == 'b'")
    assert one["accuracy"].item() == 74 and one["epochs"].item() == 20 and one["train_seconds"].item() == 8
    tidy = pd.read_csv(tmp_path / "out" / "table.csv").set_index(["method", "shots"])
    assert tidy.loc[("coop", 4), "mean"] == 67 and tidy.loc[("coop", 4), "std"] == 2
    assert tidy.loc[("coop", 4), "n_seeds"] == 3 and tidy["paper_mean"].isna().all()


def fashion(root: Path, tasks: int = 20, method: str = "coop", **more: Any) -> None:
    """A method's whole row of Fashion-20 in the paper's setting, 62 % at all shots."""
    cell = {"suite": "fashion20", "backbone": "RN50", **more.pop("cell", {})}
    config = {"pretrained": "openai", **more.pop("config", {})}
    for shots in (1, 2, 4, 8, 16):
        for seed in (1, 2, 3):
            scores = {f"t{i}": 60.0 + seed for i in range(tasks)}
            put(root, method, shots, seed, scores, cell=cell, config=config, **more)


def test_paper_stands_beside_ours_for_its_backbone_and_whole_suite(tmp_path: Path) -> None:
    fashion(tmp_path / "runs")
    fashion(tmp_path / "runs", method="protonet")
    fashion(tmp_path / "runs", method="third-party")
    report(tmp_path / "runs", tmp_path / "out")
    coop = row(tmp_path / "out", "coop")
    assert coop["1-shot measured"] == "62.00 ± 1.00 ≈"  # all three methods' numbers are equal
    assert coop["1-shot paper"] == "50.50 ± 0.63"  # as in the paper's table
    assert coop["1-shot Δ"] == "+11.50"
    assert coop["16-shot Δ"] == f"{62 - reference.quoted('fashion20', 'coop', 16)[0]:+.2f}".replace("-", "−")
    means = [reference.quoted("fashion20", "coop", n)[0] for n in (1, 2, 4, 8, 16)]
    assert coop["Avg. paper"] == f"{sum(means) / 5:.2f}"  # its spread does not follow from its parts'
    assert "The paper's ± divides by n = 3" in (tmp_path / "out" / "table.md").read_text()
    protonet = row(tmp_path / "out", "protonet")  # the paper's is another method: quoted, no difference
    assert protonet["1-shot paper"] == "35.58 ± 0.20" and protonet["1-shot Δ"] == "—"
    assert row(tmp_path / "out", "third-party")["1-shot paper"] == "—"
    tidy = pd.read_csv(tmp_path / "out" / "table.csv").set_index(["method", "shots"])
    assert tidy.loc[("coop", 1), "delta"] == pytest.approx(11.5)
    assert tidy.loc[("coop", 1), "paper_std"] == pytest.approx(0.63)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"cell": {"backbone": "ViT-B-16"}}, "Another backbone"),
        ({"config": {"pretrained": "yfcc15m"}}, "Another backbone"),
        ({"config": {"complete_suite": False}}, "not comparable with the paper"),
        ({"tasks": 19}, r"19 of the suite's 20 tasks"),
        ({"cell": {"protocol": "base2new"}}, "Another protocol"),
        ({"demo": True}, "DEMO"),
    ],
)
def test_paper_is_not_quoted_where_it_may_not_stand(tmp_path: Path, more: dict[str, Any], said: str) -> None:
    fashion(tmp_path / "runs", **more)
    report(tmp_path / "runs", tmp_path / "out")
    assert not [name for name in table(tmp_path / "out")[0] if "paper" in name or "Δ" in name]
    assert said in (tmp_path / "out" / "table.md").read_text()
    assert pd.read_csv(tmp_path / "out" / "table.csv")["delta"].isna().all()


def test_what_is_known_of_the_paper_s_spread_and_linear_probe_is_said_where_it_is_quoted(tmp_path: Path) -> None:
    fashion(tmp_path / "runs")
    report(tmp_path / "runs", tmp_path / "out")
    text = (tmp_path / "out" / "table.md").read_text()
    assert "population's standard deviation" in text and "two metrics swapped" not in text
    fashion(tmp_path / "runs", method="linear-probe")
    report(tmp_path / "runs", tmp_path / "out")
    assert "has the names of the two metrics swapped" in (tmp_path / "out" / "table.md").read_text()


def test_demo_is_said_in_every_table_and_figure(tmp_path: Path) -> None:
    for method, shots in (("zero-shot", 0), ("coop", 4)):
        put(tmp_path / "runs", method, shots, 1, {"a": 40.0 + shots}, demo=True, note="Rendered images.")
    report(tmp_path / "runs", tmp_path / "out")
    text = (tmp_path / "out" / "table.md").read_text()
    assert text.count("### DEMO") == 3 and text.count("Rendered images.") == 2
    assert (tmp_path / "out" / "table.tex").read_text().count(r"\textbf{DEMO}") == 3
    assert pd.read_csv(tmp_path / "out" / "table.csv")["demo"].all()


@pytest.mark.usefixtures("drawn")
def test_demo_figures_carry_the_word(toy: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    titles: list[str] = []

    def save(figure: Figure, path: Path) -> None:
        titles.append(figure.get_suptitle())

    monkeypatch.setattr(figures, "save", save)
    put(tmp_path / "demo", "zero-shot", 0, 0, {"a": 40.0}, demo=True)
    put(tmp_path / "demo", "coop", 4, 1, {"a": 50.0}, demo=True)
    report(tmp_path / "demo", tmp_path / "out")
    assert len(titles) == 2 * 4 and all(title.startswith("DEMO") for title in titles)
    titles.clear()
    report(toy, tmp_path / "out")
    assert len(titles) == 2 * 8 and not any("DEMO" in title for title in titles)


@pytest.mark.usefixtures("drawn")
def test_figures_are_whole_png_and_svg_and_the_same_again(toy: Path, tmp_path: Path) -> None:
    report(toy, tmp_path / "out")
    report(toy, tmp_path / "again")
    names = {path.name for path in (tmp_path / "out" / "figures").iterdir()}
    kinds = ("accuracy", "tasks", "gain", "heat", "time", "params", "profile", "improvement")
    assert names == {f"toy-tiny-{kind}.{form}" for kind in kinds for form in ("png", "svg")}
    for name in names:
        path = tmp_path / "out" / "figures" / name
        if path.suffix == ".png":
            with Image.open(path) as image:
                image.verify()
            assert f"](figures/{name})" in (tmp_path / "out" / "table.md").read_text()
        else:
            assert ElementTree.parse(path).getroot().tag.endswith("svg")  # noqa: S314 - a figure that the test drew
        assert path.read_bytes() == (tmp_path / "again" / "figures" / name).read_bytes()
    assert not list((tmp_path / "out").rglob("*.tmp"))


@pytest.mark.usefixtures("drawn")
def test_a_sweep_over_two_parameters_is_said_to_have_no_figure(tmp_path: Path, capsys: Any) -> None:
    for context, epochs in ((1, 5), (1, 10), (2, 5), (2, 10)):
        variant, params = f"context={context},epochs={epochs}", {"context": context, "epochs": epochs}
        put(tmp_path / "runs", "coop", 4, 1, {"a": 50.0}, cell={"variant": variant}, config={"params": params})
    assert main(["report", "--results", str(tmp_path / "runs"), "--out", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out.splitlines()
    files = "index.html, table.md, table.tex, records.csv, table.csv"
    assert said[0] == f"Wrote {files} into {tmp_path / 'out'}, and no figure, from 4 cells."
    why = "it takes two or more numbers, with every other parameter as it is by default."
    assert said[1:] == [f"Not drawn: toy · tiny: coop, {name} varied; {why}" for name in ("context", "epochs")]
    assert not (tmp_path / "out" / "figures").exists()


@pytest.mark.usefixtures("drawn")
def test_the_figures_that_are_announced_are_those_on_disk(toy: Path, tmp_path: Path) -> None:
    for value in (2, 16):
        config = {"params": {"epochs": 20, "context": value}}
        put(toy, "果物", 4, 1, {"a": value, "b": value}, cell={"variant": f"context={value}"}, config=config)
        put(toy, "漢字", 4, 1, {"a": value, "b": value}, cell={"variant": f"context={value}"}, config=config)
    with pytest.warns(UserWarning, match="no installed font") if not has_letters("果物漢字") else nullcontext():
        written = write(ReportConfig(toy, tmp_path / "out"))
    told = {line.split(": ")[1].split(";")[0]: line for line in written.not_drawn}
    assert "mean ranks over tasks; 2 tasks" in told.pop("mean ranks over tasks")
    assert "no record has similarities" in told.pop("similarity of tasks")
    curves, calibration = told.values()
    assert "no curves" in curves and "predictions" in calibration  # as in older records
    assert len(set(written.figures)) == len(written.figures) == 10  # eight kinds, and an ablation of each method
    on_disk = {f"figures/{path.name}" for path in (tmp_path / "out/figures").iterdir()}
    assert on_disk == {f"{name[:-3]}{kind}" for name in written.figures for kind in ("png", "svg")}


def has_letters(text: str) -> bool:
    return any(set(text) <= fonts._letters(path) for _, path in fonts._installed())


def test_a_method_looks_the_same_in_all_blocks(toy: Path) -> None:
    put(toy, "own", 4, 1, {"a": 4.0, "b": 4.0})
    put(toy, "own", 4, 1, {"a": 4.0}, cell={"suite": "other"})
    put(toy, "another", 4, 1, {"a": 4.0}, cell={"suite": "other"})
    put(toy, "coop", 4, 1, {"a": 4.0}, cell={"suite": "other"})
    other, first = split(load(ReportConfig(toy)).rows)
    assert style(first, "own") == style(other, "own")
    assert style(first, "coop") == style(other, "coop")
    looks = {(look["color"], look["marker"]) for look in (style(other, name) for name in other.main)}
    assert len(looks) == 3


def titles(root: Path) -> list[str]:
    return sorted(block.title for block in split(load(ReportConfig(root)).rows))


def test_titles_tell_apart_suites_of_equal_name_by_what_differs(tmp_path: Path) -> None:
    data = {"fingerprints": {"weights": "w0", "data": "0123456789", "draw": ""}}
    put(tmp_path, "coop", 4, 1, {"a": 50.0, "b": 50.0}, **data)
    assert titles(tmp_path) == ["toy · tiny"]
    put(tmp_path, "coop", 4, 1, {"a": 50.0}, **data)
    assert titles(tmp_path) == ["toy · tiny · 1 task", "toy · tiny · 2 tasks"]
    put(tmp_path, "coop", 4, 1, {"c": 50.0}, **data)
    assert titles(tmp_path) == ["toy · tiny · tasks a", "toy · tiny · tasks a, b", "toy · tiny · tasks c"]
    other = {"fingerprints": {"weights": "w0", "data": "9876543210", "draw": ""}}
    put(tmp_path, "coop", 4, 1, {"c": 50.0}, **other)
    assert titles(tmp_path)[2:] == [f"toy · tiny · tasks c, test data {data}" for data in ("01234567", "98765432")]
    put(tmp_path, "coop", 4, 1, {"c": 50.0}, cell={"suite": "mine"}, title="toy", **data)
    assert titles(tmp_path)[-1] == "toy · tiny · suite toy, tasks c, test data 98765432"
    assert "toy · tiny · suite mine" in titles(tmp_path)


@pytest.mark.usefixtures("drawn")
def test_a_report_of_pictures_alone_says_so(toy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", "--results", str(toy), "--out", str(tmp_path / "out"), "--format", "png"]) == 0
    said = capsys.readouterr().out.splitlines()[0]
    assert re.fullmatch(rf"Wrote \d+ figures in {re.escape(str(tmp_path / 'out' / 'figures'))}, from 13 cells\.", said)


@pytest.mark.usefixtures("drawn")
def test_one_shot_count_and_no_zero_shot_still_make_a_report(tmp_path: Path) -> None:
    put(tmp_path / "runs", "coop", 4, 1, {"a": 50.0})
    report(tmp_path / "runs", tmp_path / "out")
    assert table(tmp_path / "out") == [["method", "params", "4-shot"], ["coop", "1,000", "50.00"]]
    names = {path.stem.rpartition("-")[2] for path in (tmp_path / "out" / "figures").iterdir()}
    assert names == {"accuracy", "time", "params"}  # no gain over what was not measured, no panels for one task


@pytest.mark.usefixtures("drawn")
def test_zero_shot_alone_makes_tables_and_no_figure(tmp_path: Path) -> None:
    put(tmp_path / "runs", "zero-shot", 0, 0, {"a": 40.0, "b": 50.0})
    report(tmp_path / "runs", tmp_path / "out")
    assert row(tmp_path / "out", "zero-shot")["0-shot"] == "45.00"
    assert not (tmp_path / "out" / "figures").exists()


def test_one_shot_is_called_so(tmp_path: Path) -> None:
    put(tmp_path / "runs", "coop", 1, 1, {"a": 50.0})
    put_halves(tmp_path / "runs", "coop", 1, 1, {"a": (40.0, 60.0)})
    report(tmp_path / "runs", tmp_path / "out")
    text = (tmp_path / "out" / "table.md").read_text()
    assert "every task at 1 shot\n" in text and "classes at 1 shot." in text and "1 shots" not in text


def test_footnotes_are_numbered_in_every_table(toy: Path, tmp_path: Path) -> None:
    put(toy, "protonet", 4, 1, {"a": 4.0, "b": 4.0}, footnote="Not comparable with the paper's.")
    put(toy, "softcpt-star", 4, 1, {"a": 5.0, "b": 5.0}, footnote="Our reading.")
    report(toy, tmp_path / "out")
    text = (tmp_path / "out" / "table.md").read_text()
    assert row(tmp_path / "out", "protonet<sup>1</sup>") and row(tmp_path / "out", r"softcpt-star<sup>2</sup>")
    tasks = [cells[0] for cells in table(tmp_path / "out", "toy · tiny · every task at 4 shots")]
    assert tasks[:5] == ["method", "metric", "classes", "test images", "zero-shot"]  # turned: five methods, two tasks
    assert "protonet<sup>1</sup>" in tasks and "softcpt-star<sup>2</sup>" in tasks
    assert text.count("\n<sup>1</sup> Not comparable with the paper's.") == 3
    assert (tmp_path / "out" / "table.tex").read_text().count("$^{2}$ Our interpretation.") == 3


def test_failed_cells_are_listed_with_their_reason(toy: Path, tmp_path: Path) -> None:
    for seed, error in ((1, "too slow"), (2, "out of | <memory>"), (3, "out of | <memory>")):
        failed = put(toy, "plot", 4, seed, {"a": 0.0}, config={"fold": "2 of 4"} if seed == 1 else {})
        record = json.loads(failed.read_text())
        failed.write_text(json.dumps({**record, "status": "failed", "error": error, "tasks": None}))
    frame = report(toy, tmp_path / "out")
    text = (tmp_path / "out" / "table.md").read_text()
    assert "13 cells done, 3 failed" in text
    first, second = table(tmp_path / "out", "Failed cells (3)")[1:]
    assert first[0] == "suite toy, backbone tiny, method plot, protocol few-shot, fold 2 of 4, shots 4"
    assert first[1:] == ["1", "too slow"]
    assert second[1:] == ["2, 3", r"out of \| &lt;memory&gt;"]
    assert "plot" not in set(frame["method"])


def test_damaged_and_foreign_files_are_named_and_left_out(toy: Path, tmp_path: Path) -> None:
    whole = put(toy, "coop", 1, 9, {"a": 0.0, "b": 0.0})
    (toy / "half.json").write_text(whole.read_text()[:200])
    whole.write_text(json.dumps({**json.loads(whole.read_text()), "tasks": [{"task": "a", "accuracy": float("nan")}]}))
    (toy / "foreign.json").write_text('["not", "a", "record"]')
    (toy / "package.json").write_text('{"name": "x"}')
    (toy / "bytes.json").write_bytes(b"\xff\xfe\x00")
    with pytest.warns(UserWarning) as caught:
        frame = report(toy, tmp_path / "out")
    said = "\n".join(str(warning.message) for warning in caught)
    assert all(name in said for name in ("half.json", "foreign.json", "package.json", "bytes.json", whole.name))
    assert len(frame) == 13 * 2


def test_a_cell_recorded_twice_counts_once_the_latest(toy: Path, tmp_path: Path) -> None:
    put(toy / "copy", "coop", 1, 1, {"a": 43.0, "b": 63.0}, finished="2026-02-01T00:00:00+00:00")
    with pytest.warns(UserWarning, match="recorded twice"):
        report(toy, tmp_path / "out")
    assert row(tmp_path / "out", "coop")["1-shot"] == f"{(53 + 51 + 52) / 3:.2f} ± 1.00 ≈"  # not better on all pairs


@pytest.mark.parametrize("folder", ["missing", "empty"])
def test_no_records_is_an_error_that_says_what_to_run(tmp_path: Path, folder: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"no records below .*python -m bench run"):
        report(tmp_path / folder, tmp_path / "out")


def test_only_failures_is_an_error_with_the_first_reason(tmp_path: Path) -> None:
    path = put(tmp_path / "runs", "coop", 1, 1, {"a": 1.0})
    path.write_text(json.dumps({**json.loads(path.read_text()), "status": "failed", "error": "no memory"}))
    with pytest.raises(UserError, match=r"no finished cell below .*: 1 cell failed, .* no memory"):
        report(tmp_path / "runs", tmp_path / "out")


@pytest.mark.usefixtures("drawn")
def test_names_from_records_are_escaped_everywhere(tmp_path: Path) -> None:
    evil = "<script>alert(1)</script> a|b $x_{ & 100 % # `c` [l](u)"
    for shots, method in ((0, "zero-shot"), (4, "my_$ethod|*"), (4, "../../up")):
        put(tmp_path / "runs", method, shots, 1, {evil: 40.0 + shots}, cell={"suite": "../x", "backbone": "a/b"})
    report(tmp_path / "runs", tmp_path / "out")
    text = (tmp_path / "out" / "table.md").read_text()
    assert "<script" not in text and "&lt;script&gt;" in text and r"a\|b" in text and "[l](u)" not in text
    assert {len(cells) for cells in table(tmp_path / "out")} == {4}
    tex = (tmp_path / "out" / "table.tex").read_text()
    assert r"a|b \$x\_\{ \& 100 \% \# `c` {[}l](u)" in tex
    assert {path.parent for path in tmp_path.rglob("*.png")} == {tmp_path / "out" / "figures"}


def test_escapes_leave_plain_text_alone() -> None:
    assert escape_markdown("flower recognition 1.5-2") == "flower recognition 1.5-2"
    assert escape_markdown("two\nlines  _x_") == r"two lines \_x\_"
    assert escape_latex("a\\b") == r"a\textbackslash{}b"


def test_reports_need_no_torch() -> None:
    code = "import sys, bench; old = set(sys.modules); from bench.reports import report, figures, tables;"
    code += "print(any(m.split('.')[0] == 'torch' for m in set(sys.modules) - old))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)  # noqa: S603 - a list of our own words, and no shell
    assert found.stdout.strip() == "False"


def test_paper_table_is_the_papers() -> None:
    assert reference.quoted("general10", "zero-shot", 0) == (58.29, 0.0)
    assert reference.quoted("general10", "coop", 16) == (73.98, 0.17)
    assert reference.quoted("fashion20", "softcpt", 16) == (72.18, 0.19)
    assert len(reference.published()) == 4 * (1 + 12 * 5)
