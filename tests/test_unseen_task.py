"""unseen-task: train on the other tasks, score a task by its names alone, beside the controls that a gain needs."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import fields, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
import torch

from bench.errors import UserError
from bench.methods import Method, TaskData, find_method, method_names
from bench.protocols import Fold, Part, find_protocol
from bench.reports import report
from bench.reports.config import ReportConfig
from bench.reports.figures.own_name import OwnName, gains
from bench.reports.groups import split
from bench.reports.records import load
from bench.reports.tables.unseen import recovered
from bench.scoring import under_names

sys.path.append(str(Path(__file__).parent))
from test_reports import put

OPEN = {name for name in method_names() if not find_method(name).unseen}
LEAFLESS = {"coop-tree", "softcpt-residual"}  # what a task learned for itself alone serves no new one of its names
IN_ONE_PRODUCT = {"softcpt-star", "coop-kernel", "softcpt-graph"}  # of several names: one alone rounds otherwise
PARAMS = {"epochs": 2, "batch": 8, "context": 4, "words": ""}


def tasks_called(*names: str) -> Any:
    return [SimpleNamespace(name=name) for name in names]


def test_every_task_is_scored_in_one_fold_and_trained_on_in_all_others() -> None:
    five = tasks_called("a", "b", "c", "d", "e")
    assert find_protocol("unseen-task:2").of(five).folds(five) == [
        Fold(("b", "d"), ("a", "c", "e"), "1 of 2"),
        Fold(("a", "c", "e"), ("b", "d"), "2 of 2"),
    ]
    three = tasks_called("a", "b", "c")
    assert find_protocol("unseen-task").of(three).folds(three) == [
        Fold(("b", "c"), ("a",), "1 of 3"),
        Fold(("a", "c"), ("b",), "2 of 3"),
        Fold(("a", "b"), ("c",), "3 of 3"),
    ]


@pytest.mark.parametrize(
    ("name", "n_tasks", "said"),
    [
        ("unseen-task:x", 3, "'unseen-task:x': write unseen-task:4"),
        ("unseen-task:4", 3, "unseen-task:4: 3 tasks make 2 to 3 folds"),
        ("unseen-task:1", 3, "unseen-task:1: 3 tasks make 2 to 3 folds"),
        ("unseen-task", 1, "needs two tasks or more"),
        ("unseentask", 3, "did you mean 'unseen-task'"),
    ],
)
def test_folds_that_cannot_be_are_refused(name: str, n_tasks: int, said: str) -> None:
    with pytest.raises(UserError, match=said):
        find_protocol(name).of(tasks_called("a", "b", "c")[:n_tasks])


def test_methods_whose_parameters_belong_to_tasks_are_refused(tiny, tmp_path) -> None:
    assert {"zero-shot", "shared-coop", "shared-coop-matched", "shared-cocoop"} <= OPEN
    assert {"softcpt", "softcpt-star", "softcpt-cata"} <= OPEN
    assert not OPEN & {"coop", "cocoop", "kgcoop", "mvlpt", "plot", "protonet", "softcpt-nats", "softcpt-csta"}
    with pytest.raises(UserError, match="tasks that no method was trained on; leave out coop: what it learns bel"):
        tiny.run(tmp_path, methods=["coop", "softcpt"], protocol="unseen-task")
    assert not tiny.records(tmp_path)


def test_as_many_folds_as_tasks_are_the_protocol_without_a_number(tiny, tmp_path) -> None:
    for name, protocol in (("a", "unseen-task"), ("b", "unseen-task:3")):
        tiny.run(tmp_path / name, methods=["shared-coop"], shots=[1], seeds=[1], protocol=protocol)
    one, other = tiny.numbers(tmp_path / "a"), tiny.numbers(tmp_path / "b")
    assert len(one) == 3 and one == other


def test_nothing_of_the_unseen_task_but_names_and_test_images_counts(tiny, tmp_path) -> None:
    """Of a task all images but one of each class to train on, and all to validate on, are deleted, and the rest are
    others: neither the key nor the score of the fold that leaves it out changes; the other folds, which train on them,
    are other cells."""
    data = tmp_path / "data"
    shutil.copytree(tiny.data, data)
    grid: dict[str, Any] = {"methods": ["softcpt", "coop"], "shots": [1], "seeds": [1], "protocol": "unseen-task"}
    grid["options"] = ["coop.unseen=mean,nearest"]
    tiny.run(tmp_path / "a", data=str(data), **grid)
    rows = tiny.division("shade")
    kept = list({label: row for row in rows["train"] for label in row[1:2]}.values())
    for path, *_ in [row for row in rows["train"] + rows["val"] if row not in kept]:
        (data / "shade" / path).unlink()
    for (path, *_), other in zip(kept, sorted((data / "stripes").glob("*/*.png")), strict=False):
        (data / "shade" / path).write_bytes(other.read_bytes())
    (data / "shade" / "split_zhou_Shade.json").write_text(json.dumps({**rows, "train": kept, "val": []}))
    tiny.run(tmp_path / "b", data=str(data), **grid)
    before, after = tiny.numbers(tmp_path / "a").values(), tiny.numbers(tmp_path / "b").values()
    first, second = (
        {(r["cell"]["variant"], r["config"]["scored"][0]): r for r in records} for records in (before, after)
    )
    same = {place for place in first if first[place]["key"] == second[place]["key"]}
    assert same == {(variant, "Shade") for variant in ("", "unseen=mean", "unseen=nearest")}
    for place in same:
        assert first[place]["tasks"] == second[place]["tasks"] and first[place]["tasks"][0]["n_train"] == 0
        assert first[place]["under_names"] == second[place]["under_names"]


def test_a_record_says_what_was_trained_on_and_what_other_names_score(tiny, tmp_path) -> None:
    tiny.run(tmp_path, methods=["softcpt", "shared-coop"], shots=[1], seeds=[1], protocol="unseen-task")
    for record in tiny.records(tmp_path).values():
        (task,) = record["tasks"]
        config = record["config"]
        assert config["scored"] == [task["task"]] and task["val_accuracy"] is None
        assert sorted(config["trained"] + config["scored"]) == ["Colour", "Shade", "Stripes"]
        if record["cell"]["method"] == "shared-coop":  # whatever a task is called
            assert record["under_names"] == {}
        else:
            assert set(record["under_names"][task["task"]]) == {"", *config["trained"]}


def test_each_name_is_scored_under_itself() -> None:
    """Of images of classes 0, 0, 1, 2, a method that says the class which the name has as a digit."""

    class ByName(Method):
        unseen = ""

        def fit(self, *given: Any) -> None: ...

        def predict(self, task: TaskData, features: torch.Tensor, class_names: Any = None) -> torch.Tensor:
            return torch.eye(3)[int(task.task_name or 1)].expand(len(features), 3)

    labels = torch.tensor([0, 0, 1, 2])
    protocol: Any = SimpleNamespace(parts=lambda task: [Part("all", torch.arange(4), labels, 3)])
    task: Any = SimpleNamespace(metric="overall_acc")
    names = TaskData("new", "2", ("a", "b", "c"), "{}", torch.zeros(0), torch.zeros(0))
    others = [replace(names, name=name, task_name=digit) for name, digit in (("p", "0"), ("q", "1"))]
    found = under_names(protocol, ByName(), task, names, others, [torch.zeros(4, 1)], torch.device("cpu"))
    assert found == {"": 25.0, "p": 50.0, "q": 25.0}


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("name", sorted(OPEN - LEAFLESS))
def test_a_seen_tasks_names_score_as_the_task_does(name: str, fit_tiny) -> None:
    """To the last bit, of every method that can take part, also of those that are added."""
    method, tasks, images = fit_tiny(name)
    for task in tasks:
        new, seen = method.predict_new(task, images), method.predict(task, images)
        assert torch.allclose(new, seen, rtol=1e-5) if name in IN_ONE_PRODUCT else torch.equal(new, seen)
    assert not method.trains or method.n_params == sum(v.numel() for v in method.state().values())  # no guest left one
    assert [task.name for task in method.tasks] == [task.name for task in tasks]


@pytest.mark.usefixtures("one_thread")
def test_shared_coop_scores_a_new_task_as_new_classes_of_an_old_one(fit_tiny) -> None:
    """Its context is the same for all: what a task is called says nothing."""
    method, tasks, images = fit_tiny("shared-coop")
    new = replace(tasks[0], name="New", task_name="new things", class_names=("moss", "fern"))
    assert torch.equal(method.predict_new(new, images), method.predict(tasks[1], images, ["moss", "fern"]))


def test_a_closed_method_says_why_it_cannot_score_an_unseen_task(fit_tiny) -> None:
    method, tasks, images = fit_tiny("coop")
    with pytest.raises(UserError, match="coop cannot score task 'Colour', which it was not trained on: what it learns"):
        method.predict_new(tasks[0], images)


# The report ------------------------------------------------------------------------------------------------


DATA = ("csv", "md")  # no pictures: they take seconds


def put_fold(
    root: Path, method: str, seed: int, task: str, accuracy: float, under: dict[str, float],
    variant: str = "", shots: int = 4, **settings: Any,
) -> Path:
    others = [name for name in ("a", "b", "c") if name != task]
    config = {"tasks": ["a", "b", "c"], "trained": others, "scored": [task], "fold": f"{task} of 3", **settings}
    more = {"cell": {"protocol": "unseen-task", "variant": variant}, "config": config}
    return put(root, method, shots, seed, {task: accuracy}, **more, under_names={task: under} if under else {})


def made_up(root: Path) -> Path:
    """softcpt on three tasks, two seeds: own names 60, 50, 70 on average; others' names 56, 51, 64; none 50, 50, 50."""
    scores = {"a": (61.0, 59.0), "b": (52.0, 48.0), "c": (71.0, 69.0)}
    names = {
        "a": {"": 50.0, "b": 55.0, "c": 57.0},
        "b": {"": 50.0, "a": 52.0, "c": 50.0},
        "c": {"": 50.0, "a": 60.0, "b": 68.0},
    }
    for task, both in scores.items():
        for seed, accuracy in enumerate(both, start=1):
            put_fold(root, "softcpt", seed, task, accuracy, names[task])
            put_fold(root, "shared-coop-matched", seed, task, accuracy - 2, dict.fromkeys(names[task], accuracy - 2))
    put(root, "zero-shot", 0, 0, {"a": 55.0, "b": 55.0, "c": 55.0}, cell={"protocol": "unseen-task"})
    return root


def test_the_table_sets_own_names_beside_their_controls(tmp_path) -> None:
    report(made_up(tmp_path / "runs"), tmp_path / "out", format=DATA)
    rows = pd.read_csv(tmp_path / "out" / "unseen.csv").set_index(["label", "task"])
    own = rows.loc["softcpt"]
    assert own["own name"].to_dict() == {"a": 60, "b": 50, "c": 70}  # means over the two seeds
    assert own["other tasks' names"].to_dict() == {"a": 56, "b": 51, "c": 64}
    assert own["no name"].to_dict() == {"a": 50, "b": 50, "c": 50}
    assert own["zero-shot"].to_dict() == {"a": 55, "b": 55, "c": 55}
    lines = unseen_lines(tmp_path / "out")
    line = next(x for x in lines if x.startswith("| softcpt "))
    # Means over tasks: 60, 57, 50. Over others' names +4, −1, +6: mean 3, and of the 8 assignments of signs to the
    # ranks 2, 1, 3 two have a rank sum of 1 or less: p = 2 · 2/8. Over no name +10, 0, +20, of which two count: 2/4.
    # Over zero-shot +5, −5, +15, where ranks are 1.5, 1.5 and 3: three of 8 have a sum of 1.5 or less. Over the matched
    # control +2 each: one of 8.
    cells = [cell.strip() for cell in line.split("|")[2:-1]]
    assert cells[:7] == ["60.00", "57.00", "50.00", "+3.00", "0.500", "+10.00", "0.500"]
    assert cells[7:] == ["+5.00", "0.750", "2 / 1", "+2.00", "0.250"]
    assert "With 3 tasks no p is below 0.250: too few for a claim." in " ".join(lines)


def test_the_figure_shows_own_names_less_each_control_over_tasks(tmp_path) -> None:
    loaded = load(ReportConfig(results=made_up(tmp_path / "runs")))
    (block,) = split(loaded.rows, loaded.cells)
    found = gains(block).set_index(["label", "control"])
    # Over others' names +4, −1, +6: mean 3, standard deviation √13; t at 2 degrees of freedom is 4.3027.
    others = found.loc[("softcpt", "other tasks' names")]
    assert others["mean"] == pytest.approx(3) and others["half"] == pytest.approx(4.3027 * 13**0.5 / 3**0.5, abs=1e-3)
    assert found.loc[("softcpt", "zero-shot"), "mean"] == pytest.approx(5)
    assert found.loc[("softcpt", "shared-coop-matched"), ["mean", "half"]].tolist() == pytest.approx([2, 0])
    assert ("shared-coop-matched", "shared-coop-matched") not in found.index  # no row is its own control
    assert ("shared-coop-matched", "other tasks' names") not in found.index  # it reads none
    (figure,) = OwnName().each(block)
    for task in ("a", "b", "c"):  # a variant: one of the tables of settings, not of this figure
        config = {"tasks": ["a", "b", "c"], "trained": ["a"], "scored": [task], "fold": f"{task} of 3"}
        cell = {"protocol": "unseen-task", "variant": "span=True"}
        put(tmp_path / "runs", "softcpt", 4, 1, {task: 50.0}, cell=cell, config=config)
    again = load(ReportConfig(results=tmp_path / "runs"))
    (varied,) = split(again.rows, again.cells)
    assert "softcpt (span=True)" in set(gains(varied)["label"])
    shown = [text.get_text() for text in figure.draw(varied).axes[0].get_yticklabels()]
    assert shown == ["softcpt", "shared-coop-matched"]
    panels = figure.draw(block).axes
    assert [panel.get_title() for panel in panels] == [
        "less other tasks' names", "less no name", "less zero-shot", "less shared-coop-matched"
    ]  # fmt: skip
    assert not OwnName().why_not(block)
    bare = tmp_path / "bare"
    for task in ("a", "b", "c"):
        put_fold(bare, "shared-coop", 1, task, 50.0, {})
    alone = load(ReportConfig(results=bare))
    (block,) = split(alone.rows, alone.cells)
    assert OwnName().why_not(block) == "no control of these rows was run"


def matched_column(out: Path, method: str = "softcpt") -> tuple[list[str], str]:
    """A method's difference to the matched control and its p, and all that the caption says."""
    lines = [[cell.strip() for cell in x.split("|")] for x in unseen_lines(out) if x.startswith("|")]
    place = lines[0].index("own − shared-coop-matched") if "own − shared-coop-matched" in lines[0] else None
    (line,) = (line for line in lines if line[1].split(" ")[0] == method)
    return [] if place is None else line[place : place + 2], " ".join(unseen_lines(out))


@pytest.mark.parametrize(("name", "other", "usual"), [("params", {"context": 8}, {"context": 16}), ("views", 10, 20)])
def test_a_control_with_other_settings_is_none(name: str, other: Any, usual: Any, tmp_path: Path) -> None:
    """Beside the control of a row's own settings, 2 below, there is one of others, 30 below: their mean would be 16."""
    root = tmp_path / "runs"
    for task, accuracy in (("a", 60.0), ("b", 50.0), ("c", 70.0)):
        for value, less in ((usual, 2), (other, 30)):
            variant = "context=8" if value == {"context": 8} else ""
            put_fold(root, "shared-coop-matched", 1, task, accuracy - less, {}, variant, **{name: value})
        put_fold(root, "softcpt", 1, task, accuracy, {}, **{name: usual})
    report(root, tmp_path / "out", format=DATA)
    assert matched_column(tmp_path / "out")[0] == ["+2.00", "0.250"]


@pytest.mark.parametrize(
    ("method", "variant", "own", "theirs", "compared"),
    [
        ("softcpt", "", {"params": {"context": 16}}, {"params": {"context": 16}}, True),
        ("softcpt", "context=8", {"params": {"context": 8}}, {"params": {"context": 16}}, False),
        ("softcpt", "lr=0.1", {"params": {"lr": 0.1}}, {"params": {"lr": 0.002}}, False),
        ("softcpt", "", {"views": 20}, {"views": 10}, False),
        ("softcpt", "task_context=8", {"params": {"task_context": 8}}, {}, True),  # which the control has not
        ("softcpt", "unseen=mean", {"params": {"unseen": "mean"}}, {"params": {"unseen": "own"}}, True),
        ("coop-mpt", "", {"params": {"context": 4}}, {"params": {"context": 16}}, True),  # each at its own default
        ("coop-mpt", "", {"params": {"epochs": 5}, "views": 5}, {"views": 20}, True),  # each a view per epoch
    ],
)
def test_the_only_control_is_one_of_rows_of_its_own_settings(
    method: str, variant: str, own: dict[str, Any], theirs: dict[str, Any], compared: bool, tmp_path: Path
) -> None:
    """What a row has changed from its method's default must be the control's, too, if the control has it at all."""
    runs, out = tmp_path / "runs", tmp_path / "out"
    for task in ("a", "b", "c"):
        put_fold(runs, method, 1, task, 60.0, {}, variant, **own)
        put_fold(runs, "shared-coop-matched", 1, task, 50.0, {}, **theirs)
    report(runs, out, format=DATA)
    column, said = matched_column(out, method)
    assert column == (["+10.00", "0.250"] if compared else [])
    assert ("Not compared with shared-coop-matched" in said) == (not compared)


def test_a_recipe_is_compared_with_controls_of_its_own_values_at_each_shot_count(tmp_path: Path) -> None:
    """The control's rate is the recipe's at 1 shot, 3 below it, but not at 4 shots."""
    for task in ("a", "b", "c"):
        for shots, rate in ((1, 0.1), (4, 0.2)):
            put_fold(tmp_path / "runs", "softcpt", 1, task, 60.0, {}, "recipe=own.yaml", shots, params={"lr": rate})
            put_fold(tmp_path / "runs", "shared-coop-matched", 1, task, 57.0, {}, "lr=0.1", shots, params={"lr": 0.1})
    report(tmp_path / "runs", tmp_path / "out", format=DATA)
    rows = pd.read_csv(tmp_path / "out" / "unseen.csv")
    rows = rows[rows["label"].str.startswith("softcpt")]
    assert rows.loc[rows["shots"] == 1, "shared-coop-matched"].tolist() == [57.0] * 3
    assert rows.loc[rows["shots"] == 4, "shared-coop-matched"].isna().all()


def test_a_control_of_another_number_of_training_tasks_is_none(tmp_path: Path) -> None:
    for task in ("a", "b", "c"):
        put_fold(tmp_path / "runs", "softcpt", 1, task, 60.0, {})
        put_fold(tmp_path / "runs", "shared-coop-matched", 1, task, 50.0, {}, train_tasks=1)
    report(tmp_path / "runs", tmp_path / "out", format=DATA)
    assert matched_column(tmp_path / "out")[0] == []


def test_a_row_is_compared_with_its_controls_on_its_own_seeds(tmp_path: Path) -> None:
    """The controls are 2 below in the row's seeds 1 and 2; their seed 3 is far above. Trained with a third seed that
    they lack, the row is not compared with them, and this is said."""
    runs, out = tmp_path / "runs", tmp_path / "out"
    for task, accuracy in (("a", 60.0), ("b", 50.0), ("c", 70.0)):
        for seed in (1, 2, 3):
            theirs = 99.0 if seed == 3 else accuracy - 2
            put_fold(runs, "shared-coop-matched", seed, task, theirs, {})
            put_fold(runs, "softcpt", seed, task, theirs, {"": 1.0}, "names=shuffled", names="shuffled")
        for seed in (1, 2):
            put_fold(runs, "softcpt", seed, task, accuracy, {"": 1.0})
    report(runs, out, format=DATA)
    assert matched_column(out)[0] == ["+2.00", "0.250"]
    controls = pd.read_csv(out / "unseen.csv").set_index(["label", "task"]).loc["softcpt"]
    for name in ("shared-coop-matched", "names shuffled"):
        assert controls[name].to_dict() == {"a": 58, "b": 48, "c": 68}
    for task in ("a", "b", "c"):
        put_fold(runs, "softcpt", 4, task, 60.0, {"": 1.0})
    report(runs, out, format=DATA)
    column, said = matched_column(out)
    assert column == []
    for name in ("shared-coop-matched", "names shuffled"):
        assert f"Not compared with {name}, of which there are not the same seeds and settings: softcpt." in said
    assert pd.read_csv(out / "unseen.csv")["names shuffled"].isna().all()


def test_other_names_known_in_some_seeds_alone_are_no_mean(tmp_path: Path) -> None:
    root = made_up(tmp_path / "runs")
    put_fold(root, "softcpt", 3, "a", 60.0, {})
    for task in ("b", "c"):
        put_fold(root, "softcpt", 3, task, 60.0, {"": 50.0, "a": 51.0})
    report(root, tmp_path / "out", format=DATA)
    own = pd.read_csv(tmp_path / "out" / "unseen.csv").set_index(["label", "task"]).loc["softcpt"]
    assert own["other tasks' names"].isna().to_dict() == {"a": True, "b": False, "c": False}


def test_a_tie_with_zero_shot_is_neither_better_nor_worse(tmp_path) -> None:
    root = tmp_path / "runs"
    for task, accuracy in {"a": 60.0, "b": 55.0, "c": 50.0}.items():
        put_fold(root, "softcpt", 1, task, accuracy, {})
    put(root, "zero-shot", 0, 0, {"a": 55.0, "b": 55.0, "c": 45.0}, cell={"protocol": "unseen-task"})
    report(root, tmp_path / "out", format=DATA)
    (line,) = (x for x in unseen_lines(tmp_path / "out") if x.startswith("| softcpt"))
    assert [cell.strip() for cell in line.split("|")[-4:-1]] == ["+3.33", "0.500", "2 / 0"]


def put_seen(root: Path, seed: int, **config: Any) -> None:
    """softcpt trained on all three tasks: means over the seeds 65, 55, 75."""
    scores = {"a": 63.5 + seed, "b": 55.0, "c": 76.5 - seed}
    put(root, "softcpt", 4, seed, scores, config=config)


def test_the_table_says_how_much_of_the_gain_of_training_on_a_task_is_recovered(tmp_path) -> None:
    """Over zero-shot's 55, 55, 55 softcpt gains 5, −5, 15 untrained, 10, 0, 20 trained: 15 of 30. The mean of the three
    shares would be infinite."""
    root = made_up(tmp_path / "runs")
    for seed in (1, 2):
        put_seen(root, seed)
    report(root, tmp_path / "out", format=DATA)
    rows = pd.read_csv(tmp_path / "out" / "unseen.csv").set_index(["label", "task"])
    own = rows.loc["softcpt"]
    assert own["trained on it"].to_dict() == pytest.approx({"a": 65, "b": 55, "c": 75})
    assert own["recovered"].tolist() == pytest.approx([0.5] * 3)
    assert rows.loc["shared-coop-matched", ["trained on it", "recovered"]].isna().all(axis=None)
    lines = unseen_lines(tmp_path / "out")
    told = {x.split("|")[1].strip(): [text.strip() for text in x.split("|")[-3:-1]] for x in lines if x.startswith("|")}
    assert told["method"] == ["trained on it", "recovered"]
    assert told["softcpt"] == ["65.00", "0.50"] and told["shared-coop-matched"] == ["—", "—"]


@pytest.mark.parametrize(
    ("seeds", "config"),
    [((1,), {}), ((1, 2), {"views": 10}), ((1, 2), {"params": {"epochs": 21}}), ((1, 2), {"numerics": "2"})],
)
def test_cells_of_other_settings_or_of_some_seeds_say_nothing_of_what_is_recovered(seeds, config, tmp_path) -> None:
    root = made_up(tmp_path / "runs")
    for seed in seeds:
        put_seen(root, seed, **config)
    report(root, tmp_path / "out", format=DATA)
    rows = pd.read_csv(tmp_path / "out" / "unseen.csv")
    assert rows[["trained on it", "recovered"]].isna().all(axis=None)
    lines = unseen_lines(tmp_path / "out")
    assert "trained on it" not in next(line for line in lines if line.startswith("| method"))
    assert "run the same command without --protocol." in " ".join(lines)


def test_a_share_is_of_sums_and_of_a_point_per_task_at_least() -> None:
    zero_shot = pd.Series([55.0, 55.0])
    for own, seen, share in (
        ([60.0, 60.0], [65.0, 65.0], 0.5),
        ([54.0, 54.0], [57.0, 57.0], -0.5),
        ([57.0, 55.0], [58.0, 54.0], 1.0),  # 2 of 2: a point per task
        ([57.0, 55.0], [58.0, 53.9], float("nan")),
        ([57.0, 55.0], [58.0, float("nan")], float("nan")),
        ([57.0, 55.0], [50.0, 50.0], float("nan")),  # it loses where it is trained
    ):
        assert recovered(pd.Series(own), pd.Series(seen), zero_shot) == pytest.approx(share, nan_ok=True)


def test_the_cells_of_the_same_command_without_protocol_are_found(tiny, tmp_path) -> None:
    grid: dict[str, Any] = {"methods": ["softcpt"], "shots": [1], "seeds": [1]}
    tiny.run(tmp_path / "runs", **grid, protocol="unseen-task:2")
    trained = tiny.run(tmp_path / "runs", **grid)
    report(tmp_path / "runs", tmp_path / "out", format=DATA)
    rows = pd.read_csv(tmp_path / "out" / "unseen.csv").set_index("task")
    assert rows["trained on it"].to_dict() == pytest.approx(trained.set_index("task")["accuracy"].to_dict())


def unseen_lines(out: Path) -> list[str]:
    """Those of the table in table.md."""
    text = (out / "table.md").read_text()
    return text[text.index("# Tasks never") :].partition("\n# ")[0].splitlines()


def test_a_mean_of_fewer_seeds_and_a_missing_zero_shot_are_told(tmp_path: Path) -> None:
    """softcpt's 60 is the mean of two of three seeds; with zero-shot's records gone, its columns are empty."""
    runs, out = made_up(tmp_path / "runs"), tmp_path / "out"
    for task in ("a", "b", "c"):
        put_fold(runs, "shared-coop-matched", 3, task, 58.0, {})
    report(runs, out, format=DATA)
    said = "\n".join(unseen_lines(out))
    assert " 60.00 (n=2) |" in said and said.count("(n=") == 2  # once more in the caption
    assert "(n=…): the mean of n seeds, not of the table's 3 seeds." in said and "No cell here is of" not in said
    for path in runs.glob("0-*.json"):
        path.unlink()
    report(runs, out, format=DATA)
    assert "No cell here is of zero-shot, which the columns without values take" in "\n".join(unseen_lines(out))


def test_each_fold_counts_as_a_cell_done_in_tables_and_page(tmp_path) -> None:
    """Two methods on two seeds in three folds each, and zero-shot."""
    report(made_up(tmp_path / "runs"), tmp_path / "out", format=("md", "html"))
    assert "\n13 cells done, 0 failed." in (tmp_path / "out" / "table.md").read_text()
    page = (tmp_path / "out" / "index.html").read_text()
    assert '<dd id="done">13</dd>' in page and " from 13 records." in page


def test_the_page_names_the_fold_of_a_failed_cell(tmp_path) -> None:
    runs = made_up(tmp_path / "runs")
    file = put_fold(runs, "coop-tree", 2, "b", 0.0, {})
    record = json.loads(file.read_text())
    file.write_text(json.dumps({**record, "status": "failed", "error": "too slow", "tasks": None}))
    report(runs, tmp_path / "out", format="html")
    assert "<td>2, fold b of 3</td>" in (tmp_path / "out" / "index.html").read_text()


def test_a_report_on_some_of_the_tasks_has_the_folds_of_these_in_one_table(tmp_path) -> None:
    """Own names 60 and 50: over others' +4 and −1, over zero-shot +5 and −5."""
    report(made_up(tmp_path / "runs"), tmp_path / "out", format=DATA, tasks=["b", "a"])
    lines = [x for x in unseen_lines(tmp_path / "out") if x.startswith("| softcpt ")]
    (cells,) = ([cell.strip() for cell in line.split("|")[2:-1]] for line in lines)
    assert cells[:9] == ["55.00", "53.50", "50.00", "+1.50", "1.000", "+5.00", "1.000", "+0.00", "1.000"]
    assert "With 2 tasks no p is below 0.500" in " ".join(unseen_lines(tmp_path / "out"))


def test_a_mean_over_some_of_the_folds_stands_in_no_table(tmp_path) -> None:
    root = made_up(tmp_path / "runs")
    gone = next(p for p in root.glob("*.json") if (r := json.loads(p.read_text()))["tasks"][0]["task"] == "c"
                and r["cell"]["method"] == "softcpt" and r["cell"]["seed"] == 2)  # fmt: skip
    gone.unlink()
    with pytest.warns(UserWarning, match="softcpt, 4 shots, seed 2 is left out: the fold that scores c is not fin"):
        report(root, tmp_path / "out", format=DATA)
    rows = pd.read_csv(tmp_path / "out" / "records.csv")
    assert rows[rows["method"] == "softcpt"].groupby("seed").size().to_dict() == {1: 3}


def test_folds_of_other_settings_do_not_make_a_set_whole(tmp_path) -> None:
    """One fold was run again with another number of views: alone it would be a mean of 99 over "3 tasks"."""
    root = made_up(tmp_path / "runs")
    put_fold(root, "softcpt", 1, "a", 99.0, {}, views=10)
    with pytest.warns(UserWarning, match="softcpt, 4 shots, seed 1 is left out: the fold that scores b is not fin"):
        report(root, tmp_path / "out", format=DATA)
    rows = pd.read_csv(tmp_path / "out" / "records.csv")
    assert sorted(rows.loc[rows["method"] == "softcpt", "accuracy"]) == [48, 52, 59, 61, 69, 71]


def test_all_folds_share_one_table_with_zero_shot(tiny, tmp_path) -> None:
    tiny.run(tmp_path / "runs", methods=["zero-shot", "softcpt"], shots=[1], seeds=[1], protocol="unseen-task:2")
    report(tmp_path / "runs", tmp_path / "out", format=DATA)
    rows = pd.read_csv(tmp_path / "out" / "records.csv")
    assert rows["data"].nunique() == 1
    assert sorted(rows[rows["method"] == "softcpt"]["task"]) == ["Colour", "Shade", "Stripes"]


# The rate-matched control ----------------------------------------------------------------------------------


@pytest.mark.usefixtures("one_thread")
def test_under_one_name_the_matched_control_learns_what_softcpt_learns_with_its_task_context_held(tiny) -> None:
    """Contexts f · P of one name f move κ̄ = |f|² times as far as a context of its own, and P's decay is theirs."""
    from bench.methods.shared_coop_matched import SharedCoOpMatched
    from bench.methods.softcpt_star import SoftCPTStar

    clip, tasks = world_of(tiny, name="colour recognition")
    f = clip.tower.encode_texts(["colour recognition."])[0]
    start = torch.randn(len(f), 4 * clip.tower.width, generator=torch.Generator().manual_seed(3)) * 0.02

    class Held(SoftCPTStar):  # its shared context stays at 0: what remains is f · P
        def initialise(self, tasks: Any, rng: Any) -> dict[str, torch.Tensor]:
            return {"projection": start.clone()}

        def contexts(self, which: Any, names: Any) -> list[torch.Tensor]:
            made = self.rows(self.task_features, which) @ self.learned["projection"]
            return list(made.view(len(which), 4, -1).split(1))

    class Matched(SharedCoOpMatched):
        def initialise(self, tasks: Any, rng: Any) -> dict[str, torch.Tensor]:
            return {"context": (f @ start).view(1, 4, -1).clone()}

    rates = {"lr": 0.01, "warmup_lr": 0.001, "weight_decay": 0.05, "epochs": 5, "batch": 8, "context": 4}
    fitted = [kind(kind.Params(**rates)) for kind in (Held, Matched)]
    for method in fitted:
        method.fit(clip, tasks, 1, lambda done, total: None)
    theirs = (f @ fitted[0].learned["projection"]).view(4, -1)
    ours = fitted[1].learned["context"][0]
    moved = (theirs - (f @ start).view(4, -1)).norm()
    assert moved > 0.1 and (ours - theirs).norm() < 1e-3 * moved
    size = float(f @ f)
    assert fitted[1].params.lr == pytest.approx(0.01 * size)
    assert fitted[1].params.init_std == pytest.approx(0.02 * size**0.5)


def test_the_matched_rate_is_the_mean_of_the_names_kernel_by_hand() -> None:
    """Features (3, 4) and (0, 1): K = [[25, 4], [4, 1]], of mean 8.5. A second training starts from the recipe."""
    features = {"one.": [3.0, 4.0], "other.": [0.0, 1.0]}
    tower = SimpleNamespace(encode_texts=lambda texts: torch.tensor([features[text] for text in texts]))
    kind: Any = find_method("shared-coop-matched")
    method = kind(kind.Params(lr=0.2, warmup_lr=0.02, weight_decay=0.17, init_std=2.0))
    for _ in range(2):
        method.match(SimpleNamespace(tower=tower), [SimpleNamespace(task_name=name) for name in ("one", "other")])
        p = method.params
        assert (p.lr, p.warmup_lr, p.weight_decay) == pytest.approx((1.7, 0.17, 0.02))
        assert p.init_std == pytest.approx(2 * 8.5**0.5)


def world_of(tiny: Any, name: str = "") -> tuple[Any, list[TaskData]]:
    """The tiny backbone, and two tasks of random features; both under one name where it is given."""
    from bench.clip.backbone import load_backbone

    clip = load_backbone(tiny.backbone, None, torch.device("cpu"), "float32")
    rng = torch.Generator().manual_seed(0)
    called = [("Colour", name or "colour recognition"), ("Shade", name or "shade recognition")]
    made = []
    for task, task_name in called:
        views = torch.randn(1, 12, clip.embed_dim, generator=rng)
        classes = tuple(f"{word} {task.lower()}" for word in ("one", "two", "three"))
        labels = torch.arange(3).repeat_interleave(4)
        made.append(TaskData(task, task_name, classes, "a photo of {}.", views, labels, path=("paint",)))
    return clip, made


@pytest.fixture
def fit_tiny(tiny) -> Any:
    def fitted(name: str) -> tuple[Any, list[TaskData], torch.Tensor]:
        clip, tasks = world_of(tiny)
        kind = find_method(name)
        known = {f.name for f in fields(kind.Params)}
        method = kind(kind.Params(**{key: value for key, value in PARAMS.items() if key in known}))
        method.fit(clip, tasks, 1, lambda done, total: None)
        return method, tasks, torch.randn(5, clip.embed_dim, generator=torch.Generator().manual_seed(9))

    return fitted
