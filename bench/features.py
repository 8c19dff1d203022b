"""Image features: the image encoder is frozen, so each view of each image is encoded once, for all.

A *view* is what the encoder sees of an image: the test view (resize, centre crop), or training view v of
seed s, a random resized crop and flip that is a function of (image content, s, v) alone. Features are kept
in blocks, one safetensors file each, whose name is the hash of everything that changes the numbers:
weights, preprocessing, the images' content, the view. Whoever asks for the same block again, in this run or
another, for this method or another, maps the file into memory.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import pairwise, repeat
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from torchvision.transforms import Compose, InterpolationMode, Normalize, ToTensor
from torchvision.transforms import functional as TF

from bench.clip.backbone import Backbone
from bench.clip.patches import encode_local
from bench.datasets.cache_paths import cache_folder
from bench.datasets.images import open_image
from bench.errors import UserError
from bench.files import write_whole
from bench.hashes import HASHES, Bar, ImageHashes, named, usable_cores
from bench.numerics import FEATURES, unconfirmed
from bench.progress import bar as progress_bar

FORMAT = 1  # raised when the same key would stand for other numbers
VIEWS_PER_BLOCK = 10  # training views are kept in blocks of so many: 50 views reuse what 10 views left
IMAGES_PER_BLOCK = 2048  # a kill loses at most one block
CROPS_PER_BATCH = 256
CROP_AREAS = (0.08, 1.0)  # of a training view: share of the image
CROP_SHAPES = (3 / 4, 4 / 3)  # and width over height
CROP_TRIES = 10
PIXELS_ON_CPU = 1 << 19  # encoded at a time: larger activations cost more in page faults than batches save
BATCHES_AHEAD = 2  # decoded while one is encoded: with only one, cores would wait for the last image of each

@dataclass(frozen=True)
class View:
    """The test view (seed None), or training views first … last-1 of a seed."""

    seed: int | None = None
    first: int = 0
    last: int = 1


class ImageFeatures:
    """Features of image files under one backbone, from the cache or newly encoded.

    Parameters
    ----------
    backbone : encodes what the cache lacks.
    folder : the cache, default `cache_folder()`.
    """

    def __init__(self, backbone: Backbone, folder: Path | None = None) -> None:
        self.backbone = backbone
        self.folder = (folder.expanduser() if folder else cache_folder()) / "features"
        self.hashes = ImageHashes(self.folder)
        edit = unconfirmed(FEATURES)  # features made by other code are never read
        self._format = f"{FORMAT}{edit}" if edit else FORMAT
        self._resize, self._normalise = _split(backbone)

    def get(self, paths: Sequence[Path], view: View, kind: str = "pooled", bar: Bar | None = None) -> Tensor:
        """Features [views, n, d] ("pooled") or [views, n, P, d] ("local"), raw (not normalised), float32, from disk."""
        if not paths:
            return torch.zeros(view.last - view.first, 0, self.backbone.embed_dim)
        rows = []
        for part in _view_blocks(view):
            columns = list(self.blocks(paths, part, kind, bar))
            rows.append(columns[0] if len(columns) == 1 else torch.cat(columns, dim=1))
        return rows[0] if len(rows) == 1 else torch.cat(rows)

    def blocks(
        self, paths: Sequence[Path], view: View, kind: str = "pooled", bar: Bar | None = None
    ) -> Iterator[Tensor]:
        """`get` in blocks of images, [views, n, …] each, mapped into memory; of at most VIEWS_PER_BLOCK views."""
        digests = self.hashes.of(paths)
        for i in range(0, len(paths), IMAGES_PER_BLOCK):
            part = slice(i, i + IMAGES_PER_BLOCK)
            yield self._block(paths[part], digests[part], view, kind, bar)

    @contextlib.contextmanager
    def naming_broken(self, paths: Sequence[Path], hide: bool | None = None) -> Iterator[None]:
        """Where an image cannot be decoded, look at all of `paths` and name every broken one, not only the first.

        hide : the progress bar, as in `bench.progress.bar`.
        """
        try:
            yield
        except UserError as error:
            with progress_bar("  looking for more broken images", len(paths), "image", hide) as shown:
                faults = self.hashes.broken(paths, shown.update, decode=True)
            if len(faults) > 1:
                raise UserError(f"{len(faults)} images cannot be read: {named(faults)}") from error
            raise

    def is_cached(self, paths: Sequence[Path], view: View, kind: str = "pooled") -> bool:
        """Whether every block that `get` would read is there."""
        digests = self.hashes.of(paths)
        return all(
            self._path(digests[i : i + IMAGES_PER_BLOCK], part, kind).is_file()
            for part in _view_blocks(view)
            for i in range(0, len(paths), IMAGES_PER_BLOCK)
        )

    def _path(self, digests: Sequence[str], view: View, kind: str) -> Path:
        key = [self._format, kind, self.backbone.weights, view.seed, view.first, view.last, list(digests)]
        name = hashlib.blake2b(json.dumps(key).encode(), digest_size=16).hexdigest()
        backbone = f"{self.backbone.name.replace('/', '_')}-{self.backbone.weights[:8]}"
        return self.folder / backbone / f"{name}.safetensors"

    def _block(
        self, paths: Sequence[Path], digests: Sequence[str], view: View, kind: str, bar: Bar | None
    ) -> Tensor:
        path = self._path(digests, view, kind)
        known = _read(path)
        if known is not None and known.shape[:2] == (view.last - view.first, len(paths)):
            if bar:
                bar(known.shape[0] * known.shape[1])
            return known
        features = torch.cat(list(self._encode(paths, digests, view, kind, bar)), dim=1)
        shown = "test view" if view.seed is None else f"training views {view.first}-{view.last - 1} of seed {view.seed}"
        _write(path, features, {"what": f"{kind}, {shown}"})
        mapped = _read(path)
        return features if mapped is None else mapped

    def _encode(
        self, paths: Sequence[Path], digests: Sequence[str], view: View, kind: str, bar: Bar | None
    ) -> Iterator[Tensor]:
        """[views, images of a batch, (P,) d], batch by batch."""
        model, n_views = self.backbone.model, view.last - view.first
        encode = partial(encode_local, model) if kind == "local" else model.encode_image
        for features in self.through(encode, paths, digests, view):
            yield features.unflatten(0, (-1, n_views)).transpose(0, 1).contiguous()
            if bar:
                bar(len(features))

    def through(
        self, encode: Callable[[Tensor], Tensor], paths: Sequence[Path], digests: Sequence[str], view: View
    ) -> Iterator[Tensor]:
        """What `encode` makes of all views, batch by batch: [images of a batch · views, …], float32, on the CPU.

        Each core has a worker. It decodes images and makes their views, ahead of what is encoded; without a GPU
        it also runs `encode`, each time on a few views and on one thread. So no core waits for another within an
        operation, and the numbers do not depend on how many there are.
        """
        n_views, (h, w), device = view.last - view.first, self.backbone.image_size, self.backbone.device
        per_batch = max(1, CROPS_PER_BATCH // n_views)
        batches = [slice(i, i + per_batch) for i in range(0, len(paths), per_batch)]
        on_cpu = device.type == "cpu"
        at_once = max(1, PIXELS_ON_CPU // (h * w)) if on_cpu else CROPS_PER_BATCH

        def encoded(part: Tensor) -> Tensor:
            with torch.no_grad():  # holds for the thread that says it
                return encode(self._input(part.to(device), view)).float().cpu()

        with _workers() as pool:

            def load(batch: slice) -> tuple[Tensor, Iterator[None]]:
                pixels = self._room(len(paths[batch]), view)
                return pixels, pool.map(self._views, paths[batch], digests[batch], repeat(view), pixels)

            ahead = deque(load(batch) for batch in batches[:BATCHES_AHEAD])
            for k in range(len(batches)):
                pixels, loading = ahead.popleft()
                list(loading)  # waits
                parts = pixels.flatten(0, 1).split(at_once)
                features = pool.map(encoded, parts) if on_cpu else map(encoded, parts)
                if k + BATCHES_AHEAD < len(batches):
                    ahead.append(load(batches[k + BATCHES_AHEAD]))
                yield torch.cat(list(features))

    def _room(self, n: int, view: View) -> Tensor:
        """Where the pixels of n images go: bytes [n, views, h, w, 3], or floats [n, 1, 3, h, w] as preprocessed."""
        h, w = self.backbone.image_size
        if view.seed is None and self._resize is None:
            return torch.empty(n, 1, 3, h, w)
        return torch.empty(n, view.last - view.first, h, w, 3, dtype=torch.uint8)

    def _views(self, path: Path, digest: str, view: View, out: Tensor) -> None:
        """Fill one image's part of `_room`; the file is read and decoded once."""
        image = open_image(path)
        if view.seed is None:
            test = self.backbone.preprocess(image) if self._resize is None else _bytes(self._resize(image))
            out[0] = test
            return
        h, w = self.backbone.image_size
        mode = InterpolationMode(self.backbone.preprocessing.get("interpolation", "bicubic"))
        for room, v in zip(out, range(view.first, view.last), strict=True):
            (top, left, height, width), flip = _draw_view(image, digest, view.seed, v)
            crop = TF.resized_crop(image, top, left, height, width, [h, w], mode)
            room[:] = _bytes(TF.hflip(crop) if flip else crop)

    def _input(self, pixels: Tensor, view: View) -> Tensor:
        """What the encoder gets, [n, 3, h, w], of a part of `_room`.

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


@contextlib.contextmanager
def _workers() -> Iterator[ThreadPoolExecutor]:
    """A thread for each core, each with torch to itself; what is still queued is dropped when something fails."""
    before = torch.get_num_threads()
    pool = ThreadPoolExecutor(usable_cores(), initializer=torch.set_num_threads, initargs=(1,))
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(before)  # a thread's own number is also that of threads that start later


def _view_blocks(view: View) -> list[View]:
    edges = [*range(view.first, view.last, VIEWS_PER_BLOCK), view.last]
    return [View(view.seed, a, b) for a, b in pairwise(edges)]


def _draw_view(image: Image.Image, digest: str, seed: int, v: int) -> tuple[tuple[int, int, int, int], bool]:
    """Crop (top, left, height, width) and flip of training view v: the recipe's distribution, always the same draw.

    The draws are those of torchvision's RandomResizedCrop and RandomHorizontalFlip under this seed. They are written
    out because torchvision's come from the one generator of the process, which the workers would queue for.
    """
    number = int.from_bytes(hashlib.blake2b(f"{digest}/{seed}/{v}".encode(), digest_size=8).digest(), "big")
    rng = torch.Generator()
    rng.manual_seed(number % 2**63)
    crop = _draw_crop(*image.size, rng)
    return crop, bool(torch.rand(1, generator=rng) < 0.5)


def _draw_crop(width: int, height: int, rng: torch.Generator) -> tuple[int, int, int, int]:
    """As `RandomResizedCrop.get_params`: area and shape are drawn until they fit, ten times at most."""
    low, high = torch.log(torch.tensor(CROP_SHAPES)).tolist()
    for _ in range(CROP_TRIES):
        area = width * height * torch.empty(1).uniform_(*CROP_AREAS, generator=rng).item()
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


def _read(path: Path) -> Tensor | None:
    """The block in a file, memory-mapped; None when it is missing or damaged (then it is made again)."""
    try:
        with safe_open(str(path), framework="pt") as file:
            return file.get_tensor("features")
    except (OSError, SafetensorError):
        return None


def _write(path: Path, features: Tensor, metadata: dict[str, str]) -> None:
    """Another process may have written the same numbers meanwhile: either file will do."""
    write_whole(path, lambda part: save_file({"features": features.contiguous()}, str(part), metadata=metadata))


def cache_contents(folder: Path | None = None) -> list[dict[str, Any]]:
    """One row a cached file: backbone, what, megabytes, file."""
    rows = []
    for path in _cache_files(folder or cache_folder()):
        backbone, what = "", "rendered demo images"
        if path.name.startswith(HASHES):
            what = "hashes of image files"
        elif path.suffix == ".part":
            what = "left by a stopped run"
        elif path.parent.name == "backbones":
            what = "where backbones of files stand"
        elif path.suffix == ".safetensors":
            backbone, what = path.parent.name, _shown(path)
        with contextlib.suppress(FileNotFoundError):  # another process was faster
            rows.append({"backbone": backbone, "what": what, "MB": path.stat().st_size / 1e6, "file": path.name})
    return rows


def _shown(block: Path) -> str:
    try:
        with safe_open(str(block), framework="pt") as file:
            return (file.metadata() or {}).get("what", "?")
    except (OSError, SafetensorError):
        return "damaged; will be made again"


def _cache_files(root: Path) -> list[Path]:
    """The files that the bench keeps below a folder, and nothing else that may stand there."""
    patterns = ["features/*/*.safetensors", "features/*/.*.part", f"features/{HASHES}*"]
    patterns += ["backbones/*.json", "backbones/.*.part"]
    patterns += ["demo/demo-*[0-9]/**/*", "demo/.demo-*[0-9]-*/**/*"]  # of every version; drafts of killed runs
    return sorted(path for pattern in patterns for path in root.glob(pattern) if path.is_file())


def clear_cache(folder: Path | None = None) -> int:
    """Delete cached features and demo images, and nothing else; returns the bytes freed."""
    root = folder or cache_folder()
    freed = 0
    for path in _cache_files(root):
        with contextlib.suppress(FileNotFoundError):
            freed += path.stat().st_size
            path.unlink()
    for name in ("features", "demo", "backbones"):
        for empty in sorted([root / name, *root.glob(f"{name}/**/")], reverse=True):  # the deepest first
            with contextlib.suppress(OSError):  # foreign files keep their folders
                empty.rmdir()
    return freed
