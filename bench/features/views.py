"""What the encoder sees of an image: the test view and the training views, as pixels."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import Compose, InterpolationMode, Normalize, ToTensor
from torchvision.transforms import functional as TF

from bench.clip.backbone import Backbone

CROP_AREAS = (0.08, 1.0)  # of a training view: share of the image
CROP_SHAPES = (3 / 4, 4 / 3)  # and width over height
CROP_TRIES = 10


@dataclass(frozen=True)
class View:
    """The test view (seed None; as first 1, last 2 its mirror image), or training views first … last-1 of a seed.

    crop : the smallest share of an image that a training view shows.
    """

    seed: int | None = None
    first: int = 0
    last: int = 1
    crop: float = CROP_AREAS[0]

    def __len__(self) -> int:
        return self.last - self.first

    def __str__(self) -> str:
        if self.seed is None:
            return "mirrored test view" if self.first else "test view"
        least = "" if self.crop == CROP_AREAS[0] else f" (crops from {self.crop:g})"
        return f"training views {self.first}-{self.last - 1} of seed {self.seed}{least}"


class Pixels:
    """Views as one backbone's encoder takes them."""

    def __init__(self, backbone: Backbone) -> None:
        self.backbone = backbone
        self._resize, self._normalise = _split(backbone)

    def room(self, n: int, view: View) -> Tensor:
        """Where the pixels of n images go: bytes [n, views, h, w, 3], or floats [n, 1, 3, h, w] as preprocessed."""
        h, w = self.backbone.image_size
        if view.seed is None and self._resize is None:
            return torch.empty(n, 1, 3, h, w)
        return torch.empty(n, len(view), h, w, 3, dtype=torch.uint8)

    def fill(self, image: Image.Image, digest: str, view: View, out: Tensor) -> None:
        """Make the views of one image, its part of `room`. digest : of the image file's bytes."""
        if view.seed is None:
            test = self.backbone.preprocess(image) if self._resize is None else _bytes(self._resize(image))
            across = -1 if self._resize is None else 1  # [3, h, w] or [h, w, 3]
            out[0] = test.flip(across) if view.first else test
            return
        h, w = self.backbone.image_size
        mode = InterpolationMode(self.backbone.preprocessing.get("interpolation", "bicubic"))
        for room, v in zip(out, range(view.first, view.last), strict=True):
            (top, left, height, width), flip = draw_view(image, digest, view.seed, v, view.crop)
            crop = TF.resized_crop(image, top, left, height, width, [h, w], mode)
            room[:] = _bytes(TF.hflip(crop) if flip else crop)

    def input(self, pixels: Tensor, view: View) -> Tensor:
        """What the encoder gets, [n, 3, h, w], of a part of `room`.

        Channels are innermost in memory for training views and outermost for the test view. Convolutions of the
        two layouts differ in their last bits, and features that users keep were computed with these.
        """
        if pixels.is_floating_point():
            return pixels.to(self.backbone.tower.dtype)
        layout = torch.contiguous_format if view.seed is None else torch.channels_last
        x = pixels.permute(0, 3, 1, 2).to(torch.float32, memory_format=layout).div_(255)
        mean, std = (torch.as_tensor(v, dtype=x.dtype, device=x.device).view(-1, 1, 1) for v in self._normalise)
        return x.sub_(mean).div_(std).to(self.backbone.tower.dtype)


def _bytes(image: Image.Image) -> Tensor:
    """uint8 [h, w, 3]."""
    return torch.from_numpy(np.array(image))


def _split(backbone: Backbone) -> tuple[Compose | None, tuple[Any, Any]]:
    """The test view's steps that make an image of an image, and (mean, std): the rest is done for a batch at once.

    No steps where the preprocessing does not end, as open_clip's does, in "to tensor, normalise".
    """
    steps = getattr(backbone.preprocess, "transforms", [])
    if len(steps) > 2 and isinstance(steps[-2], ToTensor) and isinstance(steps[-1], Normalize):
        return Compose(steps[:-2]), (steps[-1].mean, steps[-1].std)
    return None, (backbone.preprocessing["mean"], backbone.preprocessing["std"])


def draw_view(
    image: Image.Image, digest: str, seed: int, v: int, least: float = CROP_AREAS[0]
) -> tuple[tuple[int, int, int, int], bool]:
    """Crop (top, left, height, width) and flip of training view v: the recipe's distribution, always the same draw.

    least : the smallest share of the image that is drawn.

    The draws are those of torchvision's RandomResizedCrop and RandomHorizontalFlip under this seed. They are written
    out because torchvision's come from the one generator of the process, which the workers would queue for.
    """
    number = int.from_bytes(hashlib.blake2b(f"{digest}/{seed}/{v}".encode(), digest_size=8).digest(), "big")
    rng = torch.Generator()
    rng.manual_seed(number % 2**63)
    crop = _draw_crop(*image.size, least, rng)
    return crop, bool(torch.rand(1, generator=rng) < 0.5)


def _draw_crop(width: int, height: int, least: float, rng: torch.Generator) -> tuple[int, int, int, int]:
    """As `RandomResizedCrop.get_params`: area and shape are drawn until they fit, ten times at most."""
    low, high = torch.log(torch.tensor(CROP_SHAPES)).tolist()
    for _ in range(CROP_TRIES):
        area = width * height * torch.empty(1).uniform_(least, CROP_AREAS[1], generator=rng).item()
        shape = torch.exp(torch.empty(1).uniform_(low, high, generator=rng)).item()
        w, h = round(math.sqrt(area * shape)), round(math.sqrt(area / shape))
        if 0 < w <= width and 0 < h <= height:
            top = torch.randint(height - h + 1, (1,), generator=rng).item()
            left = torch.randint(width - w + 1, (1,), generator=rng).item()
            return int(top), int(left), h, w
    w, h = width, height  # none fits: the middle, cut to the nearest shape allowed
    if width / height < CROP_SHAPES[0]:
        h = round(width / CROP_SHAPES[0])
    elif width / height > CROP_SHAPES[1]:
        w = round(height * CROP_SHAPES[1])
    return (height - h) // 2, (width - w) // 2, h, w
