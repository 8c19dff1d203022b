"""Recipes: the paper's, a file of one's own, and what stands above what."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import bench
from bench.cli import main
from bench.config import RunConfig
from bench.datasets.spec import load_suite
from bench.errors import UserError
from bench.methods import find_method, method_names
from bench.methods.training import Recipe as Training
from bench.options import variants
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
            (4, "a photo of a") if method in ("cocoop", "shared-cocoop", "kgcoop", "lasp") else (16, "")
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
        ("when: {shots: 1}", "`when` must be a list"),
        ("when: [{coop: {epochs: 3}}]", "`when`, entry 1 must be a map with `shots` or `task`"),
        ("when: [{shots: 1, coop: {epochs: 3}}, {shots: 1}]", "`when`, entry 2: name the methods"),
        ("when: [{shots: 1, all: {epochs: 3}}]", "`when`, entry 1: name the methods"),
        ("when: [{shots: one, coop: {epochs: 3}}]", r"`shots` must be numbers such as \[8, 16\], not 'one'"),
        ("when: [{shots: [true], coop: {epochs: 3}}]", "`shots` must be numbers"),
        ("when: [{task: 3, kgcoop: {words: a}}]", r"`task` must be names of tasks such as \[DTD\], not 3"),
        ("when: [{shots: 1, coopp: {epochs: 3}}]", "entry 1: 'coopp' is not a method; did you mean 'coop'"),
        ("when: [{shots: 1, coop: {epoch: 3}}]", "entry 1: coop has no parameter 'epoch'; did you mean 'epochs'"),
        ("when: [{shots: 1, coop: {epochs: 0}}]", "epochs=0: at least 1"),
        ("when: [{task: DTD, coop: {epochs: 3}}]", "coop: `epochs` is one for all tasks; it has none that may differ"),
        ("when: [{task: DTD, kgcoop: {pull: 3}}]", "kgcoop: `pull` is one for all .*; by task it has template, words"),
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


def test_a_recipe_may_name_the_user_s_own_method(tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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


RULES = """
kgcoop: {epochs: 7}
when:
  - {shots: [1, 2], kgcoop: {epochs: 3}}
  - {shots: 2, kgcoop: {epochs: 4}}
  - {task: Shade, kgcoop: {template: "my {}"}}
  - {shots: 2, task: [Colour, Shade], kgcoop: {words: "my very own photo"}}
"""


def test_values_by_shots_and_by_task(tiny: Any, tmp_path: Path) -> None:
    """A later entry stands above an earlier one; shot counts that none names have the values above."""
    file = tmp_path / "mine.yaml"
    file.write_text(RULES)
    run = prepare(
        RunConfig(**{**tiny.arguments, "shots": [1, 2, 4], "seeds": [1], "methods": ["kgcoop"], "recipe": str(file)})
    )
    found = {c.shots: (c.config["params"]["epochs"], c.views, c.config["params_by_task"]) for c in run.cells}
    own = {"template": "my {}"}
    assert found == {
        1: (3, 3, {"Shade": own}),
        2: (4, 4, {"Colour": {"words": "my very own photo"}, "Shade": {**own, "words": "my very own photo"}}),
        4: (7, 7, {"Shade": own}),
    }
    assert {c.variant.label for c in run.cells} == {"recipe=mine"}
    by_shots = {c.shots: c.variant.make() for c in run.cells}
    assert [by_shots[n].params.epochs for n in (1, 2, 4)] == [3, 4, 7]
    colour, shade, size = run.tasks[0], next(t for t in run.tasks if t.name == "Shade"), by_shots[2]
    assert (size.params_of(colour).template, size.params_of(shade).template) == ("", "my {}")


def test_an_option_stands_above_a_rule_and_the_row_says_so(tiny: Any, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(RULES)
    arguments = {**tiny.arguments, "shots": [1, 2], "seeds": [1], "methods": ["kgcoop"], "recipe": str(file)}
    run = prepare(RunConfig(**arguments, options=["kgcoop.epochs=7", "kgcoop.template=a {}"]))
    assert [c.config["params"]["epochs"] for c in run.cells] == [7, 7]
    assert [set(c.config.get("params_by_task", {})) for c in run.cells] == [set(), {"Colour", "Shade"}]
    assert {c.variant.label for c in run.cells} == {"recipe=mine,template=a {},epochs=7"}


def test_without_rules_for_it_a_method_s_key_is_as_before(tiny: Any, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("coop: {epochs: 3}\n" + RULES.replace("kgcoop: {epochs: 7}", ""))
    ruled, plain = (
        planned(tiny, tmp_path, methods=["coop"], **given)["coop"]
        for given in ({"recipe": str(file)}, {"options": ["coop.epochs=3"]})
    )
    assert ruled == plain


def test_a_rule_for_a_task_that_no_suite_has_is_an_error(tiny: Any, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text('when: [{task: Shad, kgcoop: {template: "my {}"}}]')
    with pytest.raises(UserError, match="no suite has a task 'Shad'; did you mean 'Shade'"):
        planned(tiny, tmp_path, methods=["coop"], recipe=str(file))
    file.write_text('when: [{task: DTD, kgcoop: {template: "my {}"}}]')  # of another suite: passed over
    assert "params_by_task" not in planned(tiny, tmp_path, methods=["kgcoop"], recipe=str(file))["kgcoop"]


def test_a_recipe_with_rules_is_one_row_of_the_table(tiny: Any, tmp_path: Path) -> None:
    file, results = tmp_path / "mine.yaml", tmp_path / "runs"
    file.write_text(RULES.replace("kgcoop", "prograd").replace("my very own photo", ""))
    common = {**tiny.arguments, "shots": [1, 2], "seeds": [1, 2], "methods": ["prograd"], "results": results}
    bench.run(**common, recipe=str(file), quiet=True)
    bench.run(**common, quiet=True)
    table = bench.report(results, tmp_path / "out")
    rows = table.groupby(["variant", "setting"])["shots"].agg(lambda shots: sorted(set(shots)))
    assert dict(rows) == {("", ""): [1, 2], ("recipe=mine", ""): [1, 2]}
    first = next(p for p in (tmp_path / "out" / "table.md").read_text().split("\n\n") if p.startswith("|"))
    caption = (tmp_path / "out" / "table.md").read_text().replace("\\", "")
    assert "prograd (recipe=mine): 3 to 4 epochs, 3 to 4 views per image" in caption
    assert "prograd (recipe=mine)" in first and "| prograd  " in first
    learned = results.rglob("2shot-seed1-*.safetensors")
    (kept,) = [path for path in learned if "recipe=mine" in path.with_suffix(".json").read_text()]
    loaded = bench.load_cell(str(kept))
    templates = {task.name: loaded.method.params_of(task).template for task in loaded.tasks}
    assert templates == {"Colour": "", "Shade": "my {}", "Stripes": ""}
    assert loaded.method.params.epochs == 4


AUTHORS = {  # epochs, share of OxfordFlowers, by shots
    1: (50, 1.0),
    2: (100, 1.0),
    4: (100, 1.0),
    8: (200, 0.8),
    16: (200, 0.8),
}


def test_the_authors_recipe_is_prograd_s_and_kgcoop_s_public_one() -> None:
    recipe = load_recipe("authors")
    prograd, kgcoop = variants(
        [find_method(name) for name in ("prograd", "kgcoop")], [], [{}, recipe.values], recipe.rules, recipe.name
    )
    names = [task.name for task in load_suite("general10").tasks]
    for shots, (epochs, share) in AUTHORS.items():
        made = prograd.at(shots, names).make()
        assert (made.params.epochs, made.params.batch, made.params.context) == (epochs, 32, 16)
        shares = {name: made.by_task.get(name, made.params).projection for name in names}
        assert shares == {name: share if name in ("OxfordFlowers", "DTD", "EuroSAT") else 1.0 for name in names}
        assert made.by_task["DTD"].words == "a texture of"
        assert made.by_task["Food101"].template == "a type of food, a photo of {}."
        pulled = kgcoop.at(shots, names).make()
        assert (pulled.params.epochs, pulled.params.batch, pulled.params.pull) == (100, 128, 8.0)
        assert (pulled.params.context, pulled.params.words) == (4, "a photo of a")
        assert {name: own.template for name, own in pulled.by_task.items()} == {
            "DTD": "a photo of a {}, a type of texture."
        }


@pytest.mark.parametrize("name", ["cocoop", "shared-cocoop"])
def test_the_authors_recipe_of_cocoop_is_its_public_one_on_one_task_and_on_several(name: str) -> None:
    recipe = load_recipe("authors")
    (made,) = variants([find_method(name)], [], [{}, recipe.values], recipe.rules, recipe.name)
    p = made.params
    assert (p.context, p.words, p.batch, p.epochs, p.lr) == (4, "a photo of a", 1, 10, 0.002)


def test_the_authors_recipe_of_the_heads_is_their_configurations_by_task_and_shots() -> None:
    """As ../shared's specification gives them, read in the authors' repositories."""
    recipe = load_recipe("authors")
    as_they_are = ["clap", "zs-lp", "prolip", "rla"]
    methods = ["tip-adapter", "tip-adapter-f", "taskres", "lp++", "cross-modal-lp", "lasp", "mvlpt", *as_they_are]
    made = variants([find_method(m) for m in methods], [], [{}, recipe.values], recipe.rules, recipe.name)
    by_name = {v.method.name: v for v in made}
    names = [task.name for task in load_suite("general10").tasks]
    imagenet = [task.name for task in load_suite("imagenet").tasks]
    starts = {"Caltech101": 3, "DTD": 2, "EuroSAT": 2, "FGVCAircraft": 5, "Food101": 1.17, "OxfordFlowers": 10,
              "OxfordPets": 1.17, "StanfordCars": 3, "SUN397": 1.17, "UCF101": 3}  # fmt: skip
    for method in ("tip-adapter", "tip-adapter-f"):
        cell = by_name[method].at(16, names)
        own = {name: cell.by_task.get(name, cell.params) for name in names}
        assert {name: params.alpha for name, params in own.items()} == starts
        assert {params.beta for params in own.values()} == {1}
        assert {params.search for params in own.values()} == {"none"}
    epochs = {name: own.epochs for name, own in by_name["tip-adapter-f"].at(1, names).by_task.items()}
    assert {name for name, n in epochs.items() if n != 20} == {"EuroSAT"} and epochs["EuroSAT"] == 100
    for shots, n in {1: 100, 2: 100, 4: 100, 8: 200, 16: 200}.items():
        cell = by_name["taskres"].at(shots, names)
        assert cell.params.epochs == n and {p.epochs for p in cell.by_task.values()} == {n}
        assert {name: own.alpha for name, own in cell.by_task.items()} == {"OxfordFlowers": 1.0}
        assert cell.params.alpha == 0.5
        ((name, own),) = by_name["taskres"].at(shots, imagenet).by_task.items()
        assert (name, own.lr, own.alpha, own.epochs, cell.params.lr) == ("ImageNet", 2e-4, 0.5, n, 2e-3)
    for method in as_they_are:
        assert by_name[method].params == find_method(method).Params() and not by_name[method].rules
    lasp, mvlpt = by_name["lasp"].params, by_name["mvlpt"].params
    assert (lasp.context, lasp.words, lasp.epochs, lasp.batch, lasp.lr) == (4, "a photo of a", 25, 32, 0.032)
    assert (lasp.text_weight, lasp.noise, lasp.names) == (5, 0.05, "own")
    assert (mvlpt.context, mvlpt.position, mvlpt.softmax, mvlpt.epochs) == (16, "middle", "all", 200)
    assert (mvlpt.batch, mvlpt.lr, mvlpt.warmup_lr) == (32, 0.002, 1e-5)
    assert not {"gda", "ape", "ape-t", "clip-adapter"} & {*recipe.values, *recipe.rules}  # nothing published fits
    assert {by_name[method].params.search for method in ("lp++", "cross-modal-lp")} == {"val"}


def test_recipes_for_all_methods_are_not_for_heads(tiny: Any, tmp_path: Path) -> None:
    """The paper's recipe is of learned prompts: CLAP at learning rate 0.002 would be another method."""
    heads = ["clap", "taskres", "tip-adapter-f", "clip-adapter"]
    for recipe in (None, "paper"):
        configs = planned(tiny, tmp_path, methods=heads, recipe=recipe)
        assert {m: configs[m]["params"] for m in heads} == {m: vars(find_method(m).Params()) for m in heads}
    asked = planned(tiny, tmp_path, methods=heads, recipe="paper", options=["all.epochs=3"])
    assert {asked[m]["params"]["epochs"] for m in heads} == {3}
