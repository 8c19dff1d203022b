"""Suite files: the four of the paper as data, a user's own, and what is said when one is wrong."""

import gzip
import json
from collections import Counter
from pathlib import Path

import pytest

from bench.datasets import load_suite, load_tasks, suite_names
from bench.datasets.registry import READERS
from bench.datasets.spec import SOURCE_KEYS
from bench.errors import UserError

SPLITS = Path(__file__).parents[2] / "shared" / "data" / "coop_splits"

OWN_SUITE = """
title: My suite
tasks:
  - name: Birds
    folder: birds
    template: a photo of a {}, a type of bird.
    task_name: bird recognition
"""


def own_suite(folder: Path, text: str = OWN_SUITE) -> Path:
    file = folder / "mine.yaml"
    file.write_text(text, encoding="utf-8")
    return file


# The paper's suites ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "tasks", "classes"),
    [("general10", 10, 1191), ("plant6", 6, 116), ("rs8", 8, 208), ("fashion20", 20, None)],
)
def test_suite_has_the_papers_tasks_and_classes(name: str, tasks: int, classes: int | None) -> None:
    suite = load_suite(name)
    assert len(suite.tasks) == tasks
    counts = [task.n_classes for task in suite.tasks]
    if classes is None:
        assert set(counts) == {None}  # the user's copy says
    else:
        assert sum(count for count in counts if count is not None) == classes


def test_general10_order_metrics_and_templates() -> None:
    suite = load_suite("general10")
    assert [(task.name, task.metric, task.template) for task in suite.tasks] == [
        ("Caltech101", "mean_acc", "a photo of a {}."),
        ("DTD", "overall_acc", "{} texture."),
        ("EuroSAT", "overall_acc", "a centered satellite photo of {}."),
        ("FGVCAircraft", "mean_acc", "a photo of a {}, a type of aircraft."),
        ("Food101", "overall_acc", "a photo of {}, a type of food."),
        ("OxfordFlowers", "mean_acc", "a photo of a {}, a type of flower."),
        ("OxfordPets", "mean_acc", "a photo of a {}, a type of pet."),
        ("StanfordCars", "overall_acc", "a photo of a {}."),
        ("SUN397", "overall_acc", "a photo of a {}."),
        ("UCF101", "overall_acc", "a photo of a person doing {}."),
    ]


def test_plant6_order_and_templates() -> None:
    suite = load_suite("plant6")
    assert [(task.name, task.template) for task in suite.tasks] == [
        ("FruitVegetable", "a photo of a {}, a type of fruit or vegetable."),
        ("KaggleFlower", "a photo of a {}, a type of flower."),
        ("KaggleMushroom", "a photo of a {}, a type of mushroom."),
        ("KaggleVegetable", "a photo of a {}, a type of vegetable."),
        ("PlantSeedling", "a photo of a {}, a type of seedling."),
        ("PlantVillage", "a photo of a plant leaf with {} disease."),
    ]
    assert {task.metric for task in suite.tasks} == {"overall_acc"}
    assert len(suite.tasks[5].reader["rename"]) == 39


def test_rs8_says_that_its_composition_is_our_reading() -> None:
    suite = load_suite("rs8")
    assert "our interpretation" in suite.note
    assert [task.n_classes for task in suite.tasks] == [30, 45, 21, 19, 7, 31, 45, 10]
    assert {task.template for task in suite.tasks} == {"a satellite photo of {}."}


def test_fashion20_templates_go_by_task_id() -> None:
    suite = load_suite("fashion20")
    kinds = [task.template.removeprefix("a photo of {}, a type of ").removesuffix(".") for task in suite.tasks]
    tail = ["hat", "socks", "socks", "skirt", "tops", "underwear"]
    assert kinds == ["pants"] * 3 + ["tops"] * 4 + ["shoes"] * 7 + tail
    assert [task.reader["task"] for task in suite.tasks] == list(range(20))
    assert {task.metric for task in suite.tasks} == {"mean_acc"}


def test_fashion20_is_a_tree_of_four_kinds_with_several_tasks_and_three_with_one() -> None:
    paths = [task.path for task in load_suite("fashion20").tasks]
    assert {path[0] for path in paths} == {"clothing"}
    assert Counter(path[1] for path in paths) == {
        **{"pants": 3, "tops": 5, "shoes": 7, "socks": 2},
        **{"hat": 1, "skirt": 1, "underwear": 1},
    }
    kinds = {task.path[1]: task.template for task in load_suite("fashion20").tasks}
    assert all(template == f"a photo of {{}}, a type of {kind}." for kind, template in kinds.items())


def test_general10_s_tree_has_pairs_of_like_tasks_and_two_tasks_outside() -> None:
    paths = {task.name: task.path for task in load_suite("general10").tasks}
    assert paths["FGVCAircraft"] == paths["StanfordCars"] == ("objects", "vehicles")
    assert paths["OxfordFlowers"] == paths["OxfordPets"] == ("objects", "living things")
    assert paths["EuroSAT"] == paths["SUN397"] == ("places",)
    assert paths["Caltech101"] == paths["Food101"] == ("objects",)
    assert paths["DTD"] == paths["UCF101"] == ()


def test_the_files_say_that_their_trees_are_ours() -> None:
    for name in ("demo", "general10", "plant6", "rs8", "fashion20"):
        text = load_suite(name).path.read_text(encoding="utf-8")
        assert "# The paths are ours" in text


def test_a_node_written_in_two_ways_is_refused_and_one_text_is_a_path_of_one(tmp_path: Path) -> None:
    second = OWN_SUITE.partition("tasks:")[2].replace("Birds", "Gulls") + "    path: "
    first = OWN_SUITE + "    path: [animals, with wings]\n"
    suite = load_suite(str(own_suite(tmp_path, first + second + "animals\n")))
    assert [task.path for task in suite.tasks] == [("animals", "with wings"), ("animals",)]
    for other in ("[Animals]", "[animals, with  wings]"):
        file = own_suite(tmp_path, first + second + f"{other}\n")
        with pytest.raises(UserError, match=r"task Gulls: `path` has '.*' where another task has '.*'; write"):
            load_suite(str(file))


@pytest.mark.parametrize("name", ["general10", "plant6", "rs8", "fashion20"])
def test_every_task_has_a_source_and_a_name_to_read(name: str) -> None:
    for task in load_suite(name).tasks:
        assert all(source.url.startswith("http") for source in task.sources) and task.sources
        assert any(source.licence for source in task.sources)
        assert task.task_name or task.reader["kind"] == "fashion20"
        assert task.template.count("{}") == 1


OFFICIAL_IMAGES = {
    "Caltech101": 8242,
    "DTD": 5640,
    "EuroSAT": 27000,
    "OxfordFlowers": 8189,
    "OxfordPets": 7349,
    "StanfordCars": 16185,
    "UCF101": 13320,
}


def test_images_are_those_of_the_official_split_files() -> None:
    tasks = {task.name: task for task in load_suite("general10").tasks}
    assert {name: tasks[name].n_images for name in OFFICIAL_IMAGES} == OFFICIAL_IMAGES
    if not SPLITS.is_dir():
        pytest.skip("the official split files are not here")
    for name, images in OFFICIAL_IMAGES.items():
        split = tasks[name].reader.get("split_name", name)
        with gzip.open(SPLITS / f"split_zhou_{split}.json.gz") as file:
            parts = json.load(file)
        assert sum(len(parts[part]) for part in ("train", "val", "test")) == images, name
        labels = {label for part in ("train", "val", "test") for _, label, _ in parts[part]}
        assert len(labels) == tasks[name].n_classes


def test_checksums_are_those_of_torchvisions_classes() -> None:
    """Each md5 of General-10 can be read in torchvision's own sources, with its address."""
    import torchvision

    folder = Path(torchvision.__file__).parent / "datasets"
    modules = ("caltech", "dtd", "eurosat", "food101", "flowers102", "oxford_iiit_pet", "sun397")
    known = "".join((folder / f"{module}.py").read_text(encoding="utf-8") for module in modules)
    sources = [source for task in load_suite("general10").tasks for source in task.sources if source.md5]
    assert len(sources) == 9
    for source in sources:
        url = source.address
        assert source.md5 in known, url
        assert url in known or url.rpartition("/")[2] in known


@pytest.mark.parametrize("name", ["general10", "plant6", "rs8"])
def test_what_is_fetched_goes_where_the_reader_looks(name: str) -> None:
    fetched = [(task, source) for task in load_suite(name).tasks for source in task.sources if source.fetch]
    assert fetched
    for task, source in fetched:
        assert not any(host in source.url for host in ("drive.google", "kaggle"))
        assert source.file_name.endswith((".zip", ".tgz", ".tar.gz", ".mat"))
        images = task.reader.get("images", READERS[task.reader["kind"]].images)
        looked_at = [images] if isinstance(images, str) else images
        targets = source.targets.values()
        lists = (".mat", ".txt", "annotations", "ucfTrainTestlist")
        assert any(target in looked_at for target in targets) or all(t.endswith(lists) for t in targets), task.name


@pytest.mark.parametrize("name", ["general10", "plant6", "rs8", "fashion20"])
def test_every_source_that_is_fetched_has_its_size_and_its_licence(name: str) -> None:
    for task in load_suite(name).tasks:
        for source in task.sources:
            if source.fetch:
                assert source.n_bytes and source.licence, source


# A user's own ------------------------------------------------------------------------------------------------


def test_own_suite_by_path_with_defaults(tmp_path: Path) -> None:
    suite = load_suite(str(own_suite(tmp_path)))
    (task,) = suite.tasks
    assert (suite.name, suite.title, suite.demo, suite.recipe, suite.views) == (
        "mine",
        "My suite",
        False,
        {},
        None,
    )
    assert (task.reader, task.metric, task.n_classes, task.sources) == (
        {"kind": "folders"},
        "overall_acc",
        None,
        (),
    )


def test_own_suite_sets_recipe_views_and_backbone(tmp_path: Path) -> None:
    text = OWN_SUITE + "recipe: {epochs: 20}\nviews: 5\nbackbone: RN50\nnote: mine alone\n"
    suite = load_suite(str(own_suite(tmp_path, text)))
    assert (suite.recipe, suite.views, suite.backbone, suite.note) == (
        {"epochs": 20},
        5,
        "RN50",
        "mine alone",
    )


def test_defaults_hold_for_every_task_and_a_task_overrides_them(tmp_path: Path) -> None:
    text = """
defaults: {metric: mean_acc, template: "{}."}
tasks:
  - {name: a, task_name: a}
  - {name: b, task_name: b, metric: overall_acc}
"""
    first, second = load_suite(str(own_suite(tmp_path, text))).tasks
    assert (first.metric, second.metric, first.template, second.template) == (
        "mean_acc",
        "overall_acc",
        "{}.",
        "{}.",
    )


def test_suite_names_in_any_case() -> None:
    assert load_suite("General10").name == "general10"
    assert {"general10", "plant6", "rs8", "fashion20"} <= set(suite_names())


# What is said when something is wrong ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("title:", "titel:"), "unknown key 'titel'; did you mean 'title'"),
        (("template:", "tempalte:"), "task Birds: unknown key 'tempalte'; did you mean 'template'"),
        (("folder: birds", "reader: {kind: foldes}"), "unknown reader kind 'foldes'; did you mean 'folders'"),
        (
            ("folder: birds", "reader: {kind: folders, exlude: [a]}"),
            "unknown key 'exlude'; did you mean 'exclude'",
        ),
        (("folder: birds", "reader: {kind: huggingface, imagefolder: a}"), "`imagefolder` is read by the kinds"),
        (("folder: birds", "reader: {kind: coop}"), "reader coop needs `split`"),
        (("folder: birds", "reader: {kind: folders, split_name: ../x}"), "`split_name` '../x' must be of letters"),
        (("template: a photo of a {}, a type of bird.", "template: ['a {}.', 3]"), "`template` must be text, not 3"),
        (("template: a photo of a {}, a type of bird.", "template: ['a {}.', a.]"), "`template` 'a.' must hold one {}"),
        (("template: a photo of a {}, a type of bird.", "template: ['a {}.', 'a {}.']"), "'a {}.' stands twice"),
        (("template: a photo of a {}, a type of bird.", "template: []"), "`template` must be text, not []"),
        (("template: a photo of a {}, a type of bird.", "template: a {}}."), "'a {}}.' must hold one {}"),
        (("folder: birds", "path: []"), "`path` must be text, not []"),
        (("folder: birds", "path: [animals, no]"), "`path` must be text, not False (put it in quotes)"),
        (("folder: birds", "path: [animals, animals]"), "`path` 'animals' stands twice"),
        (("folder: birds", "path: [animals, ' ']"), "`path` must name the nodes above the task, from the top, not ['a"),
        (("folder: birds", "descriptions: 3"), "`descriptions` must be text, not 3"),
        (("folder: birds", "sources: [{what: [a.zip]}]"), "sources: `what` must be text, not ['a.zip']"),
        (("folder: birds", "reader: {kind: folders, camel: 1}"), "`camel` must be true or false, not 1"),
        (("folder: birds", "reader: {kind: folders, exclude: [no]}"), "`exclude` must be a list of texts"),
        (("folder: birds", "reader: {kind: folders, strip: '['}"), "`strip` '[' is not a pattern"),
        (
            ("folder: birds", "reader: {kind: folders, images: 2750}"),
            "`images` must be a list of texts, not 2750",
        ),
        (("folder: birds", "reader: {kind: folders, images: ../x}"), "`images` must be a path below"),
        (("folder: birds", "reader: folders"), "`reader` must be a map, not 'folders'"),
        (
            ("folder: birds", "folder: ../birds"),
            "`folder` must be a path below the data root, not '../birds'",
        ),
        (("folder: birds", "folder: /birds"), "`folder` must be a path below the data root, not '/birds'"),
        (("folder: birds", "metric: mean"), "unknown metric 'mean'; did you mean 'mean_acc'"),
        (("folder: birds", "classes: many"), "`classes` must be a whole number from 2 up, not 'many'"),
        (("folder: birds", "images: 0"), "`images` must be a whole number from 1 up, not 0"),
        (("folder: birds", "images: true"), "`images` must be a whole number from 1 up, not True"),
        (("folder: birds", "sources: [{url: http://x/a.zip, feth: true}]"), "did you mean 'fetch'"),
        (("folder: birds", "sources: [{url: file:///a.zip, fetch: true}]"), "`fetch` must be an http(s) address"),
        (("folder: birds", "sources: [{url: http://x/a.zip, fetch: 'ftp://x/a.zip'}]"), "not 'ftp://x/a.zip'"),
        (("folder: birds", "sources: [{fetch: true}]"), "`fetch` must be an http(s) address"),
        (("folder: birds", "sources: [{fetch: 3}]"), "`fetch` must be an http(s) address"),
        (("folder: birds", "sources: [{fetch: 'http://x/y/'}]"), "`file` must be the name to save"),
        (("folder: birds", "sources: [{fetch: 'http://x/a', file: ../a}]"), "without folders, not '../a'"),
        (("folder: birds", "sources: [{fetch: 'http://x/a', file: .a}]"), "without folders, not '.a'"),
        (("folder: birds", "sources: [{fetch: 'http://x/a', md5: '12'}]"), "`md5` must be 32 hexadecimal digits"),
        (("folder: birds", "sources: [{fetch: 'http://x/a', sha256: x}]"), "`sha256` must be 64 hexadecimal digits"),
        (("folder: birds", "sources: [{fetch: 'http://x/a', unpack: images}]"), "`unpack` must be a map of texts"),
        (("folder: birds", "sources: [{fetch: 'http://x/a', unpack: {}}]"), "`unpack` must be a map of texts"),
        (("folder: birds", "sources: [{fetch: 'http://x/a', unpack: {a: ../b}}]"), "`unpack` must be a path below"),
        (("folder: birds", "sources: [{fetch: 'http://x/a', unpack: {a: .}}]"), "`unpack` needs a name"),
        (("folder: birds", "sources: [{fetch: 'http://x/a', unpack: {a: c, b: C}}]"), "two members to one place"),
        (("folder: birds", "sources: [{url: http://x/a, unpack: {a: b}}]"), "`unpack` says nothing without `fetch`"),
        (
            ("folder: birds", "sources: [{fetch: 'http://x/a.zip'}, {fetch: 'http://x/b', file: A.zip}]"),
            "sources: two are saved as 'a.zip'; give one of them another `file`",
        ),
        (("folder: birds", "sources: [http://x]"), "`sources` must be a list of maps"),
        (("folder: birds", "sources: [{link: http://x}]"), "unknown key 'link'"),
        (("folder: birds", "folder: birds\n    folder: cats"), "key 'folder' stands twice"),
        (("a {}, a type", "a bird, a type"), "must hold one {}"),
        (("a {}, a type", "a {name}, a type"), "must hold one {}"),
        (("name: Birds", "name: a/b"), "task name 'a/b' must be of letters"),
        (("name: Birds", "name: yes"), "`name` must be text, not True (put it in quotes)"),
        (("    task_name: bird recognition\n", ""), "`task_name` is missing"),
        (("tasks:", "recipe: 20\ntasks:"), "`recipe` must be a map"),
        (("tasks:", "views: 0\ntasks:"), "`views` must be a whole number from 1 up, not 0"),
        (("tasks:", "demo: 3\ntasks:"), "`demo` must be true or false, not 3"),
        (("tasks:", "tasks: [\n"), "not YAML"),
        (("tasks:", "x: !!python/object/apply:os.system [ls]\ntasks:"), "not YAML"),
    ],
)
def test_mistake_in_a_suite_file_is_named(tmp_path: Path, change: tuple[str, str], said: str) -> None:
    assert change[0] in OWN_SUITE
    file = own_suite(tmp_path, OWN_SUITE.replace(*change))
    with pytest.raises(UserError) as caught:
        load_suite(str(file))
    assert str(file) in str(caught.value) and said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "- a", "tasks: []", "tasks: [a]", "\x00", "tasks: [{name: a}, {name: a}]"])
def test_a_file_that_is_no_suite_is_named(tmp_path: Path, text: str) -> None:
    file = own_suite(tmp_path, text)
    with pytest.raises(UserError, match=r"mine\.yaml"):
        load_suite(str(file))


def test_every_key_of_a_source_is_explained() -> None:
    page = (Path(__file__).parents[1] / "docs" / "data.md").read_text(encoding="utf-8")
    table = page.partition("| key of a source |")[2].partition("\n\n")[0]
    assert [key for key in SOURCE_KEYS if f"`{key}`" not in table] == []


def test_two_tasks_of_one_name_are_refused(tmp_path: Path) -> None:
    task = "- {name: %s, template: '{}.', task_name: a}"
    file = own_suite(tmp_path, "tasks:\n" + task % "Birds" + "\n" + task % "birds")
    with pytest.raises(UserError, match="two tasks have the name 'birds'"):
        load_suite(str(file))


def test_a_list_of_templates_is_an_ensemble_and_a_list_of_one_is_the_one(tmp_path: Path) -> None:
    old = "template: a photo of a {}, a type of bird."
    (task,) = load_suite(str(own_suite(tmp_path, OWN_SUITE.replace(old, "template: ['a {}.', 'the {}.']")))).tasks
    assert task.template == ("a {}.", "the {}.")
    (task,) = load_suite(str(own_suite(tmp_path, OWN_SUITE.replace(old, "template: ['a {}.']")))).tasks
    assert task.template == "a {}."


@pytest.mark.parametrize("name", ["words.json", "words.yaml"])
def test_descriptions_stand_beside_the_suite_file(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text('{"blue_jay": ["a blue bird.", "a noisy bird."], "crow": "a black bird."}')
    (task,) = load_suite(str(own_suite(tmp_path, f"{OWN_SUITE}    descriptions: {name}\n"))).tasks
    assert task.descriptions == {"blue jay": ("a blue bird.", "a noisy bird."), "crow": ("a black bird.",)}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("[]", "must be a map"),
        ('{"crow": []}', "'crow' must be a class name with a list of sentences"),
        ('{"crow": [" "]}', "'crow' must be a class name with a list of sentences"),
        ('{"crow": [1]}', "'crow' must be a class name with a list of sentences"),
        ('{"a b": "x", "a_b": "y"}', "class 'a b' stands twice"),
        ("{", "not JSON"),
    ],
)
def test_descriptions_that_make_no_sense_are_named(tmp_path: Path, content: str, said: str) -> None:
    (tmp_path / "words.json").write_text(content)
    file = own_suite(tmp_path, f"{OWN_SUITE}    descriptions: words.json\n")
    with pytest.raises(UserError, match=rf"words\.json: {said}"):
        load_suite(str(file))
    file.write_text(file.read_text().replace("words.json", "wrods.json"))
    with pytest.raises(UserError, match=r"wrods\.json: cannot be read"):
        load_suite(str(file))


def test_descriptions_of_what_is_no_class_are_refused_with_the_nearest_class(tmp_path: Path) -> None:
    for name in ("crow", "wren"):
        (tmp_path / "birds" / name).mkdir(parents=True)
        for number in range(5):
            (tmp_path / "birds" / name / f"{number}.jpg").touch()
    (tmp_path / "words.json").write_text('{"crew": "a black bird."}')
    text = f"{OWN_SUITE}    descriptions: words.json\n"
    with pytest.raises(UserError, match="Birds: `descriptions` has 'crew', no class; did you mean 'crow'"):
        load_tasks(load_suite(str(own_suite(tmp_path, text))), tmp_path)
    part = load_suite(str(own_suite(tmp_path, text + "    classes: 3\n")))
    assert load_tasks(part, tmp_path, allow_missing=True)  # its class may be the one that is missing
    whole = load_suite(str(own_suite(tmp_path, text + "    classes: 2\n")))
    with pytest.raises(UserError, match="'crew', no class"):
        load_tasks(whole, tmp_path, allow_missing=True)


def test_a_backbone_s_path_is_relative_to_the_suite_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("USERPROFILE", str(tmp_path / "home"))
    wanted = {
        "models/tiny.json": str(tmp_path / "models" / "tiny.json"),
        "~/tiny.json": str(tmp_path / "home" / "tiny.json"),
        "/elsewhere/tiny.json": str(Path("/elsewhere/tiny.json")),
        "ViT-B-16": "ViT-B-16",
    }
    for name, path in wanted.items():
        assert load_suite(str(own_suite(tmp_path, f"{OWN_SUITE}backbone: {name}\n"))).backbone == path


def test_unknown_suite_gives_the_nearest_name() -> None:
    with pytest.raises(UserError, match="did you mean 'general10'"):
        load_suite("general-10")
    with pytest.raises(UserError, match="no such file"):
        load_suite("nowhere/mine.yaml")


def test_unknown_task_gives_the_nearest_name(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="suite rs8 has no task 'RSCCN7'; did you mean 'RSSCN7'"):
        load_tasks(load_suite("rs8"), tmp_path, names=["RSCCN7"])
