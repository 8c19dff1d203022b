"""Encoding images: cores decode and make views ahead of the encoder, batch by batch."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import repeat
from pathlib import Path

import torch
from torch import Tensor

from bench.clip.backbone import Backbone
from bench.clip.patches import encode_local
from bench.clip.projection import encode_before
from bench.datasets.images import open_image
from bench.features.hashes import Bar, ImageChanged, content_digest, usable_cores
from bench.features.views import Pixels, View
from bench.limits import in_halves

CROPS_PER_BATCH = 256
PIXELS_ON_CPU = 1 << 19  # encoded at a time: larger activations cost more in page faults than batches save
BATCHES_AHEAD = 2  # decoded while one is encoded: with only one, cores would wait for the last image of each


class Encoder:
    """A backbone's image encoder, on views of image files."""

    def __init__(self, backbone: Backbone) -> None:
        self.backbone = backbone
        self._pixels = Pixels(backbone)

    def features(
        self, paths: Sequence[Path], digests: Sequence[str], view: View, kind: str, bar: Bar | None = None
    ) -> Tensor:
        """[views, n, d] ("pooled"), [views, n, P, d] ("local") or [views, n, c + d] ("preproj": with the pooled ones
        behind them), float32, on the CPU."""
        model = self.backbone.model
        own = {"local": partial(encode_local, model), "preproj": partial(encode_before, model)}
        encode = own.get(kind, model.encode_image)
        batches = []
        for features in self.through(encode, paths, digests, view):
            batches.append(features.unflatten(0, (-1, len(view))).transpose(0, 1).contiguous())
            if bar:
                bar(len(features))
        return torch.cat(batches, dim=1)

    def through(
        self, encode: Callable[[Tensor], Tensor], paths: Sequence[Path], digests: Sequence[str], view: View
    ) -> Iterator[Tensor]:
        """What `encode` makes of all views, batch by batch: [images of a batch · views, …], float32, on the CPU.

        Each core has a worker. It decodes images and makes their views, ahead of what is encoded; without a GPU
        it also runs `encode`, each time on a few views and on one thread. So no core waits for another within an
        operation, and the numbers do not depend on how many there are.

        Raises
        ------
        ImageChanged : a file's bytes are not those of its digest. UserError : it is no image.
        """
        (h, w), device = self.backbone.image_size, self.backbone.device
        per_batch = max(1, CROPS_PER_BATCH // len(view))
        batches = [slice(i, i + per_batch) for i in range(0, len(paths), per_batch)]
        on_cpu = device.type == "cpu"
        at_once = max(1, PIXELS_ON_CPU // (h * w)) if on_cpu else CROPS_PER_BATCH

        def encoded(part: Tensor) -> Tensor:
            with torch.no_grad():  # holds for the thread that says it
                return encode(self._pixels.input(part.to(device), view)).float().cpu()

        def fitted(part: Tensor) -> Tensor:
            pieces = in_halves(encoded, part, "views of images")
            return pieces[0] if len(pieces) == 1 else torch.cat(pieces)

        with _workers() as pool:

            def load(batch: slice) -> tuple[Tensor, Iterator[None]]:
                pixels = self._pixels.room(len(paths[batch]), view)
                return pixels, pool.map(self._load, paths[batch], digests[batch], repeat(view), pixels)

            ahead = deque(load(batch) for batch in batches[:BATCHES_AHEAD])
            for k in range(len(batches)):
                pixels, loading = ahead.popleft()
                list(loading)  # waits
                parts = pixels.flatten(0, 1).split(at_once)
                features = pool.map(fitted, parts) if on_cpu else map(fitted, parts)
                if k + BATCHES_AHEAD < len(batches):
                    ahead.append(load(batches[k + BATCHES_AHEAD]))
                yield torch.cat(list(features))

    def _load(self, path: Path, digest: str, view: View, out: Tensor) -> None:
        """Fill one image's part of the pixels. The file is read once: digest and pixels are of the same bytes."""
        try:
            data = path.read_bytes()
        except OSError:
            open_image(path)  # says what is wrong
            raise
        if content_digest(data) != digest:
            raise ImageChanged(path)
        self._pixels.fill(open_image(path, data), digest, view, out)


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
