"""--controls: the rows without which a gain by tasks' names says nothing, and where the report puts them."""

from __future__ import annotations

import dataclasses
import re
import sys
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
import torch

from bench.controls import reads_task_names, shuffled, with_shuffled
from bench.errors import UserError
from bench.methods import find_method, method_names
from bench.options import variants
from bench.reports import report

sys.path.append(str(Path(__file__).parent))
from test_reports import put
from test_unseen_task import made_up

GRID: dict[str, Any] = {"methods": ["softcpt"], "shots": [1], "seeds": [1], "protocol": "unseen-task"}
NAMES = {"Colour": "colour recognition", "Shade": "shade recognition", "Stripes": "pattern recognition"}


def test_no_task_keeps_its_name() -> None:
    assert shuffled(["a", "b"], 7) == ["b", "a"]
    assert shuffled(["a", "a", "b", "b"], 7) == ["b", "b", "a", "a"]  # another task of that name is no other name
    for seed in range(20):
        order = shuffled(["a", "b", "c", "d", "e"], seed)
        assert sorted(order) == ["a", "b", "c", "d", "e"] and order == shuffled(["a", "b", "c", "d", "e"], seed)
        assert all(new != old for new, old in zip(order, "abcde", strict=True))
    assert len({tuple(shuffled(list("abcde"), seed)) for seed in range(20)}) > 5
    assert shuffled(list("abcde"), 0) == list("bcead")  # finished cells were trained under what is drawn


@pytest.mark.parametrize("names", [["a"] * 12 + list("bcdefghijklm"), list("abc") * 5 + ["a"] * 15 + ["b"] * 10])
def test_an_order_is_found_where_hardly_any_leaves_no_task_its_name(names: list[str]) -> None:
    """Names at half of the places: of 2.7 million orders of the first one fits."""
    orders = {tuple(shuffled(names, seed)) for seed in range(3)}
    assert len(orders) == 3 and orders == {tuple(shuffled(names, seed)) for seed in range(3)}
    for order in orders:
        assert sorted(order) == sorted(names) and all(new != old for new, old in zip(order, names, strict=True))


@pytest.mark.parametrize(
    ("names", "why"),
    [
        ([], "there are none"), (["a"], "'a' is the name of 1 of 1 task"),
        (["a", "b", "a"], "'a' is the name of 2 of 3 tasks"),
    ],
)  # fmt: skip
def test_names_that_cannot_be_exchanged_are_refused_with_the_reason(names: list[str], why: str) -> None:
    with pytest.raises(UserError, match=f"cannot be shuffled so that no task keeps its own: {why}"):
        shuffled(names, 1)


def test_the_methods_with_a_control_are_those_that_read_which_task_has_which_name() -> None:
    reading = {n for n in method_names() if reads_task_names(variants([find_method(n)], (), ())[0])}
    assert reading >= {"softcpt", "softcpt-nats", "softcpt-star", "softcpt-cata", "softcpt-csts"}
    assert not reading & {"coop", "shared-coop", "shared-coop-matched", "mvlpt", "zero-shot", "protonet", "kgcoop"}


def test_controls_are_not_controlled_again() -> None:
    names = ["softcpt", "softcpt-graph", "softcpt-mix", "softcpt-residual"]
    options = ["softcpt-graph.graph=names,uniform,permuted", "softcpt-mix.mixture=names,random"]
    options += ["softcpt-residual.shuffle=0,2", "softcpt.context=4,8"]
    found = with_shuffled(variants([find_method(name) for name in names], options, ()))
    assert [(v.method.name, v.label) for v in found] == [
        *(("softcpt", "context=4"), ("softcpt", "context=4,names=shuffled")),
        *(("softcpt", "context=8"), ("softcpt", "context=8,names=shuffled")),
        *(("softcpt-graph", ""), ("softcpt-graph", "names=shuffled")),
        *(("softcpt-graph", "graph=uniform"), ("softcpt-graph", "graph=permuted")),
        *(("softcpt-mix", ""), ("softcpt-mix", "names=shuffled"), ("softcpt-mix", "mixture=random")),
        *(("softcpt-residual", ""), ("softcpt-residual", "names=shuffled"), ("softcpt-residual", "shuffle=2")),
    ]


def test_what_the_help_calls_a_control_is_one() -> None:
    said = {name: find_method(name) for name in method_names()}
    for name, kind in said.items():
        fields = dataclasses.fields(kind.Params)
        assert {f.name for f in fields if "control" in f.metadata["help"]} == set(kind.controls), name


@pytest.fixture(scope="module")
def with_controls(tiny, tmp_path_factory) -> Any:
    """The records; what each training was given, task → name; and under which names unseen tasks were scored."""
    from bench.methods.prompt import PromptMethod
    from bench.methods.softcpt import SoftCPT

    trained, scored = [], []
    setup, predict = SoftCPT.setup, PromptMethod.predict_new
    results = tmp_path_factory.mktemp("controls")
    with pytest.MonkeyPatch.context() as patch:

        def noted_setup(self: Any, clip: Any, tasks: Any, seed: int) -> None:
            if any(len(task.labels) for task in tasks):
                trained.append({task.name: task.task_name for task in tasks})
            setup(self, clip, tasks, seed)

        def noted_predict(self: Any, task: Any, features: Any) -> Any:
            if self.name == "softcpt":
                scored.append((task.name, task.task_name))
            return predict(self, task, features)

        patch.setattr(SoftCPT, "setup", noted_setup)
        patch.setattr(PromptMethod, "predict_new", noted_predict)
        tiny.run(results, **GRID, controls=True)
    return results, trained, scored


def test_one_option_adds_the_rows_and_leaves_the_keys_of_all_others(tiny, with_controls, tmp_path) -> None:
    found = tiny.records(with_controls[0]).values()
    rows = {(r["cell"]["method"], r["cell"]["variant"]) for r in found}
    assert rows == {
        *(("softcpt", ""), ("softcpt", "names=shuffled"), ("shared-coop-matched", "")),
        *(("zero-shot", ""), ("zero-shot-generic", "")),
    }
    tiny.run(tmp_path, **GRID)
    plain = {r["key"] for r in tiny.records(tmp_path).values()}
    softcpt = {r["key"]: r["config"].get("names") for r in found if r["cell"]["method"] == "softcpt"}
    assert len(plain) == 3 and {key for key, names in softcpt.items() if names is None} == plain
    assert sorted(names or "" for names in softcpt.values()) == ["", "", "", "shuffled", "shuffled", "shuffled"]


def test_names_are_exchanged_in_training_alone(with_controls) -> None:
    """Two tasks are trained on at a time: each has the other's name. All are scored under the names of the suite."""
    _, trained, scored = with_controls
    own = [{name: NAMES[name] for name in given} for given in trained]
    wrong = [dict(zip(given, reversed(list(given.values())), strict=True)) for given in own]
    assert sum(given == right for given, right in zip(trained, own, strict=True)) == 3
    assert sum(given == other for given, other in zip(trained, wrong, strict=True)) == 3
    asked = {(name, task_name) for name, task_name in scored}
    assert asked == {(task, name) for task in NAMES for name in ("", *NAMES.values())}


def test_each_seed_exchanges_the_names_in_its_own_way(monkeypatch: pytest.MonkeyPatch) -> None:
    from bench import evaluate

    @dataclass(frozen=True)
    class Named:
        task_name: str

        def called(self, name: str) -> Named:
            return Named(name)

    monkeypatch.setattr(evaluate, "_views", lambda plan, task, cell: torch.zeros(1))
    monkeypatch.setattr(evaluate, "_task_data", lambda plan, task, cell, views: task.task_name)
    features = SimpleNamespace(folder=Path())
    plan: Any = SimpleNamespace(trained=lambda cell: [Named(name) for name in "abcde"], features=features)
    cells: list[Any] = [SimpleNamespace(variant=SimpleNamespace(shuffled=True), seed=seed) for seed in range(6)]
    given = [evaluate._data(plan, cell) for cell in cells]
    assert given == [shuffled(list("abcde"), seed) for seed in range(6)] and len(set(map(tuple, given))) > 2
    plain: Any = SimpleNamespace(variant=SimpleNamespace(shuffled=False), seed=1)
    assert evaluate._data(plan, plain) == list("abcde")


def test_under_other_tasks_names_means_under_their_own(with_controls) -> None:
    """The control's matrix is by the task that has a name, not by the one that had it in training: each cell asks for
    its task's own name, none, and those of the tasks that were trained on, in the suite's order."""
    _, _, scored = with_controls
    asked = [pair for pair, _ in groupby(scored)]
    fold = {task: [NAMES[task], "", *(NAMES[t] for t in NAMES if t != task)] for task in NAMES}
    assert asked == [(task, name) for task in fold for name in fold[task]] * 2  # as it is, and shuffled


def test_what_is_kept_of_a_control_is_under_the_names_that_it_learned(with_controls) -> None:
    import bench

    file = next(p for p in with_controls[0].rglob("*.json") if '"names": "shuffled"' in p.read_text())
    kept = bench.load_cell(file)
    assert [NAMES[task.name] for task in kept.tasks] == [task.task_name for task in reversed(kept.tasks)]


def test_a_single_source_has_no_names_to_exchange_and_this_is_told(tiny, tmp_path, capsys) -> None:
    tiny.run(tmp_path, **{**GRID, "protocol": "source-task:Shade"}, controls=True, quiet=False)
    said = capsys.readouterr().err
    why = "of those trained on, 'shade recognition' is the name of 1 of 1 task, so that one would keep its own"
    assert f"--controls: no row with shuffled names: {why}" in said
    assert all("names" not in r["config"] for r in tiny.records(tmp_path).values())


def test_the_generic_template_is_the_same_for_every_task(tiny, tmp_path) -> None:
    """Whatever the tasks' own: where these are the generic one, both zero-shots score the same."""
    written = Path(tiny.suite).read_text()
    (tmp_path / "own.yaml").write_text(re.sub('template: ".*?"', 'template: "a photo of a {}."', written))
    grid: dict[str, Any] = {"methods": ["zero-shot", "zero-shot-generic"], "shots": [1], "seeds": [1]}
    scores = []
    for suite in (tiny.suite, str(tmp_path / "own.yaml")):
        found = tiny.run(tmp_path / "runs", **grid, suite=suite)
        scores += [rows["accuracy"].tolist() for _, rows in found.groupby("method")]
    own, generic, replaced, again = scores
    assert generic == replaced == again != own
    task = SimpleNamespace(class_names=("dark", "light"), template="{} things.", descriptions={})
    texts = find_method("zero-shot-generic").texts(None, task)
    assert texts == [("a photo of a dark.", 0), ("a photo of a light.", 0)]


def test_the_table_sets_trained_and_generic_controls_beside_own_names(tmp_path) -> None:
    """As made up elsewhere, softcpt has 60, 50, 70 under own names; with names shuffled 58, 51, 62 here."""
    root = made_up(tmp_path / "runs")
    for task, accuracy in {"a": 58.0, "b": 51.0, "c": 62.0}.items():
        others = [name for name in ("a", "b", "c") if name != task]
        config = {"tasks": ["a", "b", "c"], "trained": others, "scored": [task], "fold": f"{task} of 3"}
        cell = {"protocol": "unseen-task", "variant": "names=shuffled"}
        for seed in (1, 2):
            put(root, "softcpt", 4, seed, {task: accuracy}, cell=cell, config={**config, "names": "shuffled"},
                under_names={task: {"": 1.0, others[0]: 2.0, others[1]: 3.0}})  # fmt: skip
    put(root, "zero-shot-generic", 0, 0, {"a": 50.0, "b": 51.0, "c": 52.0}, cell={"protocol": "unseen-task"})
    report(root, tmp_path / "out")
    rows = pd.read_csv(tmp_path / "out" / "unseen.csv").set_index(["label", "task"]).loc["softcpt"]
    assert rows["names shuffled"].to_dict() == {"a": 58, "b": 51, "c": 62}
    assert rows["zero-shot-generic"].to_dict() == {"a": 50, "b": 51, "c": 52}
    text = (tmp_path / "out" / "table.md").read_text()
    lines = text[text.index("# Tasks never") :].splitlines()
    head = next(line for line in lines if line.startswith("| method"))
    line = next(line for line in lines if line.startswith("| softcpt "))
    told = dict(zip(*([cell.strip() for cell in row.split("|")[1:-1]] for row in (head, line)), strict=True))
    # +2, −1, +8: mean 3, ranks 2, 1, 3, of 8 signs two have a rank sum of 1 or less. +10, −1, +18: mean 9, the same.
    assert told["own − names shuffled"] == "+3.00" and told["own − zero-shot-generic"] == "+9.00"
    cells = [cell.strip() for cell in line.split("|")[1:-1]]
    heads = [cell.strip() for cell in head.split("|")[1:-1]]
    for name in ("own − names shuffled", "own − zero-shot-generic"):
        assert cells[heads.index(name) + 1] == "0.500"
    assert sum(row.startswith("| softcpt") for row in lines[: lines.index(line) + 3]) == 1  # the control is no row here
