"""The data sets' own lists, each on a generated tree of its real form."""

import json
import sys
from pathlib import Path

import pytest

from bench.errors import UserError

sys.path.append(str(Path(__file__).parent))
from trees import cache, labelled, lines, task, touch

__all__ = ["cache"]


def test_pets_lists(tmp_path: Path) -> None:
    folder = tmp_path / "oxford_pets"
    trainval = [
        f"{breed}_{n} {label} 1 1" for breed, label in (("Abyssinian", 1), ("american_bulldog", 3)) for n in range(5)
    ]
    lines(folder / "annotations" / "trainval.txt", "#Image CLASS-ID SPECIES BREED ID", *trainval)
    lines(folder / "annotations" / "test.txt", "american_bulldog_9 3 2 2", "Abyssinian_9 1 1 1")
    touch(*(folder / "images" / f"{row.split()[0]}.jpg" for row in [*trainval, "american_bulldog_9", "Abyssinian_9"]))
    split = task("general10", "OxfordPets", tmp_path).split
    assert split.class_names == ("abyssinian", "american bulldog")  # official labels have gaps here; ours close up
    assert [len(items) for items in split.parts.values()] == [8, 2, 2]
    assert sorted(labelled(split, "test")) == [
        ("Abyssinian_9.jpg", "abyssinian"),
        ("american_bulldog_9.jpg", "american bulldog"),
    ]


def test_fgvc_variant_lists(tmp_path: Path) -> None:
    folder = tmp_path / "fgvc_aircraft"
    lines(folder / "variants.txt", "707-320", "F/A-18", "Cessna 172")
    for part in ("train", "val", "test"):
        rows = [f"{part}{n} {name}" for n, name in enumerate(["707-320", "F/A-18", "Cessna 172"])]
        lines(folder / f"images_variant_{part}.txt", *rows)
        touch(*(folder / "images" / f"{part}{n}.jpg" for n in range(3)))
    split = task("general10", "FGVCAircraft", tmp_path).split
    assert split.class_names == ("707-320", "F/A-18", "Cessna 172")
    for part in ("train", "val", "test"):
        assert labelled(split, part)[2] == (f"{part}2.jpg", "Cessna 172")
    assert split.source == "official lists, 3 of 100 classes"


def test_sun397_lists(tmp_path: Path) -> None:
    folder = tmp_path / "sun397"
    classes = ["/a/abbey", "/a/airplane_cabin", "/a/airfield/indoor"]
    lines(folder / "ClassName.txt", *classes)
    lines(folder / "Training_01.txt", *(f"{name}/sun_{n}.jpg" for name in classes for n in range(5)))
    lines(folder / "Testing_01.txt", *(f"{name}/sun_9.jpg" for name in classes))
    touch(*(folder / "SUN397" / f"{name[1:]}/sun_{n}.jpg" for name in classes for n in (*range(5), 9)))
    split = task("general10", "SUN397", tmp_path).split
    assert split.class_names == ("abbey", "airplane cabin", "indoor airfield")
    assert [len(items) for items in split.parts.values()] == [12, 3, 3]
    assert ("a/airfield/indoor/sun_9.jpg", "indoor airfield") in labelled(split, "test")


def test_ucf101_lists(tmp_path: Path) -> None:
    folder = tmp_path / "ucf101"
    names = ["ApplyEyeMakeup", "YoYo", "HandstandPushups"]
    lines(folder / "ucfTrainTestlist" / "classInd.txt", *(f"{n} {name}" for n, name in enumerate(names, start=1)))
    train = [f"{name}/v_{name}_g08_c{n:02d}.avi" for name in names for n in range(5)]
    test = [f"{name}/v_{name}_g01_c01.avi" for name in names]
    lines(folder / "ucfTrainTestlist" / "trainlist01.txt", *(f"{video} 1" for video in train))
    lines(folder / "ucfTrainTestlist" / "testlist01.txt", *test)
    frames = {"ApplyEyeMakeup": "Apply_Eye_Makeup", "YoYo": "Yo_Yo", "HandstandPushups": "Handstand_Pushups"}
    for video in train + test:
        action, name = video.split("/")
        touch(folder / "UCF-101-midframes" / frames[action] / name.replace(".avi", ".jpg"))
    split = task("general10", "UCF101", tmp_path).split
    assert split.class_names == ("Apply Eye Makeup", "Yo Yo", "Handstand Pushups")
    assert [len(items) for items in split.parts.values()] == [12, 3, 3]
    assert labelled(split, "test")[0] == ("Apply_Eye_Makeup/v_ApplyEyeMakeup_g01_c01.jpg", "Apply Eye Makeup")


def flowers(root: Path, labels: list[int]) -> Path:
    io = pytest.importorskip("scipy.io", reason="scipy writes the MATLAB files")
    folder = root / "oxford_flowers"
    touch(*(folder / "jpg" / f"image_{number:05d}.jpg" for number in range(1, len(labels) + 1)))
    io.savemat(folder / "imagelabels.mat", {"labels": [labels]})
    (folder / "cat_to_name.json").write_text('{"1": "pink primrose", "2": "fire lily", "3": "globe-flower"}')
    return folder


def test_flowers_matlab_labels(tmp_path: Path) -> None:
    flowers(tmp_path, [2, 1, 2, 1, 2, 1, 2])
    split = task("general10", "OxfordFlowers", tmp_path).split
    assert split.class_names == ("pink primrose", "fire lily")
    everything = [pair for part in split.parts for pair in labelled(split, part)]
    assert ("image_00001.jpg", "fire lily") in everything and len(everything) == 7


def test_flowers_tells_what_is_wrong(tmp_path: Path) -> None:
    folder = flowers(tmp_path, [2, 1, 9])
    with pytest.raises(UserError, match=r"imagelabels\.mat: label 9 of image 3 has no name in cat_to_name\.json"):
        task("general10", "OxfordFlowers", tmp_path)
    (folder / "cat_to_name.json").write_text('["pink primrose"]')
    with pytest.raises(UserError, match=r"cat_to_name\.json: must hold names by label"):
        task("general10", "OxfordFlowers", tmp_path)
    for content, said in (
        (b"", "not a MATLAB file"),
        (b"\x00" * 200, "not a MATLAB file|holds no"),
        (b"text" * 99, "not a"),
    ):
        (folder / "imagelabels.mat").write_bytes(content)
        with pytest.raises(UserError, match=rf"imagelabels\.mat: ({said})"):
            task("general10", "OxfordFlowers", tmp_path)


def cars(root: Path) -> Path:
    io = pytest.importorskip("scipy.io", reason="scipy writes the MATLAB files")
    import numpy as np

    folder = root / "stanford_cars"
    names = np.array(["Acura Integra Type R 2001", "BMW M3 Coupe 2012"], dtype=object)
    (folder / "devkit").mkdir(parents=True)
    io.savemat(folder / "devkit" / "cars_meta.mat", {"class_names": names})

    def annotations(file: Path, image_folder: str, labels: list[int]) -> None:
        rows = np.zeros((1, len(labels)), dtype=[("bbox_x1", object), ("class", object), ("fname", object)])
        for n, label in enumerate(labels):
            rows[0, n] = (0, label, f"{n + 1:05d}.jpg")
            touch(folder / image_folder / f"{n + 1:05d}.jpg")
        io.savemat(file, {"annotations": rows})

    annotations(folder / "devkit" / "cars_train_annos.mat", "cars_train", [2, 1, 2, 1, 2])
    annotations(folder / "cars_test_annos_withlabels.mat", "cars_test", [1, 2])
    return folder


def test_cars_matlab_annotations(tmp_path: Path) -> None:
    cars(tmp_path)
    split = task("general10", "StanfordCars", tmp_path).split
    assert split.class_names == ("2001 Acura Integra Type R", "2012 BMW M3 Coupe")
    assert labelled(split, "test") == [
        ("cars_test/00001.jpg", "2001 Acura Integra Type R"),
        ("cars_test/00002.jpg", "2012 BMW M3 Coupe"),
    ]
    assert [len(items) for items in split.parts.values()] == [3, 2, 2]


def struct(**fields: object) -> object:
    """A MATLAB struct array of one entry."""
    import numpy as np

    rows = np.zeros((1, 1), dtype=[(name, object) for name in fields])
    rows[0, 0] = tuple(fields.values())
    return rows


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ([1.0, 1.5], r"label of image 2 must be a whole number, not 1\.5"),
        ([1.0, float("nan")], "label of image 2 must be a whole number, not nan"),
        ([1.0, float("inf")], "label of image 2 must be a whole number, not inf"),
        (["1", "2"], "label of image 1 must be a whole number, not '1'"),
        ([True, False], "label of image 1 must be a whole number|label 0 of image 2 has no name"),
        ([1 + 2j], "not a MATLAB file .*complex numbers"),
        ("struct", "label of image 1 must be a whole number"),
        ("sparse", r"not a MATLAB file \(an array of class 5"),
    ],
)
def test_flowers_labels_that_are_no_whole_numbers_are_named(tmp_path: Path, labels: object, said: str) -> None:
    folder = flowers(tmp_path, [1, 2, 1])
    from scipy import io, sparse

    odd = {"struct": struct(a=1), "sparse": sparse.eye(3)}
    io.savemat(folder / "imagelabels.mat", {"labels": odd[labels] if isinstance(labels, str) else labels})
    with pytest.raises(UserError, match=rf"imagelabels\.mat: ({said})") as caught:
        task("general10", "OxfordFlowers", tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("key", ["9" * 5000, "one", "-1", "1.5"])
def test_a_flower_label_that_is_no_number_is_named(tmp_path: Path, key: str) -> None:
    folder = flowers(tmp_path, [1, 2, 1])
    (folder / "cat_to_name.json").write_text(json.dumps({"1": "a", "2": "b", key: "c"}))
    with pytest.raises(UserError, match=r"cat_to_name\.json: must hold names by label"):
        task("general10", "OxfordFlowers", tmp_path)


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("cars_meta", {"class_names": [[1.0, 2.0]]}, r"class name 1 must be text, not 1\.0"),
        ("cars_meta", {"class_names": "cells"}, r"class name 1 must be text, not \[1\.0, 2\.0\]"),
        ("cars_train_annos", {"annotations": [[1.0]]}, "`annotations` must have the fields fname and class"),
        ("cars_train_annos", {"annotations": ["text"]}, "`annotations` must have the fields fname and class"),
        ("cars_train_annos", {"annotations": ("x.jpg", [1, 2])}, "class of row 1 must be a whole number, not .1, 2"),
        ("cars_train_annos", {"annotations": ("x.jpg", "1")}, "class of row 1 must be a whole number, not '1'"),
        ("cars_train_annos", {"annotations": ("x.jpg", 1.5)}, r"class of row 1 must be a whole number, not 1\.5"),
        ("cars_train_annos", {"annotations": (["x.jpg", "y.jpg"], 1)}, r"fname of row 1 must be text, not \["),
        ("cars_train_annos", {"annotations": (7, 1)}, "fname of row 1 must be text, not 7"),
        ("cars_train_annos", {"annotations": ("../../x.jpg", 1)}, "leaves the image folder"),
    ],
)
def test_odd_cells_of_the_cars_files_are_named(tmp_path: Path, file: str, content: dict, said: str) -> None:
    folder = cars(tmp_path)
    import numpy as np
    from scipy import io

    ((key, value),) = content.items()
    if value == "cells":
        value = np.empty((1, 1), dtype=object)
        value[0, 0] = np.array([[1.0, 2.0]])
    if isinstance(value, tuple):
        value = struct(fname=value[0], **{"class": value[1]})
    io.savemat(folder / "devkit" / f"{file}.mat", {key: value})
    with pytest.raises(UserError, match=said) as caught:
        task("general10", "StanfordCars", tmp_path)
    assert "\n" not in str(caught.value) and "stanford_cars" in str(caught.value)


def test_cars_without_test_labels_is_missing_data(tmp_path: Path) -> None:
    (cars(tmp_path) / "cars_test_annos_withlabels.mat").unlink()
    with pytest.raises(UserError, match=r"cars_test_annos_withlabels\.mat: no such file"):
        task("general10", "StanfordCars", tmp_path)


def test_broken_lists_are_named_with_the_line(tmp_path: Path) -> None:
    folder = tmp_path / "fgvc_aircraft"
    lines(folder / "variants.txt", "707-320")
    lines(folder / "images_variant_train.txt", "0001 707-320", "0002 747-100")
    with pytest.raises(UserError, match=r"images_variant_train\.txt: line 2: class '747-100' is not in variants\.txt"):
        task("general10", "FGVCAircraft", tmp_path)
    lines(folder / "images_variant_train.txt", "0001")
    with pytest.raises(UserError, match=r"images_variant_train\.txt: line 1 must have 2 words or more"):
        task("general10", "FGVCAircraft", tmp_path)
    lines(folder / "images_variant_train.txt", "../../0001 707-320")
    for part in ("val", "test"):
        lines(folder / f"images_variant_{part}.txt", f"{part} 707-320")
    touch(folder / "images" / "x.jpg")
    with pytest.raises(UserError, match="leaves the image folder"):
        task("general10", "FGVCAircraft", tmp_path)
    (folder / "images_variant_train.txt").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(UserError, match=r"images_variant_train\.txt: cannot be read"):
        task("general10", "FGVCAircraft", tmp_path)


def test_official_lists_that_leak_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "oxford_pets" / "annotations"
    lines(folder / "trainval.txt", "Abyssinian_1 1 1 1", "Abyssinian_2 1 1 1", "beagle_1 2 2 1", "beagle_2 2 2 1")
    lines(folder / "test.txt", "Abyssinian_1 1 1 1")
    touch(tmp_path / "oxford_pets" / "images" / "Abyssinian_1.jpg")
    with pytest.raises(UserError, match="1 images stand in both"):
        task("general10", "OxfordPets", tmp_path)
