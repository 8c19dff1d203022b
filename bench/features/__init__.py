"""Image features: the image encoder is frozen, so each view of each image is encoded once, for all.

A *view* is what the encoder sees of an image: the test view (resize, centre crop), or training view v of
seed s, a random resized crop and flip that is a function of (image content, s, v) alone. Features are kept
in blocks, one safetensors file each, whose name is the hash of everything that changes the numbers:
weights, preprocessing, the images' content, the view. Whoever asks for the same block again, in this run or
another, for this method or another, maps the file into memory.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from bench.features.hashes import ImageHashes, Images

if TYPE_CHECKING:
    from bench.features.cache import ImageFeatures
    from bench.features.views import View

__all__ = ["ImageFeatures", "ImageHashes", "Images", "View"]


def __getattr__(name: str) -> Any:
    """What needs torch is imported when first used: looking at image files does without."""
    homes = {"ImageFeatures": "bench.features.cache", "View": "bench.features.views"}
    if name not in homes:
        raise AttributeError(f"module 'bench.features' has no attribute {name!r}")
    return getattr(import_module(homes[name]), name)
