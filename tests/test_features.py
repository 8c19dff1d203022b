"""Image features: each view of each image is encoded once, and what is kept is what a plain loop gives."""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from torchvision import transforms

from bench.clip.backbone import Backbone, load_backbone
from bench.errors import UserError
from bench.features import ImageFeatures, View
from bench.features import cache as cache_module
from bench.features import encode as encode_module
from bench.features.encode import Block
from bench.features.views import draw_view

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def backbone(tiny: Any) -> Backbone:
    return load_backbone(tiny.backbone)


def blocks(cache: Path) -> set[str]:
    return {path.name for path in cache.rglob("*.safetensors")}


# ---- once for all --------------------------------------------------------------------------------------------


def test_each_view_is_encoded_once_for_all_methods_shots_and_reruns(
    tiny: Any, cache: Path, tmp_path: Path, encoded: list[int]
) -> None:
    methods = ["zero-shot", "coop", "shared-coop", "softcpt"]
    tiny.run(tmp_path / "runs", methods=methods, shots=[1, 2, 4], seeds=[1])
    test_images, drawn, val, views, tasks = 12, 3 * 4, 3 * 2, 2, 3
    assert sum(encoded) == tasks * (test_images + val + drawn * views)
    tiny.run(tmp_path / "others", methods=methods, shots=[1, 2, 4], seeds=[1])
    assert sum(encoded) == tasks * (test_images + val + drawn * views)


def test_more_shots_encode_only_the_images_that_are_new(
    tiny: Any, cache: Path, tmp_path: Path, encoded: list[int]
) -> None:
    arguments = {"methods": ["coop"], "seeds": [1], "tasks": ["Colour"]}
    counts = []
    for shots in (4, 1, 2, 6, 3):  # in any order
        before = sum(encoded)
        tiny.run(tmp_path / "runs", shots=[shots], **arguments)
        counts.append((sum(encoded) - before) // 2)  # views
    new_of_three = 3  # 3 shots cut the third image off the block of ranks 2 and 3
    assert counts == [(12 + 3 * 2) // 2 + 3 * 4, 0, 0, 3 * 2, new_of_three]  # of test and validation images one view


def test_sixteen_shots_are_read_in_the_blocks_of_one_two_four_and_eight() -> None:
    from bench.datasets.types import Item
    from bench.draws import shards

    items = [Item(f"{label}/{n}", label) for label in range(3) for n in range(20)]

    def sizes(shots: int) -> list[int]:
        return [shots] * 3

    sixteen = shards(items, sizes, 16, seed=1)
    assert [len(s) for s in sixteen] == [3, 3, 6, 12, 24]
    for k, shots in enumerate((1, 2, 4, 8)):
        assert shards(items, sizes, shots, seed=1) == sixteen[: k + 1]


@pytest.mark.parametrize("method", ["coop", "plot"])
def test_more_shots_than_images_use_what_there_is(tiny: Any, tmp_path: Path, method: str) -> None:
    options = ["all.epochs=1", "all.context=2"]
    table = tiny.run(tmp_path / "runs", methods=[method], shots=[16], seeds=[1], options=options)
    assert list(table["n_train"]) == [18, 18, 18]


def test_fifty_views_reuse_what_ten_views_left(
    tiny: Any, backbone: Backbone, tmp_path: Path, encoded: list[int]
) -> None:
    features, paths = ImageFeatures(backbone, tmp_path), tiny.images()[:4]
    ten = features.get(paths, View(1, 0, 10))
    assert sum(encoded) == 40
    fifty = features.get(paths, View(1, 0, 50))
    assert sum(encoded) == 200
    assert fifty.shape == (50, 4, 16)
    assert torch.equal(fifty[:10], ten)
    assert not features.is_cached(paths, View(1, 0, 51))
    assert features.is_cached(paths, View(1, 0, 50))


def test_test_views_serve_as_plain_few_shot_features_too(
    tiny: Any, backbone: Backbone, tmp_path: Path, encoded: list[int]
) -> None:
    features, paths = ImageFeatures(backbone, tmp_path), tiny.images()[:4]
    assert features.get(paths, View()).shape == (1, 4, 16)
    assert ImageFeatures(backbone, tmp_path).get(paths, View()).shape == (1, 4, 16)
    assert sum(encoded) == 4


# ---- the right numbers ---------------------------------------------------------------------------------------


def open_clips_own(backbone: Backbone) -> Callable[[Image.Image], torch.Tensor]:
    _, _, preprocess = open_clip.create_model_and_transforms(backbone.name, load_weights=False)
    return preprocess


def test_features_of_the_test_view_equal_a_plain_loop(tiny: Any, backbone: Backbone, tmp_path: Path) -> None:
    paths = tiny.images()
    got = ImageFeatures(backbone, tmp_path).get(paths, View())[0]
    preprocess = open_clips_own(backbone)
    with torch.no_grad():
        for path, feature in zip(paths, got, strict=True):
            expected = backbone.model.encode_image(preprocess(Image.open(path).convert("RGB"))[None])[0]
            torch.testing.assert_close(feature, expected, rtol=1e-5, atol=1e-5)


def test_features_of_training_views_equal_torchvisions_transform_under_the_documented_seed(
    tiny: Any, backbone: Backbone, tmp_path: Path
) -> None:
    paths, seed = tiny.images("stripes")[::6], 3
    got = ImageFeatures(backbone, tmp_path).get(paths, View(seed, 0, 12))
    settings = backbone.preprocessing
    recipe = transforms.Compose([
        transforms.RandomResizedCrop(32, (0.08, 1), interpolation=transforms.InterpolationMode.BICUBIC),
        transforms.RandomHorizontalFlip(),
        transforms.ToTensor(),
        transforms.Normalize(settings["mean"], settings["std"]),
    ])  # fmt: skip
    for n, path in enumerate(paths):
        digest = hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest()
        for v in range(12):
            name = f"{digest}/{seed}/{v}".encode()
            torch.manual_seed(int.from_bytes(hashlib.blake2b(name, digest_size=8).digest(), "big") % 2**63)
            with torch.no_grad():
                expected = backbone.model.encode_image(recipe(Image.open(path).convert("RGB"))[None])[0]
            torch.testing.assert_close(got[v, n], expected, rtol=1e-5, atol=1e-5)


KINDS = {  # how a file is saved; sizes are wide, tall, and smaller than what the encoder sees
    "photo.jpg": ("RGB", (97, 40)),
    "tall.jpg": ("RGB", (33, 200)),
    "grey.jpg": ("L", (50, 50)),
    "ink.jpg": ("CMYK", (64, 48)),
    "photo.png": ("RGB", (45, 44)),
    "palette.png": ("P", (120, 33)),
    "clear.png": ("RGBA", (40, 60)),
    "small.gif": ("P", (9, 7)),
}


@pytest.fixture(scope="module")
def kinds(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder, rng = tmp_path_factory.mktemp("kinds"), np.random.default_rng(0)
    for name, (mode, (width, height)) in KINDS.items():
        pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).convert(mode).save(folder / name)
    return [folder / name for name in KINDS]


def encoder_inputs(features: ImageFeatures, paths: list[Path], view: View) -> torch.Tensor:
    """Everything the encoder is given, [images · views, 3, h, w]."""
    block = Block(paths, features.hashes.of(paths), view)
    return torch.cat([pixels for _, pixels in features.encoder.through(lambda pixels: pixels, [block])])


@pytest.mark.parametrize("whole", [False, True], ids=["open_clip's steps", "unknown steps"])
def test_encoder_sees_exactly_what_a_plain_loop_shows_it(
    tiny: Any, backbone: Backbone, kinds: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: bool
) -> None:
    monkeypatch.setattr(encode_module, "CROPS_PER_BATCH", 3)
    plain = open_clips_own(backbone)
    if whole:  # a preprocessing that is no list of steps is used as it is
        backbone = replace(backbone, preprocess=lambda image: plain(image))
    expected = torch.stack([plain(Image.open(path).convert("RGB")) for path in kinds])
    features = ImageFeatures(backbone, tmp_path)
    assert torch.equal(encoder_inputs(features, kinds, View()), expected)
    assert torch.equal(encoder_inputs(features, kinds, View(None, 1, 2)), expected.flip(-1))


@pytest.mark.parametrize("least", [0.08, 0.5])
def test_encoder_sees_exactly_torchvisions_training_views(
    backbone: Backbone, kinds: list[Path], tmp_path: Path, least: float
) -> None:
    features, expected = ImageFeatures(backbone, tmp_path), []
    to_tensor, normalise = backbone.preprocess.transforms[-2:]  # type: ignore[attr-defined]
    for path, digest in zip(kinds, features.hashes.of(kinds), strict=True):
        image = Image.open(path).convert("RGB")
        for v in range(2, 5):
            box, flip = draw_view(image, digest, 1, v, least)
            crop = transforms.functional.resized_crop(image, *box, [32, 32], transforms.InterpolationMode.BICUBIC)
            expected.append(normalise(to_tensor(transforms.functional.hflip(crop) if flip else crop)))
    assert torch.equal(encoder_inputs(features, kinds, View(1, 2, 5, least)), torch.stack(expected))


@pytest.mark.parametrize("kind", ["pooled", "local", "preproj"])
@pytest.mark.parametrize("view", [View(), View(1, 0, 3)], ids=["test view", "training views"])
def test_features_do_not_depend_on_cores_or_threads(
    tiny: Any, backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, view: View, kind: str
) -> None:
    monkeypatch.setattr(encode_module, "CROPS_PER_BATCH", 24)
    monkeypatch.setattr(encode_module, "PIXELS_ON_CPU", 8 * 32 * 32)
    found = []
    for threads in (1, 2):
        for cores in (1, 2, 5):
            monkeypatch.setattr(encode_module, "usable_cores", lambda cores=cores: cores)
            torch.set_num_threads(threads)  # the fixture puts it back
            found.append(ImageFeatures(backbone, tmp_path / f"{threads}-{cores}").get(tiny.images(), view, kind))
            assert torch.get_num_threads() == threads
    assert all(torch.equal(features, found[0]) for features in found)


def test_workers_leave_torchs_threads_as_they_were(tiny: Any, backbone: Backbone, tmp_path: Path) -> None:
    """Of the thread that asked, and of threads that start later."""
    torch.set_num_threads(2)
    seen: list[int] = []
    ImageFeatures(backbone, tmp_path).get(tiny.images()[:3], View())
    later = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
    later.start()
    later.join()
    assert [torch.get_num_threads(), *seen] == [2, 2]


def test_a_bad_image_stops_the_work_that_is_queued(
    tiny: Any, backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encode_module, "usable_cores", lambda: 1)
    opened: list[Path] = []
    original = encode_module.open_image

    def slow(path: Path, data: bytes) -> Image.Image:
        opened.append(path)
        if len(opened) > 1:
            time.sleep(0.05)  # so that the failure is heard before all are done
        return original(path, data)

    monkeypatch.setattr(encode_module, "open_image", slow)
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no image")
    with pytest.raises(UserError, match=r"bad\.png: not an image"):
        ImageFeatures(backbone, tmp_path).get([bad, *tiny.images()], View(1, 0, 10))
    assert opened[0] == bad
    assert len(opened) < len(tiny.images())
    assert not blocks(tmp_path)


def test_batches_and_blocks_leave_the_features_as_they_are(
    tiny: Any, backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = tiny.images()
    whole = ImageFeatures(backbone, tmp_path / "whole").get(paths, View(1, 0, 3))
    monkeypatch.setattr(cache_module, "IMAGES_PER_BLOCK", 7)
    monkeypatch.setattr(cache_module, "VIEWS_PER_BLOCK", 2)
    monkeypatch.setattr(encode_module, "CROPS_PER_BATCH", 5)
    monkeypatch.setattr(encode_module, "PIXELS_ON_CPU", 2 * 32 * 32)
    cut = ImageFeatures(backbone, tmp_path / "cut")
    torch.testing.assert_close(cut.get(paths, View(1, 0, 3)), whole, rtol=1e-5, atol=1e-5)
    assert len(blocks(tmp_path / "cut")) == math.ceil(36 / 7) * 2
    assert cut.is_cached(paths, View(1, 0, 3))
    (victim, *_) = (tmp_path / "cut").rglob("*.safetensors")
    victim.unlink()
    assert not cut.is_cached(paths, View(1, 0, 3))


def test_order_of_images_and_progress(tiny: Any, backbone: Backbone, tmp_path: Path) -> None:
    features, paths, told = ImageFeatures(backbone, tmp_path), tiny.images()[:5], []
    features.make(features.missing([(paths, View(1, 0, 3))]), bar=told.append)
    assert sum(told) == 15
    forward = features.get(paths, View(1, 0, 3))
    backward = features.get(paths[::-1], View(1, 0, 3))
    torch.testing.assert_close(backward, forward.flip(1), rtol=1e-5, atol=1e-5)
    assert features.get([], View(1, 0, 3)).shape == (3, 0, 16)


# ---- the distribution of training views ----------------------------------------------------------------------


def test_crops_and_flips_are_distributed_as_in_the_recipe() -> None:
    image = Image.new("RGB", (120, 90))
    draws = [draw_view(image, "digest", seed=1, v=v) for v in range(3000)]
    areas, ratios = [], []
    for (top, left, height, width), _ in draws:
        assert top >= 0 and left >= 0 and top + height <= 90 and left + width <= 120
        areas.append(height * width / (120 * 90))
        ratios.append(width / height)
    assert 0.078 < min(areas) < 0.1
    assert 0.9 < max(areas) <= 1
    assert 0.73 < min(ratios) < 0.78
    assert 1.29 < max(ratios) < 1.36
    small = np.array([a for a in areas if a < 0.6])  # beyond, crops of an extreme ratio do not fit
    assert abs(np.mean(small < 0.34) - 0.5) < 0.05  # uniform in area
    assert abs(np.mean(np.log(ratios))) < 0.03  # and in the logarithm of the ratio
    assert abs(np.mean([flip for _, flip in draws]) - 0.5) < 0.04
    assert len(set(draws)) > 2900


@pytest.mark.parametrize("least", [0.08, 0.5])
@pytest.mark.parametrize("size", [(500, 375), (61, 64), (20, 300), (900, 30), (1, 1), (1, 40), (3, 2)])
def test_draws_are_torchvisions_to_the_last_number(size: tuple[int, int], least: float) -> None:
    """Also of shapes that no crop fits, and of tiny images."""
    image = Image.new("RGB", size)
    for v in range(300):
        name = f"digest/7/{v}".encode()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int.from_bytes(hashlib.blake2b(name, digest_size=8).digest(), "big") % 2**63)
            box = transforms.RandomResizedCrop.get_params(image, scale=[least, 1.0], ratio=[3 / 4, 4 / 3])
            expected = box, bool(torch.rand(1) < 0.5)
        assert draw_view(image, "digest", 7, v, least) == expected
        assert least > 0.08 or draw_view(image, "digest", 7, v) == expected


def test_views_are_a_function_of_image_seed_and_number_alone() -> None:
    image = Image.new("RGB", (120, 90))
    first = draw_view(image, "a", 1, 0)
    torch.manual_seed(5)
    state = torch.get_rng_state()
    assert draw_view(image, "a", 1, 0) == first
    assert torch.equal(torch.get_rng_state(), state)  # nobody else's random numbers move
    others = [draw_view(image, *which) for which in (("b", 1, 0), ("a", 2, 0), ("a", 1, 1))]
    assert len({first, *others}) == 4


def test_views_of_different_seeds_and_numbers_give_different_features(
    tiny: Any, backbone: Backbone, tmp_path: Path
) -> None:
    features = ImageFeatures(backbone, tmp_path)
    got = torch.cat([features.get(tiny.images()[:1], View(seed, 0, 5)) for seed in (1, 2)])
    assert len({tuple(row) for row in got[:, 0].tolist()}) == 10


# ---- the key -------------------------------------------------------------------------------------------------


def local_model(tiny: Any, folder: Path, preprocess: dict[str, Any]) -> str:
    """A model folder in the form of open_clip's hub repositories."""
    folder.mkdir()
    config = {"model_cfg": json.loads(Path(tiny.backbone).read_text()), "preprocess_cfg": preprocess}
    config["model_cfg"]["text_cfg"]["tokenizer_kwargs"] = {"bpe_path": str(tiny.root / "tiny-bpe.txt.gz")}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    shutil.copy(Path(tiny.backbone).with_suffix(".safetensors"), folder / "open_clip_model.safetensors")
    return f"local-dir:{folder}"


def test_block_is_found_again_wherever_the_images_stand(
    tiny: Any, backbone: Backbone, tmp_path: Path, encoded: list[int]
) -> None:
    features, paths = ImageFeatures(backbone, tmp_path / "cache"), tiny.images()[:6]
    features.get(paths, View(1, 0, 2))
    copies = [Path(shutil.copy(path, tmp_path / f"{n}.jpeg")) for n, path in enumerate(paths)]
    os.utime(copies[0], (1, 1))
    before = len(encoded)
    features.get(copies, View(1, 0, 2))
    assert len(encoded) == before


def test_block_is_another_for_other_weights_preprocessing_images_or_views(
    tiny: Any, own_tiny: Any, backbone: Backbone, tmp_path: Path
) -> None:
    cache, paths = tmp_path / "cache", own_tiny.images()[:6]
    plain = load_backbone(local_model(own_tiny, tmp_path / "plain", {}))
    others = [
        load_backbone(own_tiny.model("other-weights", seed=1)),
        load_backbone(own_tiny.model("other-activation", quick_gelu=True)),
        load_backbone(local_model(own_tiny, tmp_path / "mean", {"mean": [0.5, 0.5, 0.5]})),
        load_backbone(local_model(own_tiny, tmp_path / "mode", {"interpolation": "bilinear"})),
    ]
    prints = {b.weights for b in (plain, *others)}
    assert len(prints) == 5
    for other in (plain, *others):
        ImageFeatures(other, cache).get(paths, View(1, 0, 2))
    assert len(blocks(cache)) == 5

    features = ImageFeatures(plain, cache)
    features.get(paths, View(2, 0, 2))
    features.get(paths, View(1, 2, 4))
    features.get(paths, View())
    features.get(paths, View(), "local")
    features.get(paths, View(None, 1, 2))
    features.get(paths, View(1, 0, 2, crop=0.5))
    features.get(paths[:5], View(1, 0, 2))
    assert len(blocks(cache)) == 12
    Image.new("RGB", (40, 36)).save(paths[0])
    assert not features.is_cached(paths, View(1, 0, 2))
    features.get(paths, View(1, 0, 2))
    assert len(blocks(cache)) == 13


def test_views_kept_before_there_were_other_crops_are_found(backbone: Backbone, tmp_path: Path) -> None:
    for view, numbers in ((View(), [None, 0, 1]), (View(3, 10, 20), [3, 10, 20])):
        key = json.dumps([1, "pooled", backbone.weights, *numbers, ["an image"]]).encode()
        name = hashlib.blake2b(key, digest_size=16).hexdigest()
        assert ImageFeatures(backbone, tmp_path)._path(Block([], ["an image"], view), "pooled").stem == name


def test_two_backbones_of_one_name_do_not_share_features(tiny: Any, backbone: Backbone, tmp_path: Path) -> None:
    """The key holds the weights, so even an equal folder name is no danger."""
    ImageFeatures(backbone, tmp_path).get(tiny.images()[:2], View())
    other = replace(backbone, weights=backbone.weights[:8] + "0" * 24)
    assert not ImageFeatures(other, tmp_path).is_cached(tiny.images()[:2], View())
