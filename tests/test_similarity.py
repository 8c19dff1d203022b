"""Task similarity: cosines worked out by hand, in the record and from what a cell has learned; validation accuracy."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import bench
from bench.errors import UserError
from bench.likeness import check, kept, table
from bench.methods import TaskData, find_method
from bench.protocols import Part
from bench.protocols.few_shot import FewShot
from bench.records import Record
from bench.scoring import score

NAMES = ("cats", "dogs", "oaks")


def trained(contexts: list[torch.Tensor]) -> Any:
    """A SoftCPT whose tower and contexts are given: features (1, 0), (0, 2) and (3, 3)."""
    method = find_method("softcpt")()
    method.tasks = [TaskData(n, n, ("a", "b"), "{}", torch.zeros(1, 0, 2), torch.zeros(0)) for n in NAMES]
    method.learned = {"task_context": torch.zeros(1, 1, 2)}
    features = torch.tensor([[1.0, 0.0], [0.0, 2.0], [3.0, 3.0]])
    method.clip = SimpleNamespace(tower=SimpleNamespace(encode=lambda prompts: [features[None]]))
    method.contexts = lambda tasks, names: contexts
    return method


def test_cosines_of_tasks_worked_out_by_hand() -> None:
    # Contexts of one vector; the second task has one for each of two classes: the mean of (2, 0) and (0, 2) is (1, 1).
    contexts = [torch.tensor([[[1.0, 0.0]]]), torch.tensor([[[2.0, 0.0]], [[0.0, 2.0]]]), torch.tensor([[[-4.0, 0.0]]])]
    found = kept(trained(contexts))
    half = 0.7071
    assert found == {
        "tasks": list(NAMES),
        "features": [[1, 0, half], [0, 1, half], [half, half, 1]],
        "contexts": [[1, half, -1], [half, 1, -half], [-1, -half, 1]],
    }
    assert table(found, "contexts").loc["cats", "oaks"] == -1
    with pytest.raises(UserError, match="did you mean 'contexts'"):
        table(found, "context")


@pytest.mark.parametrize(
    "similarity",
    [
        {"tasks": ["a"]},
        {"tasks": [1], "features": [[1]], "contexts": [[1]]},
        {"tasks": ["a"], "features": [[1, 1]], "contexts": [[1]]},
        {"tasks": ["a"], "features": [[2]], "contexts": [[1]]},
        {"tasks": ["a"], "features": 3, "contexts": [[1]]},
        {"tasks": ["a"], "features": [["1"]], "contexts": [[1]]},
    ],
)
def test_what_is_no_similarity_is_refused(similarity: Any) -> None:
    with pytest.raises(ValueError, match="similarity"):
        check(similarity)


@pytest.fixture(scope="module")
def runs(tiny: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    tiny.run(folder, shots=[2], seeds=[1], methods=["coop", "softcpt", "softcpt-cats", "zero-shot", "protonet"])
    return folder


def test_a_record_s_similarity_is_that_of_the_loaded_cell(runs: Path, tiny: Any) -> None:
    for name in ("softcpt", "softcpt-cats"):
        (path,) = runs.rglob(f"{name}/*.json")
        held = json.loads(path.read_text())["similarity"]
        assert held["tasks"] == ["Colour", "Shade", "Stripes"]
        cell = bench.load_cell(str(path), backbone=tiny.backbone)
        for of in ("features", "contexts"):
            again = bench.similarity(cell, of)
            assert list(again.columns) == held["tasks"]
            assert again.to_numpy() == pytest.approx(torch.tensor(held[of]).numpy(), abs=2e-4)
            assert [held[of][i][i] for i in range(3)] == [1, 1, 1] and held[of][0][1] < 1
    (path,) = runs.rglob("coop/*.json")
    assert json.loads(path.read_text())["similarity"] == {}
    with pytest.raises(UserError, match="coop, trained on 3 tasks, has no features to compare tasks by"):
        bench.similarity(bench.load_cell(str(path), backbone=tiny.backbone))


# ---- accuracy on the few-shot validation images ----------------------------------------------------------------


class Says:
    """A method that finds the scores in the features."""

    name = "says"

    def predict(self, task: TaskData, features: torch.Tensor, class_names: Any = None) -> torch.Tensor:
        return features


def test_validation_accuracy_is_of_the_validation_images_by_the_task_s_metric() -> None:
    eye = torch.eye(2)
    val, labels = eye[[0, 0, 1, 0]], torch.tensor([0, 0, 0, 1])  # right: 2 of 3, and 0 of 1
    data = TaskData("t", "t", ("a", "b"), "{}", torch.zeros(1, 0, 2), labels[:0], val=val, val_labels=labels)

    class Two(FewShot):
        def parts(self, task: Any) -> list[Part]:
            return [Part("all", torch.arange(2), torch.tensor([0, 1]), 2)]

    for metric, expected in (("overall_acc", 50.0), ("mean_acc", 100 * (2 / 3 + 0) / 2)):
        task: Any = SimpleNamespace(name="t", metric=metric)
        (row,), _ = score(Two(), Says(), task, data, [eye], torch.device("cpu"))  # type: ignore[arg-type]
        assert row["val_accuracy"] == pytest.approx(expected) and row["accuracy"] == 100


def test_every_trained_cell_has_validation_accuracies_and_its_test_features_are_not_among_them(runs: Path) -> None:
    for path in runs.rglob("*.json"):
        record = Record.from_json(json.loads(path.read_text()))
        found = [row["val_accuracy"] for row in record.rows()]
        if record.cell["method"] == "zero-shot":
            assert found == [None] * 3  # it has no shots, so it has no validation images
        else:  # two images of each of three classes
            assert all(round(6 * value / 100, 6) == round(6 * value / 100) for value in found)


def test_base_classes_alone_have_validation_images(tiny: Any, tmp_path: Path) -> None:
    tiny.run(tmp_path, shots=[1], seeds=[1], methods=["coop"], protocol="base2new")
    (path,) = tmp_path.rglob("*.json")
    rows = json.loads(path.read_text())["tasks"]
    by_part = {row["part"]: row["val_accuracy"] for row in rows if row["task"] == "Colour"}
    assert by_part["new"] is None and by_part["base"] == by_part["harmonic"] is not None
