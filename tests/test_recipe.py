"""Recipes: the paper's, a file of one's own, and what stands above what."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bench.cli import main
from bench.config import RunConfig
from bench.errors import UserError
from bench.methods import find_method, method_names
from bench.methods.training import Recipe as Training
from bench.plan import prepare
from bench.recipe import load_recipe

PAPER = {
    "epochs": 50,
    "batch": 32,
    "lr": 0.002,
    "warmup_lr": 1e-5,
    "momentum": 0.9,
    "weight_decay": 5e-4,
    "init_std": 0.02,
}


def planned(tiny: Any, tmp_path: Path, **changes: Any) -> dict[str, dict[str, Any]]:
    """Configuration of one cell of each method."""
    settings = {**tiny.arguments, "shots": [1], "seeds": [1], **changes}
    run = prepare(RunConfig(results=tmp_path / "runs", quiet=True, **settings))
    return {cell.config["method"]: cell.config for cell in run.cells}


def test_the_paper_s_recipe_stands_above_the_suite_s_for_every_method(tiny: Any, tmp_path: Path) -> None:
    """The tiny suite's own recipe is 2 epochs at 0.5."""
    trained = [m for m in method_names() if issubclass(find_method(m).Params, Training)]
    assert len(trained) >= 13
    configs = planned(tiny, tmp_path, methods=trained, recipe="paper")
    for method in trained:
        params = configs[method]["params"]
        assert {name: params[name] for name in PAPER} == PAPER
        assert configs[method]["views"] == 50  # a fresh view each epoch
        assert (params["context"], params["words"]) == (
            (4, "a photo of a") if method in ("cocoop", "kgcoop") else (16, "")
        )


def test_options_stand_above_the_recipe_and_views_are_the_user_s(tiny: Any, tmp_path: Path) -> None:
    configs = planned(tiny, tmp_path, methods=["coop"], recipe="paper", options=["coop.epochs=7"], views=3)
    assert configs["coop"]["params"]["epochs"] == 7 and configs["coop"]["views"] == 3
    assert configs["coop"]["params"]["lr"] == 0.002


def test_a_file_of_one_s_own(tiny: Any, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("title: Mine\nviews: 2\nall: {epochs: 4}\nkgcoop: {epochs: 3, pull: 2.5, words: ''}\n")
    configs = planned(tiny, tmp_path, methods=["coop", "kgcoop"], recipe=str(file))
    assert [configs[m]["params"]["epochs"] for m in ("coop", "kgcoop")] == [4, 3]
    assert configs["kgcoop"]["params"]["pull"] == 2.5
    assert configs["coop"]["params"]["lr"] == 0.5  # what it leaves open is the suite's
    assert configs["coop"]["views"] == 2
    assert main(tiny.command(tmp_path / "runs", "--recipe", str(file))) == 0
    records = [json.loads(p.read_text()) for p in (tmp_path / "runs").rglob("coop/*.json")]
    assert records and all(r["recipe"] == str(file) and r["config"]["params"]["epochs"] == 4 for r in records)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("coopp: {epochs: 4}", "'coopp' is not a method; did you mean 'coop'"),
        ("coop: {epoch: 4}", "coop has no parameter 'epoch'; did you mean 'epochs'"),
        ("all: {nonsense: 4}", "no method has a parameter 'nonsense'"),
        ("coop: 4", "`coop` must be a map"),
        ("veiws: 4", "'veiws' is not a method; did you mean 'views'"),
        ("title: 4", "`title` must be text, not 4"),
        ("source: [a]", r"`source` must be text, not \['a'\]"),
        ("kgcoop: {pull: strong}", "kgcoop: `pull`: 'strong' is not a value of type float"),
        ("coop: {epochs: true}", "coop: `epochs`: 'True' is not a value of type int"),
        ("coop: {epochs: [4]}", r"coop: `epochs` must be a number or a text, not \[4\]"),
        ("coop: {words: no}", r"coop: `words` must be text, not False \(put it in quotes\)"),
        ("coop: {words: }", "coop: `words` must be a number or a text, not None"),
        ("all: {epochs: 0}", "`epochs`: .*epochs=0: at least 1"),
        ("views: 0", "`views` must be"),
        ("views: many", "`views` must be"),
        ("- a list", "a map"),
        ("all: {epochs: [", "not YAML"),
    ],
)
def test_a_recipe_that_makes_no_sense_is_an_error_that_names_the_file(tmp_path: Path, content: str, said: str) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(content)
    with pytest.raises(UserError, match=said) as error:
        load_recipe(str(file))
    assert str(file) in str(error.value)


@pytest.mark.parametrize(
    ("recipe", "said"),
    [
        ("{epoch: 2}", "recipe: no method has a parameter 'epoch'; did you mean 'epochs'"),
        ("{epochs: many}", "recipe: all: `epochs`: 'many' is not a value of type int"),
        ("{pull: strong}", "recipe: all: `pull`: 'strong'"),  # KgCoOp's, which does not run here
    ],
)
def test_a_mistake_in_a_suite_s_recipe_is_named(own_tiny: Any, tmp_path: Path, recipe: str, said: str) -> None:
    suite = Path(own_tiny.suite)
    suite.write_text(suite.read_text().replace("{epochs: 2, lr: 0.5, batch: 8}", recipe))
    with pytest.raises(UserError, match=said) as error:
        planned(own_tiny, tmp_path)
    assert str(suite) in str(error.value)


def test_a_recipe_may_name_the_user_s_own_method(
    tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_coop.py").write_text(
        "from dataclasses import dataclass\nfrom bench.methods import param\nfrom bench.methods.coop import CoOp\n"
        "class Own(CoOp):\n    name = 'own'\n    @dataclass(frozen=True)\n    class Params(CoOp.Params):\n"
        "        spice: float = param(1.0, 'how hot')\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    file = tmp_path / "mine.yaml"
    file.write_text("own: {spice: 3}\n")
    assert planned(tiny, tmp_path, methods=["own_coop:Own"], recipe=str(file))["own"]["params"]["spice"] == 3
    with pytest.raises(UserError, match="'own' is not a method"):
        planned(tiny, tmp_path, methods=["coop"], recipe=str(file))


def test_an_unknown_recipe_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="'papers' is unknown; did you mean 'paper'"):
        load_recipe("papers")
    with pytest.raises(UserError, match=r"--recipe nothing\.yaml: no such file"):
        load_recipe("nothing.yaml")
