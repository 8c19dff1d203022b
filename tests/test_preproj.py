"""Features before the image tower's projection: the pooled ones follow from them, and one encoding makes both."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from bench.clip.backbone import Backbone, load_backbone
from bench.clip.projection import Projection, encode_before
from bench.errors import UserError
from bench.features import ImageFeatures, View
from bench.features.cache import cache_contents

sys.path.append(str(Path(__file__).parent))
from test_methods_local import TIMM, clip, pictures

pytestmark = pytest.mark.usefixtures("one_thread")

# Image towers, and the width before their projection.
TOWERS: dict[str, tuple[dict[str, Any], int]] = {
    "an attention-pooled ResNet": ({"layers": [1, 1, 1, 1], "width": 8, "patch_size": None}, 8 * 32),
    "a vision transformer": ({"layers": 2, "width": 32, "head_width": 16, "patch_size": 16}, 32),
    "norm after the average": (
        {"layers": 2, "width": 32, "head_width": 16, "patch_size": 16, "pool_type": "avg", "final_ln_after_pool": True},
        32,
    ),
    "lite-clip's": (TIMM["lite-clip's"], 1280),
    "the trunk's own projection": (TIMM["the trunk's own projection"], 512),
    "norm behind the pooling": (TIMM["norm behind the pooling"], 320),
}


@torch.no_grad()
@pytest.mark.parametrize("tower", TOWERS)
def test_pooled_features_are_the_projection_of_those_before_it(tower: str) -> None:
    """Also where the projection has a bias (ResNets, timm's classifiers), and after it has become another."""
    vision, width = TOWERS[tower]
    model = clip(**vision)
    plain = model.encode_image(pictures())
    both = encode_before(model, pictures())
    assert both.shape == (2, width + 24)
    before, pooled = both.split([width, 24], dim=1)
    assert torch.equal(pooled, plain)  # as the tower gives it, to the last bit
    projected = Projection.of(model)(before)
    assert (projected - plain).norm() < 1e-5 * plain.norm()


def test_a_projection_without_bias_has_zeros_and_a_resnet_s_bias_is_its_own() -> None:
    model = clip(**TOWERS["a vision transformer"][0])
    assert not Projection.of(model).bias.any()
    model = clip(**TOWERS["an attention-pooled ResNet"][0])
    assert torch.equal(Projection.of(model).bias, model.visual.attnpool.c_proj.bias)
    assert Projection.of(model).weight.shape == (256, 24)


@pytest.mark.parametrize(
    "vision",
    [
        {"timm_model_name": "resnet10t", "timm_pool": "abs_attn", "timm_proj": ""},
        TIMM["a projection that is not linear"],
    ],
)
def test_a_tower_without_a_linear_projection_is_an_error_that_says_who_has_one(vision: dict[str, Any]) -> None:
    for ask in (lambda: encode_before(clip(**vision), pictures()), lambda: Projection.of(clip(**vision))):
        with pytest.raises(UserError, match=r"ends in no linear projection; methods that learn it \(prolip\) run on"):
            ask()


@pytest.fixture(scope="module")
def backbone(tiny: Any) -> Backbone:
    return load_backbone(tiny.backbone)


def counted(features: ImageFeatures, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The kinds that are encoded from now on."""
    encoded: list[str] = []
    inner = features.encoder.features

    def count(blocks: Any, kind: str, bar: Any = None) -> Any:
        encoded.append(kind)
        return inner(blocks, kind, bar)

    monkeypatch.setattr(features.encoder, "features", count)
    return encoded


@pytest.mark.parametrize("view", [View(), View(1, 0, 3)], ids=["test view", "training views"])
def test_one_encoding_serves_both_kinds(
    tiny: Any, backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, view: View
) -> None:
    images = tiny.images()[:5]
    alone = ImageFeatures(backbone, tmp_path / "alone").get(images, view)
    features = ImageFeatures(backbone, tmp_path / "both")
    encoded = counted(features, monkeypatch)
    before = features.get(images, view, "preproj")
    assert before.shape == (len(view), 5, 256)
    assert features.is_cached(images, view) and torch.equal(features.get(images, view), alone)
    assert torch.equal(features.get(images, view, "preproj"), before)
    assert encoded == ["preproj"]
    assert (backbone.projection(before) - alone).norm() < 1e-5 * alone.norm()
    kinds = sorted(row["what"] for row in cache_contents(tmp_path / "both") if row["backbone"])
    assert kinds == [f"pooled, {view}", f"preproj, {view}"]


def test_pooled_features_that_are_there_stay_as_they_are(tiny: Any, backbone: Backbone, tmp_path: Path) -> None:
    images, features = tiny.images()[:5], ImageFeatures(backbone, tmp_path)
    features.get(images, View())
    (file,) = tmp_path.rglob("*.safetensors")
    there = file.stat()
    features.get(images, View(), "preproj")
    assert (file.stat().st_mtime_ns, file.stat().st_ino) == (there.st_mtime_ns, there.st_ino)
    assert len(list(tmp_path.rglob("*.safetensors"))) == 2
