"""Which records share a row or a table of the report, and what is said where their code, settings or times differ."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from bench.reports import report

sys.path.append(str(Path(__file__).parent))
from test_reports import drawn, no_figures, put, row, table, toy

__all__ = ["drawn", "no_figures", "toy"]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({}, "task list"),
        ({"fingerprints": {"weights": "w1", "data": "d0"}}, "weights' fingerprint"),
        ({"fingerprints": {"weights": "w0", "data": "d1"}}, "data fingerprint"),
    ],
)
def test_what_does_not_compare_stands_in_another_table(
    toy: Path, tmp_path: Path, more: dict[str, Any], said: str
) -> None:
    scores = {"a": 99.0, "b": 99.0} if more else {"a": 99.0}
    put(toy, "coop", 1, 4, scores, **more)
    report(toy, tmp_path / "out")
    text = (tmp_path / "out" / "table.md").read_text()
    assert row(tmp_path / "out", "coop")["1-shot"] == "51.00 ± 1.00"  # the foreign record is not in the mean
    assert len(re.findall(r"^## toy · tiny · [^·\n]+$", text, flags=re.MULTILINE)) == 2 and "**99.00" not in text
    assert f"differ in {said}" in text
    assert pd.read_csv(tmp_path / "out" / "table.csv").query("mean == 99")["n_seeds"].item() == 1


@pytest.mark.parametrize(
    ("config", "told"),
    [({"views": 5}, "views=5"), ({"params": {"epochs": 3}, "views": 20}, "epochs=3")],
)
def test_other_recipes_of_a_method_are_rows_of_their_own(
    toy: Path, tmp_path: Path, config: dict[str, Any], told: str
) -> None:
    put(toy, "coop", 1, 1, {"a": 10.0, "b": 20.0}, config=config)
    report(toy, tmp_path / "out")
    assert row(tmp_path / "out", f"coop ({told})")["1-shot"] == "15.00 (n=1)"
    assert row(tmp_path / "out", f"coop ({told.split('=')[0]}=20)")["1-shot"] == "51.00 ± 1.00"


def test_recipe_of_the_caption_names_who_differs(toy: Path, tmp_path: Path) -> None:
    put(toy, "cocoop", 1, 1, {"a": 10.0, "b": 20.0}, config={"params": {"epochs": 10}, "views": 10})
    report(toy, tmp_path / "out")
    said = "Recipe: 20 epochs, 20 views per image (cocoop: 10 epochs, 10 views per image)."
    assert said in (tmp_path / "out" / "table.md").read_text()


def test_methods_trained_on_other_images_are_named_incomparable(toy: Path, tmp_path: Path) -> None:
    report(toy, tmp_path / "out")
    assert "same few-shot images" not in (tmp_path / "out" / "table.md").read_text()
    put(toy, "kgcoop", 1, 1, {"a": 1.0, "b": 2.0}, fingerprints={"weights": "w0", "data": "d0", "draw": "other"})
    report(toy, tmp_path / "out")
    assert "Not all methods were trained on the same few-shot images" in (tmp_path / "out" / "table.md").read_text()


@pytest.mark.usefixtures("drawn")
def test_variants_stand_in_an_ablation_of_their_own(toy: Path, tmp_path: Path) -> None:
    for seed in (1, 2, 3):
        for value in (2, 16):
            config = {"params": {"epochs": 20, "context": value}}
            put(toy, "kgcoop", 4, seed, {"a": value, "b": value}, cell={"variant": f"context={value}"}, config=config)
        put(toy, "kgcoop", 4, seed, {"a": 4.0, "b": 4.0}, config={"params": {"epochs": 20, "context": 4}})
    report(toy, tmp_path / "out")
    main, ablation = table(tmp_path / "out"), table(tmp_path / "out", "toy · tiny · kgcoop")
    assert [cells[0] for cells in main] == ["method", "zero-shot", "coop", "kgcoop", "softcpt"]
    assert ablation[1:] == [
        ["kgcoop", "1,000", "4.00 ± 0.00"],  # six pairs and two comparisons: no p below 2 · 2 / 64
        ["kgcoop (context=2)", "1,000", "2.00 ± 0.00"],
        ["kgcoop (context=16)", "1,000", "16.00 ± 0.00"],
    ]
    assert "default (context=4)" in (tmp_path / "out" / "table.md").read_text()
    assert (tmp_path / "out" / "figures" / "toy-tiny-ablation-kgcoop-context.png").is_file()


@pytest.mark.usefixtures("drawn")
def test_a_setting_that_all_variants_share_is_none_of_the_ablation(toy: Path, tmp_path: Path) -> None:
    for value in (1, 4, 16):
        variant = "epochs=2" if value == 4 else f"context={value},epochs=2"
        config = {"params": {"epochs": 2, "context": value}}
        put(toy, "kgcoop", 4, 1, {"a": value, "b": value}, cell={"variant": variant}, config=config)
    report(toy, tmp_path / "out")
    assert row(tmp_path / "out", "kgcoop (epochs=2)")["4-shot"] == "4.00 (n=1)"
    ablation = [cells[0] for cells in table(tmp_path / "out", "toy · tiny · kgcoop")[1:]]
    assert ablation == ["kgcoop (epochs=2)", "kgcoop (epochs=2,context=1)", "kgcoop (epochs=2,context=16)"]
    assert "default (context=4)" in (tmp_path / "out" / "table.md").read_text()
    assert (tmp_path / "out" / "figures" / "toy-tiny-ablation-kgcoop-context.png").is_file()
    assert not (tmp_path / "out" / "figures" / "toy-tiny-ablation-kgcoop-epochs.png").exists()


def test_a_single_variant_is_a_row_of_the_main_table(toy: Path, tmp_path: Path) -> None:
    put(toy, "kgcoop", 4, 1, {"a": 4.0, "b": 4.0}, cell={"variant": "weight=2.0"})
    report(toy, tmp_path / "out")
    assert row(tmp_path / "out", "kgcoop (weight=2.0)")["4-shot"] == "4.00 (n=1)"
    assert "# Ablation" not in (tmp_path / "out" / "table.md").read_text()


def by_code(root: Path, codes: list[tuple[str, str] | None], method: str = "coop") -> None:
    """Records of a method at 4 shots, seeds 1, 2, …, each of a code and a version of the shared numerics."""
    for seed, code in enumerate(codes, start=1):
        config = dict(zip(("code", "numerics"), code, strict=True)) if code else {}
        put(root, method, 4, seed, {"a": 60.0 + seed, "b": 60.0 + seed}, config=config)


OLD, NEW = ("1111111111aa", "1"), ("2222222222bb", "1")


def test_cells_of_unlike_code_stand_in_one_row_with_a_footnote(tmp_path: Path) -> None:
    by_code(tmp_path / "runs", [OLD, NEW, NEW, None])
    by_code(tmp_path / "runs", [OLD, OLD, OLD, OLD], "softcpt")
    report(tmp_path / "runs", tmp_path / "out")
    assert row(tmp_path / "out", "coop<sup>1</sup>")["4-shot"] == "62.50 ± 1.29 ≈"  # of 61, 62, 63, 64; softcpt's too
    text = (tmp_path / "out" / "table.md").read_text()
    assert (
        "<sup>1</sup> Made by different code, of coop: 1 cell of code 11111111, numerics 1; 2 cells of code 22222222, "
        "numerics 1; 1 cell of code not recorded." in text.replace("\\", "")
    )
    assert text.count("different code") == 3  # below the three tables, and not of softcpt
    assert "Made by different code" in (tmp_path / "out" / "table.tex").read_text()
    records = pd.read_csv(tmp_path / "out" / "records.csv", dtype=str, keep_default_na=False)
    coop = records[(records["method"] == "coop") & (records["task"] == "a")]
    assert list(zip(coop["seed"], coop["code"], coop["numerics"], strict=True)) == [
        ("1", "1111111111aa", "1"), ("2", "2222222222bb", "1"), ("3", "2222222222bb", "1"), ("4", "", ""),
    ]  # fmt: skip


def test_cells_trained_side_by_side_are_told_from_those_trained_alone(tmp_path: Path) -> None:
    for seed, beside in ((1, [1, 2]), (2, [1, 2]), (3, None)):
        put(tmp_path / "runs", "coop", 4, seed, {"a": 60.0, "b": 61.0}, trained_together=beside)
        put(tmp_path / "runs", "softcpt", 4, seed, {"a": 60.0, "b": 61.0})
    table = report(tmp_path / "runs", tmp_path / "out")
    text = (tmp_path / "out" / "table.md").read_text()
    assert "coop<sup>1</sup>" in text and "softcpt<sup>" not in text
    note = "<sup>1</sup> Trained with other seeds side by side (--seeds-at-once), of coop: 2 of 3 cells."
    assert note in text.replace("\\", "")
    coop = table[(table["method"] == "coop") & (table["task"] == "a")]
    assert dict(zip(coop["seed"], coop["together"], strict=True)) == {1: "1 2", 2: "1 2", 3: ""}


@pytest.mark.parametrize("code", [OLD, None])
def test_cells_of_one_code_have_no_footnote(tmp_path: Path, code: tuple[str, str] | None) -> None:
    by_code(tmp_path / "runs", [code, code])
    report(tmp_path / "runs", tmp_path / "out")
    text = (tmp_path / "out" / "table.md").read_text()
    assert "code" not in text and "<sup>" not in text


def test_rows_of_several_numerics_are_told_in_the_caption(tmp_path: Path) -> None:
    by_code(tmp_path / "runs", [OLD, OLD])
    by_code(tmp_path / "runs", [("33", "2"), ("33", "2")], "softcpt")
    by_code(tmp_path / "runs", [None, None], "kgcoop")
    report(tmp_path / "runs", tmp_path / "out")
    text = (tmp_path / "out" / "table.md").read_text()
    assert "Made by several versions of the shared numerics (1: coop; 2: softcpt)" in text
    assert "<sup>" not in text


def test_a_plug_in_s_code_is_named_by_its_hash(tmp_path: Path) -> None:
    by_code(tmp_path / "runs", [("my.module:Mine:abcdef123456", "1"), ("my.module:Mine:fedcba654321", "1")], "mine")
    report(tmp_path / "runs", tmp_path / "out")
    assert "1 cell of code abcdef12, numerics 1; 1 cell of code fedcba65" in (tmp_path / "out" / "table.md").read_text()


def test_a_cell_run_again_with_other_code_counts_once_and_it_is_said(tmp_path: Path) -> None:
    by_code(tmp_path / "runs", [OLD])
    config = {"code": NEW[0], "numerics": "1"}
    put(tmp_path / "runs", "coop", 4, 1, {"a": 80.0, "b": 80.0}, config=config, finished="2026-02-01T00:00:00+00:00")
    with pytest.warns(UserWarning, match="2 results are recorded twice, 2 of them by different code; the latest"):
        report(tmp_path / "runs", tmp_path / "out")
    assert row(tmp_path / "out", "coop")["4-shot"] == "80.00"


def recorded(root: Path, seed: int, variant: str, params: dict[str, Any], **more: Any) -> None:
    put(root, "coop", 4, seed, {"a": 60.0 + seed}, cell={"variant": variant}, config={"params": params}, **more)


@pytest.mark.parametrize("held", [True, False])
def test_seeds_of_one_setting_are_one_row_however_they_were_asked_for(tmp_path: Path, held: bool) -> None:
    changed = {"epochs": 20, "context": 4, "lr": 0.5}
    more: dict[str, Any] = {"defaults": {"epochs": 20, "context": 16, "lr": 0.1}} if held else {}
    recorded(tmp_path / "runs", 1, "context=4,lr=0.5", changed, **more)
    recorded(tmp_path / "runs", 2, "lr=0.5,context=4", changed, **more)
    recorded(tmp_path / "runs", 3, "", changed, recipe="mine.yaml", **more)
    recorded(tmp_path / "runs", 1, "", {"epochs": 20, "context": 16, "lr": 0.1}, **more)
    frame = report(tmp_path / "runs", tmp_path / "out")
    assert sorted(zip(frame["variant"], frame["seed"], strict=True)) == [
        ("", 1), ("context=4,lr=0.5", 1), ("context=4,lr=0.5", 2), ("context=4,lr=0.5", 3),
    ]  # fmt: skip
    assert set(frame["setting"]) == {""}


def test_a_parameter_whose_default_no_record_shows_is_named_as_recorded(tmp_path: Path) -> None:
    recorded(tmp_path / "runs", 1, "words=a photo, of", {"epochs": 20, "words": "a photo, of"})
    recorded(tmp_path / "runs", 2, "words=a photo, of,epochs=3", {"epochs": 3, "words": "a photo, of"})
    frame = report(tmp_path / "runs", tmp_path / "out")
    assert list(frame.sort_values("seed")["variant"]) == ["words=a photo, of", "epochs=3,words=a photo, of"]
