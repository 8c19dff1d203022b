"""ImageNet and the test sets for its classes, in the forms that they are handed out in; names from their lists."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench import progress
from bench.datasets.check import check_suite
from bench.datasets.imagenet import class_names, read_imagenet
from bench.datasets.spec import load_suite
from bench.datasets.splits import load_task
from bench.datasets.types import MissingData
from bench.errors import UserError

# Numbers as WordNet's; "crane" and "maillot" stand twice, "Cardigan" is a dog and a garment.
NAMES = {
    **{"n01440764": "tench", "n02012849": "crane", "n02113186": "Cardigan", "n02963159": "cardigan"},
    **{"n03126707": "crane", "n03710637": "maillot", "n03710721": "maillot"},
}
WHOLE = {"parts": {"trainval": "train", "test": "val"}, "images": ["images", "ILSVRC/Data/CLS-LOC", "."]}
TEST = {"parts": {"test": "."}}


def touch(*files: Path) -> None:
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()


def write_coop(folder: Path, names: dict[str, str] = NAMES) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "classnames.txt").write_text("".join(f"{key} {name}\n" for key, name in names.items()))


def write_train(folder: Path, n: int = 5) -> None:
    touch(*(folder / key / f"{key}_{i}.JPEG" for key in NAMES for i in range(n)))


def found(folder: Path, options: dict[str, Any]) -> tuple[tuple[str, ...], dict[str, set[tuple[str, str]]]]:
    """Class names; by part, the images with their classes' places in the list of numbers."""
    listing = read_imagenet(folder, options)
    parts = {part: {(item.path, item.label) for item in items} for part, items in listing.parts.items()}
    return listing.class_names, parts


def test_class_folders_are_read_as_coop_has_them_and_names_may_stand_twice(tmp_path) -> None:
    write_coop(tmp_path)
    write_train(tmp_path / "images" / "train")
    touch(*(tmp_path / "images" / "val" / key / f"ILSVRC2012_val_0000000{i}.JPEG" for i, key in enumerate(NAMES)))
    touch(tmp_path / "images" / "train" / "n01440764" / "notes.txt")
    listing = read_imagenet(tmp_path, WHOLE)
    assert listing.class_names == ("tench", "crane", "Cardigan", "Cardigan", "crane", "maillot", "maillot")
    assert len(listing.parts["trainval"]) == 35
    tests = [(f"val/{key}/ILSVRC2012_val_0000000{i}.JPEG", i) for i, key in enumerate(NAMES)]
    assert [(item.path, item.label) for item in listing.parts["test"]] == tests
    assert "files in class folders whose suffix is not an image's (1," in str(listing.left_out)


def test_reading_folders_of_classes_shows_how_far_it_is(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(progress, "DELAY", 0)
    write_coop(tmp_path)
    write_train(tmp_path / "images" / "train")
    read_imagenet(tmp_path, {"parts": {"all": "train"}})
    said = capsys.readouterr().err.splitlines()
    where = tmp_path / "images" / "train"
    assert [line.partition(",")[0] for line in said] == [f"reading {where}: {n} of 7 folders" for n in (1, 7)]


def test_kaggles_flat_validation_images_are_told_by_its_table(tmp_path) -> None:
    top = tmp_path / "ILSVRC" / "Data" / "CLS-LOC"
    write_train(top / "train")
    touch(top / "val" / "ILSVRC2012_val_00000001.JPEG", top / "val" / "ILSVRC2012_val_00000002.JPEG")
    touch(top / "test" / "ILSVRC2012_test_00000001.JPEG")
    lines = [f"{key} {name}, another word" for key, name in NAMES.items()]
    (tmp_path / "LOC_synset_mapping.txt").write_text("\n".join(lines))
    (tmp_path / "LOC_val_solution.csv").write_text(
        "ImageId,PredictionString\nILSVRC2012_val_00000002,n02012849 1 2 3 4 n02012849 5 6 7 8\n"
        "ILSVRC2012_val_00000001,n03710721 111 108 230 170\n"
    )
    names, parts = found(tmp_path, WHOLE)
    assert names[0] == "tench" and names[6] == "maillot"
    assert parts["test"] == {("val/ILSVRC2012_val_00000001.JPEG", 6), ("val/ILSVRC2012_val_00000002.JPEG", 1)}
    told = str(read_imagenet(tmp_path, WHOLE).left_out)  # the official test images have no answers
    assert told == "left out: images outside the class folders (1, e.g. 'test/ILSVRC2012_test_00000001.JPEG')"


def write_devkit(folder: Path, truth: str) -> None:
    """The authors' numbers go backwards here; number 8 is an inner node of WordNet."""
    from scipy.io import savemat

    kinds = [("ILSVRC2012_ID", "f8"), ("WNID", "O"), ("words", "O"), ("num_children", "f8"), ("children", "O")]
    rows = [(7 - i, key, f"{name}, another word", 0, np.zeros((1, 0))) for i, (key, name) in enumerate(NAMES.items())]
    rows.append((8, "n00001740", "entity", 2, np.array([[1.0, 2.0]])))
    data = folder / "ILSVRC2012_devkit_t12" / "data"
    data.mkdir(parents=True)
    savemat(data / "meta.mat", {"synsets": np.array(rows, dtype=kinds)[:, None]}, do_compression=True)
    (data / "ILSVRC2012_validation_ground_truth.txt").write_text(truth)


def test_the_development_kit_names_classes_and_tells_flat_validation_images(tmp_path) -> None:
    write_train(tmp_path / "train")
    touch(*(tmp_path / "val" / f"ILSVRC2012_val_0000000{i}.JPEG" for i in (1, 2, 3)))
    write_devkit(tmp_path, "7\n1\n6\n")
    names, parts = found(tmp_path, WHOLE)
    assert names == ("tench", "crane", "Cardigan", "Cardigan", "crane", "maillot", "maillot")  # "entity" is no class
    assert {label for _, label in parts["test"]} == {0, 6, 1}
    assert ("val/ILSVRC2012_val_00000002.JPEG", 6) in parts["test"]


def test_numbered_folders_are_places_among_the_classes_and_names_stand_beside(tmp_path) -> None:
    """Of twelve classes, folder 10 comes before folder 2 in the list of files."""
    numbers = [f"n0000{i:04d}" for i in range(12)]
    write_coop(tmp_path / "imagenet", {number: f"class {i}" for i, number in reversed(list(enumerate(numbers)))})
    v2 = tmp_path / "imagenetv2"
    touch(*(v2 / "imagenetv2-matched-frequency-format-val" / str(i) / "a.jpeg" for i in range(12)))
    options = {**TEST, "images": ["imagenetv2-matched-frequency-format-val", "."], "numbered": True}
    names, parts = found(v2, options)
    assert names == tuple(f"class {i}" for i in range(12))
    assert parts == {"test": {(f"{i}/a.jpeg", i) for i in range(12)}}


def test_a_subset_of_the_classes_is_scored_among_itself(tmp_path) -> None:
    write_coop(tmp_path / "imagenet")
    folder = tmp_path / "imagenet-adversarial"
    touch(folder / "imagenet-a" / "n03126707" / "b.jpg", folder / "imagenet-a" / "n01440764" / "a.jpg")
    touch(folder / "imagenet-a" / "README.txt")
    names, parts = found(folder, {**TEST, "images": ["imagenet-a", "."]})
    assert names == ("tench", "crane")
    assert parts == {"test": {("n01440764/a.jpg", 0), ("n03126707/b.jpg", 1)}}


def test_a_list_of_its_own_stands_above_imagenets(tmp_path) -> None:
    write_coop(tmp_path / "imagenet")
    write_coop(tmp_path / "sketch", {"n01440764": "a tench"})
    assert class_names(tmp_path / "sketch")[0] == {"n01440764": "a tench"}
    assert class_names(tmp_path / "other")[0] == {**NAMES, "n02963159": "Cardigan"}  # one to CLIP, and spelt alike


@pytest.mark.parametrize(
    ("lists", "images", "options", "said"),
    [
        ("", ["n01440764/a.jpg"], TEST, "classnames.txt: no such file, and no LOC_synset_mapping.txt"),
        ("tench", ["n01440764/a.jpg"], TEST, "line 1 must be a WordNet number and a name, as n01440764 tench"),
        ("n01440764 a\nn01440764 b", ["n01440764/a.jpg"], TEST, "line 2: n01440764 stands twice"),
        ("\n", ["n01440764/a.jpg"], TEST, "lists no classes"),
        ("n01440764 tench", ["n01440765/a.jpg"], TEST, "lists no class 'n01440765'; remove the folder, or add a line"),
        ("n01440764 tench", ["1/a.jpg"], {**TEST, "numbered": True}, "class folders are named 0 to 0 here"),
        ("n01440764 tench", ["0x/a.jpg"], {**TEST, "numbered": True}, "class folders are named 0 to 0 here"),
        ("n01440764 tench", ["a.txt"], TEST, "holds no class folders"),
        ("n01440764 tench", ["ILSVRC2012_val_00000001.JPEG"], TEST, "ground_truth.txt: no such file, which says what"),
    ],
)
def test_what_does_not_fit_is_refused_with_what_would(
    tmp_path, lists: str, images: list[str], options: dict[str, Any], said: str
) -> None:
    if lists:
        (tmp_path / "classnames.txt").write_text(lists)
    touch(*(tmp_path / image for image in images))
    with pytest.raises(UserError, match=said):
        read_imagenet(tmp_path, {**options, "images": ["."]})


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        ("ILSVRC2012_val_00000002,n01440764 1 2 3 4", "no validation image that has an answer"),
        ("ILSVRC2012_val_00000001,n09999999 1 2 3 4", "'n09999999', which is no class"),
        pytest.param(f"ILSVRC2012_val_00000001,{'n' * 200_000}", "not a table", id="longer than a field may be"),
    ],
)
def test_answers_that_do_not_fit_the_validation_images_are_refused(tmp_path, answers: str, said: str) -> None:
    write_coop(tmp_path)
    touch(tmp_path / "ILSVRC2012_val_00000001.JPEG")
    (tmp_path / "LOC_val_solution.csv").write_text(f"ImageId,PredictionString\n{answers}\n")
    with pytest.raises(UserError, match=said):
        read_imagenet(tmp_path, {**TEST, "images": ["."]})


@pytest.mark.parametrize("number", ["8", "0", "x", pytest.param("1" * 5000, id="5000 digits")])
def test_answers_by_numbers_of_no_class_are_refused(tmp_path, number: str) -> None:
    touch(tmp_path / "val" / "ILSVRC2012_val_00000001.JPEG")
    write_devkit(tmp_path, f"{number}\n")
    with pytest.raises(UserError, match=f"'{number[:20]}.* is the number of no class"):
        read_imagenet(tmp_path, {"parts": {"test": "val"}, "images": ["."]})


def test_the_suite_reads_coops_folders_and_says_what_is_missing(tmp_path) -> None:
    suite = load_suite("imagenet")
    assert [task.n_classes for task in suite.tasks] == [1000, 1000, 1000, 200, 200]
    assert all(source.licence and source.url for task in suite.tasks for source in task.sources)
    write_coop(tmp_path / "imagenet")
    write_train(tmp_path / "imagenet" / "images" / "train")
    touch(*(tmp_path / "imagenet" / "images" / "val" / key / "1.JPEG" for key in NAMES))
    touch(tmp_path / "imagenet-rendition" / "imagenet-r" / "n01440764" / "a.jpg")
    rows = check_suite(suite, tmp_path, quiet=True).set_index("task")
    assert rows["state"].to_dict() == {
        **{"ImageNet": "partial", "ImageNetV2": "missing", "ImageNet-Sketch": "missing"},
        **{"ImageNet-A": "missing", "ImageNet-R": "partial"},
    }
    assert "holds 7 of 1000 classes" in rows.loc["ImageNet", "next"]
    assert "crane, Cardigan, maillot" in rows.loc["ImageNet", "notes"]
    assert "no training images: it can only be tested" in rows.loc["ImageNet-R", "notes"]
    with pytest.raises(MissingData, match="holds 1 of 200 classes"):
        load_task(suite.tasks[4], tmp_path)


def test_the_suite_s_test_sets_have_their_classes_of_the_thousand_and_nothing_to_train_on(tmp_path) -> None:
    """In the folders of their archives: V2's by numbers, -A and -R of every fifth class, two with the name "crane"."""
    numbers = [f"n{1000 + i:08d}" for i in range(1000)]
    names = ["crane" if i in (5, 15, 7) else f"class {i}" for i in range(1000)]
    write_coop(tmp_path / "imagenet", dict(zip(numbers, names, strict=True)))
    v2 = tmp_path / "imagenetv2" / "imagenetv2-matched-frequency-format-val"
    some = {"imagenet-sketch/sketch": numbers, "imagenet-adversarial/imagenet-a": numbers[::5]}
    some["imagenet-rendition/imagenet-r"] = numbers[::5]
    touch(*(v2 / str(i) / "a.jpeg" for i in range(1000)))
    touch(*(tmp_path / top / number / "a.jpg" for top, held in some.items() for number in held))
    touch(*(tmp_path / top / "README.txt" for top in some))
    for spec in load_suite("imagenet").tasks[1:]:
        task = load_task(spec, tmp_path)
        assert task.class_names == tuple(names if spec.n_classes == 1000 else names[::5])
        assert not task.split.train and not task.split.val
        folders = {Path(item.path).parent.name: item.label for item in task.split.test}
        order = map(str, range(1000)) if spec.name == "ImageNetV2" else sorted(folders)
        assert [folders[name] for name in order] == list(range(spec.n_classes or 0))


SUITE = """\
tasks:
  - {name: ImageNet, folder: imagenet, reader: {kind: imagenet, parts: {trainval: train, test: val}}, template: "a {}.",
     task_name: object recognition}
  - {name: V2, folder: imagenetv2, reader: {kind: imagenet, images: ".", parts: {test: "."}, numbered: true},
     template: "a {}.", task_name: object recognition}
"""


def test_a_source_with_two_classes_of_one_name_is_trained_on_and_told(tiny, tmp_path, capsys) -> None:
    """Of the two cranes the first is predicted; images of the second count as wrong."""
    data = tmp_path / "data"
    write_coop(data / "imagenet", dict(zip(NAMES, ("crane", "tench", "crane"), strict=False)))
    for number, (key, folder) in enumerate(zip(NAMES, sorted((tiny.data / "colour").iterdir()), strict=False)):
        shutil.copytree(folder, data / "imagenet" / "images" / "train" / key)
        shutil.copytree(folder, data / "imagenet" / "images" / "val" / key)
        shutil.copytree(folder, data / "imagenetv2" / str(number))
    (tmp_path / "own.yaml").write_text(SUITE)
    grid: dict[str, Any] = {"methods": ["zero-shot", "softcpt"], "shots": [1], "seeds": [1], "quiet": False}
    where = {"suite": str(tmp_path / "own.yaml"), "data": str(data), "protocol": "source-task:imagenet"}
    tiny.run(tmp_path / "runs", **grid, **where)
    said = capsys.readouterr().err
    assert "ImageNet: 1 name of the official list stands for several classes" in said and ": crane" in said
    assert "V2 is called 'object recognition', as is ImageNet, which is trained on" in said
    import bench

    for record in tiny.records(tmp_path / "runs").values():
        assert [row["task"] for row in record["tasks"]] == ["V2"]
        rows = bench.load_predictions(record["key"], results=str(tmp_path / "runs"))
        assert set(rows["predicted"]) <= {0, 1} and (rows["label"] == 2).sum() == 12
