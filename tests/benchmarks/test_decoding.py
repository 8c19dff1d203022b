"""Images per second that reach the image encoder: ours against a plain loop of PIL and torchvision, on the same files.

Ours is the code that feeds the encoder in earnest, `ImageFeatures.through`, with an encoder that costs nothing. The
plain side opens, transforms and stacks one image after another; for training views it opens the file for each view,
as a loader does that comes by once an epoch. The two sides take turns, and their pixels are the same.
"""

from __future__ import annotations

import hashlib
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from open_clip.model import CLIP
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from torch import Tensor
from torchvision import transforms

from bench.features import ImageFeatures, View
from bench.features.encode import Block
from bench.features.hashes import usable_cores

sys.path.append(str(Path(__file__).parent))
from store import store

FILES = {(500, 375): 200, (2000, 1500): 40}  # (width, height): how many; a data set's usual files, and a camera's
PLAIN_SHARE = 5  # the plain side of training views runs on every 5th file
VIEWS = 10
BATCH = 100
ROUNDS = 3
LEAST_RATIO = 1.5  # where there are two cores or more
MOST_CHANGE = 1e-3  # of features, relative

VISION = {"image_size": 224, "patch_size": 32, "width": 64, "layers": 2, "head_width": 32}
TEXT = {"context_length": 8, "vocab_size": 16, "width": 32, "heads": 1, "layers": 1}


def write_photographs(folder: Path, size: tuple[int, int], n: int) -> list[Path]:
    """JPEGs of soft shapes and fine texture, about as large as a camera's of that size."""
    width, height = size
    y, x = np.mgrid[0:1:height * 1j, 0:1:width * 1j]  # fmt: skip
    paths = []
    for number in range(n):
        rng = np.random.default_rng(number)
        waves = [np.sin(2 * np.pi * (a * x + b * y + c)) for a, b, c in rng.uniform(0, 6, (3, 3))]
        grain = rng.normal(0, 12, (height, width, 1))
        pixels = 128 + 70 * np.stack(waves, axis=-1) + grain
        paths.append(folder / f"{width}-{number:03d}.jpg")
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(paths[-1], quality=90)
    return paths


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> ImageFeatures:
    """A small vision transformer at CLIP's usual 224 pixels and with its preprocessing."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = CLIP(32, VISION, TEXT).eval().requires_grad_(False)
    settings = PreprocessCfg(size=224)
    backbone: Any = SimpleNamespace(
        model=model,
        device=torch.device("cpu"),
        tower=SimpleNamespace(dtype=torch.float32),
        image_size=(224, 224),
        preprocess=image_transform_v2(settings, is_train=False),
        preprocessing={"mean": settings.mean, "std": settings.std, "interpolation": "bicubic"},
    )
    return ImageFeatures(backbone, tmp_path_factory.mktemp("cache"))


def ours(features: ImageFeatures, paths: list[Path], view: View, encode: Callable[[Tensor], Tensor]) -> Tensor:
    block = Block(paths, features.hashes.of(paths), view)
    return torch.cat([found for _, found in features.encoder.through(encode, [block])])


def plain_test_views(features: ImageFeatures, paths: list[Path]) -> list[Tensor]:
    """Batches [b, 3, h, w]."""
    preprocess = features.backbone.preprocess
    starts = range(0, len(paths), BATCH)
    return [torch.stack([preprocess(Image.open(p).convert("RGB")) for p in paths[i : i + BATCH]]) for i in starts]


def plain_training_views(features: ImageFeatures, paths: list[Path], digests: list[str] | None = None) -> list[Tensor]:
    """Batches [b, 3, h, w], image by image; with digests, under the seeds that ours documents."""
    recipe = transforms.Compose([
        transforms.RandomResizedCrop(224, (0.08, 1), interpolation=transforms.InterpolationMode.BICUBIC),
        transforms.RandomHorizontalFlip(),
        *features.backbone.preprocess.transforms[-2:],  # type: ignore[attr-defined]
    ])  # fmt: skip
    views = []
    for n, path in enumerate(paths):
        for v in range(VIEWS):
            if digests:
                name = hashlib.blake2b(f"{digests[n]}/1/{v}".encode(), digest_size=8).digest()
                torch.manual_seed(int.from_bytes(name, "big") % 2**63)
            views.append(recipe(Image.open(path).convert("RGB")))
    return [torch.stack(views[i : i + BATCH]) for i in range(0, len(views), BATCH)]


def corner(pixels: Tensor) -> Tensor:
    """An encoder that costs nothing, [b, 3]; all pixels were made before."""
    return pixels[:, :, 0, 0]


def seconds(what: Callable[[], Any]) -> float:
    start = time.perf_counter()
    what()
    return time.perf_counter() - start


@pytest.mark.parametrize("kind", ["test view", "10 training views"])
@pytest.mark.parametrize("size", FILES, ids=lambda size: f"{size[0]}x{size[1]}")
def test_decoding_keeps_up(
    benchmark: Any, features: ImageFeatures, tmp_path: Path, size: tuple[int, int], kind: str
) -> None:
    if benchmark.disabled:
        pytest.skip("timed by make benchmark only")
    paths = write_photographs(tmp_path, size, FILES[size])
    few = paths[::PLAIN_SHARE]
    digests = features.hashes.of(few)  # and the files are in the system's memory
    view = View() if kind == "test view" else View(1, 0, VIEWS)
    if view.seed is None:
        expected, plain_paths, plain = plain_test_views(features, few), paths, plain_test_views
    else:
        expected, plain_paths, plain = plain_training_views(features, few, digests), few, plain_training_views

    pixels = torch.cat(expected)
    got = ours(features, few, view, lambda x: x)
    with torch.no_grad():
        encode = features.backbone.model.encode_image
        a, b = encode(pixels), ours(features, few, view, encode)
    change = ((a - b).norm(dim=-1) / a.norm(dim=-1)).max().item()

    own_times, plain_times = [], []
    for _ in range(ROUNDS):
        plain_times.append(seconds(lambda: plain(features, plain_paths)) / len(plain_paths))
        own_times.append(seconds(lambda: ours(features, paths, view, corner)) / len(paths))
    benchmark.pedantic(ours, (features, paths, view, corner), rounds=1)

    ratio = min(plain_times) / min(own_times)
    figures = {
        "files": f"{len(paths)} JPEGs of {size[0]}x{size[1]}",
        "kilobytes_a_file": sum(path.stat().st_size for path in paths) / len(paths) / 1000,
        "views_an_image": view.last - view.first,
        "plain_images_per_second": 1 / min(plain_times),
        "images_per_second": 1 / min(own_times),
        "ratio": ratio,
        "pixels_equal": torch.equal(got, pixels),
        "largest_relative_change_of_a_feature": change,
        "workers": usable_cores(),
    }
    benchmark.extra_info.update(figures)
    print(
        f"\n{kind}, {figures['files']}: plain {1 / min(plain_times):.1f} images/s, ours {1 / min(own_times):.1f} on "
        f"{usable_cores()} cores, {ratio:.2f} times as many; pixels equal: {figures['pixels_equal']}, "
        f"features change by {change:.1e}"
    )
    store(f"decoding-{size[0]}-{kind.replace(' ', '-')}", figures)
    assert torch.equal(got, pixels)
    assert change < MOST_CHANGE
    if usable_cores() >= 2:
        assert ratio >= LEAST_RATIO
