"""Few-shot draws as files: written for others, read instead of drawing, and never run."""

import json
import random
from pathlib import Path
from typing import Any

import pytest

import bench
from bench.datasets import Item, Split, Task, TaskSpec, few_shot, load_suite, load_tasks
from bench.datasets.draws import find_draw, read_draw, write_draw
from bench.datasets.fewshot import coop_draw
from bench.datasets.splitfiles import read_split
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
    spec = TaskSpec("Birds", "birds", {"kind": "folders"}, "overall_acc", "a {}.", "birds", ("birds",), 2, (), "")
    return Task(spec, split)


def test_a_written_draw_is_the_draw(tmp_path: Path, task: Task) -> None:
    file, *drawn = write_draw(task, tmp_path, shots=8, seed=2)
    assert file == tmp_path / "Birds" / "shot_8-seed_2.json" == find_draw(task, tmp_path, 8, 2)
    train, val = read_draw(file, task.split)
    assert drawn == [train, val] and train == few_shot(task.split.train, 8, 2)
    assert val == few_shot(task.split.val, 4, 2)  # validation takes at most 4 a class
    assert json.loads(file.read_text())["train"][0][1:] == [0, "class a"]  # CoOp's rows
    assert find_draw(task, tmp_path, 4, 2) is None


def test_the_division_is_written_too_and_in_the_task_s_folder_it_stays_whatever_images_come(tmp_path: Path) -> None:
    """Two tasks of one folder, each with a division of its own."""
    reader = "{kind: fashion20, task: %d, split_name: Fashion}"
    task = "{name: F%d, folder: f, template: 'a {}.', task_name: t, reader: " + reader + "}"
    suite = tmp_path / "own.yaml"
    suite.write_text(f"tasks: [{task % (0, 0)}, {task % (1, 1)}]\n")
    rows = ["id\tname\twhat\tlabels", "0\tparts\t-\ta,b", "1\tparts\t-\tc,d"]
    (tmp_path / "f").mkdir()
    (tmp_path / "f" / "task_info.csv").write_text("\n".join(rows))
    images = [tmp_path / "f" / "images" / f"{t}/{c}/{n}.jpg" for n in range(9) for c in range(2) for t in range(2)]
    for image in images[:20]:  # five of each class
        image.parent.mkdir(parents=True, exist_ok=True)
        image.touch()
    first, second = (task.split.parts for task in load_tasks(load_suite(str(suite)), tmp_path))
    bench.write_draws(str(suite), str(tmp_path), str(tmp_path / "out"), [1], [1])
    file = tmp_path / "out" / "F0" / "split_zhou_F0.json"
    assert json.loads(file.read_text())["test"][0] == [first["test"][0].path, 0, "a"]
    file.rename(tmp_path / "f" / file.name)
    for image in images[20:]:
        image.touch()
    kept, other = (task.split.parts for task in load_tasks(load_suite(str(suite)), tmp_path))
    assert kept == first and other != second and sum(map(len, other.values())) == 18


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
        ({"train": [["\ud800.jpg", 0, "a"]]}, "'\\ud800.jpg' is not among the train images"),
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


# ---- CoOp's draws --------------------------------------------------------------------------------------------


def test_coop_s_draw_samples_by_the_order_of_the_list() -> None:
    """Python's generator on lists written by hand: class 1 comes up first; class 2 has fewer than are asked for."""
    train = [("b3", 1), ("a1", 0), ("b1", 1), ("c1", 2), ("b2", 1), ("a2", 0), ("a3", 0), ("a4", 0), ("b9", 1)]
    val = [("v0", 0), ("v1", 1), ("w0", 0), ("v2", 2), ("w1", 1), ("x0", 0), ("y0", 0), ("z0", 0)]
    lists = [tuple(Item(path, label) for path, label in part) for part in (train, val)]
    split = Split(Path("images"), ("a", "b", "c"), *lists, (), "split_zhou_X.json")
    for seed in (1, 2):
        state = random.Random(seed)  # noqa: S311 - a seeded draw, no secret
        expected = [*state.sample(["b3", "b1", "b2", "b9"], 2), *state.sample(["a1", "a2", "a3", "a4"], 2), "c1"]
        held_out = [*state.sample(["v0", "w0", "x0", "y0", "z0"], 2), *state.sample(["v1", "w1"], 2), "v2"]
        random.seed(99)
        before = random.getstate()
        train_drawn, val_drawn = coop_draw(split, 2, seed)
        assert random.getstate() == before  # nobody else's random numbers change
        assert [item.path for item in train_drawn] == expected
        assert [item.path for item in val_drawn] == held_out
    sixteen, validation = coop_draw(split, 16, 1)
    assert [item.path for item in sixteen] == ["b3", "b1", "b2", "b9", "a1", "a2", "a3", "a4", "c1"]
    assert len([item for item in validation if item.label == 0]) == 4  # at most


# Places in the split files' lists of the images that CoOp drew, as published in github.com/linzhiqiu/
# cross_modal_adaptation, indices/<data set>/shot_<n>-seed_<s>.json, "indices".
PUBLISHED = {
    ("DescribableTextures", 1, 1): (
        "8 96 174 231 288 304 376 427 511 588 628 690 761 804 890 913 966 1051 1081 1197 1253 1284 1347 1418 1488 "
        "1549 1560 1664 1708 1757 1846 1911 1934 2017 2046 2157 2180 2221 2281 2341 2441 2494 2520 2636 2664 2743 "
        "2773",
        "",
    ),
    ("EuroSAT", 4, 2): (
        "115 187 173 739 1846 2871 2131 2015 4240 3434 4242 3073 5690 4824 5382 5305 6792 6511 6864 6661 7514 "
        "7274 7922 7036 8056 8745 8952 8652 10028 10117 10326 9586 11897 11113 11233 11222 12048 12361 12665 "
        "12355",
        "139 522 368 526 1173 786 1056 1024 1737 1572 1562 1570 2239 2292 2028 1882 2788 2686 2504 2666 3178 3036 "
        "3135 3071 3327 3450 3342 3673",
    ),
    ("OxfordPets", 1, 3): (
        "30 155 229 256 367 477 540 634 645 794 798 937 984 1098 1137 1212 1328 1417 1498 1568 1638 1687 1777 "
        "1844 1971 2034 2066 2153 2245 2380 2390 2503 2548 2658 2764 2860 2913",
        "13 32 58 74 84 111 123 141 163 194 205 227 251 266 290 313 329 355 368 394 415 430 455 463 486 496 524 "
        "555 561 586 613 634 654 659 682 714 724",
    ),
}
SPLITS = Path(__file__).parents[2] / "shared" / "data" / "coop_splits"


@pytest.mark.skipif(not SPLITS.is_dir(), reason="the official split files are not here")
@pytest.mark.parametrize(("name", "shots", "seed"), PUBLISHED)
def test_the_draws_are_those_that_were_published(name: str, shots: int, seed: int) -> None:
    split, _ = read_split(SPLITS / f"split_zhou_{name}.json.gz", Path("images"))
    drawn = coop_draw(split, shots, seed)
    for items, listed, places in zip(drawn, (split.train, split.val), PUBLISHED[name, shots, seed], strict=True):
        found = [listed.index(item) for item in items]
        known = [int(place) for place in places.split()]  # of EuroSAT's validation images the first 28, of DTD's none
        assert found[: len(known)] == known


def form(path: str, label: int, mark: str = "") -> dict[str, object]:
    return {f"{mark}impath": path, f"{mark}label": label, f"{mark}classname": "x"}


def test_the_published_forms_of_others_are_read(tmp_path: Path, task: Task) -> None:
    """Objects whose paths begin at another folder: in one file, and one a line in a file for each part."""
    whole = {
        "train": {"data": [form("./data/birds/images/b/train3.jpg", 1), form("a/train0.jpg", 0)], "indices": [12, 0]},
        "val": {"data": [form("./data/birds/images/a/val1.jpg", 0)], "indices": [1]},
    }
    expected = ([Item("b/train3.jpg", 1), Item("a/train0.jpg", 0)], [Item("a/val1.jpg", 0)])
    (tmp_path / "birds").mkdir()  # as its data's folder, or as the task is called
    file = tmp_path / "birds" / "shot_1-seed_1.json"
    file.write_text(json.dumps(whole))
    assert find_draw(task, tmp_path, 1, 1) == file and read_draw(file, task.split) == expected
    lines = tmp_path / "birds" / "split_fewshot" / "shot_2-seed_1_train.jsonl"
    lines.parent.mkdir()
    train = [form("birds/images/b/train3.jpg", 1, "_"), form("birds/images/a/train0.jpg", 0, "_")]
    lines.write_text("\n".join(json.dumps({**row, "_domain": 0}) for row in train) + "\n\n")
    lines.with_name("shot_2-seed_1_val.jsonl").write_text(json.dumps(form("birds/images/a/val1.jpg", 0, "_")))
    assert find_draw(task, tmp_path, 2, 1) == lines and read_draw(lines, task.split) == expected


def test_a_run_says_which_draws_have_no_validation_images(own_tiny: Any, tmp_path: Path, capsys: Any) -> None:
    """The tiny tasks' draws, with files of validation images for two of three."""
    from bench.datasets.spec import load_suite
    from bench.datasets.splits import load_tasks
    from bench.draws import look_at_images
    from bench.features.hashes import ImageHashes
    from bench.protocols import find_protocol

    tasks = load_tasks(load_suite(own_tiny.suite), own_tiny.data, ("Colour", "Shade", "Stripes"))
    for one in tasks:
        file, _, _ = write_draw(one, tmp_path / "draws", 1, 1)
        content = json.loads(file.read_text())
        file.unlink()
        for part in ("train", "val"):
            rows = [json.dumps(form(path, label)) for path, label, _ in content[part]]
            if (one.name, part) != ("Shade", "val"):
                file.with_name(f"shot_1-seed_1_{part}.jsonl").write_text("\n".join(rows))
    look_at_images(tasks, find_protocol("few-shot"), ImageHashes(), [1], [1], tmp_path / "draws", True)
    missing = tmp_path / "draws" / "Shade" / "shot_1-seed_1_val.jsonl"
    assert capsys.readouterr().err == (
        f"warning: Shade: no validation images in 1 draw, e.g. 1 shot, seed 1 ({missing} is missing): no validation "
        "accuracy there\n"
    )


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        (form("birds/other.jpg", 0), "'birds/other.jpg' is not among the train images"),
        (form("../../a/train0.jpg", 1), "has label 1, in a split it is 0"),
        (form("a/train0.jpg", True), "label True is not a whole number"),
        ({"path": "a/train0.jpg", "label": 0}, 'must be {"impath": …, "label": …, "classname": …}, not {"path"'),
        ([1], 'must be {"impath"'),
    ],
)
def test_wrong_objects_are_refused(tmp_path: Path, task: Task, entry: object, said: str) -> None:
    file = tmp_path / "mine.json"
    file.write_text(json.dumps({"train": {"data": [form("b/train0.jpg", 1), entry]}}))
    with pytest.raises(UserError) as caught:
        read_draw(file, task.split)
    assert str(file) in str(caught.value) and said in str(caught.value)
    (tmp_path / "mine_train.jsonl").write_text('{"impath": 1}\nnot JSON')
    with pytest.raises(UserError, match=r"mine_train\.jsonl: not JSON"):
        read_draw(tmp_path / "mine_train.jsonl", task.split)
