"""Some of many tasks: trained on, scored, and reported."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

import bench
from bench.cells import Cell
from bench.cli import main
from bench.config import RunConfig
from bench.errors import UserError
from bench.evaluate import _copies
from bench.likeness import IN_RECORDS, kept
from bench.methods import TaskData, find_method
from bench.plan import Plan, prepare
from bench.protocols import Fold, find_protocol
from bench.protocols.sampled import sampled
from bench.reports import report
from bench.reports.config import ReportConfig
from bench.reports.figures.learning_curve import LearningCurve, curve
from bench.reports.groups import split
from bench.reports.records import load
from bench.reports.tables.over_tasks import above_chance
from bench.runner import _described as described
from bench.scoring import OTHER_NAMES, under_names

sys.path.append(str(Path(__file__).parent))
from test_methods_all import world
from test_reports import put, table

NAMES = tuple(f"task {i}" for i in range(12))


def folds(protocol: str = "unseen-task:4", **asked: Any) -> list[Fold]:
    tasks: Any = [SimpleNamespace(name=name) for name in NAMES]
    return sampled(find_protocol(protocol).of(tasks), **asked).folds(tasks)


# ---- which tasks ---------------------------------------------------------------------------------------------


def test_fewer_training_tasks_are_among_more_and_all_score_the_same_tasks() -> None:
    found = folds(train_tasks=[2, 5, 9])
    assert [fold.train_tasks for fold in found] == [2] * 4 + [5] * 4 + [9] * 4
    for few, some, every, whole in zip(found[:4], found[4:8], found[8:], folds(), strict=True):
        assert [len(f.trained) for f in (few, some, every)] == [2, 5, 9]
        assert set(few.trained) < set(some.trained) < set(every.trained) == set(whole.trained)
        assert few.scored == some.scored == every.scored == whole.scored
        assert few.name == whole.name


def test_the_scored_tasks_are_a_sample_of_all_folds_and_folds_without_one_are_not_trained() -> None:
    in_folds = folds(score_tasks=6)  # of four folds, whose tasks take turns
    assert in_folds[0].sample == tuple(sorted(in_folds[0].sample, key=NAMES.index))  # in the suite's order
    found = folds("unseen-task", score_tasks=3)
    assert len(found) == 3 and len(found[0].sample) == 3
    assert [fold.scored for fold in found] == [(name,) for name in found[0].sample]
    assert all(len(fold.trained) == 11 and fold.sample == found[0].sample for fold in found)
    more = folds("unseen-task", score_tasks=5)[0].sample
    assert set(found[0].sample) < set(more)  # the same whichever is asked first
    (few,) = folds("few-shot", score_tasks=3)
    assert few.trained == NAMES and few.scored == found[0].sample


@pytest.mark.parametrize(
    ("protocol", "asked", "said"),
    [
        ("unseen-task:4", {"train_tasks": [10]}, "--train-tasks 10: a fold of unseen-task:4 has 9 tasks to train on"),
        ("few-shot", {"train_tasks": [2]}, "--train-tasks: few-shot scores what it trains on"),
        ("few-shot", {"score_tasks": 13}, "--score-tasks 13: 12 tasks can be scored"),
    ],
)
def test_what_no_sample_can_be_is_refused(protocol: str, asked: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        folds(protocol, **asked)


def test_one_command_gives_the_points_of_a_learning_curve(tiny: Any, tmp_path: Path, capsys: Any) -> None:
    grid: dict[str, Any] = {"methods": ["zero-shot", "softcpt"], "shots": [1], "seeds": [1], "protocol": "unseen-task"}
    frame = tiny.run(tmp_path / "runs", train_tasks=[1, 2], **grid)
    means = frame.groupby("setting")["accuracy"].mean()
    assert list(means.index) == ["", "train_tasks=1", "train_tasks=2"]  # no row of Python's is of two trainings alike
    plan = prepare(RunConfig(**{**tiny.arguments, **grid}, train_tasks=[1, 2], results=tmp_path / "runs", quiet=True))
    shown = plan.overview()
    assert shown["train_tasks"].tolist() == [""] + [1] * 3 + [2] * 3
    assert described([plan.cells[1]]).endswith("softcpt, 1 shot, seed 1, fold 1 of 3, trained on 1 task")
    assert shown["fold"].tolist() == [""] + ["1 of 3", "2 of 3", "3 of 3"] * 2
    typed = ["--methods", "zero-shot", "softcpt", "--shots", "1", "--seeds", "1", "--protocol", "unseen-task"]
    assert main(tiny.command(tmp_path / "runs", *typed, "--train-tasks", "1", "2")) == 0
    lines = capsys.readouterr().out.splitlines()
    for n in (1, 2):  # a mean over both numbers would answer no question
        (line,) = (line for line in lines if f"train_tasks={n}" in line)
        assert line.split()[-1] == f"{means[f'train_tasks={n}']:.1f}"
    cells = [r["config"] for r in tiny.records(tmp_path / "runs").values() if r["cell"]["method"] == "softcpt"]
    sizes = sorted((c["train_tasks"], len(c["trained"]), len(c["scored"])) for c in cells)
    assert sizes == [(1, 1, 1)] * 3 + [(2, 2, 1)] * 3
    rows = bench.report(tmp_path / "runs", tmp_path / "out", format=["png", "csv", "md"])
    assert set(rows["setting"]) == {"", "train_tasks=1", "train_tasks=2"}
    assert "same few-shot images" not in (tmp_path / "out" / "table.md").read_text()  # more tasks are more images
    assert rows.groupby("setting")["task"].nunique().tolist() == [3, 3, 3]
    assert list((tmp_path / "out" / "figures").glob("*-learning-curve.png"))


def test_what_a_cell_was_trained_on_does_not_depend_on_the_other_numbers_of_its_command(
    tiny: Any, tmp_path: Path
) -> None:
    """Of three tasks, each left out once: two numbers of training tasks are two sets of images, in any command."""
    grid: dict[str, Any] = {"methods": ["softcpt"], "shots": [1], "seeds": [1], "protocol": "unseen-task"}

    def told(**more: Any) -> dict[str, str]:
        plan = prepare(RunConfig(**{**tiny.arguments, **grid, **more}, results=tmp_path / "runs", quiet=True))
        return {cell.key: plan.fingerprints(cell)["draw"] for cell in plan.cells}

    one, two, both = told(train_tasks=[1]), told(train_tasks=[2]), told(train_tasks=[1, 2])
    assert both == {**one, **two} and len(both) == 6
    assert {*two.values()} == {*told(protocol="few-shot").values()}  # all folds together: all three tasks' images
    assert len({*one.values()}) == 1 and {*one.values()} != {*two.values()}  # of two tasks alone


def test_only_seeds_that_learn_from_the_same_tasks_are_trained_side_by_side(tiny: Any, tmp_path: Path) -> None:
    """The matched control's weight decay follows from the names it is trained on: one optimiser has one."""
    grid: dict[str, Any] = {"methods": ["shared-coop-matched"], "shots": [1], "protocol": "unseen-task"}
    grid |= {"seeds": [1, 2], "score_tasks": 1, "options": ["all.weight_decay=0.1", "all.lr=0.01", "all.epochs=4"]}
    tiny.run(tmp_path / "alone", train_tasks=[1, 2], **grid)
    tiny.run(tmp_path / "at-once", train_tasks=[1, 2], seeds_at_once=True, **grid)
    found = tiny.records(tmp_path / "at-once")
    assert [record["trained_together"] for record in found.values()] == [[1, 2]] * 4
    for path in (tmp_path / "alone").rglob("*.safetensors"):
        one, other = load_file(path), load_file(tmp_path / "at-once" / path.relative_to(tmp_path / "alone"))
        assert (one["context"] - other["context"]).norm() < 1e-4 * one["context"].norm()


def test_a_cell_may_be_scored_on_some_of_its_tasks_and_says_on_which(tiny: Any, tmp_path: Path) -> None:
    grid: dict[str, Any] = {"methods": ["zero-shot", "coop"], "shots": [1], "seeds": [1]}
    whole = tiny.run(tmp_path / "a", **grid).set_index(["method", "task"])["accuracy"]
    some = tiny.run(tmp_path / "b", score_tasks=2, **grid).set_index(["method", "task"])["accuracy"]
    assert some.groupby("method").size().to_dict() == {"zero-shot": 2, "coop": 2}
    assert (some == whole[some.index]).all()
    cells = {r["cell"]["method"]: r for r in tiny.records(tmp_path / "b").values()}
    asked = [row["task"] for row in cells["coop"]["tasks"]]
    assert cells["coop"]["config"]["scored"] == cells["zero-shot"]["config"]["tasks"] == asked
    assert not any(r["config"]["complete_suite"] for r in cells.values())
    assert not {r["key"] for r in cells.values()} & {r["key"] for r in tiny.records(tmp_path / "a").values()}
    unseen = {**grid, "methods": ["shared-coop"], "protocol": "unseen-task"}
    again = tiny.run(tmp_path / "c", score_tasks=2, **unseen)
    assert set(again["task"]) == set(some.index.get_level_values("task"))


# ---- what is kept --------------------------------------------------------------------------------------------


def test_of_many_tasks_a_record_holds_no_matrix_of_similarities() -> None:
    method: Any = SimpleNamespace(tasks=[None] * (IN_RECORDS + 1))
    assert kept(method, IN_RECORDS) == {}


def under(own: str, others: list[str]) -> dict[str, float]:
    """What a task of one image scores under other names with a method that only counts the letters of its name."""

    def task(name: str) -> TaskData:
        return TaskData(name, name, ("a", "b"), "{}", torch.zeros(1, 0, 2), torch.zeros(0, dtype=torch.long))

    class Method:
        name, params = "by name", None

        def texts(self, params: Any, task: TaskData) -> list[tuple[str, int]]:
            return [(task.task_name, 0)]

        def predict_new(self, task: TaskData, features: torch.Tensor) -> torch.Tensor:
            return torch.tensor([[float(len(task.task_name)), 1.5]])

    split = SimpleNamespace(test=[SimpleNamespace(label=0)])
    tested: Any = SimpleNamespace(split=split, class_names=("a", "b"), metric="overall_acc")
    method, images, device = Method(), [torch.zeros(1, 2)], torch.device("cpu")
    asking: Any = (find_protocol("few-shot"), method, tested, task(own), [task(o) for o in others], images, device)
    return under_names(*asking)


@pytest.mark.parametrize(("trained", "asked"), [(30, 30), (31, 16), (3000, 30)])
def test_of_many_names_an_unseen_task_is_scored_under_some(trained: int, asked: int) -> None:
    """Every second of 31, every hundredth of 3000."""
    found = under("own", [str(i) for i in range(trained)])
    assert len(found) == 1 + asked <= 1 + OTHER_NAMES and list(found)[:2] == ["", "0"]


def test_a_task_of_the_unseen_one_s_own_name_counts_as_no_other_name() -> None:
    """Under two letters or more the image is right: with its own name among the others they would look better."""
    assert under("flowers", ["Flowers", "x", "cars"]) == {"": 0, "x": 0, "cars": 100}
    assert under("flowers", ["flowers"]) == {"": 0}


def test_of_many_unseen_tasks_what_serves_the_last_one_alone_is_kept() -> None:
    """Each serves with a copy of all that was learned."""
    where, kind = world(), find_method("softcpt")
    method: Any = kind(kind.Params(context=4))
    method.setup(where.clip, where.tasks[:1], 1)
    scores = [method.predict_new(task, torch.ones(2, where.clip.embed_dim)) for task in where.tasks]
    assert len(method._guests) == 1
    assert torch.equal(method.predict_new(where.tasks[0], torch.ones(2, where.clip.embed_dim)), scores[0])


def test_copies_among_many_unseen_tasks_take_one_look_at_each_trained_one() -> None:
    """Of 300 unseen tasks, not 300 · 300 looks. Unseen 7 has an image of trained 2. So has trained 1, beside one of its
    own, but others' images count only for tasks that were not trained on."""
    few = {f"trained {i}": (f"own {i}", f"also {i}") for i in range(300)}
    tests = {f"unseen {i}": ("new",) for i in range(300)}
    tests |= {"unseen 7": ("own 2", "new"), "trained 1": ("own 1", "own 2")}
    looks: list[str] = []

    def images(name: str) -> SimpleNamespace:
        looks.append(name)
        return SimpleNamespace(digests=few[name])

    held = {name: SimpleNamespace(digests=own) for name, own in tests.items()}
    plan: Any = SimpleNamespace(draw=lambda cell: SimpleNamespace(images=images), images=SimpleNamespace(tests=held))
    found = _copies(plan, cast(Any, SimpleNamespace(trained=tuple(few))))
    assert {name: n for name, n in found.items() if n} == {"unseen 7": 1, "trained 1": 1}
    assert len(found) == 301 and len(looks) == 300


def test_a_cell_s_many_tasks_are_read_from_its_configuration_once() -> None:
    """Not once for each of them: of 10,000 that took seven seconds, for each unseen task."""

    class Config(dict[str, Any]):
        reads = 0

        def get(self, key: str, default: Any = None) -> Any:
            Config.reads += 1
            return super().get(key, default)

    names = [f"task {i}" for i in range(40)]
    tasks = [SimpleNamespace(name=name) for name in names]
    plan: Any = SimpleNamespace(tasks=tasks)
    cell = Cell(cast(Any, None), Config(tasks=names, trained=names[:30], scored=names[30:]), "key")
    assert Plan.trained(plan, cell) == tasks[:30] and Plan.scored(plan, cell) == tasks[30:]
    assert Config.reads == 2


# ---- the report ----------------------------------------------------------------------------------------------


def test_accuracy_above_chance_of_few_and_many_classes() -> None:
    """60 % of 5 classes is (60 − 20) / (100 − 20); of 100, (60 − 1) / 99; a single class has no chance."""
    found = above_chance(pd.Series([60.0, 60.0, 20.0, 100.0]), pd.Series([5, 100, 5, 1]))
    assert found.tolist()[:3] == pytest.approx([0.5, 0.59596, 0.0], abs=1e-5) and pd.isna(found[3])


def test_of_many_tasks_the_standard_error_over_them_stands_beside_the_mean(tmp_path: Path) -> None:
    """40 tasks, half of them at 50 and half at 70 % on average over two seeds: mean 60, sample deviation
    √(40 · 100 / 39) = 10.127, over √40 1.601. Of 5 classes that is 0.375 and 0.625 above chance: mean 0.5, standard
    error 0.020."""
    names = [f"task {i:02d}" for i in range(40)]
    for seed, extra in ((1, 5.0), (2, -5.0)):
        put(tmp_path / "runs", "coop", 4, seed, {n: (50 if i % 2 else 70) + extra for i, n in enumerate(names)})
    report(tmp_path / "runs", tmp_path / "out", format=["md", "csv"])
    header, line = table(tmp_path / "out", "toy · tiny · over tasks, 4 shots")[:2]
    assert header == ["method", "accuracy (%)", "above chance"]
    assert line == ["coop", "60.00 ± 1.60", "0.500 ± 0.020"]
    (row,) = pd.read_csv(tmp_path / "out" / "over_tasks.csv").to_dict("records")
    assert (row["tasks"], row["shots"], row["accuracy_se"]) == (40, 4, pytest.approx(1.6013, abs=1e-4))


def test_of_few_tasks_there_is_no_table_over_tasks(tmp_path: Path) -> None:
    put(tmp_path / "runs", "coop", 4, 1, {f"task {i:02d}": 50.0 for i in range(30)})
    report(tmp_path / "runs", tmp_path / "out", format=["md", "csv"])
    assert not (tmp_path / "out" / "over_tasks.csv").exists()


def test_the_learning_curve_is_the_mean_over_tasks_of_each_number_of_training_tasks(tmp_path: Path) -> None:
    """With two training tasks 40 and 60 (seed 1) and 44 and 64 (seed 2): 52; with eight, 70."""
    for n, seed, both in ((2, 1, (40.0, 60.0)), (2, 2, (44.0, 64.0)), (8, 1, (65.0, 75.0)), (8, 2, (65.0, 75.0))):
        for task, accuracy in zip("ab", both, strict=True):
            config = {"tasks": ["a", "b"], "trained": ["c"], "scored": [task], "fold": f"{task} of 2", "train_tasks": n}
            for method, less in (("softcpt", 0), ("shared-coop-matched", 4 if n == 2 else 1)):
                cell = {"protocol": "unseen-task"}
                put(tmp_path / "runs", method, 4, seed, {task: accuracy - less}, cell=cell, config=config)
    loaded = load(ReportConfig(results=tmp_path / "runs"))
    (block,) = split(loaded.rows, loaded.cells)
    assert LearningCurve().each(block) and not LearningCurve().why_not(block)
    points = curve(block)
    points = points[points["line"] == "softcpt"]
    assert points[["train_tasks", "mean"]].values.tolist() == [[2, 52], [8, 70]]
    assert points["half"].tolist() == pytest.approx([25.41, 0], abs=0.01)  # 12.706 · √8 / √2
    report(tmp_path / "runs", tmp_path / "out", format=["md"])
    header, *lines = table(tmp_path / "out", "toy · tiny · unseen-task · tasks never")
    text = (tmp_path / "out" / "table.md").read_text()
    assert "Each training is on 2 or 8 of the tasks (--train-tasks)." in text
    place = header.index("own − shared-coop-matched")  # the control of as many training tasks
    assert [line[place] for line in lines if line[0].startswith("softcpt")] == ["+4.00", "+1.00"]


def test_a_line_of_the_learning_curve_is_named_by_what_tells_it_from_others(tmp_path: Path) -> None:
    """Not by the 20 epochs that all methods have alike, nor by the number of training tasks, which is its axis."""
    for method, views in (("softcpt", 20), ("softcpt", 10), ("shared-coop-matched", 20)):
        for n in (2, 8):
            config = {"trained": ["c"], "scored": ["a"], "fold": "1 of 1", "train_tasks": n, "views": views}
            cell = {"protocol": "unseen-task", "variant": "epochs=20"}
            put(tmp_path, method, 4, 1, {"a": 50.0 + n + views}, cell=cell, config=config, defaults={"epochs": 50})
    loaded = load(ReportConfig(results=tmp_path))
    (block,) = split(loaded.rows, loaded.cells)
    figure = LearningCurve().draw(block)
    names = {text.get_text() for text in figure.legends[0].get_texts()}
    assert names == {"softcpt (views=20)", "softcpt (views=10)", "shared-coop-matched"}
    points = curve(block).groupby("line")["mean"].agg(list).to_dict()
    assert points["softcpt (views=10)"] == [62, 68] and points["softcpt (views=20)"] == [72, 78]


def test_a_report_on_hundreds_of_tasks_stays_small(tmp_path: Path) -> None:
    """No picture and no table with a line for each of 300 tasks; the data have every one."""
    names = [f"task {i:03d}" for i in range(300)]
    put(tmp_path / "runs", "zero-shot", 0, 0, dict.fromkeys(names, 50.0))
    for seed in (1, 2):
        for shots in (1, 4):
            put(tmp_path / "runs", "coop", shots, seed, {n: 50.0 + i % 40 for i, n in enumerate(names)})
    report(tmp_path / "runs", tmp_path / "out", format=["md", "csv", "png"])
    assert len(pd.read_csv(tmp_path / "out" / "records.csv")) == 5 * 300
    drawn = {path.stem.removeprefix("toy-tiny-") for path in (tmp_path / "out" / "figures").glob("*.png")}
    assert "accuracy" in drawn and not {"tasks", "gain", "heat"} & drawn
    text = (tmp_path / "out" / "table.md").read_text()
    assert "and 200 more (records.csv has all)" in text and len(text) < 60_000
    shared = load(ReportConfig(results=tmp_path / "runs")).rows["tasks"]
    assert len({id(names) for names in shared}) == 5  # 300 names once for each record, not for each of its 300 rows
