"""Every reader of folders, and tables, on a generated tree of its data set's real form."""

import json
import os
import sys
from pathlib import Path

import pytest
from PIL import Image

from bench.datasets import Split, load_suite, load_tasks
from bench.datasets.readers import camel_words
from bench.errors import UserError

sys.path.append(str(Path(__file__).parent))
from trees import cache, labelled, lines, own_task, task, touch

__all__ = ["cache"]


# Class folders -----------------------------------------------------------------------------------------------


def test_class_folders_with_exclude_and_rename(tmp_path: Path) -> None:
    images = tmp_path / "caltech-101" / "101_ObjectCategories"
    for name in ("BACKGROUND_Google", "Faces", "Faces_easy", "airplanes", "wild_cat"):
        touch(*(images / name / f"image_{number:04d}.jpg" for number in range(4)))
    assert task("general10", "Caltech101", tmp_path).class_names == ("face", "airplane", "wild cat")


@pytest.mark.parametrize(
    ("reader", "said"),
    [
        ("{kind: folders, rename: {wrem: winter wren}}", "`rename` names 'wrem', .* did you mean 'wren'"),
        ("{kind: folders, exclude: [Other]}", "`exclude` names 'Other', which is no folder here; .* 'others'"),
        ("{kind: folders, exclude: [others], rename: {others: x}}", "`rename` names 'others'"),
        ("{kind: folders, grouped: true, exclude: [inmer]}", "`exclude` names 'inmer', .* did you mean 'inner'"),
    ],
)
def test_folders_that_are_not_there_cannot_be_excluded_or_renamed(tmp_path: Path, reader: str, said: str) -> None:
    for name in ("crow", "wren", "others", "group/inner"):
        touch(*(tmp_path / "t" / name / f"{number}.jpg" for number in range(4)))
    touch(*(tmp_path / "t" / "group" / f"{number}.jpg" for number in range(4)))
    with pytest.raises(UserError, match=said):
        own_task(tmp_path, reader)


def test_what_the_number_of_classes_vouches_for_may_be_missing(tmp_path: Path) -> None:
    """A folder to leave out that is not there does no harm where the classes are as many as the suite says."""
    for name in ("crow", "wren"):
        touch(*(tmp_path / "t" / name / f"{number}.jpg" for number in range(4)))
    file = tmp_path / "own.yaml"

    def load(reader: str, classes: int, allow_missing: bool = False) -> int:
        head = f"name: T, folder: t, template: 'a {{}}.', task_name: t, classes: {classes}"
        file.write_text(f"tasks: [{{{head}, reader: {{kind: folders, {reader}}}}}]\n")
        return len(load_tasks(load_suite(str(file)), tmp_path, allow_missing=allow_missing)[0].class_names)

    assert load("exclude: [others]", classes=2) == 2
    assert load("exclude: [others], rename: {jay: blue jay}", classes=3, allow_missing=True) == 2  # they may come yet
    with pytest.raises(UserError, match="`rename` names 'jay'"):
        load("rename: {jay: blue jay}", classes=2)
    touch(*(tmp_path / "t" / "other" / f"{number}.jpg" for number in range(4)))
    with pytest.raises(UserError, match=r"`exclude` names 'others', .* did you mean 'other'"):
        load("exclude: [others]", classes=2)


def test_eurosat_gets_readable_names(tmp_path: Path) -> None:
    names = "AnnualCrop Forest HerbaceousVegetation Highway Industrial Pasture PermanentCrop Residential River SeaLake"
    for name in names.split():
        touch(*(tmp_path / "eurosat" / "2750" / name / f"{name}_{number}.jpg" for number in range(3)))
    assert task("general10", "EuroSAT", tmp_path).class_names == (
        *("Annual Crop Land", "Forest", "Herbaceous Vegetation Land", "Highway or Road", "Industrial Buildings"),
        *("Pasture Land", "Permanent Crop Land", "Residential Buildings", "River", "Sea or Lake"),
    )


def test_pooled_folders_are_one_set_of_images(tmp_path: Path) -> None:
    images = tmp_path / "fruit_vegetable" / "images"
    for pool, count in (("train", 6), ("validation", 2), ("test", 2)):
        for name in ("bell pepper", "kiwi"):
            touch(*(images / pool / name / f"Image_{number}.jpg" for number in range(count)))
    split = task("plant6", "FruitVegetable", tmp_path).split
    assert split.class_names == ("bell pepper", "kiwi")
    assert [len(items) for items in split.parts.values()] == [10, 4, 6]  # 50, 20 and 30 % of 2 × 10


def test_plantvillage_gets_readable_names(tmp_path: Path) -> None:
    images = tmp_path / "PlantVillage" / "Plant_leave_diseases_dataset_without_augmentation"
    for name in ("Apple___Apple_scab", "Background_without_leaves", "Grape___healthy"):
        touch(*(images / name / f"image ({number}).JPG" for number in range(3)))
    assert task("plant6", "PlantVillage", tmp_path).class_names == (
        *("apple leaf with scab disease", "background without leaves", "healthy grape leaf"),
    )


def test_rsscn7_names_lose_their_letter_and_become_words(tmp_path: Path) -> None:
    for name in ("aGrass", "bField", "cIndustry", "dRiverLake", "eForest", "fResident", "gParking"):
        touch(*(tmp_path / "rsscn7" / name / f"{name[0]}{number:03d}.jpg" for number in range(3)))
    names = ("Grass", "Field", "Industry", "River Lake", "Forest", "Resident", "Parking")
    assert task("rs8", "RSSCN7", tmp_path).class_names == names


def test_class_folders_inside_groups(tmp_path: Path) -> None:
    images = tmp_path / "rsi_cb128" / "RSI-CB128"
    for path in ("construction land/city_building", "transportation/avenue", "transportation/bridge"):
        touch(*(images / path / f"{number}.tif" for number in range(3)))
    split = task("rs8", "RSI-CB128", tmp_path).split
    assert split.class_names == ("avenue", "bridge", "city building")
    assert {item.path.rpartition("/")[0] for item in split.train} == {
        *("construction land/city_building", "transportation/avenue", "transportation/bridge"),
    }


def test_hidden_files_and_other_files_are_no_images(tmp_path: Path) -> None:
    for name in ("a", "b"):
        touch(*(tmp_path / "t" / name / f"{number}.jpg" for number in range(3)))
    touch(tmp_path / "t" / "a" / "._0.jpg", tmp_path / "t" / "a" / "Thumbs.db", tmp_path / "t" / "readme.txt")
    touch(
        tmp_path / "t" / ".git" / "x.jpg", tmp_path / "t" / "__MACOSX" / "x.jpg", tmp_path / "t" / "a" / "n.jpg" / "x"
    )
    split = own_task(tmp_path, "{kind: folders}").split
    assert split.class_names == ("a", "b") and sum(len(items) for items in split.parts.values()) == 6


def test_an_empty_class_folder_is_named(tmp_path: Path) -> None:
    touch(*(tmp_path / "t" / "a" / f"{number}.jpg" for number in range(3)))
    (tmp_path / "t" / "empty").mkdir()
    with pytest.raises(UserError, match=r"t/empty: class folder without images; .* `exclude`"):
        own_task(tmp_path, "{kind: folders}")
    touch(*(tmp_path / "t" / "b" / f"{number}.jpg" for number in range(3)))
    assert own_task(tmp_path, "{kind: folders, exclude: [empty]}").class_names == ("a", "b")


def test_two_folders_of_one_class_name_are_refused(tmp_path: Path) -> None:
    for name in ("sea_lake", "sea lake"):
        touch(*(tmp_path / "t" / name / f"{number}.jpg" for number in range(3)))
    with pytest.raises(UserError, match=r"labels \[0, 1\] have the same class name 'sea lake'"):
        own_task(tmp_path, "{kind: folders}")


def test_a_folder_without_class_folders_is_missing_data(tmp_path: Path) -> None:
    (tmp_path / "t").mkdir()
    with pytest.raises(UserError, match="holds no class folders"):
        own_task(tmp_path, "{kind: folders}")


def test_a_file_where_a_folder_should_be_is_told(tmp_path: Path) -> None:
    touch(tmp_path / "t")
    with pytest.raises(UserError, match="no such folder"):
        own_task(tmp_path, "{kind: folders}")


def test_a_folder_that_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path / "t" / "a" / "0.jpg")

    def refuse(folder: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "scandir", refuse)  # the super-user, who may run this test, is refused nothing
    with pytest.raises(UserError, match=r"/t: cannot be read"):
        own_task(tmp_path, "{kind: folders}")


def test_folder_names_of_every_kind_are_class_names(tmp_path: Path) -> None:
    odd = ["<i>a</i>", "b, c", "d\ne", "🐦", "caf\udce9"]  # the last is not UTF-8 on disk
    for name in odd:
        name = name.replace("/", "∕")
        touch(*(tmp_path / "t" / name / f"{number}.jpg" for number in range(3)))
    split = own_task(tmp_path, "{kind: folders}").split
    assert set(split.class_names) == {"<i>a<∕i>", "b, c", "d e", "🐦", "caf?"}
    assert own_task(tmp_path, "{kind: folders}").split == split  # as it was written


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("ApplyEyeMakeup", "Apply Eye Makeup"),
        ("RiverLake", "River Lake"),
        ("footballField", "football Field"),
        ("TVStudio", "TV Studio"),
        ("Area51North", "Area51 North"),
        ("plain", "plain"),
    ],
)
def test_camel_case_becomes_words(name: str, words: str) -> None:
    assert " ".join(camel_words(name)) == words


# Fashion-20 --------------------------------------------------------------------------------------------------


def fashion20(root: Path) -> Path:
    folder = root / "fashion20"
    lines(
        folder / "task_info.csv",
        "id\ttask_name\ttask_desc\tlabel_name",
        "0\tpants type\tclassify pants\tjeans,shorts , track pants",
        '1\t"sock" colour\tclassify socks\tblack,white',
    )
    for path, count in (("0/0", 5), ("0/1", 4), ("0/2", 3), ("1/0", 3), ("1/1", 6)):
        touch(*(folder / "images" / path / f"{number}.jpg" for number in range(count)))
    return folder


def test_fashion20_reads_names_from_the_users_copy(tmp_path: Path) -> None:
    fashion20(tmp_path)
    first, second = load_tasks(load_suite("fashion20"), tmp_path, allow_missing=True, names=["Fashion00", "Fashion01"])
    assert (first.task_name, first.class_names) == ("pants type", ("jeans", "shorts", "track pants"))
    assert (second.task_name, second.class_names) == ('"sock" colour', ("black", "white"))
    assert all(item.path.startswith("1/") for items in second.split.parts.values() for item in items)


def test_fashion20_uses_the_authors_split_of_all_tasks(tmp_path: Path) -> None:
    folder = fashion20(tmp_path)
    rows = [[f"{t}/{c}/{n}.jpg", [c], [t]] for t, classes in ((0, 3), (1, 2)) for c in range(classes) for n in range(3)]
    meta = {
        "taskid2cname": [["jeans", "shorts", "track pants"], ["black", "white"]],
        "taskid2tname": ["pants_type", "s"],
    }
    content = {"train": rows[::3], "val": rows[1::3], "test": rows[2::3], "meta": meta}
    (folder / "split_dk_Fashion20.json").write_text(json.dumps(content))
    (second,) = load_tasks(load_suite("fashion20"), tmp_path, names=["Fashion01"])
    assert second.split.source == "split_dk_Fashion20.json" and second.task_name == "s"
    assert labelled(second.split, "train") == [("1/0/0.jpg", "black"), ("1/1/0.jpg", "white")]


def test_fashion20_tells_what_is_wrong_with_the_copy(tmp_path: Path) -> None:
    folder = fashion20(tmp_path)
    with pytest.raises(UserError, match=r"task_info\.csv: no line for task 2"):
        task("fashion20", "Fashion02", tmp_path)
    touch(folder / "images" / "1" / "2" / "0.jpg")
    with pytest.raises(UserError, match=r"images/1/2: class folders of task 1 are named 0 to 1"):
        task("fashion20", "Fashion01", tmp_path)
    first = {"name": "F", "folder": "fashion20", "reader": {"kind": "fashion20", "task": -1}, "template": "{}"}
    (tmp_path / "own.yaml").write_text(json.dumps({"tasks": [first]}))
    with pytest.raises(UserError, match="reader fashion20: `task` must be a whole number from 0 up, not -1"):
        load_tasks(load_suite(str(tmp_path / "own.yaml")), tmp_path)
    (folder / "task_info.csv").unlink()
    with pytest.raises(UserError, match=r"task_info\.csv: no such file"):
        task("fashion20", "Fashion00", tmp_path)


# What is left out, and told ----------------------------------------------------------------------------------


def n_images(split: Split) -> int:
    return sum(len(items) for items in split.parts.values())


def test_every_suffix_of_the_formats_is_read_in_any_case(tmp_path: Path) -> None:
    suffixes = ["jpg", "jpeg", "jpe", "jfif", "JPG", "png", "apng", "bmp", "gif", "tif", "tiff", "webp", "ppm"]
    suffixes += ["pgm", "pbm", "pnm", "jp2", "j2k", "mpo"]
    for name in ("a", "b"):
        touch(*(tmp_path / "t" / name / f"{number}.{suffix}" for number, suffix in enumerate(suffixes)))
    found = own_task(tmp_path, "{kind: folders}")
    assert n_images(found.split) == 2 * 19 and found.left_out == {}


def test_what_is_left_out_is_counted_with_an_example_each(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a", "b"):
        touch(*(tmp_path / "t" / name / f"{number}.jpg" for number in range(3)))
    touch(*(tmp_path / "t" / "a" / f"{number}.heic" for number in range(4)), tmp_path / "t" / "a" / "notes.txt")
    touch(tmp_path / "t" / "a" / "more" / "0.jpg", tmp_path / "t" / "b" / "x" / "y" / "0.png")
    touch(tmp_path / "t" / "cover.jpg", tmp_path / "t" / "readme.txt")
    system = (".DS_Store", "Thumbs.db", "desktop.ini", "._0.jpg", "@eaDir/0.jpg", "__MACOSX/a/0.jpg", ".cache/0.jpg")
    touch(*(tmp_path / "t" / "a" / name for name in system), *(tmp_path / "t" / name for name in system))
    found = own_task(tmp_path, "{kind: folders}")
    assert n_images(found.split) == 6
    assert found.left_out == {
        "files in class folders whose suffix is not an image's": (5, "a/0.heic"),  # most of the five
        "images in folders inside a class folder; the reader's `deep: true` takes them": (2, "a/more/0.jpg"),
        "images outside the class folders": (1, "cover.jpg"),
    }
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("warning: T: left out: ") and "(5, e.g. 'a/0.heic')" in line and "'cover.jpg'" in line
    deep = own_task(tmp_path, "{kind: folders, deep: true}")
    assert n_images(deep.split) == 8 and [count for count, _ in deep.left_out.values()] == [5, 1]


def test_nothing_left_out_is_nothing_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a", "b"):
        touch(*(tmp_path / "t" / name / f"{number}.jpg" for number in range(3)))
    touch(tmp_path / "t" / "not_a_class" / "0.jpg", tmp_path / "t" / "a" / ".DS_Store")
    found = own_task(tmp_path, "{kind: folders, exclude: [not_a_class]}")
    assert str(found.left_out) == "" and capsys.readouterr().err == ""


def test_of_a_file_without_a_suffix_the_content_decides(tmp_path: Path) -> None:
    for name in ("a", "b"):
        touch(*(tmp_path / "t" / name / f"{number}.jpg" for number in range(3)))
    Image.new("RGB", (8, 8)).save(tmp_path / "t" / "a" / "n0144", "JPEG")
    (tmp_path / "t" / "b" / "README").write_text("P3 is what a text may begin with")
    found = own_task(tmp_path, "{kind: folders}")
    assert n_images(found.split) == 7
    assert list(found.left_out.values()) == [(1, "b/README")]


def test_folders_that_the_pool_does_not_name_are_told(tmp_path: Path) -> None:
    for top in ("one", "two", "three"):
        for name in ("a", "b"):
            touch(*(tmp_path / "t" / top / name / f"{number}.jpg" for number in range(2)))
    found = own_task(tmp_path, "{kind: folders, pool: [one, two]}")
    assert n_images(found.split) == 8
    assert found.left_out == {"images outside the class folders": (4, "three/a/0.jpg")}


def test_a_folder_that_links_to_its_own_parent_is_no_endless_walk(tmp_path: Path) -> None:
    for name in ("a", "b"):
        touch(*(tmp_path / "t" / name / f"{number}.jpg" for number in range(3)))
    (tmp_path / "t" / "a" / "up").symlink_to(tmp_path / "t")
    assert n_images(own_task(tmp_path, "{kind: folders}").split) == 6


def test_what_the_bench_wrote_itself_is_never_read(tmp_path: Path) -> None:
    for name in ("a", "b"):
        touch(*(tmp_path / "t" / name / f"{number}.jpg" for number in range(3)))
    touch(tmp_path / "t" / "files-huggingface-0123abcd-89abcdef" / "all" / "0" / "000000.jpg")
    touch(tmp_path / "t" / "files-torchvision-0123abcd" / "all" / "0" / "000000.jpg")
    for _ in range(2):
        found = own_task(tmp_path, "{kind: folders}")
        assert found.class_names == ("a", "b") and found.left_out == {}


def test_fashion20_tells_what_it_leaves_out(tmp_path: Path) -> None:
    images = fashion20(tmp_path) / "images"
    touch(images / "0" / "0" / "new.heic", images / "0" / "1" / "old" / "0.jpg", images / "1" / "stray.jpg")
    first, second = load_tasks(load_suite("fashion20"), tmp_path, names=["Fashion00", "Fashion01"])
    assert [example for _, example in first.left_out.values()] == ["0/0/new.heic", "0/1/old/0.jpg"]
    assert list(second.left_out.values()) == [(1, "1/stray.jpg")]


# Parts -------------------------------------------------------------------------------------------------------


def parts_on_disk(root: Path, **counts: int) -> None:
    """Class folders crow and jay below a folder for each part, with so many images a class."""
    for part, count in counts.items():
        for name in ("crow", "jay"):
            touch(*(root / "t" / part / name / f"{number}.jpg" for number in range(count)))


def test_parts_are_read_as_they_stand(tmp_path: Path) -> None:
    parts_on_disk(tmp_path, Train=5, valid=2, test=3)
    touch(tmp_path / "t" / "unlabelled" / "0.jpg")
    found = own_task(tmp_path, "{kind: folders, parts: {train: Train, val: valid, test: test/}}")
    assert found.class_names == ("crow", "jay")
    assert [len(items) for items in found.split.parts.values()] == [10, 4, 6]
    assert all(item.path.startswith("valid/") for item in found.split.val)
    assert [item.label for item in found.split.test] == [0, 0, 0, 1, 1, 1]
    assert found.left_out == {"images outside the class folders": (1, "unlabelled/0.jpg")}


def test_a_missing_val_is_drawn_from_train(tmp_path: Path) -> None:
    parts_on_disk(tmp_path, train=10, test=3)
    split = own_task(tmp_path, "{kind: folders, parts: {trainval: train, test: test}}").split
    assert [len(items) for items in split.parts.values()] == [16, 4, 6]  # a fifth of each class's ten
    assert all(item.path.startswith("train/") for item in (*split.train, *split.val))


@pytest.mark.parametrize(
    "counts", [{"train": 5, "val": 2, "test": 3}, {"Training": 5, "TESTING": 3}, {"train": 5, "training": 5}]
)
def test_parts_taken_for_classes_are_refused_with_the_options_for_them(tmp_path: Path, counts: dict[str, int]) -> None:
    parts_on_disk(tmp_path, **counts)
    with pytest.raises(UserError, match=r"parts of a data set, not classes; .*`parts`, such as \{trainval.* `pool`"):
        own_task(tmp_path, "{kind: folders}")
    found = own_task(tmp_path, f"{{kind: folders, pool: [{', '.join(counts)}]}}")
    assert found.class_names == ("crow", "jay") and n_images(found.split) == 2 * sum(counts.values())


def test_parts_beside_another_folder_are_named_too(tmp_path: Path) -> None:
    parts_on_disk(tmp_path, train=10, test=3)
    touch(tmp_path / "t" / "docs" / "0.jpg")
    with pytest.raises(UserError, match=r"t/test: class folder without images; if it is a part .*`parts`"):
        own_task(tmp_path, "{kind: folders}")


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    for name in ("car", "train"):
        touch(*(tmp_path / "t" / name / f"{number}.jpg" for number in range(3)))
    assert own_task(tmp_path, "{kind: folders}").class_names == ("car", "train")


def test_parts_that_contradict_are_named(tmp_path: Path) -> None:
    parts_on_disk(tmp_path, train=5, test=3)
    with pytest.raises(UserError, match="must be all, or test, or trainval and test, or train, val and test"):
        own_task(tmp_path, "{kind: folders, parts: {train: train, test: test}}")
    with pytest.raises(UserError, match="`parts` and `pool`"):
        own_task(tmp_path, "{kind: folders, parts: {all: train}, pool: [test]}")
    with pytest.raises(UserError, match=r"t/dev: no such folder"):
        own_task(tmp_path, "{kind: folders, parts: {trainval: train, test: dev}}")
    with pytest.raises(UserError, match=r"`parts` must be a path below the data root, not '\.\./x'"):
        own_task(tmp_path, "{kind: folders, parts: {all: ../x}}")


def test_class_folders_one_deeper_are_pointed_to(tmp_path: Path) -> None:
    for name in ("a", "b"):
        touch(*(tmp_path / "t" / "birds" / name / f"{number}.jpg" for number in range(3)))
    with pytest.raises(UserError, match=r"t/birds: .* `images` to this folder \(or `grouped: true`.*`deep: true`"):
        own_task(tmp_path, "{kind: folders}")
    assert own_task(tmp_path, "{kind: folders, images: birds}").class_names == ("a", "b")


def test_a_class_folder_of_other_formats_says_which(tmp_path: Path) -> None:
    touch(tmp_path / "t" / "a" / "0.heic", *(tmp_path / "t" / "b" / f"{number}.jpg" for number in range(3)))
    with pytest.raises(UserError, match=r"t/a: class folder without images; .*\(1, e\.g\. 'a/0\.heic'\)"):
        own_task(tmp_path, "{kind: folders}")


# Flat folders ------------------------------------------------------------------------------------------------


def flat(root: Path) -> None:
    touch(*(root / "t" / f"{name}_{number}.jpg" for name in ("crow", "blue_jay") for number in range(10)))


def test_images_without_class_folders_lead_to_the_readers_for_them(tmp_path: Path) -> None:
    flat(tmp_path)
    said = r"20 images, e\.g\. 'blue_jay_0\.jpg', and no class folders; .*`csv`.*`names`"
    with pytest.raises(UserError, match=said):
        own_task(tmp_path, "{kind: folders}")
    by_name = own_task(tmp_path, r"{kind: names, pattern: '(.+)_\d+'}")
    assert by_name.class_names == ("blue jay", "crow")
    assert [len(items) for items in by_name.split.parts.values()] == [10, 4, 6] and by_name.left_out == {}
    rows = [f"{name}_{number}.jpg,{name}" for name in ("crow", "blue_jay") for number in range(10)]
    lines(tmp_path / "t" / "labels.csv", "file,class", *rows)
    by_table = own_task(tmp_path, "{kind: csv, parts: {all: labels.csv}, image: file, label: class}")
    assert by_table.split.parts == by_name.split.parts


def test_flat_parts_lead_to_the_readers_for_them(tmp_path: Path) -> None:
    for part in ("train", "test"):
        touch(*(tmp_path / "t" / part / f"{number}.jpg" for number in range(5)))
    with pytest.raises(UserError, match=r"t/test: 5 images, e\.g\. '0\.jpg', and no class folders"):
        own_task(tmp_path, "{kind: folders}")


def test_names_tell_the_class_in_folders_of_parts(tmp_path: Path) -> None:
    for part, count in (("train", 5), ("test", 2), ("extra", 1)):
        touch(*(tmp_path / "t" / part / f"{n:03d}-{name}.jpg" for name in ("crow", "jay") for n in range(count)))
    touch(tmp_path / "t" / "train" / "cover.jpg", tmp_path / "t" / "readme.txt")
    reader = r"{kind: names, pattern: '\d+-(.+)', parts: {trainval: train, test: test}, rename: {jay: blue jay}}"
    found = own_task(tmp_path, reader)
    assert found.class_names == ("crow", "blue jay")  # sorted by what the names hold: crow, jay
    assert labelled(found.split, "test")[0] == ("test/000-crow.jpg", "crow")
    assert [len(items) for items in found.split.parts.values()] == [8, 2, 4]
    assert found.left_out == {
        "images whose names do not fit `pattern`": (1, "train/cover.jpg"),
        "images in no folder of `parts`": (2, "extra/000-crow.jpg"),
    }


def test_names_that_do_not_fit_are_named(tmp_path: Path) -> None:
    flat(tmp_path)
    with pytest.raises(UserError, match=r"`pattern` 'x\(\.\)' fits no image's name; e\.g\. not 'blue_jay_0\.jpg'"):
        own_task(tmp_path, "{kind: names, pattern: x(.)}")
    with pytest.raises(UserError, match="`rename` names 'craw', which is no class here; did you mean 'crow'"):
        own_task(tmp_path, r"{kind: names, pattern: '(.+)_\d', rename: {craw: carrion crow}}")
    with pytest.raises(UserError, match="must have one group"):
        own_task(tmp_path, "{kind: names, pattern: '.*'}")
    with pytest.raises(UserError, match=r"`pattern` '\(' is not a pattern"):
        own_task(tmp_path, "{kind: names, pattern: '('}")


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_a_table_tells_the_classes(tmp_path: Path, delimiter: str) -> None:
    touch(*(tmp_path / "t" / "pictures" / f"{number}.jpg" for number in range(14)))
    train = [f'{number}{delimiter}"x"{delimiter}{"crow" if number % 2 else "blue_jay"}' for number in range(10)]
    lines(tmp_path / "t" / "train.csv", delimiter.join(["id", "note", " class "]), *train)
    lines(tmp_path / "t" / "test.csv", f"class{delimiter}id", f"crow{delimiter}10", f"blue_jay{delimiter}11")
    reader = (
        "{kind: csv, images: pictures, parts: {trainval: train.csv, test: test.csv}, image: id, label: class, "
        "suffix: .jpg}"
    )
    found = own_task(tmp_path, reader)
    assert found.class_names == ("blue jay", "crow")
    assert [len(items) for items in found.split.parts.values()] == [8, 2, 2]
    assert labelled(found.split, "test") == [("10.jpg", "crow"), ("11.jpg", "blue jay")]
    assert found.left_out == {"images that the table does not name": (2, "12.jpg")}


def test_a_folder_of_images_with_metadata_is_read_as_a_table(tmp_path: Path) -> None:
    """What Hugging Face's library calls an imagefolder."""
    touch(*(tmp_path / "t" / "pictures" / f"{number}.jpg" for number in range(12)))
    rows = [f"{number}.jpg,{'red' if number % 2 else 'green'}" for number in range(10)]
    lines(tmp_path / "t" / "pictures" / "metadata.csv", "file_name,label", *rows)
    reader = "{kind: csv, images: pictures, parts: {all: pictures/metadata.csv}, image: file_name, label: label}"
    found = own_task(tmp_path, reader)
    assert found.class_names == ("green", "red") and n_images(found.split) == 10
    assert found.left_out == {"images that the table does not name": (2, "10.jpg")}


def test_mistakes_of_a_table_are_named(tmp_path: Path) -> None:
    flat(tmp_path)
    file = tmp_path / "t" / "labels.csv"
    reader = "{kind: csv, parts: {all: labels.csv}, image: file, label: class}"
    with pytest.raises(UserError, match=r"labels\.csv: no such file"):
        own_task(tmp_path, reader)
    lines(file, "file,klass", "crow_0.jpg,crow")
    with pytest.raises(UserError, match=r"labels\.csv: there is no column 'class'; did you mean 'klass'"):
        own_task(tmp_path, reader)
    lines(file, "file,class", "crow_0.jpg,crow", "crow_1.jpg,")
    with pytest.raises(UserError, match=r"labels\.csv: row 3 has no 'class'"):
        own_task(tmp_path, reader)
    lines(file, "file,class,note", "crow_0.jpg,crow,", "crow_1.jpg,crow, black,")  # its class would be "crow"
    with pytest.raises(UserError, match=r"labels\.csv: row 3 has 4 cells, the first line has 3; .*',' must stand in"):
        own_task(tmp_path, reader)
    lines(file, "file,class,class", "crow_0.jpg,crow,jay")
    with pytest.raises(UserError, match=r"labels\.csv: several columns are called 'class'"):
        own_task(tmp_path, reader)
    lines(file, "file,class", "../../secret.jpg,crow")
    with pytest.raises(UserError, match="leaves the image folder"):
        own_task(tmp_path, reader)
    lines(file, "file,class", "crow_0.jpg,crow", "crow_0.jpg,jay")
    with pytest.raises(UserError, match=r"'crow_0\.jpg' has two labels"):
        own_task(tmp_path, reader)
    lines(file, "file,class", *(f"{name}_{n}.jpg,{name}" for name in ("crow", "gull") for n in range(4)))
    with pytest.raises(UserError, match=r"4 images that t lists are not there, e\.g\. 'gull_0\.jpg'"):
        own_task(tmp_path, reader)
