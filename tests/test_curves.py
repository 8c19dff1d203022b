"""Training curves and marks worked out by hand; a loss that is no number stops its cell alone."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

import bench
from bench.cli import main
from bench.curves import check, kept, marks, table
from bench.errors import UserError
from bench.methods import TaskData, find_method
from bench.methods.coop import CoOp
from bench.methods.log import Log
from bench.records import Record, read_record

sys.path.append(str(Path(__file__).parent))
from test_methods_together import TRAINED, made_of, make_clip, make_tasks

pytestmark = pytest.mark.usefixtures("one_thread")


def noted(log: Log, *losses: float) -> None:
    """An epoch of one step a loss, each of one image, which is right."""
    for loss in losses:
        log.start_step()
        log.note(torch.tensor(loss), torch.tensor([[1.0, 0.0]]), torch.tensor([0]))
    log.end_epoch()


# ---- curves ----------------------------------------------------------------------------------------------------


def test_an_epoch_s_loss_and_accuracy_are_means_over_its_images() -> None:
    log = Log("coop", 1)
    log.start_step()
    log.note(torch.tensor(1.0), torch.tensor([[2.0, 1.0], [0.0, 1.0], [0.0, 1.0]]), torch.tensor([0, 1, 0]))  # 2 of 3
    log.note(torch.tensor(3.0), torch.tensor([[2.0, 1.0]]), torch.tensor([1]))  # 0 of 1
    log.end_epoch()
    assert log.loss == pytest.approx([(3 * 1 + 1 * 3) / 4]) and log.accuracy == pytest.approx([50])


@pytest.mark.parametrize("name", TRAINED)
def test_curves_of_a_training_that_stands_still_are_its_predictions_on_the_training_views(name: str) -> None:
    more: dict[str, Any] = {"max_tokens": 60} if "cocoop" in name else {}  # batches in parts
    method = made_of(name, lr=0.0, warmup_lr=0.0, batch=32, epochs=3, **more)
    data = make_tasks(find_method(name), 1)
    method.fit(make_clip(), data, 1, lambda done, total: None)
    found = method.curves()
    if method.separate:
        found.pop("all", None)  # mvlpt's first stage, which trains on all tasks
    scores = [[method.predict(task, view).double() for view in task.views] for task in data]
    sizes = torch.tensor([len(task.labels) for task in data], dtype=torch.float64)
    for epoch in range(3):
        now = [own[epoch % 2] for own in scores]  # two views
        losses = torch.stack([F.cross_entropy(s, task.labels) for s, task in zip(now, data, strict=True)])
        right = torch.tensor([float((s.argmax(dim=1) == d.labels).sum()) for s, d in zip(now, data, strict=True)])
        if method.separate:
            expected = [(losses[t].item(), 100 * (right / sizes)[t].item(), data[t].name) for t in range(2)]
        else:
            mean = (losses * sizes).sum() / sizes.sum()
            expected = [(mean.item(), 100 * (right.sum() / sizes.sum()).item(), "all")]
        assert set(found) == {key for *_, key in expected}
        for loss, accuracy, key in expected:
            assert found[key][0][epoch] == pytest.approx(loss, rel=1e-4)
            assert found[key][1][epoch] == pytest.approx(accuracy, abs=1e-4)


def test_seeds_side_by_side_have_curves_of_their_own() -> None:
    methods = [made_of("coop") for _ in range(2)]
    fits = [(method, make_tasks(method, seed), seed) for seed, method in enumerate(methods, start=1)]
    CoOp.fit_together(fits, make_clip(), lambda done, total: None)
    for method, data, seed in fits:
        alone = made_of("coop")
        alone.fit(make_clip(), data, seed, lambda done, total: None)
        for key, (losses, accuracies) in alone.curves().items():
            assert method.curves()[key][0] == pytest.approx(losses, rel=1e-4)
            assert method.curves()[key][1] == accuracies


def test_long_trainings_are_thinned_to_fifty_epochs_with_the_first_and_the_last() -> None:
    losses = [1 / (i + 3) for i in range(200)]
    found = kept({"all": (losses, [50.0] * 200)})
    assert len(found["epochs"]) == 50 and found["epochs"][:3] == [1, 5, 9] and found["epochs"][-1] == 200
    assert found["loss"]["all"][:2] == [0.3333, 0.1429]  # 1/3 and 1/7: of epochs 1 and 5, with four digits
    assert kept({"all": ([1.0, 2.0], [0.0, 100.0])}) == {
        "epochs": [1, 2], "loss": {"all": [1.0, 2.0]}, "accuracy": {"all": [0.0, 100.0]}
    }  # fmt: skip
    assert kept({}) == {}


@pytest.mark.parametrize(
    "curves",
    [
        {"epochs": [1]},
        {"epochs": ["1"], "loss": {}, "accuracy": {}},
        {"epochs": [1], "loss": {"all": [1, 2]}, "accuracy": {"all": [1, 2]}},
        {"epochs": [1], "loss": {"all": [1]}, "accuracy": {"a": [1]}},
        {"epochs": [1], "loss": {"all": [math.nan]}, "accuracy": {"all": [1]}},
        {"epochs": [1], "loss": {"all": [1]}, "accuracy": {"all": [101]}},
        {"epochs": [1], "loss": [1], "accuracy": [1]},
    ],
)
def test_what_are_no_curves_is_refused(curves: Any) -> None:
    with pytest.raises(ValueError, match="curve"):
        check(curves)


# ---- marks -----------------------------------------------------------------------------------------------------


def of_classes(n: int, images: int = 4, name: str = "Pets") -> TaskData:
    labels = torch.zeros(images, dtype=torch.long)
    return TaskData(name, "", tuple(map(str, range(n))), "{}", torch.zeros(1, 0, 0), labels)


@pytest.mark.parametrize(
    ("n_classes", "accuracy", "marked"),
    [(2, 54.9, True), (2, 55.1, False), (10, 18.9, True), (10, 19.1, False), (100, 10.8, True), (100, 11.0, False)],
)
def test_a_tenth_of_the_way_from_chance_to_all_right_is_near_chance(
    n_classes: int, accuracy: float, marked: bool
) -> None:
    found = marks({"Pets": ([2.0, 1.0], [0.0, accuracy])}, [of_classes(n_classes)])
    said = f"training accuracy is near chance: Pets {accuracy:.1f} % (chance {100 / n_classes:.1f} %)"
    assert found == ([said] if marked else [])


def test_chance_of_tasks_trained_together_weighs_their_images() -> None:
    tasks = [of_classes(2, images=30), of_classes(10, images=10, name="Birds")]
    (found,) = marks({"all": ([1.0], [10.0])}, tasks)
    assert found == "training accuracy is near chance: 10.0 % (chance 40.0 %)"  # (30/2 + 10/10) / 40


def test_a_loss_that_grew_is_marked_by_the_mean_of_its_last_tenth() -> None:
    right, start = [90.0] * 20, [1.0] * 10 + [1.1] * 8
    # The last tenth of 20 epochs are two: their mean is what counts.
    assert marks({"all": ([*start, 1.2, 1.28], right)}, [of_classes(2)]) == []
    assert marks({"all": ([*start, 1.2, 1.32], right)}, [of_classes(2)]) == ["training loss grew: from 1 to 1.26"]
    assert marks({"all": ([0.01] * 10 + [0.02] * 9 + [0.18], right)}, [of_classes(2)]) == []  # by 0.09
    assert marks({"all": ([5.0], [90.0])}, [of_classes(2)]) == []  # of one epoch


def test_a_loss_that_a_lucky_first_epoch_makes_grow_is_not_marked() -> None:
    """One image's loss is 1, 2 or 3 by its view, before and after; the first epoch has the easy one."""
    by_chance, right = [1.0, 3.0, 2.0] * 6 + [3.0, 2.0], [90.0] * 20
    assert marks({"all": (by_chance, right)}, [of_classes(2)]) == []  # its end is 2.5
    # The same scatter 1.5 above: in the last half not one epoch is as low as the first, whatever comes before.
    grew = [1.0, 0.5, 0.9, *by_chance[3:10], *(loss + 1.5 for loss in by_chance[10:])]
    assert marks({"all": (grew, right)}, [of_classes(2)]) == ["training loss grew: from 1 to 4"]
    grew[10] = 1.0  # the first of the last half is as low
    assert marks({"all": (grew, right)}, [of_classes(2)]) == []


def test_marks_name_five_tasks_and_count_the_others() -> None:
    tasks = [of_classes(4, name=f"t{i}") for i in range(7)]
    (found,) = marks({task.name: ([1.0], [25.0]) for task in tasks}, tasks)
    assert found.endswith("t4 25.0 % (chance 25.0 %) and 2 more") and "t5" not in found


def test_coop_at_a_rate_far_too_high_says_why_its_score_is_low(
    tiny: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["-o", "coop.epochs=12", "-o", "coop.lr=0.01,1000"]
    command = ["--methods", "coop", "--shots", "4", "--seeds", "1"]
    assert main(tiny.command(tmp_path, *options, *command)) == 0
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("coop")]
    by_rate = {record["config"]["params"]["lr"]: record for record in tiny.records(tmp_path).values()}
    assert by_rate[0.01]["marks"] == [] and "training" not in said[0]
    (near, *_) = by_rate[1000.0]["marks"]
    assert near.startswith("training accuracy is near chance: ") and near in said[1]
    for record in by_rate.values():
        rows = Record.from_json(record).rows()
        assert [row["marks"] for row in rows] == ["; ".join(record["marks"])] * 3


# ---- in records ------------------------------------------------------------------------------------------------


def test_a_record_holds_its_curves_in_few_lines(tiny: Any, tmp_path: Path) -> None:
    tiny.run(tmp_path, shots=[1], seeds=[1], methods=["coop", "shared-coop", "zero-shot"])
    found = {path.parent.name: path for path in tmp_path.rglob("*.json")}
    coop = read_record(found["coop"])
    assert set(coop.curves["loss"]) == {"Colour", "Shade", "Stripes"} and coop.curves["epochs"] == [1, 2]
    assert table(coop.curves).iloc[1].tolist() == [
        "Colour", 2, coop.curves["loss"]["Colour"][1], coop.curves["accuracy"]["Colour"][1]
    ]  # fmt: skip
    assert set(read_record(found["shared-coop"]).curves["loss"]) == {"all"}
    assert read_record(found["zero-shot"]).curves == {}
    assert '"epochs": [1, 2],' in found["coop"].read_text()
    content = json.loads(found["coop"].read_text())
    assert Record.from_json(content) == coop
    content["curves"]["loss"] = 3
    with pytest.raises(ValueError, match="curves"):
        Record.from_json(content)


# ---- faults ----------------------------------------------------------------------------------------------------


def test_the_first_step_without_a_finite_loss_is_named() -> None:
    log = Log("coop, Pets", 9)
    noted(log, 1.0, 2.0, 3.0)
    with pytest.raises(UserError) as caught:
        noted(log, 4.0, math.inf, math.nan)
    said = "coop, Pets: the loss is inf at step 5, in epoch 2 of 9; before it 4; mean of the epoch before: 2"
    assert str(caught.value).startswith(said)


def test_an_exploding_loss_is_a_fault_and_one_that_cosines_can_give_is_not() -> None:
    log = Log("coop", 9)
    noted(log, 1.0)
    noted(log, 900.0)
    with pytest.raises(UserError, match="the loss is 3000 at step 4, in epoch 3 of 9; before it 10;"):
        noted(log, 10.0, 3000.0)
    other = Log("other", 9)  # whose losses are large from the start
    noted(other, 500.0)
    noted(other, 40_000.0)


def test_numbers_that_have_not_arrived_are_not_waited_for_until_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    arrived: list[bool] = []

    class Late:
        def __init__(self, values: torch.Tensor) -> None:
            self.values = values

        @property
        def there(self) -> bool:
            return bool(arrived)

        def read(self) -> list[float]:
            return self.values.tolist()

    monkeypatch.setattr("bench.methods.log.Copy", Late)
    log = Log("coop", 3)
    noted(log, 1.0)
    noted(log, 2.0)
    assert log.loss == []
    arrived.append(True)
    noted(log, 3.0)
    assert log.loss == [1.0, 2.0, 3.0]
    arrived.clear()
    noted(log, math.nan)
    with pytest.raises(UserError, match="the loss is nan at step 4"):
        log.close()


@pytest.mark.parametrize("at_once", [False, True])
def test_a_diverging_training_fails_its_cell_with_step_and_values_and_not_the_grid(
    tiny: Any, tmp_path: Path, at_once: bool
) -> None:
    options = ["coop.epochs=4", "coop.lr=1e38"]
    with pytest.warns(UserWarning, match="2 of 3 cells failed"):
        table = tiny.run(tmp_path, shots=[2], options=options, seeds_at_once=at_once)
    assert set(table["method"]) == {"zero-shot"}
    failed = [record for record in tiny.records(tmp_path).values() if record["status"] == "failed"]
    assert len(failed) == 2
    for record in failed:
        said = "coop, Colour: the loss is nan at step 3, in epoch 3 of 4; mean of the epoch before: "
        assert record["error"].startswith(said)


def test_a_plug_in_whose_scores_are_not_those_of_its_classes_is_named_with_the_shapes(
    tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "narrow_scores.py").write_text(
        "from bench.methods.zero_shot import ZeroShot\n"
        "class Narrow(ZeroShot):\n"
        "    name = 'narrow'\n"
        "    def predict(self, task, features, class_names=None):\n"
        "        return super().predict(task, features, class_names)[:, :2]\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.warns(UserWarning):
        table = tiny.run(tmp_path / "runs", methods=["narrow_scores:Narrow"])
    (failed,) = table.attrs["failed"]
    assert failed["error"] == (
        "narrow, task Colour: predict returned torch.float32 [12, 2]; "
        "expected a floating-point tensor [12, 3] (images, classes)"
    )


def test_bench_run_s_table_offers_marks(tiny: Any, tmp_path: Path) -> None:
    assert "marks" in bench.run(results=str(tmp_path), quiet=True, **{**tiny.arguments, "methods": ["zero-shot"]})
