"""Few-shot draws as files: written for others, read instead of drawing, and never run."""

import json
import pickle
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.datasets import Item, Split, Task, TaskSpec, few_shot
from bench.datasets.draws import find_draw, read_draw, write_draw
from bench.errors import UserError


@pytest.fixture
def task() -> Task:
    def items(part: str, count: int) -> tuple[Item, ...]:
        return tuple(
            Item(f"{name}/{part}{n}.jpg", label) for label, name in enumerate(["a", "b"]) for n in range(count)
        )

    split = Split(
        Path("images"), ("class a", "class b"), items("train", 9), items("val", 5), items("test", 3), "a split"
    )
    spec = TaskSpec("Birds", "birds", {"kind": "folders"}, "overall_acc", "a {}.", "birds", 2, (), "")
    return Task(spec, split)


def test_a_written_draw_is_the_draw(tmp_path: Path, task: Task) -> None:
    file = write_draw(task, tmp_path, shots=8, seed=2)
    assert file == tmp_path / "Birds" / "shot_8-seed_2.json" == find_draw(task, tmp_path, 8, 2)
    train, val = read_draw(file, task.split)
    assert train == few_shot(task.split.train, 8, 2)
    assert val == few_shot(task.split.val, 4, 2)  # validation takes at most 4 a class
    assert json.loads(file.read_text())["train"][0][1:] == [0, "class a"]  # CoOp's rows
    assert find_draw(task, tmp_path, 4, 2) is None


def test_any_fixed_choice_can_be_given(tmp_path: Path, task: Task) -> None:
    file = tmp_path / "mine.json"
    file.write_text(json.dumps({"train": [["b/train3.jpg", 1, "x"], ["a/./train0.jpg", 0, "y"]]}))
    assert read_draw(file, task.split) == ([Item("b/train3.jpg", 1), Item("a/train0.jpg", 0)], [])


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ([], "a few-shot file is an object"),
        ({"train": [["a/test0.jpg", 0, "a"]]}, "'a/test0.jpg' is not among the train images of a split"),
        ({"train": [["../a/train0.jpg", 0, "a"]]}, "leaves the image folder"),
        ({"train": [["a/train0.jpg", 1, "a"]]}, "'a/train0.jpg' has label 1, in a split it is 0"),
        ({"train": [["a/train0.jpg", 0, "a"]]}, "no training image of class 'class b'"),
        ({"train": [["a/train0.jpg", 0, "a"]] * 2}, "stands twice in 'train'"),
        ({"train": [["a/train0.jpg"]]}, "an entry of 'train' must be"),
        ({"train": [], "val": [["a/train0.jpg", 0, "a"]]}, "is not among the val images"),
    ],
)
def test_a_wrong_few_shot_file_is_refused(tmp_path: Path, task: Task, content: object, said: str) -> None:
    file = tmp_path / "mine.json"
    file.write_text(json.dumps(content))
    with pytest.raises(UserError) as caught:
        read_draw(file, task.split)
    assert str(file) in str(caught.value) and said in str(caught.value)


# CoOp's pickles ----------------------------------------------------------------------------------------------


@pytest.fixture
def dassl(monkeypatch: pytest.MonkeyPatch) -> Iterator[types.ModuleType]:
    """Dassl's records, under the name CoOp's pickles ask for; gone again when a file is read."""
    module = types.ModuleType("dassl.data.datasets.base_dataset")

    class Datum:
        def __init__(self, **values: Any) -> None:
            for key, value in values.items():
                setattr(self, f"_{key}", value)

    for name in ("Datum", "DatumMT"):
        kind = type(name, (Datum,), {"__module__": module.__name__})
        setattr(module, name, kind)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    for parent in ("dassl", "dassl.data", "dassl.data.datasets"):
        monkeypatch.setitem(sys.modules, parent, types.ModuleType(parent))
    yield module


def test_coops_pickle_is_read(tmp_path: Path, task: Task, dassl: types.ModuleType) -> None:
    def datum(path: str, label: int) -> Any:
        return dassl.Datum(impath=f"/home/someone/DATA/birds/images/{path}", label=label, domain=0, classname="x")

    content = {"train": [datum("a/train1.jpg", 0), datum("b/train2.jpg", 1)], "val": [datum("a/val0.jpg", 0)]}
    file = tmp_path / "Birds" / "shot_1-seed_1.pkl"
    file.parent.mkdir()
    file.write_bytes(pickle.dumps(content, protocol=pickle.HIGHEST_PROTOCOL))
    sys.modules.pop("dassl.data.datasets.base_dataset")
    assert find_draw(task, tmp_path, 1, 1) == file
    assert read_draw(file, task.split) == ([Item("a/train1.jpg", 0), Item("b/train2.jpg", 1)], [Item("a/val0.jpg", 0)])


def test_authors_pickle_is_read_task_by_task(tmp_path: Path, task: Task, dassl: types.ModuleType) -> None:
    def datum(path: str, label: int, number: int) -> Any:
        return dassl.DatumMT(impath=f"/data/{path}", label=[label], task=[number])

    train = [datum("a/train1.jpg", 0, 1), datum("x/other.jpg", 5, 0), datum("b/train2.jpg", 1, 1)]
    file = tmp_path / "draw.pkl"
    file.write_bytes(pickle.dumps({"train": train, "val": None}))
    assert read_draw(file, task.split, task=1)[0] == [Item("a/train1.jpg", 0), Item("b/train2.jpg", 1)]


class Hostile:
    def __reduce__(self) -> tuple[Any, ...]:
        return eval, ("__import__('pathlib').Path('was_run').touch()",)


def test_a_pickle_that_would_run_something_is_refused(
    tmp_path: Path, task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "draw.pkl"
    file.write_bytes(pickle.dumps({"train": [Hostile()]}))
    with pytest.raises(UserError, match=r"draw\.pkl: not one of CoOp's few-shot files \(it asks for builtins\.eval"):
        read_draw(file, task.split)
    assert not (tmp_path / "was_run").exists()


@pytest.mark.parametrize("content", [b"", b"text", pickle.dumps([1]), pickle.dumps({"train": [1]})])
def test_a_pickle_that_is_none_is_named(tmp_path: Path, task: Task, content: bytes) -> None:
    file = tmp_path / "draw.pkl"
    file.write_bytes(content)
    with pytest.raises(UserError, match=r"draw\.pkl"):
        read_draw(file, task.split)
