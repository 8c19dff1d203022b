"""Values that change nothing are refused or told: by hand which these are, and that they do change nothing."""

from __future__ import annotations

import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import torch

from bench.cli import main
from bench.config import RunConfig
from bench.errors import UserError
from bench.methods import find_method, method_names
from bench.plan import prepare

sys.path.append(str(Path(__file__).parent))
from test_methods_heads import clip, larger
from test_unseen_task import world_of

pytestmark = pytest.mark.usefixtures("one_thread")


def planned(tiny: Any, results: Path, method: str, *options: str, **more: Any) -> Any:
    grid = {**tiny.arguments, "methods": [method], "shots": [1], "seeds": [1], "options": list(options)}
    return prepare(RunConfig(**{**grid, "results": str(results), **more}))


CHOSEN, NODES, OTHERS = "search=val chooses it", "node_scale=0 leaves no nodes", "a=0 takes nothing from other tasks"
REFUSED = [
    *((f"{name}.alpha=2", [f"{name}.search=val"], CHOSEN) for name in ("tip-adapter", "ape")),
    ("tip-adapter.beta=1,2", ["tip-adapter.search=none,val"], CHOSEN),
    ("ape.gamma=0.1", ["all.search=val"], CHOSEN),
    ("gda.strength=2", ["gda.search=val"], CHOSEN),
    *((f"rla.{name}=0.1", ["rla.search=val"], CHOSEN) for name in ("lr", "pull", "power")),
    ("prolip.pull=0.1", ["prolip.search=val"], CHOSEN),
    *((f"cross-modal-lp.{given}", ["cross-modal-lp.search=val"], CHOSEN) for given in ("lr=0.1", "batch=8")),
    ("ape-t.gamma=0.2", [], "the images' weights are learned"),
    *((f"softcpt-residual.{given}", ["softcpt-residual.node_scale=0"], NODES) for given in (
        "nodes=leaves", "shuffle=1", "leaf_decay=0.1")),
    *((f"softcpt-graph.{given}", ["softcpt-graph.a=0"], OTHERS) for given in ("nearest=1", "graph=uniform")),
    ("softcpt-graph.temperature=1", ["softcpt-graph.graph=uniform"], "with graph=uniform all tasks are alike"),
    ("softcpt-graph.nearest=3", [], "a task has 2 others to train with, and 0 takes all"),
    ("lasp.noise=0.1", ["lasp.text_weight=0"], "text_weight=0 leaves its sentences out"),
    ("softcpt.tasks_a_step=4", [], "a step may have all 3 tasks of a training anyway"),
]  # fmt: skip


@pytest.mark.parametrize(("option", "others", "why"), REFUSED)
def test_a_value_that_would_change_nothing_is_refused(
    option: str, others: list[str], why: str, tiny: Any, tmp_path: Path
) -> None:
    """The tiny suite has three tasks: each has two others."""
    method, name = option.split("=")[0].rsplit(".", 1)
    with pytest.raises(UserError) as told:
        planned(tiny, tmp_path, method, *others, option)
    assert str(told.value).startswith(f"-o {option}: {name} changes nothing: {why}")


def test_the_command_ends_with_2_before_anything_is_computed(
    tiny: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ["--methods", "tip-adapter", "-o", "tip-adapter.search=val", "-o", "tip-adapter.alpha=2"]
    assert main(tiny.command(tmp_path / "runs", *more)) == 2
    said = capsys.readouterr().err
    assert "-o tip-adapter.alpha=2: alpha changes nothing: search=val chooses it for each task; leave it out" in said
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("option", ["all.task_temperature=2", "coop.tasks_a_step=2"])
def test_drawing_tasks_where_each_is_trained_alone_is_refused(option: str, tiny: Any, tmp_path: Path) -> None:
    """Each cell would end with an error. With `joint` the tasks are trained together."""
    with pytest.raises(UserError, match=f"^-o {option}: coop trains each task alone, so that no step draws tasks$"):
        planned(tiny, tmp_path, "coop", option)
    assert planned(tiny, tmp_path, "coop", "coop.joint=true", option).cells


def test_a_quiet_run_says_why_its_first_cell_failed(tiny: Any, tmp_path: Path, capsys: Any) -> None:
    """Without progress nothing stands above."""
    options = ["-o", "prograd.joint=true", "-o", "prograd.tasks_a_step=2"]
    more = ["--methods=prograd", "--shots=1", "--seeds=1", *options]
    assert main(tiny.command(tmp_path, *more, "--quiet")) == 1
    said = capsys.readouterr().err
    assert "1 cell failed, the first with: tasks_a_step: prograd makes gradients of its own" in said
    assert main(tiny.command(tmp_path, *more)) == 1
    said = capsys.readouterr().err
    assert "1 cell failed, see above" in said and "failed: prograd" in said.partition("1 cell failed")[0]


ALLOWED = [
    ("tip-adapter.alpha=2", [], {}),
    ("lp++.steps=10", ["lp++.search=val"], {}),
    ("tip-adapter-f.alpha=2", ["tip-adapter-f.search=val"], {}),  # with which it is trained
    ("ape.gamma=0.2", [], {}),
    ("softcpt-graph.nearest=2", [], {}),
    ("softcpt.tasks_a_step=2", [], {}),
    ("softcpt-residual.shuffle=1", ["softcpt-residual.node_scale=2"], {}),
    ("softcpt.span=true", [], {"protocol": "unseen-task"}),
    ("softcpt.span=false", [], {}),
    ("lasp.names=all", [], {"protocol": "base2new"}),
]


@pytest.mark.parametrize(("option", "others", "more"), ALLOWED)
def test_of_values_that_count_nothing_is_said(
    option: str, others: list[str], more: dict[str, Any], tiny: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = {"options": [*others, option], **more}
    planned(tiny, tmp_path, option.split(".")[0], **{"methods": [option.split(".")[0]], **given})
    assert "has no use for" not in capsys.readouterr().err


TOLD = [
    (["tip-adapter"], ["tip-adapter.search=val"], {"recipe": "authors"},
     "recipe authors: tip-adapter has no use for alpha and beta here: search=val chooses it for each task"),
    (["rla", "taskres"], ["rla.search=val", "all.lr=0.1"], {},
     "-o all.lr=0.1: rla has no use for lr here: search=val chooses it for each task"),
    (["softcpt"], ["softcpt.span=false,true"], {},
     "-o softcpt.span=false,true: softcpt has no use for span here: --protocol few-shot scores no task that was not "
     "trained on"),
    (["coop"], ["coop.unseen=mean"], {},
     "-o coop.unseen=mean: coop has no use for unseen here: --protocol few-shot scores no task that was not trained "
     "on"),
    (["lasp"], ["lasp.names=all"], {},
     "-o lasp.names=all: lasp has no use for names here: --protocol few-shot has no classes that are only scored"),
    (["softcpt-graph"], ["softcpt-graph.nearest=1"], {"protocol": "unseen-task", "train_tasks": [1, 2]},
     "-o softcpt-graph.nearest=1: softcpt-graph has no use for nearest here: a task has 0 others to train with, and 0 "
     "takes all"),
    (["shared-coop"], ["all.tasks_a_step=1"], {"protocol": "source-task:Shade"},
     "-o all.tasks_a_step=1: shared-coop has no use for tasks_a_step here: a step may have all 1 task of a training "
     "anyway"),
]  # fmt: skip


@pytest.mark.parametrize(("methods", "options", "more", "text"), TOLD)
def test_a_value_that_another_run_or_method_reads_is_told_once(
    methods: list[str], options: list[str], more: dict[str, Any], text: str, tiny: Any, tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    given = {"methods": methods, "options": options, "shots": [1, 2], **more}
    assert planned(tiny, tmp_path, "", **given).cells
    assert [line for line in capsys.readouterr().err.splitlines() if "has no use for" in line] == [text]


@pytest.mark.parametrize(
    ("method", "views", "text"),
    [
        ("coop", 3, ["--views 3: coop reads 2 of an image, one for each epoch"]),  # the suite's recipe: 2 epochs
        ("coop", 2, []),
        ("gda", 3, []),  # which has no epochs
        ("zero-shot", 3, ["--views 3: none of the methods reads training views"]),
    ],
)
def test_views_that_no_method_reads_are_told(
    method: str, views: int, text: list[str], tiny: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    planned(tiny, tmp_path, method, views=views, shots=[1, 2])
    assert [line for line in capsys.readouterr().err.splitlines() if "--views" in line] == text


# That they change nothing -----------------------------------------------------------------------------------------


SEARCHED: dict[str, tuple[str, ...]] = {
    "ape": ("alpha", "beta", "gamma"), "cross-modal-lp": ("lr", "weight_decay", "batch"), "gda": ("strength",),
    "rla": ("lr", "pull", "power"), "tip-adapter": ("alpha", "beta"),
    "ape-t": (), "tip-adapter-f": (),  # their training reads what their search then replaces
    "lp++": (),  # its iteration, which no parameter gives
}  # fmt: skip


def test_every_method_that_searches_says_what_its_search_chooses() -> None:
    kinds = [find_method(name) for name in method_names()]
    searching = {kind.name: {*kind.searched} for kind in kinds if "search" in {f.name for f in fields(kind.Params)}}
    assert searching == {name: {*own} for name, own in {**SEARCHED, "prolip": SEARCHED["rla"]}.items()}


REPLACED = [(name, own, True) for name, every in SEARCHED.items() for own in every]
READ = [(name, own, False) for name in ("ape-t", "tip-adapter-f") for own in ("alpha", "beta")]  # by the training


@pytest.mark.parametrize(("name", "changed", "replaced"), [*REPLACED, *READ])
def test_a_search_replaces_what_it_is_said_to_replace(name: str, changed: str, replaced: bool) -> None:
    """Of two values scores are the same to the last bit, or they are not."""
    kind: Any = find_method(name)
    short = {key: value for key, value in {"steps": 2, "epochs": 2}.items() if hasattr(kind.Params(), key)}
    scores = []
    for value in (2, 3):
        method = kind(kind.Params(search="val", **short, **{changed: value}))
        method.fit(clip({}, 12), [larger(5, 4)], 1, lambda done, total: None)
        scores.append(method.predict(larger(5, 4), torch.eye(12)))
    assert torch.equal(*scores) == replaced


IDLE = [
    *(("softcpt-residual", {"node_scale": 0.0}, own) for own in (
        {"nodes": "leaves"}, {"nodes": "root"}, {"shuffle": 1}, {"leaf_decay": 0.1})),
    *(("softcpt-graph", {"a": 0.0}, own) for own in ({"graph": "uniform"}, {"temperature": 1.0}, {"name_weight": 0.0})),
    ("softcpt-graph", {"graph": "uniform"}, {"temperature": 1.0, "name_weight": 0.0}),
    ("softcpt-graph", {}, {"nearest": 2}),
    ("softcpt", {}, {"span": True, "unseen": "mean"}),
    ("lasp", {"text_weight": 0.0}, {"noise": 1.0, "names": "all"}),
    ("lasp", {}, {"names": "all"}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "common", "own"), IDLE)
def test_a_value_that_is_refused_or_told_changes_nothing(
    name: str, common: dict[str, Any], own: dict[str, Any], tiny: Any
) -> None:
    """Trained on two tasks: what is learned scores the same with and without, up to the rounding of sums."""
    backbone, tasks = world_of(tiny)
    kind: Any = find_method(name)
    scores = []
    for given in (common, {**common, **own}):
        method = kind(kind.Params(epochs=2, batch=8, lr=0.1, context=4, words="", **given))
        method.fit(backbone, tasks, 1, lambda done, total: None)
        scores.append(method.predict(tasks[0], tasks[0].views[0]))
    torch.testing.assert_close(*scores)


def test_ape_t_s_gamma_changes_nothing() -> None:
    kind: Any = find_method("ape-t")
    scores = []
    for gamma in (0.0, 1.0):
        method = kind(kind.Params(epochs=1, gamma=gamma))
        method.fit(clip({}, 12), [larger(5, 4)], 1, lambda done, total: None)
        scores.append(method.predict(larger(5, 4), torch.eye(12)))
    assert torch.equal(*scores)
