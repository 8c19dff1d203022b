"""What methods ask of the harness: views of their own number and kind, validation images only where they search, and a
record of what they chose."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from bench import chosen
from bench.datasets.fewshot import few_shot
from bench.datasets.types import Item
from bench.errors import UserError
from bench.methods import Method, TaskData, find_method, method_names, param
from bench.methods.base import Choice, Searching
from bench.records import Record
from bench.reports import report

pytestmark = pytest.mark.usefixtures("one_thread")
HERE = f"{__name__}:"
SEEN: list[TaskData] = []


class Constant(Method):
    """Scores every class alike; keeps what it is given."""

    name = "constant"

    @dataclass(frozen=True)
    class Params(Searching):
        crop: float = param(0.5, "smallest share of the image in a training view")

    def fit(self, clip: Any, tasks: Sequence[TaskData], seed: int, report: Any) -> None:
        SEEN[:] = tasks
        self.device = clip.device

    def predict(self, task: TaskData, features: Tensor, class_names: Sequence[str] | None = None) -> Tensor:
        return torch.zeros(len(features), len(class_names or task.class_names))

    def chosen(self) -> dict[str, Choice]:
        if self.params.search == "none":
            return {}
        return {task.name: Choice({"alpha": 1 / 3, "beta": 5.0}, 200 / 3, 3, 400, 7) for task in SEEN}


class Stored(Constant):
    name, own_views = "stored", 20


class ByEpochs(Constant):
    name = "by-epochs"

    @dataclass(frozen=True)
    class Params(Constant.Params):
        epochs: int = param(3, "", by_task=True)  # the tiny suite says 2, for all methods


class OwnRecipe(ByEpochs):
    name, common_recipe = "own-recipe", False


class Mirrored(Constant):
    name, needs = "mirrored", frozenset({"test_view", "flip_view"})


def record(tiny: Any, folder: Path, method: type[Method], *options: str, **changes: Any) -> Record:
    """Of the one cell of a method, at one shot."""
    given: dict[str, Any] = {"methods": [HERE + method.__name__], "shots": [1], "seeds": [1], "tasks": ["Colour"]}
    tiny.run(folder, **{**given, "options": list(options), **changes})
    (found,) = (Record.from_json(r) for path, r in tiny.records(folder).items())
    return found


@pytest.mark.parametrize(
    ("method", "views", "expected"),
    [(Stored, None, 20), (Stored, 4, 4), (Stored, 25, 25), (ByEpochs, None, 2), (ByEpochs, 1, 1), (ByEpochs, 9, 2),
     (Constant, None, 1), (Constant, 2, 2), (Mirrored, None, None), (OwnRecipe, None, 3)],
)  # fmt: skip
def test_a_cell_has_as_many_views_as_the_run_says_else_as_the_method_says_else_one_an_epoch(
    tiny: Any, tmp_path: Path, method: type[Method], views: int | None, expected: int | None
) -> None:
    assert record(tiny, tmp_path, method, views=views).config["views"] == expected
    assert SEEN[0].views.shape[0] == (expected or 1)


def test_a_suite_s_number_of_views_is_not_for_methods_with_their_own(
    tiny: Any, own_tiny: Any, tmp_path: Path
) -> None:
    suite = Path(own_tiny.suite)
    suite.write_text(suite.read_text(encoding="utf-8") + "views: 3\n", encoding="utf-8")
    assert record(own_tiny, tmp_path / "own", Stored).config["views"] == 20
    assert record(own_tiny, tmp_path / "none", Constant).config["views"] == 3
    assert record(own_tiny, tmp_path / "run", Stored, views=4).config["views"] == 4


def test_a_task_has_as_many_views_as_its_own_epochs(tiny: Any, tmp_path: Path) -> None:
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("when:\n- {task: Colour, by-epochs: {epochs: 5}}\n", encoding="utf-8")
    found = record(tiny, tmp_path / "runs", ByEpochs, tasks=["Colour", "Shade"], recipe=str(recipe))
    assert found.config["views"] == 5 and [len(task.views) for task in SEEN] == [5, 2]


def test_crops_are_as_large_as_the_method_s_parameter_says(tiny: Any, tmp_path: Path) -> None:
    found = []
    for i, crop in enumerate((0.5, 0.08, 0.5)):
        record(tiny, tmp_path / str(i), Stored, f"stored.crop={crop}", views=2)
        found.append(SEEN[0].views)
    assert torch.equal(found[0], found[2]) and not torch.equal(found[0], found[1])


def test_a_method_gets_the_mirror_images_of_the_test_view(tiny: Any, tmp_path: Path) -> None:
    record(tiny, tmp_path, Mirrored)
    plain, mirrored = SEEN[0].test_view, SEEN[0].flip_view
    assert plain.shape == mirrored.shape == (3, 16) and not torch.equal(plain, mirrored)


def test_validation_images_reach_a_method_only_where_it_searches(tiny: Any, tmp_path: Path) -> None:
    without = record(tiny, tmp_path / "none", Constant)
    assert len(SEEN[0].val) == len(SEEN[0].val_labels) == 0
    assert without.tasks[0]["val_accuracy"] is not None  # it is scored on them all the same
    record(tiny, tmp_path / "val", Constant, "constant.search=val", shots=[1])
    assert len(SEEN[0].val) == len(SEEN[0].val_labels) == 3  # min(1 shot, 4) a class
    record(tiny, tmp_path / "more", Constant, "constant.search=val", shots=[6])
    assert len(SEEN[0].val) == 6  # the split has two a class


ALL: dict[str, Any] = {name: find_method(name) for name in method_names() if find_method(name).trains}
SEARCHES = [name for name, kind in ALL.items() if issubclass(kind.Params, Searching)]


def given_to_all(tiny: Any, folder: Path) -> dict[tuple[str, str], dict[str, Any]]:
    """All that `fit` of each method is given of a task at one shot, by method and search. Nothing is trained."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    with pytest.MonkeyPatch.context() as patch:
        for name, kind in ALL.items():

            def noted(self: Any, clip: Any, tasks: Any, seed: int, report: Any, name: str = name) -> None:
                (task,) = tasks
                key = name, getattr(self.params, "search", "none")
                found[key] = {f.name: getattr(task, f.name) for f in fields(task)} | {"seed": seed}
                raise UserError("seen enough")

            patch.setattr(kind, "fit", noted)
        both = [f"{name}.search=none,val" for name in SEARCHES]
        with pytest.warns(UserWarning, match="seen enough"):
            tiny.run(folder, methods=[*ALL], options=both, shots=[1], seeds=[1], tasks=["Colour"], views=2)
    return found


def differing(a: dict[str, Any], b: dict[str, Any]) -> set[str]:
    """The fields of what `fit` was given that differ."""
    same = {n: torch.equal(a[n], b[n]) if isinstance(a[n], Tensor) else a[n] == b[n] for n in a}
    return {name for name, equal in same.items() if not equal}


def test_no_method_is_given_anything_of_test_images_or_of_other_validation_images_than_the_draw_s(
    own_tiny: Any, tmp_path: Path
) -> None:
    """Every method, also where it searches. First all test images become others, with other labels, and so do those
    validation images that were not drawn: nothing that `fit` is given changes. Then the drawn ones do."""
    before = given_to_all(own_tiny, tmp_path / "before")
    assert {name for name, _ in before} == {*ALL} and {n for n, search in before if search == "val"} == {*SEARCHES}
    split = own_tiny.division()
    drawn = {item.path for item in few_shot([Item(path, label) for path, label, _ in split["val"]], 1, 1)}
    others = [path for part in ("val", "test") for path, *_ in split[part] if path not in drawn]
    assert len(drawn) == 3 and len(others) == 3 + len(split["test"])

    def repaint(paths: Sequence[str]) -> None:
        for i, path in enumerate(sorted(paths)):
            Image.new("RGB", (40, 36), (255, 5 * i, 0)).save(own_tiny.data / "colour" / path)

    repaint(others)
    for row in split["test"]:
        row[1:] = next(other[1:] for other in split["train"] if other[1] == (row[1] + 1) % 3)
    (own_tiny.data / "colour" / "split_zhou_Colour.json").write_text(json.dumps(split), encoding="utf-8")
    after = given_to_all(own_tiny, tmp_path / "after")
    assert {key: differing(one, after[key]) for key, one in before.items()} == {key: set() for key in before}
    repaint([*drawn])
    last = given_to_all(own_tiny, tmp_path / "last")
    reads = {key: "val" in ALL[key[0]].needs or key[1] == "val" for key in before}
    assert {key: differing(one, last[key]) for key, one in before.items()} == {
        key: {"val"} if val else set() for key, val in reads.items()
    }
    assert {name for (name, search), val in reads.items() if val and search == "none"} == {"linear-probe"}


def test_a_run_says_how_many_images_its_searches_choose_on(tiny: Any, tmp_path: Path) -> None:
    """Two a class are there. At the default size the configuration, and so the key, says nothing of it."""
    search, two = "constant.search=val", {"shots": [2]}
    usual = record(tiny, tmp_path / "usual", Constant, search, **two)
    assert len(SEEN[0].val) == 6 and "val_shots" not in usual.config
    fewer = record(tiny, tmp_path / "fewer", Constant, search, val_shots=1, **two)
    assert len(SEEN[0].val) == 3 and fewer.config["val_shots"] == 1 and fewer.key != usual.key
    assert "few-shot validation images, min(shots, 1) a class. Rows" in fewer.footnote
    captions = {}
    for folder in ("usual", "fewer"):
        report(str(tmp_path / folder), str(tmp_path / folder / "report"), format="md")
        captions[folder] = (tmp_path / folder / "report" / "table.md").read_text(encoding="utf-8")
    for folder, size in (("usual", 4), ("fewer", 1)):
        assert f"by accuracy on the few-shot validation images, min(shots, {size}) a class;" in captions[folder]
    with pytest.raises(UserError, match=r"--val-shots 1: the files of --draws .* say what to validate on"):
        record(tiny, tmp_path / "draws", Constant, val_shots=1, draws=str(tmp_path), **two)


def test_classes_of_a_task_count_their_images() -> None:
    task = TaskData("t", "", ("a", "b", "c", "d"), "{}", torch.zeros(1, 3, 2), torch.tensor([2, 0, 2]))
    assert task.counts.tolist() == [1, 0, 2, 0]


def test_what_was_chosen_is_in_the_record_and_marked_in_tables(tiny: Any, tmp_path: Path) -> None:
    found = record(tiny, tmp_path, Constant, "constant.search=val")
    values = {"alpha": 0.333333, "beta": 5.0}
    assert found.chosen == {
        "Colour": {"values": values, "accuracy": 66.6667, "images": 3, "tried": 400, "ties": 7}
    }
    assert found.footnote == (
        "alpha, beta: chosen for each task among 400 settings on the few-shot validation images, min(shots, 4) a "
        "class. Rows without this note saw no labels but those of the shots."
    )
    assert record(tiny, tmp_path / "none", Constant).chosen == {}
    assert record(tiny, tmp_path / "note", Constant).footnote == ""


def test_the_linear_probe_says_which_c_it_chose_among_how_many(tiny: Any, tmp_path: Path) -> None:
    given = {"methods": ["linear-probe"], "shots": [1], "seeds": [1], "options": ["linear-probe.iterations=30"]}
    tiny.run(tmp_path, **given)
    (found,) = (Record.from_json(r) for r in tiny.records(tmp_path).values())
    assert set(found.chosen) == {"Colour", "Shade", "Stripes"}
    for row in found.tasks:
        choice = found.chosen[row["task"]]
        assert set(choice["values"]) == {"C"} and choice["images"] == 3
        assert choice["accuracy"] == pytest.approx(row["val_accuracy"], rel=1e-5)
        assert 7 <= choice["tried"] <= 7 + 1 + 8 and 0 <= choice["ties"] < choice["tried"]
    assert found.footnote.startswith("C: chosen for each task among ")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"values": {"alpha": "1"}}, "not in numbers"),
        ({"values": [1]}, "not in numbers"),
        ({"tried": None}, "not in numbers"),
        ({"accuracy": 101.0}, "no percentage"),
        ({"accuracy": float("nan")}, "no percentage"),
        ({"more": 1}, "has not the fields"),
    ],
)
def test_a_record_of_a_choice_that_cannot_be_is_refused(change: dict[str, Any], message: str) -> None:
    sound = {"T": {"values": {"alpha": 1.0}, "accuracy": 50.0, "images": 4, "tried": 3, "ties": 0}}
    chosen.check(json.loads(json.dumps(sound)))
    with pytest.raises(ValueError, match=message):
        chosen.check({"T": {**sound["T"], **change}})
