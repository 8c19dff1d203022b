"""One definition of a run: the command line, `bench.run`, an experiment file and the record agree with `RunConfig`."""

from __future__ import annotations

import inspect
import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

import bench
from bench.cli import main
from bench.config import RunConfig, load_experiment
from bench.errors import UserError
from bench.plan import prepare
from bench.settings import option_of


def test_the_signature_of_run_is_the_config_s() -> None:
    parameters = inspect.signature(bench.run).parameters
    assert [(name, p.default) for name, p in parameters.items()] == [(f.name, f.default) for f in fields(RunConfig)]
    assert "bench.config.RunConfig" in (bench.run.__doc__ or "")


def test_every_field_is_an_option_with_its_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["run", "--help"])
    shown = " ".join(capsys.readouterr().out.split())
    for f in fields(RunConfig):
        assert option_of(f) in shown
        assert " ".join(f.metadata["help"].split())[:12] in shown


@pytest.mark.parametrize(
    ("given", "name", "value"),
    [
        ({"shots": 1}, "shots", (1,)),
        ({"shots": "1,16"}, "shots", (1, 16)),
        ({"shots": [4, 1, 4]}, "shots", (4, 1)),
        ({"seeds": 0}, "seeds", (0,)),
        ({"tasks": "Colour"}, "tasks", ("Colour",)),
        ({"tasks": ["Colour", "Shade"]}, "tasks", ("Colour", "Shade")),
        ({"methods": "coop, softcpt"}, "methods", ("coop", "softcpt")),
        ({"options": ["coop.words=a, b"]}, "options", ("coop.words=a, b",)),
        ({"options": "coop.epochs=2,3"}, "options", ("coop.epochs=2,3",)),
        ({"options": {"coop.epochs": 2}}, "options", ("coop.epochs=2",)),
        ({"options": [{"coop.epochs": 2}, "coop.lr=1"]}, "options", ("coop.epochs=2", "coop.lr=1")),
        ({"options": {"coop": {"epochs": [2, 3], "lr": 0.5}}}, "options", ("coop.epochs=2,3", "coop.lr=0.5")),
        ({"options": {"coop.words": "a photo, of a"}}, "options", ('coop.words="a photo, of a"',)),
        ({"views": "3"}, "views", 3),
        ({"data": Path("here")}, "data", "here"),
    ],
)
def test_a_value_is_taken_for_what_is_meant(given: dict[str, Any], name: str, value: Any) -> None:
    assert getattr(RunConfig(**given), name) == value


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"shots": [1.5]}, "--shots '1.5': write whole numbers"),
        ({"shots": []}, "--shots: none given"),
        ({"seeds": -1}, "--seeds '-1': -1 is less than 0"),
        ({"views": True}, "--views True: write a whole number"),
        ({"keep": "yes"}, "--discard 'yes': write true or false"),
        ({"precision": "half"}, "--precision 'half': one of float32, bfloat16"),
        ({"suite": 3}, "--suite 3: write a text"),
        ({"options": {"coop.epochs": None}}, "-o coop.epochs: None is no value; write coop.epochs: 20, or"),
        ({"options": [["coop.epochs", 2]]}, "-o [['coop.epochs', 2]]: write texts such as coop.epochs=20"),
    ],
)
def test_a_value_that_no_run_can_have_is_refused(given: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError) as error:
        RunConfig(**given)
    assert str(error.value).startswith(says)


def test_home_is_expanded_wherever_a_path_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    config = RunConfig(data="~/d", results="~/r", draws="~/w", backbone="~/m.json", recipe="~/r.yaml", suite="~/s.yaml")
    assert config.data == "/home/someone/d" and config.results == "/home/someone/r"
    assert (config.draws, config.backbone) == ("/home/someone/w", "/home/someone/m.json")
    assert (config.recipe, config.suite) == ("/home/someone/r.yaml", "/home/someone/s.yaml")


def test_an_argument_that_no_run_has_is_named_with_the_nearest() -> None:
    with pytest.raises(TypeError, match=r"bench\.run\(\) has no argument 'shot'; did you mean 'shots'\?"):
        bench.run(shot=1)  # type: ignore[call-arg]


def test_an_experiment_file_gives_settings_and_options_stand_above_it(
    tiny: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "mine.yaml"
    settings = {"suite": tiny.suite, "backbone": tiny.backbone, "data": str(tiny.data), "tasks": "Colour"}
    file.write_text(json.dumps({**settings, "methods": ["coop"], "shots": [1, 2], "seeds": 1, "results": "runs"}))
    assert main(["run", str(file), "--shots", "2"]) == 0
    (record,) = tiny.records(tmp_path / "runs").values()  # beside the file that names them
    assert (record["cell"]["method"], record["cell"]["shots"], record["cell"]["seed"]) == ("coop", 2, 1)
    assert record["run"]["shots"] == [2] and record["run"]["tasks"] == ["Colour"]
    assert record["run"]["suite"] == "tiny.yaml"  # no folder of this machine


def test_options_as_a_yaml_map_are_those_of_the_command_line(tiny: Any, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("options:\n  coop.epochs: [3, 2]\n  coop.words: a picture, of\n")
    plan = prepare(RunConfig(**{**tiny.arguments, **load_experiment(file), "methods": "coop", "shots": 1, "seeds": 1}))
    assert [(c.config["params"]["epochs"], c.config["params"]["words"]) for c in plan.cells] == [
        (3, "a picture, of"), (2, "a picture, of"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("shot: 1", "no run has a setting 'shot'; did you mean 'shots'?"),
        ("[1, 2]", "mine.yaml"),
        (None, "no such file"),
    ],
)
def test_a_faulty_experiment_file_is_named(tmp_path: Path, content: str | None, says: str) -> None:
    file = tmp_path / "mine.yaml"
    if content is not None:
        file.write_text(content)
    with pytest.raises(UserError) as error:
        load_experiment(file)
    assert says in str(error.value)
