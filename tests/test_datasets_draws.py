"""Few-shot draws as files: written for others, read instead of drawing, and never run."""

import json
from pathlib import Path

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
    file, *drawn = write_draw(task, tmp_path, shots=8, seed=2)
    assert file == tmp_path / "Birds" / "shot_8-seed_2.json" == find_draw(task, tmp_path, 8, 2)
    train, val = read_draw(file, task.split)
    assert drawn == [train, val] and train == few_shot(task.split.train, 8, 2)
    assert val == few_shot(task.split.val, 4, 2)  # validation takes at most 4 a class
    assert json.loads(file.read_text())["train"][0][1:] == [0, "class a"]  # CoOp's rows
    assert find_draw(task, tmp_path, 4, 2) is None


def test_any_fixed_choice_can_be_given(tmp_path: Path, task: Task) -> None:
    file = tmp_path / "mine.json"
    file.write_text(json.dumps({"train": [["b/train3.jpg", 1, "x"], ["a/./train0.jpg", 0, "y"]]}))
    assert read_draw(file, task.split) == ([Item("b/train3.jpg", 1), Item("a/train0.jpg", 0)], [])
    file.write_text(json.dumps({"train": [["b\\train3.jpg", 1, "x"], ["a\\train0.jpg", 0, "y"]]}))  # from Windows
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
        ({"train": [], "val": None}, "'val' must be a list of [path, label, class name], not None"),
        ({"train": [["b/train0.jpg", True, "b"]]}, "label True is not a whole number from 0 up"),
        ({"train": [["\ud800.jpg", 0, "a"]]}, "no file has a name of such characters"),
        ({"train": [], "val": [["a/train0.jpg", 0, "a"]]}, "is not among the val images"),
    ],
)
def test_a_wrong_few_shot_file_is_refused(tmp_path: Path, task: Task, content: object, said: str) -> None:
    file = tmp_path / "mine.json"
    file.write_text(json.dumps(content))
    with pytest.raises(UserError) as caught:
        read_draw(file, task.split)
    assert str(file) in str(caught.value) and said in str(caught.value)


def test_a_pickle_is_refused_and_the_way_out_is_named(tmp_path: Path, task: Task) -> None:
    file = tmp_path / "shot_1-seed_1.pkl"
    file.write_bytes(b"\x80\x04.")
    with pytest.raises(UserError, match=r"shot_1-seed_1\.pkl: a pickle can run code .* docs/data\.md"):
        read_draw(file, task.split)
