"""Real photographs in real layouts, and CoOp's official split files, where they are on this machine."""

import time
from pathlib import Path

import pytest

from bench.datasets import Task, few_shot, load_suite, load_tasks, open_image
from bench.datasets.lists import car_labels, car_names, read_flowers
from bench.datasets.readers import camel_words
from bench.datasets.splitfiles import read_split
from bench.datasets.types import is_image_name, list_folder
from bench.errors import UserError

DATA = Path(__file__).parents[2] / "shared" / "data"
SPLITS = DATA / "coop_splits"

pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason="the real photographs (shared/data) are not on this machine")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BENCH_CACHE", str(tmp_path / "cache"))


# suite, task, folder, classes, images, source of the split, some class names
FOLDERS = [
    ("general10", "Caltech101", "caltech-101", 96, 2496, "split_zhou", {"face", "leopard", "motorbike"}),
    ("general10", "DTD", "dtd", 10, 400, "split_zhou", {"banded", "cobwebbed"}),
    ("general10", "Food101", "food-101", 101, 3030, "folders", {"apple pie", "baby back ribs"}),
    (
        "general10",
        "OxfordFlowers",
        "oxford_flowers",
        102,
        3060,
        "split_zhou",
        {"pink primrose", "prince of wales feathers"},
    ),
    ("general10", "OxfordPets", "oxford_pets", 3, 180, "official lists", {"abyssinian", "american bulldog", "bengal"}),
    ("general10", "StanfordCars", "stanford_cars", 12, 312, "split_zhou", {"2007 Audi S4 Sedan"}),
    ("plant6", "FruitVegetable", "fruit_vegetable", 34, 1156, "folders", {"kiwi", "red-beet"}),
    ("plant6", "KaggleFlower", "kaggle_flower", 5, 300, "folders", {"daisy", "sunflower"}),
    ("plant6", "PlantSeedling", "PlantSeedlingV1", 12, 600, "folders", {"Common Chickweed", "Loose Silky-bent"}),
    (
        "plant6",
        "PlantVillage",
        "PlantVillage",
        16,
        640,
        "folders",
        {"healthy pepper leaf", "background without leaves"},
    ),
    ("rs8", "AID", "aid", 30, 1200, "folders", {"Bare Land", "Railway Station"}),
    ("rs8", "RSSCN7", "rsscn7", 7, 420, "folders", {"Grass", "River Lake"}),
]


@pytest.mark.parametrize(("suite", "name", "folder", "classes", "images", "source", "some"), FOLDERS)
def test_folder_is_read(
    suite: str, name: str, folder: str, classes: int, images: int, source: str, some: set[str]
) -> None:
    (task,) = load_tasks(load_suite(suite), DATA, names=[name], allow_missing=True)
    assert task.split.root.is_relative_to(DATA / folder)
    assert len(task.class_names) == classes and some <= set(task.class_names)
    assert sum(len(items) for items in task.split.parts.values()) == images
    assert task.split.source.startswith(source)
    check_task(task)


def test_fashion20_layout_is_read() -> None:
    tasks = load_tasks(load_suite("fashion20"), DATA)
    assert len(tasks) == 20 and sum(len(task.class_names) for task in tasks) == 86
    assert tasks[3].task_name == "tops type" and tasks[9].class_names == ("men", "women")
    for task in tasks:
        check_task(task)


def check_task(task: Task) -> None:
    """Every class can be learned, nothing leaks, and the pictures open."""
    assert {item.label for item in task.split.train} == set(range(len(task.class_names)))
    paths = [item.path for items in task.split.parts.values() for item in items]
    assert len(set(paths)) == len(paths)
    assert len(few_shot(task.split.train, 1, seed=1)) == len(task.class_names)
    for item in few_shot(task.split.test, 1, seed=1)[:5]:
        assert open_image(task.split.root / item.path).mode == "RGB"


def test_nothing_is_written_into_a_folder_marked_read_only() -> None:
    load_tasks(load_suite("rs8"), DATA, allow_missing=True)
    if not (DATA / "aid").stat().st_mode & 0o222:
        assert not list((DATA / "aid").glob("*.json"))


@pytest.mark.parametrize(
    ("name", "classes", "counts"),
    [
        ("Caltech101", 100, (4128, 1649, 2465)),
        ("DescribableTextures", 47, (2820, 1128, 1692)),
        ("EuroSAT", 10, (13500, 5400, 8100)),
        ("OxfordFlowers", 102, (4093, 1633, 2463)),
        ("OxfordPets", 37, (2944, 736, 3669)),
        ("StanfordCars", 196, (6509, 1635, 8041)),
        ("UCF101", 101, (7639, 1898, 3783)),
    ],
)
def test_official_split_gives_the_documented_counts(name: str, classes: int, counts: tuple[int, int, int]) -> None:
    split, _ = read_split(SPLITS / f"split_zhou_{name}.json.gz", DATA)
    assert len(split.class_names) == classes
    assert tuple(len(items) for items in split.parts.values()) == counts
    (spec,) = [s for s in load_suite("general10").tasks if name in (s.name, s.reader.get("split_name"))]
    assert spec.n_classes == classes


def test_our_names_are_those_of_the_official_splits() -> None:
    """The rules that make readable names give what CoOp's authors wrote into their files."""
    eurosat, _ = read_split(SPLITS / "split_zhou_EuroSAT.json.gz", DATA)
    rename = load_suite("general10").tasks[2].reader["rename"]
    assert {item.path.split("/")[0]: eurosat.class_names[item.label] for item in eurosat.train} == rename
    ucf101, _ = read_split(SPLITS / "split_zhou_UCF101.json.gz", DATA)
    for item in ucf101.train:
        action = item.path.split("/")[1].split("_")[1]
        if action != "HandStandPushups":  # the one video name that is not its class's
            assert " ".join(camel_words(action)) == ucf101.class_names[item.label]
    caltech, _ = read_split(SPLITS / "split_zhou_Caltech101.json.gz", DATA)
    rename = load_suite("general10").tasks[0].reader["rename"]
    for item in caltech.train:
        folder = item.path.split("/")[0]
        assert caltech.class_names[item.label] == rename.get(folder, folder.replace("_", " "))


def test_matlab_labels_agree_with_the_official_splits() -> None:
    flowers, _ = read_split(SPLITS / "split_zhou_OxfordFlowers.json.gz", DATA)
    listing = read_flowers(DATA / "oxford_flowers", {"kind": "flowers"})
    ours = {item.path: listing.class_names[item.label] for item in listing.parts["all"]}
    theirs = {item.path: flowers.class_names[item.label] for items in flowers.parts.values() for item in items}
    assert ours == theirs

    cars, _ = read_split(SPLITS / "split_zhou_StanfordCars.json.gz", DATA)
    names = car_names(DATA / "stanford_cars/devkit/cars_meta.mat")
    annotated = car_labels(DATA / "stanford_cars/devkit/cars_train_annos.mat", "cars_train", names)
    ours = {path: names[label] for path, label in annotated}
    assert ours == {item.path: cars.class_names[item.label] for item in cars.train + cars.val}


def test_every_photograph_opens() -> None:
    folder = DATA / "PlantSeedlingV1" / "Nonsegmented" / "Maize"
    for name in list_folder(folder)[1]:
        assert open_image(folder / name).size > (0, 0)


def test_a_task_without_its_data_names_folder_and_link() -> None:
    with pytest.raises(UserError, match=r"(?s)EuroSAT: [^ ]*eurosat: no such folder; get it from https://zenodo"):
        load_tasks(load_suite("general10"), DATA)


def test_listing_is_quick() -> None:
    start = time.perf_counter()
    load_tasks(load_suite("general10"), DATA, allow_missing=True)
    assert time.perf_counter() - start < 10  # some 10 000 images; a stat or an open for each would show
    assert is_image_name("a.JPG") and not is_image_name("._a.jpg")
