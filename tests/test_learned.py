"""What a cell learned: kept whole, read as words, used on new images; and files that are not what they should be."""

from __future__ import annotations

import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save_file

import bench
from bench.cli import main
from bench.clip.backbone import what_to_give
from bench.datasets.spec import load_suite
from bench.datasets.splits import load_tasks
from bench.datasets.types import image_files
from bench.errors import UserError
from bench.features import ImageFeatures, View
from bench.files import file_name
from bench.methods import method_names
from bench.metrics import METRICS

pytestmark = pytest.mark.usefixtures("one_thread")

# The tiny vocabulary splits "a photo of a" into more tokens than the contexts are long.
OPTIONS = ["all.epochs=1", "all.batch=8", "all.steps=8", "kgcoop.words=", "cocoop.words=", "lasp.words="]
OPTIONS += ["shared-cocoop.words="]


@pytest.fixture(scope="module")
def runs(tiny: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cell of every method, one epoch."""
    folder = tmp_path_factory.mktemp("learned") / "runs"
    tiny.run(folder, methods="all", shots=[2], seeds=[1], views=2, options=OPTIONS)
    return folder


def record_of(runs: Path, method: str) -> Path:
    (record,) = runs.rglob(f"{file_name(method)}/*.json")
    return record


def key_of(runs: Path, method: str) -> str:
    return str(json.loads(record_of(runs, method).read_text())["key"])


def a_test_set(tiny: Any, t: int) -> tuple[list[Path], torch.Tensor]:
    (task,) = load_tasks(load_suite(tiny.suite), tiny.data, [("Colour", "Shade", "Stripes")[t]], False)
    return [task.split.root / i.path for i in task.split.test], torch.tensor([i.label for i in task.split.test])


@pytest.mark.parametrize("name", method_names())
def test_a_loaded_cell_scores_as_it_did_after_its_training(runs: Path, tiny: Any, name: str) -> None:
    """The accuracies in the record come out again, from the kept file alone."""
    record = json.loads(record_of(runs, name).read_text())
    assert record["learned"] == record_of(runs, name).with_suffix(".safetensors").name
    kept = bench.load_cell(key_of(runs, name), runs, tiny.backbone)
    assert kept.method.n_params == record["n_params"] or name in ("protonet", "zero-shot")
    for t, row in enumerate(record["tasks"]):
        images, labels = a_test_set(tiny, t)
        features = ImageFeatures(kept.backbone).get(images, View(), kept.method.image)[0]
        predicted = kept.method.predict(kept.tasks[t], features).argmax(dim=1)
        assert METRICS[row["metric"]](predicted, labels) == row["accuracy"]


def test_what_is_kept_is_what_was_learned_not_the_start_values(runs: Path, tiny: Any) -> None:
    kept = bench.load_cell(key_of(runs, "softcpt"), runs, tiny.backbone)
    learned: Any = kept.method
    start = type(learned)(learned.params)
    start.setup(kept.backbone, kept.tasks, seed=1)
    for name, value in start.learned.items():
        assert 0 < (learned.learned[name] - value).norm() < 0.5 * value.norm()  # one epoch from seed 1's start


def test_discard_keeps_nothing_and_says_so_later(tiny: Any, tmp_path: Path, capsys: Any) -> None:
    assert main(tiny.command(tmp_path / "runs", "--discard", "-o", "coop.epochs=1")) == 0
    assert not list((tmp_path / "runs").rglob("*.safetensors"))
    record = next((tmp_path / "runs").rglob("coop/*.json"))
    assert main(["words", "--cell", str(record), "--backbone", tiny.backbone]) == 2
    assert "were not kept" in capsys.readouterr().err


# ---- words ---------------------------------------------------------------------------------------------------


def test_a_context_that_is_a_word_s_embedding_reads_as_that_word(runs: Path, tiny: Any) -> None:
    kept = bench.load_cell(key_of(runs, "coop"), runs, tiny.backbone)
    method: Any = kept.method
    tower = kept.backbone.tower
    (token,) = tower.tokens("on")
    with torch.no_grad():
        method.learned["context-1"][0, 3] = 1.001 * tower.token_embedding.weight[token]
    table = bench.words(kept, task="Shade", top=2)
    row = table[table["vector"] == 4].iloc[0]
    assert row["word 1"].startswith("on (0.0") and not row["word 2"].startswith("on (")
    assert set(table["context"]) == {"Shade"} and len(table) == 16


@pytest.mark.parametrize(
    ("name", "n"),
    [
        ("coop", 3 * 16),
        ("shared-coop", 16),
        ("mvlpt", 3 * 16),
        ("coop-cs", 9 * 16),
        ("cocoop", 3 * 4),
        ("shared-cocoop", 4),
        ("lasp", 3 * 4),
        ("plot", 3 * 4 * 16),
        ("softcpt", 3 * 16 + 4),
        ("softcpt-nats", 3 * 16 + 3 * 4),
        ("softcpt-csta", 9 * 16 + 4 + 9 * 4),
    ],
)
def test_every_learned_vector_has_a_row(runs: Path, tiny: Any, name: str, n: int) -> None:
    table = bench.words(bench.load_cell(key_of(runs, name), runs, tiny.backbone))
    assert len(table) == n
    assert not table.duplicated(["context", "vector"]).any()


def test_a_method_without_contexts_has_no_words(runs: Path, tiny: Any) -> None:
    with pytest.raises(UserError, match="protonet learns no context"):
        bench.words(bench.load_cell(key_of(runs, "protonet"), runs, tiny.backbone))


# ---- predict -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["coop", "plot", "linear-probe"])
def test_predict_ranks_a_task_s_classes_for_image_files(runs: Path, tiny: Any, name: str) -> None:
    kept = bench.load_cell(key_of(runs, name), runs, tiny.backbone)
    images, _ = a_test_set(tiny, 0)
    table = bench.predict(kept, images[:2], task="Colour", top=3)
    assert list(table["image"]) == [str(images[0])] * 3 + [str(images[1])] * 3
    for _, rows in table.groupby("image"):
        assert set(rows["class"]) == {"red paint", "green paint", "blue paint"}
        assert rows["percent"].sum() == pytest.approx(100, abs=1e-3) and rows["percent"].is_monotonic_decreasing
    features = ImageFeatures(kept.backbone).get(images[:1], View(), kept.method.image)[0]
    best = kept.method.predict(kept.tasks[0], features).argmax(dim=1).item()
    assert table.iloc[0]["class"] == kept.tasks[0].class_names[best]


def test_predict_takes_a_folder_as_the_images_in_and_below_it(
    runs: Path, tiny: Any, tmp_path: Path, capsys: Any, recwarn: pytest.WarningsRecorder
) -> None:
    first, second, third = tiny.images("colour")[:3]
    for folder in ("photos/below/deeper", "photos/.hidden", "photos/__MACOSX"):
        (tmp_path / folder).mkdir(parents=True)
        shutil.copy(first, tmp_path / folder / "a.PNG")
    shutil.copy(second, tmp_path / "photos/b.jpeg")  # whatever it is called, it is opened by its content
    shutil.copy(third, tmp_path / "photos/._b.jpeg")
    (tmp_path / "photos/below/again").symlink_to(tmp_path / "photos")  # no loop
    kept = bench.load_cell(key_of(runs, "coop"), runs, tiny.backbone)
    table = bench.predict(kept, [tmp_path / "photos", tmp_path / "photos/b.jpeg", third], task="COLOUR", top=1)
    photos = [tmp_path / "photos/b.jpeg", tmp_path / "photos/below/deeper/a.PNG"]
    assert list(table["image"]) == [str(path) for path in (*photos, third)]
    assert not recwarn
    (tmp_path / "photos/below/notes.txt").write_text("no image")
    with pytest.warns(UserWarning, match=r"photos: 1 file left out, .*, e.g. 'below/notes.txt'"):
        bench.predict(kept, [tmp_path / "photos"], task="Colour")
    capsys.readouterr()
    where = ["--results", str(runs), "--backbone", tiny.backbone, "--tasks", "colour"]
    with pytest.warns(UserWarning, match="1 file left out"):
        assert main(["predict", str(tmp_path / "photos"), "--cell", key_of(runs, "coop"), *where]) == 0
    shown = capsys.readouterr().out
    assert "b.jpeg" in shown and "a.PNG" in shown


def test_predict_on_a_folder_without_images_says_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes/a.txt").write_text("")
    with pytest.raises(UserError, match=r"notes: holds no images, neither in it nor below it \(1 other file\)"):
        image_files([tmp_path / "notes"])
    with pytest.raises(UserError, match=r"nowhere: no such file or folder"):
        image_files([tmp_path / "nowhere"])


def test_predict_goes_on_past_a_broken_image_names_it_and_ends_with_1(
    runs: Path, tiny: Any, tmp_path: Path, capsys: Any
) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for name, source in zip("ac", tiny.images("colour"), strict=False):
        shutil.copy(source, photos / f"{name}.png")
    (photos / "b.png").write_bytes((photos / "a.png").read_bytes()[:-100])
    key = key_of(runs, "coop")
    kept = bench.load_cell(key, runs, tiny.backbone)
    with pytest.warns(UserWarning, match=r"left out, 1 image cannot be read: .*b\.png: "):
        table = bench.predict(kept, [photos], task="Colour", top=1)
    assert list(table["image"]) == [str(photos / "a.png"), str(photos / "c.png")]
    assert list(table.attrs["broken"]) == [str(photos / "b.png")]
    where = ["--results", str(runs), "--backbone", tiny.backbone, "--task", "Colour", "--cell", key]
    with pytest.warns(UserWarning, match="left out"):
        assert main(["predict", str(photos), *where]) == 1
    assert "c.png" in capsys.readouterr().out
    assert "b.png" in mistake(["predict", str(photos / "b.png"), *where], capsys)  # nothing is left


def test_both_commands_print_a_table(runs: Path, tiny: Any, capsys: Any) -> None:
    where = ["--results", str(runs), "--backbone", tiny.backbone]
    assert main(["words", "--cell", key_of(runs, "coop")[:9], "--task", "Colour", *where]) == 0
    assert "word 3" in capsys.readouterr().out
    image = str(tiny.images("colour")[0])
    assert main(["predict", "--cell", str(record_of(runs, "coop")), "--task", "Colour", image, *where]) == 0
    assert Path(image).name in capsys.readouterr().out


# ---- the cell's backbone -------------------------------------------------------------------------------------


def test_the_readme_s_lines_work_on_a_cell_of_the_demo(tmp_path: Path, capsys: Any) -> None:
    """`words` and `predict` as the README prints them, with nothing but the key, in the folder of the run."""
    runs, image = tmp_path / "runs", tmp_path / "leaf.jpg"
    grid = ["--tasks", "colour", "--methods", "coop", "--shots", "1", "--seeds", "1", "-o", "coop.epochs=1"]
    assert main(["run", *grid, "--results", str(runs)]) == 0
    Image.new("RGB", (64, 64), "red").save(image)
    key = key_of(runs, "coop")[:6]
    capsys.readouterr()
    assert main(["words", "--cell", key, "--results", str(runs)]) == 0
    assert "word 1" in capsys.readouterr().out
    assert main(["predict", "--cell", key, "--results", str(runs), "--task", "Colour", str(image)]) == 0
    assert "leaf.jpg" in capsys.readouterr().out


def test_a_cell_finds_the_files_of_its_backbone_until_they_move(own_tiny: Any, cache: Path, tmp_path: Path) -> None:
    own_tiny.run(tmp_path / "runs", methods=["coop"], shots=[1], seeds=[1], options=["coop.epochs=1"])
    key = key_of(tmp_path / "runs", "coop")
    assert bench.load_cell(key, tmp_path / "runs").backbone.name == "tiny-clip"
    moved = own_tiny.root.rename(tmp_path / "elsewhere")
    with pytest.raises(UserError, match=r"no such file.*; give its model JSON with --backbone PATH/tiny-clip.json$"):
        bench.load_cell(key, tmp_path / "runs")
    bench.load_cell(key, tmp_path / "runs", str(moved / "tiny-clip.json"))
    assert bench.load_cell(key, tmp_path / "runs").backbone.name == "tiny-clip"  # noted anew


def test_weights_that_changed_in_place_are_not_taken_for_the_cell_s(own_tiny: Any, cache: Path, tmp_path: Path) -> None:
    own_tiny.run(tmp_path / "runs", methods=["coop"], shots=[1], seeds=[1], options=["coop.epochs=1"])
    other = Path(own_tiny.model("other", seed=1)).with_suffix(".safetensors")
    other.replace(Path(own_tiny.backbone).with_suffix(".safetensors"))
    with pytest.raises(UserError, match=r"not those the cell was trained on.*give its model JSON with --backbone"):
        bench.load_cell(key_of(tmp_path / "runs", "coop"), tmp_path / "runs")


def test_without_a_note_the_options_to_type_are_said_and_no_path_is_in_a_cell_s_files(
    own_tiny: Any, cache: Path, tmp_path: Path, capsys: Any
) -> None:
    weights = Path(own_tiny.backbone).with_suffix(".safetensors").rename(own_tiny.root / "mine.safetensors")
    command = ["--methods", "coop", "--shots=1", "--seeds=1", "--pretrained", str(weights), "-o", "coop.epochs=1"]
    assert main(own_tiny.command(tmp_path / "runs", *command)) == 0
    assert all(str(own_tiny.root).encode() not in file.read_bytes() for file in (tmp_path / "runs").rglob("*.*"))
    cell = ["words", "--cell", key_of(tmp_path / "runs", "coop"), "--results", str(tmp_path / "runs")]
    assert main(["cache", "--clear"]) == 0
    assert not list(cache.rglob("*.json"))
    capsys.readouterr()  # the run's lines
    says = mistake(cell, capsys)
    assert "give its model JSON with --backbone PATH/tiny-clip.json and its weights with --pretrained PATH/mine" in says
    assert main([*cell, "--backbone", own_tiny.backbone, "--pretrained", str(weights)]) == 0


@pytest.mark.parametrize(
    ("name", "pretrained", "options"),
    [
        ("demo-clip", "demo-clip.safetensors", ""),
        ("demo-clip", "better.safetensors", "give its weights with --pretrained PATH/better.safetensors"),
        ("RN50", "openai", ""),
        ("RN50-quickgelu", "clip.safetensors", "give its weights with --pretrained PATH/clip.safetensors"),
        ("hf-hub:org/model", "", ""),
        ("local-dir:model", "", "give its folder with --backbone local-dir:PATH"),
        ("mine", "mine.safetensors", "give its model JSON with --backbone PATH/mine.json"),
    ],
)
def test_what_names_a_cell_s_backbone_is_said_exactly(name: str, pretrained: str, options: str) -> None:
    assert what_to_give(name, pretrained) == options


# ---- what does not fit ---------------------------------------------------------------------------------------


def mistake(arguments: list[str], capsys: Any) -> str:
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1
    return str(error)


def test_mistakes_are_one_line(runs: Path, tiny: Any, tmp_path: Path, capsys: Any) -> None:
    image = str(tiny.images("colour")[0])
    key = key_of(runs, "coop")
    where = ["--results", str(runs), "--backbone", tiny.backbone]
    assert "'nothing'" in mistake(["predict", "--cell", "noth/ing", image], capsys).replace("noth/ing", "nothing")
    assert "have a key that begins with it" in mistake(["predict", "--cell", "0000", image, *where], capsys)
    kept = mistake(["words", "--cell", "0000", *where], capsys)
    n = len(method_names())  # one cell each; all but the last few are left out
    assert f"the last of {n} keys there: " in kept and re.search(r" [0-9a-f]{8} \([\w-]+ 2shot-seed1\)", kept)
    nowhere = mistake(["words", "--cell", "0", "--results", "no"], capsys)
    assert "is it the folder that `run --results` named?" in nowhere
    assert "no such file" in mistake(["predict", "--cell", "runs/nothing.json", image, *where], capsys)
    assert "Colour, Shade, Stripes" in mistake(["predict", "--cell", key, image, *where], capsys)
    assert "'Color'" in mistake(["predict", "--cell", key, "--task", "Color", image, *where], capsys)
    assert "no.png" in mistake(["predict", "--cell", key, "--task", "Colour", "no.png", *where], capsys)
    assert "--top 0" in mistake(["words", "--cell", key, "--top", "0", *where], capsys)
    other = tiny.model("other-clip", seed=1)
    assert "not those the cell was trained on" in mistake(
        ["words", "--cell", key, "--results", str(runs), "--backbone", other], capsys
    )


def test_a_key_s_beginning_that_fits_several_cells_is_refused(runs: Path, tmp_path: Path) -> None:
    path = record_of(runs, "coop").with_suffix(".safetensors")
    for end in ("aa11", "aa22"):
        shutil.copy(path, tmp_path / f"1shot-seed1-{end}.safetensors")
    with pytest.raises(UserError, match="2 keys begin with it"):
        bench.load_cell("aa", tmp_path)
    with pytest.raises(UserError, match="no learned parameters"):
        bench.load_cell("11", tmp_path)  # an end is no beginning


@pytest.mark.parametrize("how", ["empty", "no metadata", "other tensors", "unknown parameter", "method", "text"])
def test_a_file_that_is_not_what_a_run_keeps_is_an_error(runs: Path, tiny: Any, tmp_path: Path, how: str) -> None:
    source = record_of(runs, "coop").with_suffix(".safetensors")
    path = tmp_path / "cell.safetensors"
    with safe_open(str(source), framework="pt") as file:
        metadata = dict(file.metadata())
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    config = json.loads(metadata["cell"])
    del metadata["checksum"]  # as of an older version: what is wrong has to be noticed by itself
    if how == "no metadata":
        metadata = {}
    elif how == "other tensors":
        tensors.popitem()
    elif how == "unknown parameter":
        metadata["cell"] = json.dumps({**config, "params": {**config["params"], "nonsense": 1}})
    elif how == "method":
        metadata["cell"] = json.dumps({**config, "method": "os:system"})
    elif how == "text":
        metadata["tasks"] = json.dumps("all of them")
    path.write_bytes(b"") if how == "empty" else save_file(tensors, str(path), metadata=metadata)
    with pytest.raises(UserError):
        bench.load_cell(str(path), backbone=tiny.backbone)


def test_a_flipped_bit_anywhere_in_a_saved_state_is_refused_in_one_line(
    runs: Path, tiny: Any, tmp_path: Path
) -> None:
    whole = record_of(runs, "coop").with_suffix(".safetensors").read_bytes()
    header = 8 + int.from_bytes(whole[:8], "little")
    inside = [header, (header + len(whole)) // 2, len(whole) - 1]  # numbers: the first, middle and last byte
    texts = [whole.index(word) + 2 for word in (b"checksum", b"task_name", b"learning", b'"seed') if word in whole]
    assert len(texts) >= 2
    path = tmp_path / "cell.safetensors"
    for place in (*inside, *texts):
        damaged = bytearray(whole)
        damaged[place] ^= 1
        path.write_bytes(damaged)
        with pytest.raises(UserError, match=r"cell\.safetensors: not what a run keeps of a cell") as caught:
            bench.load_cell(str(path), backbone=tiny.backbone)
        assert "\n" not in str(caught.value), place


def test_a_state_of_a_version_without_checksums_is_read(runs: Path, tiny: Any, tmp_path: Path) -> None:
    source = record_of(runs, "coop").with_suffix(".safetensors")
    old = tmp_path / "old.safetensors"
    with safe_open(str(source), framework="pt") as file:
        metadata = {key: text for key, text in file.metadata().items() if key != "checksum"}
        save_file({name: file.get_tensor(name) for name in file.keys()}, str(old), metadata=metadata)  # noqa: SIM118
    assert metadata.keys() == {"cell", "tasks"}
    assert bench.load_cell(str(old), backbone=tiny.backbone).config["method"] == "coop"


@pytest.mark.parametrize(
    ("scores", "says"),
    [
        ("torch.zeros(len(features), 2)", r"torch.float32 \[12, 2\]"),
        ("torch.zeros(len(features))", r"torch.float32 \[12\]"),
        ("torch.zeros(len(features), 3, dtype=torch.long)", r"torch.int64 \[12, 3\]"),
        ("torch.zeros(3, len(features))", r"torch.float32 \[3, 12\]"),
        ("features.tolist()", "a list"),
    ],
)
def test_a_plug_in_s_scores_of_another_shape_fail_the_cell_by_name(
    tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scores: str, says: str
) -> None:
    """12 test images of 3 classes."""
    record = failed(tiny, tmp_path, monkeypatch, f"return {scores}")
    expected = r"a floating-point tensor \[12, 3\] \(images, classes\)"
    assert re.fullmatch(f"odd, task Colour: predict returned {says}; expected {expected}", record["error"])


@pytest.mark.parametrize("value", ["nan", "inf"])
def test_scores_that_are_not_finite_fail_the_cell_by_name(
    tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    body = f"s = torch.zeros(len(features), 3); s[2, 1] = float({value!r}); return s"
    record = failed(tiny, tmp_path, monkeypatch, body)
    assert record["error"] == "odd, task Colour: scores are not finite; did the training diverge?"


def test_a_plug_in_s_traceback_is_in_the_record_that_the_command_names(
    tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    record = failed(tiny, tmp_path, monkeypatch, "return [][7]")
    assert record["error"] == "IndexError: list index out of range"
    assert "odd_method.py" in record["traceback"] and "return [][7]" in record["traceback"]
    assert str(record_of(tmp_path / "runs", "odd")) in capsys.readouterr().err


def failed(tiny: Any, folder: Path, monkeypatch: pytest.MonkeyPatch, body: str) -> Any:
    """The record of a method with this `predict`."""
    (folder / "odd_method.py").write_text(
        "import torch\nfrom bench.methods import Method\n"
        "class Odd(Method):\n    name = 'odd'\n    needs = frozenset()\n"
        f"    def fit(self, clip, tasks, seed, report): pass\n    def predict(self, t, features, names=None): {body}\n"
    )
    monkeypatch.syspath_prepend(folder)
    monkeypatch.delitem(sys.modules, "odd_method", raising=False)
    where = ["--suite", tiny.suite, "--backbone", tiny.backbone, "--data", str(tiny.data), "--shots=1", "--seeds=1"]
    assert main(["run", *where, "--methods", "odd_method:Odd", "--results", str(folder / "runs")]) == 1
    return json.loads(record_of(folder / "runs", "odd").read_text())


def test_a_plug_in_s_code_is_run_only_when_the_user_names_it(
    tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "their_method.py").write_text(
        "from bench.methods.coop import CoOp\nclass Theirs(CoOp):\n    name = 'theirs'\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    options = ["theirs.epochs=1"]
    tiny.run(tmp_path / "runs", methods=["their_method:Theirs"], shots=[1], seeds=[1], options=options)
    key = key_of(tmp_path / "runs", "theirs")
    with pytest.raises(UserError, match="--method module:Class"):
        bench.load_cell(key, tmp_path / "runs", tiny.backbone)
    kept = bench.load_cell(key, tmp_path / "runs", tiny.backbone, method="their_method:Theirs")
    assert kept.method.name == "theirs"


@pytest.mark.parametrize("call", [bench.words, lambda key: bench.predict(key, ["a.png"])])
def test_a_key_in_place_of_a_loaded_cell_is_answered_with_what_to_call(call: Any) -> None:
    with pytest.raises(UserError, match=r"'3f9a2c' is not a loaded cell; give bench\.load_cell\('3f9a2c'\)"):
        call("3f9a2c")
