"""The embedded demo: its data sets, its backbone, and that the two together are worth looking at."""

from __future__ import annotations

import importlib.util
import json
import re
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from types import ModuleType

import numpy as np
import open_clip
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from open_clip.model import CLIP
from PIL import Image

import bench
from bench.datasets import demo, load_suite

ROOT = Path(__file__).parents[1]
WEIGHTS = ROOT / "bench" / "backbones" / "demo-clip.safetensors"


@pytest.fixture(scope="module")
def small() -> dict[str, int]:
    return {"train": 16, "val": 1, "test": 8}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return demo.ensure_demo(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def trainer() -> ModuleType:
    spec = importlib.util.spec_from_file_location("train_demo_clip", ROOT / "scripts" / "train_demo_clip.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _pixels(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_data_sets_have_the_promised_layout_and_counts(root: Path) -> None:
    suite = load_suite("demo")
    assert suite.demo and len(suite.tasks) >= 4 and sum(t.n_classes or 0 for t in suite.tasks) >= 20
    assert {t.folder for t in suite.tasks} == {f"{demo.GENERATOR}/{task}" for task in demo.TASKS}
    for spec in suite.tasks:
        folder = root / spec.folder
        split = json.loads((folder / spec.reader["split"]).read_text(encoding="utf-8"))
        names = list(demo.TASKS[folder.name].values())
        assert spec.n_classes == len(names)
        assert set(split) == {"train", "val", "test"}
        for part, least in {"train": 16, "val": 4, "test": 40}.items():
            labels = [label for _, label, _ in split[part]]
            assert min(labels.count(k) for k in range(len(names))) >= least
            assert all(name == names[label] for _, label, name in split[part])
        paths = [path for part in split.values() for path, _, _ in part]
        assert len(paths) == len(set(paths))
        assert all((folder / "images" / path).is_file() for path in paths)
        with Image.open(folder / "images" / paths[0]) as image:
            assert image.size == (demo.SIZE, demo.SIZE) and image.mode == "RGB"


def test_rendering_is_deterministic_and_done_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small: dict[str, int]
) -> None:
    monkeypatch.setattr(demo, "IMAGES_PER_CLASS", {"train": 1, "val": 1, "test": 1})
    first, second = demo.ensure_demo(tmp_path / "a"), demo.ensure_demo(tmp_path / "b")
    assert _pixels(first) == _pixels(second)
    monkeypatch.setattr(demo, "_write_task", lambda *_: pytest.fail("rendered twice"))
    monkeypatch.setattr("bench.files.locked", lambda *_: pytest.fail("the disk may be read-only"))
    assert demo.ensure_demo(first) == first


def test_known_pixels() -> None:
    """A change of the renderer asks for a new GENERATOR: folders rendered before would differ from new ones."""
    rng = Random("known")  # noqa: S311 - a seeded draw, no secret
    pixels = demo.render(demo.random_scene(rng), rng)
    assert demo.GENERATOR == "demo-3"
    assert pixels.mean(axis=(0, 1)) == pytest.approx(KNOWN_MEAN, abs=1.0)


KNOWN_MEAN = [103.36, 83.51, 79.49]


def test_an_interrupted_rendering_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(folder: Path, task: str, *_: object) -> None:
        (folder / "images").mkdir(parents=True)
        if task == "count":
            raise KeyboardInterrupt

    monkeypatch.setattr(demo, "_write_task", interrupted)
    with pytest.raises(KeyboardInterrupt):
        demo.ensure_demo(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == [".fetch.lock"]


def test_two_renderings_at_a_time_are_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rendered = []

    def slow(folder: Path, task: str, *_: object) -> None:
        rendered.append(task)
        time.sleep(0.02)
        folder.mkdir()

    monkeypatch.setattr(demo, "_write_task", slow)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(demo.ensure_demo, [tmp_path, tmp_path]))
    assert rendered == list(demo.TASKS)
    assert sorted(p.name for p in tmp_path.iterdir()) == [".fetch.lock", demo.GENERATOR]


def test_class_names_promised_as_unread_are_not_in_captions(trainer: ModuleType) -> None:
    unread = {name for task in demo.TASKS.values() for value, name in task.items() if value != name}
    assert len(unread) >= 10
    rng, read = Random(0), set()  # noqa: S311 - a seeded draw, no secret
    for k in range(20_000):
        text, _ = trainer.caption(demo.random_scene(rng), rng, long=k % 4 == 0)
        read |= set(re.findall(r"\w+", text))
    assert not unread & {form for word in read for form in (word, word.removesuffix("s"), word.removesuffix("es"))}
    shown = {value for task in demo.TASKS.values() for value in task}
    assert shown <= read  # and the others are


def test_captions_tell_only_what_the_scene_shows(trainer: ModuleType) -> None:
    rng = Random(1)  # noqa: S311 - a seeded draw, no secret
    for _ in range(500):
        scene = demo.random_scene(rng)
        text, facts = trainer.caption(scene, rng)
        assert any(facts)
        for fact, value in zip(facts, vars(scene).values(), strict=True):
            assert fact in (None, value)
            assert (value in re.findall(r"\w+", text) or f"{value}s" in text or f"{value}es" in text) or fact is None


@pytest.fixture(scope="module")
def backbone() -> tuple[CLIP, open_clip.SimpleTokenizer]:
    open_clip.add_model_config(WEIGHTS.with_suffix(".json"))
    model = open_clip.create_model("demo-clip", pretrained=str(WEIGHTS)).eval().requires_grad_(False)
    return model, open_clip.get_tokenizer("demo-clip", bpe_path=str(WEIGHTS.with_name("demo-bpe.txt.gz")))


def test_backbone_is_small_and_loads_strictly(
    backbone: tuple[CLIP, open_clip.SimpleTokenizer],
) -> None:
    files = [WEIGHTS, WEIGHTS.with_suffix(".json"), WEIGHTS.with_name("demo-bpe.txt.gz")]
    assert sum(file.stat().st_size for file in files) <= 8_000_000
    model, tokenizer = backbone
    result = open_clip.load_checkpoint(model, str(WEIGHTS), strict=True)
    assert not result.missing_keys and not result.unexpected_keys
    assert tokenizer.vocab_size == model.token_embedding.num_embeddings
    assert tokenizer(["a red circle"]).shape == (1, 77)


def test_zero_shot_is_above_chance_and_below_16_shots(
    root: Path, backbone: tuple[CLIP, open_clip.SimpleTokenizer]
) -> None:
    """On 16 test images a class; the 16 shots are judged by a linear probe, which needs no prompt."""
    model, tokenizer = backbone
    preprocess = open_clip.image_transform(demo.SIZE, is_train=False)
    chance, zero_shot, probe = [], [], []
    for spec in load_suite("demo").tasks:
        folder = root / spec.folder
        split = json.loads((folder / spec.reader["split"]).read_text(encoding="utf-8"))
        names = list(demo.TASKS[folder.name].values())

        images, targets = {}, {}
        for part in ("train", "test"):
            chosen = [item for k in range(len(names)) for item in [i for i in split[part] if i[1] == k][:16]]
            pictures = [preprocess(Image.open(folder / "images" / path)) for path, _, _ in chosen]
            images[part] = model.encode_image(torch.stack(pictures), normalize=True)
            targets[part] = torch.tensor([label for _, label, _ in chosen])
        text = model.encode_text(tokenizer([spec.template.format(name) for name in names]), normalize=True)
        zero_shot.append(((images["test"] @ text.T).argmax(1) == targets["test"]).float().mean().item())
        weights = torch.zeros(len(names), text.shape[1], requires_grad=True)
        optimiser = torch.optim.Adam([weights], lr=0.1)
        for _ in range(100):
            optimiser.zero_grad()
            F.cross_entropy(10 * images["train"] @ weights.T, targets["train"]).backward()
            optimiser.step()
        probe.append(((images["test"] @ weights.T).argmax(1) == targets["test"]).float().mean().item())
        chance.append(1 / len(names))
    assert np.mean(zero_shot) > np.mean(chance) + 0.15
    assert np.mean(probe) > np.mean(zero_shot) + 0.15


def test_noise_in_the_last_bits_moves_a_cell_of_the_demo_by_half_a_point_at_most(tmp_path: Path) -> None:
    """At rate 0.1 this cell moves by 0.67 points."""
    measured = bench.rounding(2, methods=["softcpt"], shots=[8], seeds=[2], results=tmp_path, device="cpu", quiet=True)
    assert measured["range"].item() <= 0.5


def test_more_shots_show_in_every_method_of_the_committed_demo() -> None:
    table = pd.read_csv(ROOT / "results" / "demo" / "table.csv")
    trained = table[table["shots"] > 0].sort_values("shots").groupby("method")
    assert {method: list(rows["shots"]) for method, rows in trained} == {
        method: [1, 2, 4, 8, 16] for method in ("coop", "shared-coop", "softcpt")
    }
    assert all(rows["mean"].is_monotonic_increasing for _, rows in trained)


def test_no_task_of_the_demo_has_only_words_that_the_backbone_has_not_read() -> None:
    for values in demo.TASKS.values():
        assert any(value == name for value, name in values.items())


def test_seeds_side_by_side_are_as_good_as_alone_on_the_demo(tmp_path: Path) -> None:
    """The demo's recipe is steady: the rounding of sums stays rounding (at rate 0.1 it became up to 10 points)."""
    grid = {"methods": ["coop", "softcpt"], "shots": [1], "seeds": [1, 2], "quiet": True, "keep": False}
    alone = bench.run(**grid, results=tmp_path / "alone")
    together = bench.run(**grid, results=tmp_path / "together", seeds_at_once=True)
    assert set(alone["together"]) == {""} and set(together["together"]) == {"1 2"}
    assert list(alone["key"]) == list(together["key"])
    moved = (together["accuracy"] - alone["accuracy"]).abs()
    assert moved.max() <= 100 / alone["n_test"].min()  # one image at most
    assert moved.mean() < 0.1
