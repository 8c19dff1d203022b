"""Numbers that users read, against values worked out by hand: metrics, means, spreads, seeds, keys.

`make mutants` plants faults in all of them; here stand the values that give those faults away.
"""

from __future__ import annotations

import importlib
import json
import math
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
import torch
from torch import Tensor

import bench
import bench.evaluate
from bench.clip.backbone import Backbone, _fingerprint, load_backbone
from bench.config import RunConfig
from bench.datasets.splits import divide
from bench.datasets.types import Item, Listing
from bench.draws import few_shot_set
from bench.methods import TaskData, find_method
from bench.methods.kgcoop import KgCoOp
from bench.methods.prograd import ProGrad
from bench.methods.shared_coop import SharedCoOp
from bench.methods.softcpt_class import SoftCPTCATA
from bench.methods.training import Batch
from bench.metrics import METRICS
from bench.plan import prepare
from bench.protocols import find_protocol
from bench.protocols.base2new import harmonic_mean
from bench.reports import reference, report
from bench.saved import Kept, words

sys.path.append(str(Path(__file__).parent))
import test_reports
from test_reports import fashion, put, row

no_figures = test_reports.no_figures  # the reports here are about tables

pytestmark = pytest.mark.usefixtures("one_thread")


# ---- metrics -------------------------------------------------------------------------------------------------


def test_mean_acc_weighs_classes_alike_and_overall_acc_images() -> None:
    labels = torch.tensor([0] * 8 + [1] * 2)
    predicted = torch.tensor([0] * 6 + [1] * 2 + [1, 0])  # 6 of 8 and 1 of 2
    assert METRICS["overall_acc"](predicted, labels) == pytest.approx(70)  # 7 of 10
    assert METRICS["mean_acc"](predicted, labels) == pytest.approx(62.5)  # of 75 and 50


def test_a_class_without_test_images_is_left_out_of_mean_acc() -> None:
    labels = torch.tensor([0, 0, 2, 2, 2, 2])  # none of class 1, nor of 3
    predicted = torch.tensor([0, 1, 2, 2, 2, 3])
    assert METRICS["mean_acc"](predicted, labels) == pytest.approx(62.5)  # of 50 and 75


def test_harmonic_mean_is_two_ab_over_a_plus_b() -> None:
    assert harmonic_mean(80, 20) == pytest.approx(32)  # arithmetic 50, geometric 40
    assert harmonic_mean(0, 50) == 0
    assert harmonic_mean(0, 0) == 0


def a_task(n_classes: int, **parts: list[int]) -> Any:
    """A task whose parts have images of these labels."""
    items = {
        part: tuple(Item(f"{part}/{number:03d}.png", label) for number, label in enumerate(parts.get(part, [])))
        for part in ("train", "val", "test")
    }
    return SimpleNamespace(name="t", class_names=tuple("abcdefg"[:n_classes]), split=SimpleNamespace(**items))


def test_base_and_new_classes_are_scored_apart_and_counted_from_nought() -> None:
    task = a_task(5, test=[0, 3, 2, 4, 1, 3])  # base: a, b and c; new: d and e
    base, new = find_protocol("base2new").parts(task)
    assert (base.name, base.rows.tolist(), base.labels.tolist()) == ("base", [0, 2, 4], [0, 2, 1])
    assert (new.name, new.rows.tolist(), new.labels.tolist()) == ("new", [1, 3, 5], [0, 1, 0])
    assert (base.n_classes, new.n_classes, new.class_names) == (3, 2, ("d", "e"))
    assert [item.label for item in find_protocol("base2new").trained_items(task, task.split.test)] == [0, 2, 1]


# ---- what the harness makes of a method ----------------------------------------------------------------------

METHODS = """
import torch
from bench.methods import Method

class First(Method):
    '''Says the first of the classes, whatever the image.'''
    name = "first"
    trains = False
    needs = frozenset()

    def fit(self, clip, tasks, seed, report):
        self.tasks = tasks

    def predict(self, task, features, class_names=None):
        scores = torch.zeros(len(features), len(task.class_names if class_names is None else class_names))
        scores[:, 0] = 1
        return scores

class Diverged(First):
    name = "diverged"

    def predict(self, task, features, class_names=None):
        return super().predict(task, features, class_names) * float("nan")

class Seen(First):
    '''Keeps what it was given to learn from.'''
    name = "seen"
    trains = True
    needs = frozenset({"views", "test_view", "val"})
    fits = []

    def fit(self, clip, tasks, seed, report):
        super().fit(clip, tasks, seed, report)
        self.fits.append((seed, tasks))
"""


@pytest.fixture(scope="module")
def methods(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A module of plug-in methods."""
    folder = tmp_path_factory.mktemp("user")
    (folder / "plain_methods.py").write_text(METHODS)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        yield "plain_methods"
    sys.modules.pop("plain_methods", None)


def fewer(tiny: Any, folder: str, but: str) -> None:
    """Leave half of a task's images, but all of one class: the rule makes 3, 1, 2 of 6, and 6, 2, 4 of 12."""
    for path in tiny.images(folder):
        if path.parent.name != but and int(path.stem) >= 6:
            path.unlink()


def test_scores_are_by_each_task_s_metric_and_the_suite_s_is_their_plain_mean(
    own_tiny: Any, tmp_path: Path, methods: str
) -> None:
    fewer(own_tiny, "shade", "dark")  # test images: 4, 2, 2
    fewer(own_tiny, "stripes", "leaning")
    own_tiny.run(tmp_path / "runs", methods=[f"{methods}:First"])
    (record,) = own_tiny.records(tmp_path / "runs").values()
    accuracies = {t["task"]: (t["n_test"], t["accuracy"]) for t in record["tasks"]}
    assert accuracies == {
        "Colour": (12, pytest.approx(100 / 3)),  # overall_acc: 4 of 12
        "Shade": (8, pytest.approx(100 / 3)),  # mean_acc: 100, 0 and 0
        "Stripes": (8, pytest.approx(50)),  # overall_acc: 4 of 8
    }
    assert record["score"] == pytest.approx(350 / 9)  # weighted by images it were 38.1, not 38.9


def test_the_score_of_base_to_new_is_the_mean_of_the_tasks_harmonic_means(
    own_tiny: Any, tmp_path: Path, methods: str
) -> None:
    fewer(own_tiny, "stripes", "leaning")
    own_tiny.run(tmp_path / "runs", methods=[f"{methods}:First"], protocol="base2new", tasks=["Colour", "Stripes"])
    (record,) = own_tiny.records(tmp_path / "runs").values()
    accuracies = {(t["task"], t["part"]): t["accuracy"] for t in record["tasks"]}
    assert accuracies == {
        ("Colour", "base"): pytest.approx(50),  # 4 of 8
        ("Colour", "new"): 100,  # one class
        ("Colour", "harmonic"): pytest.approx(200 / 3),
        ("Stripes", "base"): pytest.approx(200 / 3),  # 4 of 6
        ("Stripes", "new"): 100,
        ("Stripes", "harmonic"): pytest.approx(80),
    }
    assert record["score"] == pytest.approx((200 / 3 + 80) / 2)


def test_a_training_that_diverged_has_no_accuracy(tiny: Any, tmp_path: Path, methods: str) -> None:
    table = bench.run(**tiny.arguments | {"methods": [f"{methods}:Diverged"]}, results=tmp_path, quiet=True)
    assert table.empty
    (record,) = tiny.records(tmp_path).values()
    assert record["status"] == "failed" and "scores are not finite" in record["error"]


@pytest.mark.parametrize(("at_once", "seconds"), [(False, 6.0), (True, 3.0)])
def test_seeds_at_once_share_their_seconds(
    tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_once: bool, seconds: float
) -> None:
    now = iter(range(0, 10_000, 6))  # six seconds pass between any two looks at the clock
    monkeypatch.setattr(bench.evaluate, "time", SimpleNamespace(perf_counter=lambda: float(next(now))))
    tiny.run(tmp_path, methods=["coop"], shots=[1, 2], seeds=[1, 2], seeds_at_once=at_once)
    records = tiny.records(tmp_path).values()
    assert [(r["feature_seconds"], r["train_seconds"]) for r in records] == [(seconds, seconds)] * 4


# ---- seeds and draws -----------------------------------------------------------------------------------------


def rows_of(features: Tensor) -> set[tuple[float, ...]]:
    """The rows of a tensor as a set, so that order plays no part."""
    return {tuple(row) for row in features.flatten(0, -2).tolist()}


@pytest.fixture(scope="module")
def seen(tiny: Any, tmp_path_factory: pytest.TempPathFactory, methods: str) -> dict[tuple[int, int], TaskData]:
    """What a method was given of the first task, by seed and shots; three views an image."""
    fits: list[Any] = importlib.import_module(methods).Seen.fits
    runs = tmp_path_factory.mktemp("runs")
    tiny.run(runs, methods=[f"{methods}:Seen"], shots=[1, 2, 6], seeds=[1, 2], views=3)
    return {(seed, len(tasks[0].labels) // 3): tasks[0] for seed, tasks in fits}


def test_a_method_is_given_each_seed_and_shot_count_once(seen: dict[tuple[int, int], TaskData]) -> None:
    assert set(seen) == {(seed, shots) for seed in (1, 2) for shots in (1, 2, 6)}


def test_seeds_draw_other_images_and_more_shots_keep_those_of_fewer(seen: dict[tuple[int, int], TaskData]) -> None:
    for seed in (1, 2):
        one, two, six = (rows_of(seen[seed, shots].test_view) for shots in (1, 2, 6))
        assert (len(one), len(two), len(six)) == (3, 6, 18)
        assert one < two < six
    assert rows_of(seen[1, 2].test_view) != rows_of(seen[2, 2].test_view)
    assert rows_of(seen[1, 6].test_view) == rows_of(seen[2, 6].test_view)  # all there are


def test_every_view_of_every_seed_is_another_and_none_is_the_test_view(seen: dict[tuple[int, int], TaskData]) -> None:
    first, second = seen[1, 6], seen[2, 6]  # the same images
    assert first.views.shape[:2] == second.views.shape[:2] == (3, 18)
    rows = [rows_of(view[None]) for task in (first, second) for view in task.views]
    assert len(set.union(*rows, rows_of(first.test_view))) == 7 * 18


def test_validation_images_are_no_training_images_and_have_their_own_labels(
    seen: dict[tuple[int, int], TaskData],
) -> None:
    for (_, shots), task in seen.items():
        n = min(shots, 2)  # two a class are there
        assert sorted(task.val_labels.tolist()) == sorted([0, 1, 2] * n)
        assert len(task.val) == 3 * n
        assert not rows_of(task.val) & rows_of(task.test_view)


@pytest.mark.parametrize(("shots", "n_val"), [(1, 1), (2, 2), (4, 4), (16, 4)])
def test_four_validation_images_a_class_at_most(shots: int, n_val: int) -> None:
    task = a_task(2, train=[0, 1] * 20, val=[0, 1] * 10)
    train, val = few_shot_set(task, find_protocol("few-shot"), shots, 1, None)
    drawn = [[item.label for block in part for item in block] for part in (train, val)]
    assert sorted(drawn[0]) == [0] * shots + [1] * shots
    assert sorted(drawn[1]) == [0] * n_val + [1] * n_val
    _, more = few_shot_set(task, find_protocol("few-shot"), shots, 1, None, val_shots=16)
    assert sum(map(len, more)) == 2 * min(shots, 10)  # ten of each class are there


def test_an_official_test_list_stays_and_a_fifth_of_the_rest_is_for_validation(tmp_path: Path) -> None:
    sizes = {"trainval": 20, "test": 6}
    given = {part: [Item(f"{part}/{n}.png", n % 2) for n in range(size)] for part, size in sizes.items()}
    split = divide(Listing(tmp_path, ("a", "b"), given, "lists"))
    assert sorted(split.test) == sorted(given["test"])
    assert sorted([*split.train, *split.val]) == sorted(given["trainval"])
    assert (len(split.train), len(split.val)) == (16, 4)  # 8 and 2 of the ten of each class


@pytest.fixture(scope="module")
def backbone(tiny: Any) -> Backbone:
    return load_backbone(tiny.backbone)


def two_tasks(labels: Sequence[int] = (0, 1, 2, 0, 1, 2)) -> list[TaskData]:
    """Of 16-dimensional features, two views."""
    rng = torch.Generator().manual_seed(5)
    names, wanted = ("red", "green", "blue"), torch.tensor(labels)
    return [
        TaskData(name, f"{name} recognition", names, "a {}.", torch.randn(2, len(labels), 16, generator=rng), wanted)
        for name in ("one", "two")
    ]


def fitted(backbone: Backbone, name: str, seed: int, tasks: Sequence[TaskData] | None = None, **params: Any) -> Any:
    found = find_method(name)
    method = found(found.Params(**{"epochs": 2, "batch": 2, "lr": 0.1, "context": 3, "words": "", **params}))
    method.fit(backbone, tasks or two_tasks(), seed, lambda done, total: None)
    return method


STILL = {"lr": 0.0, "warmup_lr": 0.0}  # no step moves anything: what is learned are the start values


@pytest.mark.parametrize("name", ["coop", "shared-coop", "kgcoop", "softcpt"])
def test_start_values_follow_from_the_seed(backbone: Backbone, name: str) -> None:
    first, again, second = (fitted(backbone, name, seed, **STILL).state() for seed in (1, 1, 2))
    for key, value in first.items():
        assert torch.equal(value, again[key])
        assert (value - second[key]).norm() > 0.5 * value.norm()


def test_the_order_of_batches_follows_from_the_seed(backbone: Backbone) -> None:
    orders = []
    for seed in (1, 1, 2):
        method = fitted(backbone, "shared-coop", 1, **STILL)
        steps = method.training([0, 1], seed).steps
        orders.append([(batch.tasks.tolist(), batch.labels.tolist()) for _, batch in steps])
    assert orders[0] == orders[1] != orders[2]
    assert sorted(map(str, orders[0])) != orders[0]


def test_init_std_is_the_start_values_standard_deviation(backbone: Backbone) -> None:
    for name in ("coop", "softcpt", "softcpt-star", "softcpt-cata"):
        for key, value in fitted(backbone, name, 1, init_std=0.5, context=16, **STILL).state().items():
            assert float(value.std()) == pytest.approx(0.5, rel=0.2), (name, key)


def test_a_second_fit_scores_with_what_it_has_learned_itself(backbone: Backbone) -> None:
    images = torch.randn(4, 16, generator=torch.Generator().manual_seed(1))
    twice = fitted(backbone, "coop", 1)
    before = twice.predict(two_tasks()[0], images)
    twice.fit(backbone, two_tasks([2, 1, 0, 2, 1, 0]), 2, lambda done, total: None)
    once = fitted(backbone, "coop", 2, two_tasks([2, 1, 0, 2, 1, 0]))
    assert torch.equal(twice.predict(two_tasks()[0], images), once.predict(two_tasks()[0], images))
    assert not torch.allclose(twice.predict(two_tasks()[0], images), before)


def test_the_classes_that_are_absent_change_from_step_to_step() -> None:
    method = SoftCPTCATA(SoftCPTCATA.Params(absent=0.25))
    drawn = []
    for seed in (1, 2):
        method._draw = torch.Generator().manual_seed(seed)
        drawn.append([tuple(method._some_classes(list("abcdefghi"), torch.tensor([8])).tolist()) for _ in range(60)])
    for chosen in drawn[0]:
        assert len(chosen) == 3 and chosen[-1] == 8  # a quarter of eight, and the one that is present
        assert list(chosen) == sorted(set(chosen))
    assert {c for chosen in drawn[0] for c in chosen} == set(range(9))
    assert drawn[0] != drawn[1]


# ---- formulas that tests of one task alone cannot tell -------------------------------------------------------


def a_batch(features: list[list[float]], labels: list[int], tasks: list[int]) -> Batch:
    return Batch.of(torch.tensor(features), torch.tensor(labels), torch.tensor(tasks))


def test_joint_kgcoop_holds_the_mean_over_tasks_of_their_mean_likeness() -> None:
    method = KgCoOp(KgCoOp.Params(joint=True))
    method.clip = SimpleNamespace(scale=0.0, device=torch.device("cpu"))  # type: ignore[assignment]
    x, y = [1.0, 0.0], [0.0, 1.0]
    method.written = [torch.tensor([x, y]), torch.tensor([x, x, x])]
    text = [torch.tensor([x, y]), torch.tensor([x, y, y])]  # likeness (1 + 1) / 2 = 1, and (1 + 0 + 0) / 3 = 1/3
    loss = method.loss(a_batch([x, x], [0, 2], [0, 1]), text)
    # Scale 0: all logits are equal, the cross-entropies are ln 2 and ln 3. The pull is 8 · (1 − (1 + 1/3) / 2) = 8/3.
    assert float(loss) == pytest.approx((math.log(2) + math.log(3)) / 2 + 8 / 3, abs=1e-5)


def test_prograd_s_temperature_heats_both_distributions() -> None:
    method = ProGrad(ProGrad.Params(temperature=2.0))
    method.clip = SimpleNamespace(scale=1.0, device=torch.device("cpu"))  # type: ignore[assignment]
    method.teacher = [torch.tensor([[0.0, 1.0], [2 * math.log(2), 1.0]])]  # logits 0, 2 ln 2: heated 1/3, 2/3
    text = [torch.tensor([[0.0, 1.0], [2 * math.log(3), 1.0]])]  # logits 0, 2 ln 3: 1/10, 9/10; heated 1/4, 3/4
    cross_entropy, knowledge = method.two_losses(a_batch([[1.0, 0.0]], [1], [0]), text)
    assert float(cross_entropy) == pytest.approx(-math.log(0.9), abs=1e-6)
    expected = 1 / 3 * math.log((1 / 3) / (1 / 4)) + 2 / 3 * math.log((2 / 3) / (3 / 4))
    assert float(knowledge) == pytest.approx(2**2 * expected, abs=1e-6)


def test_the_scale_is_the_exponential_of_the_weights_logit_scale(backbone: Backbone) -> None:
    assert backbone.scale == pytest.approx(1 / 0.07)  # where CLIP starts, and the tiny one stays


def test_words_are_the_nearest_by_distance_not_by_angle() -> None:
    method = SharedCoOp()
    method.learned = {"context": torch.tensor([[[1.0, 0.0], [0.0, 2.0]]])}
    vocabulary = torch.tensor([[9.0, 0.0], [0.7, 0.4], [0.0, 5.0], [0.0, 1.0]])
    tower = SimpleNamespace(
        token_embedding=SimpleNamespace(weight=vocabulary),
        tokenizer=SimpleNamespace(decoder={0: "far</w>", 1: "near</w>", 2: "up</w>", 3: "over</w>"}),
    )
    task: Any = SimpleNamespace(name="t", class_names=("a",))
    backbone: Any = SimpleNamespace(tower=tower)
    kept = Kept(method, backbone, [task], {})
    table = words(kept, top=2)
    assert table["word 1"].tolist() == ["near (0.50)", "over (1.00)"]  # √(0.3² + 0.4²); of one direction, 9 is far
    assert table["norm"].tolist() == [1, 2]


# ---- keys ----------------------------------------------------------------------------------------------------


def keys(tiny: Any, **changes: Any) -> list[str]:
    arguments = {**tiny.arguments, "methods": ["zero-shot", "coop"], "shots": [2], "seeds": [1], "quiet": True}
    return [cell.key for cell in prepare(RunConfig(results="unused", **arguments | changes)).cells]


def test_another_label_of_the_same_image_makes_another_cell(own_tiny: Any, cache: Path) -> None:
    content = own_tiny.division()
    given = own_tiny.data / "colour/split_zhou_Colour.json"
    given.write_text(json.dumps(content))
    before = keys(own_tiny)
    first, last = content["test"][0], content["test"][-1]
    first[1:] = last[1:]  # the same image in the same place, said to be of the last class
    given.write_text(json.dumps(content))
    assert not set(before) & set(keys(own_tiny))


def test_each_of_its_settings_makes_another_cell(tiny: Any, cache: Path) -> None:
    changes: list[dict[str, Any]] = [
        {}, {"views": 1}, {"protocol": "base2new"}, {"options": ["coop.context=8"]}, {"options": ["coop.lr=0.1"]},
    ]  # fmt: skip
    assert len({keys(tiny, **change)[1] for change in changes}) == 5
    # Zero-shot learns from no images that would tell the protocols apart, and is scored otherwise all the same.
    assert keys(tiny)[0] != keys(tiny, protocol="base2new")[0]


def test_views_that_no_epoch_would_use_make_no_other_cell(tiny: Any, cache: Path) -> None:
    assert keys(tiny, views=10) == keys(tiny, views=2) == keys(tiny)  # the tiny recipe has two epochs


def test_weights_and_preprocessing_make_the_fingerprint() -> None:
    model = torch.nn.Linear(2, 2)
    plain = _fingerprint(model, {"mean": [0.5], "size": 32}, {}, None)
    assert _fingerprint(model, {"mean": [0.5], "size": 32}, {}, None) == plain
    assert _fingerprint(model, {"mean": [0.4], "size": 32}, {}, None) != plain
    with torch.no_grad():
        model.weight[0, 0] += 1
    assert _fingerprint(model, {"mean": [0.5], "size": 32}, {}, None) != plain


# ---- statistics and tables -----------------------------------------------------------------------------------


def test_means_are_over_tasks_then_seeds_and_the_spread_is_over_seeds(tmp_path: Path) -> None:
    # Suite means 30, 40, 70: mean 46.67 (median 40), sample deviation √(866.67 / 2) = 20.82 (population 17.00).
    for seed, (a, b, c), seconds in ((1, (10, 20, 60), 10), (2, (20, 30, 70), 20), (3, (60, 70, 80), 60)):
        put(tmp_path / "runs", "coop", 4, seed, {"a": a, "b": b, "c": c}, train_seconds=seconds)
    report(tmp_path / "runs", tmp_path / "out")
    assert row(tmp_path / "out", "coop")["4-shot"] == "46.67 ± 20.82"
    (tidy,) = pd.read_csv(tmp_path / "out" / "table.csv").to_dict("records")
    assert (tidy["mean"], tidy["std"]) == (pytest.approx(46.667, abs=1e-3), pytest.approx(20.817, abs=1e-3))
    assert (tidy["n_seeds"], tidy["seeds"], tidy["n_tasks"]) == (3, "1 2 3", 3)
    assert (tidy["train_seconds"], tidy["params"]) == (30, 1000)  # of a cell, neither of its tasks nor of all seeds
    text = (tmp_path / "out" / "table.md").read_text()
    assert all(each in text for each in ("30.00 ± 26.46", "40.00 ± 26.46", "70.00 ± 10.00"))  # the tasks alone


def test_numbers_that_are_printed_alike_are_ties_and_no_others(tmp_path: Path) -> None:
    """Each differs from the next on all twelve tasks (p = 2 / 2^12, times three), but coop and kgcoop by 0.003."""
    for method, accuracy in (("coop", 50.041), ("kgcoop", 50.044), ("softcpt", 50.01), ("plot", 49.9)):
        put(tmp_path / "runs", method, 4, 1, {f"t{i}": accuracy for i in range(12)})
    report(tmp_path / "runs", tmp_path / "out")
    shown = {name: row(tmp_path / "out", name)["4-shot"] for name in ("coop", "kgcoop", "softcpt", "plot")}
    assert shown == {"coop": "50.04 ≈", "kgcoop": "50.04 ≈", "softcpt": "50.01", "plot": "49.90"}
    report(tmp_path / "runs", tmp_path / "out", methods="kgcoop,softcpt,plot")
    shown = {name: row(tmp_path / "out", name)["4-shot"] for name in ("kgcoop", "softcpt", "plot")}
    assert shown == {"kgcoop": "**50.04**", "softcpt": "<u>50.01</u>", "plot": "49.90"}
    assert r"\textbf{50.04}" in (tmp_path / "out" / "table.tex").read_text()
    assert r"\underline{50.01}" in (tmp_path / "out" / "table.tex").read_text()


def test_a_mean_of_fewer_seeds_says_so(tmp_path: Path) -> None:
    for seed in (1, 2, 3):
        put(tmp_path / "runs", "softcpt", 4, seed, {"a": 60.0})
    for seed in (1, 3):
        put(tmp_path / "runs", "coop", 4, seed, {"a": 50.0})
    report(tmp_path / "runs", tmp_path / "out")
    assert row(tmp_path / "out", "coop")["4-shot"] == "50.00 ± 0.00 (n=2)"
    assert row(tmp_path / "out", "softcpt")["4-shot"] == "60.00 ± 0.00"  # alone in the ranking: no mark


def test_differences_are_ours_less_the_paper_s_and_of_no_variant(tmp_path: Path) -> None:
    # The paper's coop on Fashion-20 at 1, 2, 4, 8, 16 shots.
    quoted = [reference.quoted("fashion20", "coop", n)[0] for n in (1, 2, 4, 8, 16)]
    assert quoted[0] == 50.50 and len(set(quoted)) == 5
    assert reference.quoted("general10", "coop", 1)[0] != 50.50
    fashion(tmp_path / "runs")  # 62 everywhere
    fashion(tmp_path / "runs", cell={"variant": "context=8"})
    report(tmp_path / "runs", tmp_path / "out")
    tidy = pd.read_csv(tmp_path / "out" / "table.csv", keep_default_na=False, na_values={"delta": ""})
    ours = tidy[tidy["variant"] == ""]
    assert ours["delta"].tolist() == pytest.approx([62 - value for value in quoted])
    assert tidy.loc[tidy["variant"] != "", "delta"].isna().all()


def test_a_record_of_more_than_a_hundred_percent_is_left_out(tmp_path: Path) -> None:
    put(tmp_path / "runs", "coop", 4, 1, {"a": 50.0})
    put(tmp_path / "runs", "coop", 4, 2, {"a": 120.0})
    with pytest.warns(UserWarning, match="no percentage"):
        report(tmp_path / "runs", tmp_path / "out")
    assert row(tmp_path / "out", "coop")["4-shot"] == "50.00"
