"""Suites of many tasks: Meta-Album, and iNaturalist 2021 by taxa, on generated trees of their real forms."""

import hashlib
import json
import random
import tracemalloc
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import bench
from bench.cli import main
from bench.datasets import Suite, Task, load_suite, load_tasks, spec, taxa
from bench.datasets.fetch import plan
from bench.datasets.types import MissingData
from bench.errors import UserError

# iNaturalist 2021 ---------------------------------------------------------------------------------------------

THRUSHES = ("Animalia", "Chordata", "Aves", "Passeriformes", "Turdidae")
TITS = ("Animalia", "Chordata", "Aves", "Passeriformes", "Paridae")
ROSES = ("Plantae", "Tracheophyta", "Magnoliopsida", "Rosales", "Rosaceae")
# Latin name, common name, group, the taxa down to the family; the genus is the name's first word.
SPECIES = [
    ("Turdus merula", "Eurasian Blackbird", "Birds", THRUSHES),
    ("Turdus pilaris", "Fieldfare", "Birds", THRUSHES),
    ("Turdus iliacus", "Redwing", "Birds", THRUSHES),
    ("Turdus philomelos", "Song Thrush", "Birds", THRUSHES),
    ("Catharus ustulatus", "Swainson's Thrush", "Birds", THRUSHES),
    ("Parus major", "Great Tit", "Birds", TITS),
    ("Parus minor", "Japanese Tit", "Birds", TITS),
    ("Poecile montanus", "Willow Tit", "Birds", TITS),
    ("Poecile palustris", "Marsh Tit", "Birds", TITS),
    ("Rosa canina", "dog rose", "Plants", ROSES),
    ("Rosa arvensis", "Dog  Rose", "Plants", ROSES),  # a common name that another has, written otherwise
    ("Rosa glauca", "", "Plants", ROSES),
    ("Fragaria vesca", "Woodland Strawberry", "Plants", ROSES),
    ("Prunus_spinosa", "Blackthorn", "Plants", ROSES),
]
MINI, VAL = 5, 2  # images of a species


def annotations(species: Sequence[tuple[Any, ...]], folder: str, n: int) -> dict[str, Any]:
    """An annotation file as the competition's page describes it; the numbers of its lists are not in order."""
    categories, images, links = [], [], []
    for number, (name, common, group, above) in enumerate(species):
        ranks = dict(zip(taxa.RANKS, (*above, name.split()[0].split("_")[0]), strict=True))
        dir_name = f"{number:05d}_{'_'.join((*above, *name.split()))}"
        category = {"id": 7 * number, "name": name, "common_name": common, "supercategory": group, **ranks}
        categories.append({**category, "specific_epithet": name.split()[-1], "image_dir_name": dir_name})
        for i in range(n):
            image = 1000 * (i + 1) + number
            place = {"latitude": None, "longitude": None, "location_uncertainty": None}
            about = {"width": 500, "height": 375, "license": 0, "rights_holder": 'A \\ {B} ["ü"]', **place}
            images.append({"id": image, "file_name": f"{folder}/{dir_name}/{i}.jpg", **about})
            links.append({"id": image + 1, "image_id": image, "category_id": 7 * number})
    info = {"year": 2021, "version": "1", "licenses": [{"id": 0}]}
    return {"info": info, "images": images, "categories": categories, "annotations": links[::-1], "licenses": []}


def write(root: Path, species: Sequence[tuple[Any, ...]] = SPECIES, pictures: bool = True) -> Path:
    """The data set below a root."""
    folder = root / "inat2021"
    folder.mkdir(parents=True, exist_ok=True)
    for name, n in (("train_mini", MINI), ("val", VAL)):
        content = annotations(species, name, n)
        (folder / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
        for number, image in enumerate(content["images"] if pictures else ()):
            file = folder / image["file_name"]
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8, 8), (number, 255 - number, 99)).save(file)
    return root


@pytest.fixture(scope="module")
def inat(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("data"))


def tasks(root: Path, suite: str = "inat2021-families") -> dict[str, Task]:
    return {task.name: task for task in load_tasks(load_suite(suite), root)}


def test_a_family_of_five_species_is_a_task_and_one_of_four_is_none(inat: Path) -> None:
    found = tasks(inat)
    assert {name: len(task.class_names) for name, task in found.items()} == {"Turdidae": 5, "Rosaceae": 5}
    assert found["Turdidae"].spec.task_names == (
        "telling birds of the family Turdidae apart",
        "species of Turdidae",
        "Turdidae",
    )
    assert found["Rosaceae"].task_name == "telling plants of the family Rosaceae apart"
    assert [task.path for task in found.values()] == [("Birds", "Passeriformes"), ("Plants", "Rosales")]


def test_a_task_trains_on_mini_images_and_tests_on_all_validation_images(inat: Path) -> None:
    split = tasks(inat)["Turdidae"].split
    # Of five images of a species a fifth is for validation.
    assert {part: len(items) for part, items in split.parts.items()} == {"train": 20, "val": 5, "test": 10}
    assert {item.path.split("/")[0] for item in (*split.train, *split.val)} == {"train_mini"}
    assert {item.path.split("/")[0] for item in split.test} == {"val"}
    for item in split.test:  # each image has the species that its folder names
        latin = " ".join(item.path.split("/")[1].split("_")[-2:])
        common = {name: common for name, common, *_ in SPECIES}[latin]
        assert split.class_names[item.label] == common


def test_common_and_latin_names_are_two_settings_of_the_same_tasks(inat: Path) -> None:
    common, latin = tasks(inat)["Rosaceae"], tasks(inat, "inat2021-families-latin")["Rosaceae"]
    assert latin.class_names == ("Fragaria vesca", "Prunus spinosa", "Rosa arvensis", "Rosa canina", "Rosa glauca")
    # Two share a common name and one has none: these keep their Latin names.
    assert common.class_names == (
        *("Woodland Strawberry", "Blackthorn", "Rosa arvensis", "Rosa canina", "Rosa glauca"),
    )
    assert common.split.parts == latin.split.parts and common.task_name == latin.task_name


def test_a_common_name_that_is_another_species_latin_one_is_not_used() -> None:
    own = [taxa.Species(name, common, "Plants", ROSES) for name, common, *_ in SPECIES[9:12]]
    own[0] = own[0]._replace(common="rosa  glauca")
    assert taxa.class_names(own, "common") == {
        **{"Rosa canina": "Rosa canina", "Rosa arvensis": "Dog  Rose", "Rosa glauca": "Rosa glauca"}
    }


def test_genera_are_tasks_by_the_same_rule(tmp_path: Path) -> None:
    more = [(f"Turdus {epithet}", epithet, "Birds", THRUSHES) for epithet in ("migratorius", "viscivorus")]
    found = tasks(write(tmp_path, [*SPECIES, *more]), "inat2021-genera")
    assert [(name, len(task.class_names)) for name, task in found.items()] == [("Turdus", 6)]
    assert found["Turdus"].task_name == "telling birds of the genus Turdus apart"
    assert found["Turdus"].path == ("Birds", "Passeriformes", "Turdidae")


def test_a_genus_of_plants_and_one_of_animals_may_share_a_name(tmp_path: Path) -> None:
    gannets, mulberries = ("Animalia", "Chordata", "Aves", "Suliformes", "Sulidae"), (*ROSES[:4], "Moraceae")
    species = [(f"Morus {above[2]}{i}", "", "X", above) for above in (gannets, mulberries) for i in range(5)]
    found = load_suite("inat2021-genera").at(write(tmp_path, species, pictures=False))
    assert [task.name for task in found.tasks] == ["Morus-Aves", "Morus-Magnoliopsida"]


def test_dealt_species_keep_names_and_sizes_of_tasks_and_nothing_else(wide: Path) -> None:
    whole, dealt = load_suite("inat2021-families").at(wide), load_suite("inat2021-families-dealt").at(wide)
    kept = [[(t.name, t.task_names, t.n_classes, t.part, t.path) for t in suite.tasks] for suite in (whole, dealt)]
    assert kept[0] == kept[1]
    folder = wide / "inat2021"
    classes = [[set(taxa.read_taxa(folder, t.reader).class_names) for t in suite.tasks] for suite in (whole, dealt)]
    assert set.union(*classes[0]) == set.union(*classes[1]) and {len(names) for names in classes[1]} == {5}
    # By chance a task keeps 5 · 5 / 600 of its own species: 5 in all of the 120 tasks.
    kept_own = [len(names & own) for names, own in zip(classes[1], classes[0], strict=True)]
    assert sum(kept_own) < 20


# The division of the tasks ------------------------------------------------------------------------------------


def world(orders: int = 40) -> list[tuple[Any, ...]]:
    """Three families of five species of one genus each in every order."""
    return [
        (f"Genus{o}f{f} s{s}", "", "Insects", ("Animalia", "Arthropoda", "Insecta", f"Order{o}", f"Family{o}f{f}"))
        for o in range(orders)
        for f in range(3)
        for s in range(5)
    ]


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("wide"), world(), pictures=False)


def parts(root: Path, suite: str) -> dict[str, Suite]:
    return {part: load_suite(f"{suite}:{part}").at(root) for part in ("train", "val", "test")}


@pytest.mark.parametrize(
    ("suite", "above"), [("inat2021-families", 4), ("inat2021-genera", 5), ("inat2021-families-dealt", 4)]
)
def test_parts_share_no_class_and_no_taxon_one_level_up(wide: Path, suite: str, above: int) -> None:
    whole, divided = load_suite(suite).at(wide), parts(wide, suite)
    assert sorted(t.name for s in divided.values() for t in s.tasks) == sorted(t.name for t in whole.tasks)
    assert len(whole.tasks) == 120
    taxon = {task.name: tuple(task.reader["taxon"].split("/")) for task in whole.tasks}
    assert {len(names) for names in taxon.values()} == {above + 1}
    higher = {part: {taxon[task.name][:above] for task in s.tasks} for part, s in divided.items()}
    assert not any(higher[a] & higher[b] for a, b in (("train", "val"), ("train", "test"), ("val", "test")))
    folder = wide / "inat2021"
    names = [n for s in divided.values() for t in s.tasks for n in taxa.read_taxa(folder, t.reader).class_names]
    assert len(names) == len(set(names)) == 600  # all 120 · 5 species, which have no common names, in one task each
    shares = [len(s.tasks) / 120 for s in divided.values()]
    assert all(abs(share - wanted) < 0.15 for share, wanted in zip(shares, (0.6, 0.2, 0.2), strict=True)), shares


def test_a_part_follows_from_the_name_one_level_up_alone(wide: Path, tmp_path: Path) -> None:
    def by_hand(order: str) -> str:
        """60 % of the hashes are of train, the next 20 % of val."""
        digest = hashlib.blake2b(b"1\0Animalia/Arthropoda/Insecta/" + order.encode()).hexdigest()
        share = int(digest[:16], 16) / 16**16
        return "train" if share < 0.6 else "val" if share < 0.8 else "test"

    of = {task.name: task.part for task in load_suite("inat2021-families").at(wide).tasks}
    assert of == {f"Family{o}f{f}": by_hand(f"Order{o}") for o in range(40) for f in range(3)}
    fewer = load_suite("inat2021-families").at(write(tmp_path, world(7), pictures=False))
    assert all(task.part == of[task.name] for task in fewer.tasks) and len(fewer.tasks) == 21


def test_a_method_learns_from_one_part_and_is_scored_on_another(tmp_path: Path, tiny: Any) -> None:
    root = write(tmp_path / "data", [species for species in world(2) if species[3][4].endswith("f0")])
    train, test = (load_suite(f"inat2021-families:{part}").at(root).tasks for part in ("train", "test"))
    assert [[task.name for task in part] for part in (train, test)] == [["Family0f0"], ["Family1f0"]]
    assert load_suite("inat2021-families:test").title == "iNaturalist 2021, families: test"  # reports' headings
    results = bench.run(
        suite="inat2021-families:train",
        target="inat2021-families:test",
        protocol="suite-to-suite",
        data=str(root),
        backbone=tiny.backbone,
        methods="shared-coop",
        shots=1,
        seeds=1,
        options=["shared-coop.epochs=1"],
        results=str(tmp_path / "runs"),
    )
    assert set(results["suite"]) == {"inat2021-families:train"}
    assert set(results["task"]) == {"Family1f0"}


@pytest.mark.parametrize(
    ("suite", "said"),
    [
        ("general10:test", "'general10:test': the tasks of general10 are not divided into parts; write general10"),
        ("general10:tset", "'general10:tset': the tasks of general10 are not divided into parts; write general10"),
        ("inat2021-families:tset", r"'tset' is no part of its tasks; did you mean 'test'\? \(valid: "),
        ("inat2021-familes:test", "did you mean 'inat2021-families'"),
    ],
)
def test_a_part_that_is_none_is_refused(suite: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        load_suite(suite)


def test_a_part_without_tasks_is_refused(tmp_path: Path) -> None:
    root = write(tmp_path, [s for s in SPECIES if s[3] == ROSES], pictures=False)
    own = load_suite("inat2021-families").at(root).tasks[0].part
    other = "test" if own != "test" else "train"
    said = f"suite inat2021-families:{other}: none of its 1 tasks below .* is in this part"
    with pytest.raises(UserError, match=said):
        load_suite(f"inat2021-families:{other}").at(root)


# The annotation file ------------------------------------------------------------------------------------------


def test_the_annotation_files_are_read_once_for_all_tasks(tmp_path: Path, count_calls: Callable[..., Any]) -> None:
    root = write(tmp_path)
    calls = count_calls(taxa, "entries")
    assert len(tasks(root)) == 2 and len(tasks(root)) == 2
    assert [call[0].name for call in calls] == ["train_mini.json", "val.json"]
    (root / "inat2021" / "val.json").write_text(json.dumps(annotations(SPECIES[:9], "val", VAL)), encoding="utf-8")
    with pytest.raises(UserError, match="no test images"):
        tasks(root)  # read again, because it has changed


@pytest.mark.parametrize("chunk", [1, 2, 7, 1 << 20])
def test_entries_are_those_of_the_whole_file_however_it_is_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    monkeypatch.setattr(taxa, "CHUNK", chunk)
    file = tmp_path / "a.json"
    file.write_text(
        ' {"b" : [1234, {"x": [-1.5e3, NaN, "]}, \\" \\u00fc \\ud83d\\ude00"]} , true],"other": {"b": [5]},\n'
        '"a":[ ],\t"number": 12345, "c": [{}]}\n',
        encoding="utf-8",
    )
    found = list(taxa.entries(file, ("a", "b", "c")))
    assert [(key, str(value)) for key, value in found] == [
        ("b", "1234"),
        ("b", str({"x": [-1500.0, float("nan"), ']}, " ü 😀']})),
        ("b", "True"),
        ("c", "{}"),
    ]


def test_reading_holds_no_more_than_a_piece_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(taxa, "CHUNK", 1 << 14)
    file = tmp_path / "a.json"
    file.write_text(json.dumps({"images": [{"id": i, "file_name": "x" * 200} for i in range(10_000)]}), "utf-8")
    tracemalloc.start()
    try:
        assert sum(1 for _ in taxa.entries(file, ("images",))) == 10_000
        assert tracemalloc.get_traced_memory()[1] < 300_000 < file.stat().st_size / 5
    finally:
        tracemalloc.stop()


def changed(how: Callable[[dict[str, Any]], object]) -> str:
    content = annotations(SPECIES, "train_mini", MINI)
    how(content)
    return json.dumps(content)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "'{' is missing at its end"),
        ("[]", "'{' is missing before '\\['"),
        ('{"images": {}}', "'\\[' is missing before '{'"),
        (json.dumps(annotations(SPECIES, "train_mini", MINI))[:-300], "not an annotation file"),
        (changed(lambda c: c["images"][3].pop("file_name")), "'file_name' must be text in"),
        (changed(lambda c: c["images"].append(5)), "'file_name' must be text in 5"),
        (changed(lambda c: c["annotations"][0].update(image_id="3")), "'image_id' must be a whole number"),
        (changed(lambda c: c["categories"][0].update(genus=None)), "'genus' must be text"),
        (changed(lambda c: c["annotations"].pop()), "image 1000 .* has no annotation whose category the file lists"),
        (changed(lambda c: c["categories"].pop(0)), "image 1000 .* has no annotation"),
        (changed(lambda c: c["categories"][1].update(name="Turdus merula")), "two categories have the name 'Turdus"),
        (changed(lambda c: c["categories"][1].update(id=0)), "two entries have the id 0, in "),
        (changed(lambda c: c["images"][1].update(id=1000)), "two entries have the id 1000, in "),
        (changed(lambda c: c["annotations"][1].update(image_id=1000)), "two entries have the image_id 1000, in "),
        (changed(lambda c: c["images"][0].update(file_name="../x.jpg")), "'../x.jpg' leaves the image folder"),
        (changed(lambda c: c.update(categories=[])), "has no annotation"),
        ('{"images": [], "categories": []}', "no family has 5 species or more"),
    ],
)
def test_a_broken_annotation_file_is_named(tmp_path: Path, text: str, said: str) -> None:
    file = write(tmp_path, pictures=False) / "inat2021" / "train_mini.json"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=said) as caught:
        tasks(tmp_path)
    assert str(file) in str(caught.value) and "\n" not in str(caught.value)


def test_a_damaged_annotation_file_gives_tasks_or_one_line(tmp_path: Path) -> None:
    file = write(tmp_path, SPECIES[:5], pictures=False) / "inat2021" / "train_mini.json"
    whole, rng = file.read_bytes(), random.Random(1)  # noqa: S311 - a seeded draw, no secret
    told = 0
    for number in range(300):
        at, n = rng.randrange(len(whole)), rng.choice((1, 1, 3, 200))
        middle = rng.choice((b"", bytes(rng.randrange(256) for _ in range(n)), b'"', b"[" * 2000, b"{}", b"-"))
        file.write_bytes(whole[:at] + middle + whole[at + n :])
        taxa._annotations.cache_clear()
        try:
            assert load_suite("inat2021-families").at(tmp_path).tasks, number
        except UserError as error:
            told += 1
            assert str(error).startswith(str(file)) and "\n" not in str(error), number
    assert told > 150


def test_an_entry_without_end_is_not_read_to_the_end_of_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(taxa, "CHUNK", 1000)
    monkeypatch.setattr(taxa, "LONGEST", 5000)
    file = tmp_path / "a.json"
    file.write_text('{"images": ["' + "x" * 100_000, encoding="utf-8")
    read: list[int] = []
    with pytest.raises(ValueError, match="Unterminated string"):
        list(taxa.entries(file, ("images",), read.append))
    assert sum(read) < 8000


@pytest.mark.parametrize(
    ("reader", "said"),
    [
        ("level: familly, names: latin", "`level` 'familly': did you mean 'family'"),
        ("level: genus, names: english", "`names` 'english'.*common"),
        ("level: genus", "reader taxa needs `names`"),
        ("level: genus, names: latin, least: 1", "`least` 1: a task has 2 species or more"),
    ],
)
def test_options_of_taxa_are_checked(inat: Path, tmp_path: Path, reader: str, said: str) -> None:
    file = tmp_path / "own.yaml"
    task = f"{{name: A, folder: inat2021, reader: {{kind: taxa, {reader}}}, template: 'a {{}}', task_name: x}}"
    file.write_text(f"tasks: [{task}]", encoding="utf-8")
    with pytest.raises(UserError, match=said):
        load_tasks(load_suite(str(file)), inat)


# What is missing, and where to get it -------------------------------------------------------------------------


def test_check_and_fetch_say_what_of_inaturalist_is_missing_and_where_it_is(tmp_path: Path) -> None:
    table = bench.check("inat2021-genera-latin", str(tmp_path))
    assert list(table["task"]) == ["iNaturalist2021"] and list(table["state"]) == ["missing"]
    place = "from https://github.com/visipedia/inat_comp/tree/master/2021 (licence: non-commercial research and educ"
    assert place in table["next"][0]
    steps = plan(load_suite("inat2021-genera-latin:test"), tmp_path).steps
    host = "https://ml-inat-competition-datasets.s3.amazonaws.com/2021/"
    assert [(step.state, step.source.address.removeprefix(host), step.source.n_bytes) for step in steps] == [
        ("to download", "train_mini.json.tar.gz", 45e6),
        ("to download", "train_mini.tar.gz", 42e9),
        ("to download", "val.json.tar.gz", 9.4e6),
        ("to download", "val.tar.gz", 8.4e9),
    ]
    assert all(step.source.checksum and step.source.checksum[0] == "md5" for step in steps)
    assert "non-commercial" in steps[0].source.licence


def test_check_has_a_row_per_task_once_the_annotations_are_there(inat: Path, tmp_path: Path) -> None:
    whole = bench.check("inat2021-families", str(inat))
    assert [tuple(row) for row in whole[["task", "state", "images", "classes"]].itertuples(index=False)] == [
        ("Turdidae", "ready", 35, 5),
        ("Rosaceae", "ready", 35, 5),
    ]
    bare = bench.check("inat2021-families", str(write(tmp_path, pictures=False)))
    assert list(bare["state"]) == ["missing", "missing"]
    assert bare["next"][0].startswith(f"{tmp_path / 'inat2021'}: 35 images that inat2021 lists are not there")


def test_fetch_names_what_is_in_the_way_once_for_all_tasks_of_a_data_set(inat: Path) -> None:
    (image,) = (inat / "inat2021" / "val").glob("00000_*/0.jpg")
    (other,) = (inat / "inat2021" / "val").glob("00010_*/0.jpg")
    kept = {path: path.read_bytes() for path in (image, other)}
    try:
        for path in kept:
            path.unlink()
        found = plan(load_suite("inat2021-families"), inat)
    finally:
        for path, content in kept.items():
            path.write_bytes(content)
    assert [step.tasks for step in found.steps] == [("Turdidae", "Rosaceae")] * 4
    (note,) = found.notes
    assert note.startswith("Turdidae is partial, and what is there is left alone; move ")


def test_a_message_names_forty_missing_tasks_and_counts_the_others(wide: Path) -> None:
    with pytest.raises(UserError) as caught:
        load_tasks(load_suite("inat2021-families"), wide)
    lines = str(caught.value).splitlines()
    assert lines[0].startswith("suite inat2021-families: data of 120 of 120 tasks is missing")
    assert len(lines) == 42 and lines[-1] == "  … and 80 more"


def test_check_names_forty_tasks_to_mend_and_counts_the_others(wide: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "check", "--suite", "inat2021-families", "--data", str(wide)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.startswith("- Family") for line in lines) == 40
    assert lines[-1] == "- … and of 80 more tasks; --json has all"
    assert main(["run", "--suite", "inat2021-families:train", "--data", str(wide), "--tasks", "Nobody"]) == 2
    assert capsys.readouterr().err.rstrip().endswith(", …")  # 60 of the names


def test_tasks_made_from_data_are_listed_with_it(inat: Path) -> None:
    assert list(bench.listing("tasks", "inat2021-families")["task"]) == ["iNaturalist2021"]
    assert list(bench.listing("tasks", "inat2021-families", data=str(inat))["task"]) == ["Turdidae", "Rosaceae"]
    classes = bench.listing("classes", "inat2021-families", task="turdidae", data=str(inat))
    assert list(classes["class"])[:2] == ["Swainson's Thrush", "Redwing"]


# Meta-Album ---------------------------------------------------------------------------------------------------


def meta_album(root: Path, name: str, categories: Iterable[str], n: int = 5, images: str = "images") -> Path:
    """A set in the form of Meta-Album's DataFormat page."""
    folder = root / "meta_album" / name
    (folder / images).mkdir(parents=True)
    lines = ["FILE_NAME,CATEGORY,SUPER_CATEGORY"]
    for c, category in enumerate(categories):
        for i in range(n):
            Image.new("RGB", (8, 8), (40 * c, i, 7)).save(folder / images / f"{c}_{i}.jpg")
            lines.append(f'{c}_{i}.jpg,"{category}",')
    (folder / "labels.csv").write_text("\n".join(lines), encoding="utf-8")
    info = {"dataset_name": name, "image_column_name": "FILE_NAME", "category_column_name": "CATEGORY"}
    (folder / "info.json").write_text(json.dumps(info), encoding="utf-8")
    return folder


def test_meta_album_has_three_sets_of_each_of_ten_domains_in_three_sizes() -> None:
    for suite, size in (("meta-album", "Mini"), ("meta-album-micro", "Micro"), ("meta-album-extended", "Extended")):
        found = load_suite(suite).tasks
        assert len({task.name for task in found}) == len({task.task_name for task in found}) == 30
        domains = [task.path[0] for task in found]
        assert domains == sorted(domains, key=domains.index) and {domains.count(d) for d in domains} == {3}
        assert [task.folder for task in found] == [f"meta_album/{task.name}_{size}" for task in found]
        assert [task.sources[0].url.rpartition("/")[2] for task in found] == [f"{task.name}.html" for task in found]


def test_meta_album_sets_are_read_as_they_are_handed_out(tmp_path: Path) -> None:
    meta_album(tmp_path, "PLT_VIL_Mini", ["Corn___Cercospora_leaf_spot Gray_leaf_spot", "Peach, all"])
    meta_album(tmp_path, "PLT_NET_Mini", ["Lamium_galeobdolon", "Alcea_rosea"], images=".")
    found = {t.name: t for t in load_tasks(load_suite("meta-album"), tmp_path, ["PLT_VIL", "PLT_NET"])}
    assert found["PLT_VIL"].class_names == ("Corn Cercospora leaf spot Gray leaf spot", "Peach, all")
    assert found["PLT_NET"].class_names == ("Alcea rosea", "Lamium galeobdolon")
    for task in found.values():
        # The rule of folders and tables: half of a class to train (2 of 5), a fifth (1) for validation.
        assert {part: len(items) for part, items in task.split.parts.items()} == {"train": 4, "val": 2, "test": 4}
        assert not task.left_out


def test_a_set_that_comes_out_later_is_a_line_in_a_copy_of_the_suite_file(tmp_path: Path) -> None:
    """The line that docs/data.md gives."""
    meta_album(tmp_path, "NAME_Mini", ["oak", "red_maple"])
    docs = (Path(__file__).parents[1] / "docs" / "data.md").read_text(encoding="utf-8")
    (line,) = (line for line in docs.splitlines() if line.startswith("  - {name: NAME, path: "))
    suites = Path(spec.__file__).parent / "suites"
    copy = tmp_path / "my-album.yaml"
    copy.write_text((suites / "meta-album.yaml").read_text(encoding="utf-8").rstrip() + f"\n{line}\n", encoding="utf-8")
    assert len(load_suite(str(copy)).tasks) == 31
    (task,) = load_tasks(load_suite(str(copy)), tmp_path, ["NAME"])
    assert task.class_names == ("oak", "red maple") and task.path == ("plants",)
    assert {part: len(items) for part, items in task.split.parts.items()} == {"train": 4, "val": 2, "test": 4}
    assert list(bench.check(str(copy), str(tmp_path), tasks=["NAME"])["state"]) == ["ready"]


def test_check_says_what_of_meta_album_is_missing_and_where_it_is(tmp_path: Path) -> None:
    folder = meta_album(tmp_path, "BRD_Micro", ["a", "b"])
    (folder / "images" / "1_3.jpg").unlink()
    table = bench.check("meta-album-micro", str(tmp_path), tasks=["BRD", "DOG"]).set_index("task")
    assert list(table["state"]) == ["partial", "missing"]
    assert "1 image that BRD_Micro lists is not there, e.g. '1_3.jpg'" in table.loc["BRD", "next"]
    for name, said in table["next"].items():
        assert f"; from https://meta-album.github.io/datasets/{name}.html (licence: open, " in said
    (step,) = plan(load_suite("meta-album-micro"), tmp_path, ["DOG"]).steps
    assert step.state == "by hand" and step.source.url == "https://meta-album.github.io/datasets/DOG.html"


# Suites that say what differs from another --------------------------------------------------------------------

BASE = """
title: Base
note: kept
recipe: {epochs: 3}
defaults: {folder: "all/{name}", template: "a {}.", sources: [{what: "{name}.zip", licence: "of {name}"}]}
tasks: [{name: A, task_name: first}, {name: B, task_name: second, folder: own}]
"""


def test_a_suite_extends_another(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text(BASE, encoding="utf-8")
    child = tmp_path / "child.yaml"
    child.write_text("extends: base.yaml\ntitle: Child\ndefaults: {template: 'the {}.'}", "utf-8")
    base, suite = load_suite(str(tmp_path / "base.yaml")), load_suite(str(child))
    assert (suite.name, suite.title, suite.note, suite.recipe) == ("child", "Child", "kept", {"epochs": 3})
    assert [(t.folder, t.template) for t in base.tasks] == [("all/A", "a {}."), ("own", "a {}.")]
    assert [(t.folder, t.template) for t in suite.tasks] == [("all/A", "the {}."), ("own", "the {}.")]
    assert [(t.sources[0].what, t.sources[0].licence) for t in suite.tasks] == [("A.zip", "of A"), ("B.zip", "of B")]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("extends: 5", "`extends` must be text, not 5"),
        ("extends: meta-albun", "'meta-albun' is neither a suite's name nor a suite file; did you mean 'meta-album'"),
        ("extends: meta-album-micro", "`extends` 'meta-album-micro': extends another suite itself"),
        ("extends: meta-album\ndefaults: 3", "`defaults` must be a map, not 3"),
        ("extends: meta-album\ntasks: []", "at least one task"),
        ("extends: meta-album\nnot: 3", "unknown key 'not'"),
    ],
)
def test_a_mistake_in_what_a_suite_extends_is_named(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "own.yaml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=said):
        load_suite(str(file))


def test_an_annotation_file_that_cannot_be_read_is_not_told_as_missing(tmp_path, monkeypatch) -> None:
    def denied(*_: Any, **__: Any) -> None:
        raise PermissionError(13, "Permission denied")

    with pytest.raises(MissingData, match=r"val\.json: no such file"):
        taxa.read_annotations(tmp_path / "val.json")
    monkeypatch.setattr(Path, "stat", denied)
    with pytest.raises(UserError, match=r"val\.json: cannot be read .*Permission denied"):
        taxa.read_annotations(tmp_path / "val.json")
