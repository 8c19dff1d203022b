"""Encoding images: cores decode and make views ahead of the encoder, batch by batch."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice, repeat
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


@dataclass(frozen=True)
class Block:
    """One view, or several, of images whose features stand in one file. digests : of the files' bytes."""

    paths: Sequence[Path]
    digests: Sequence[str]
    view: View

    def __len__(self) -> int:
        return len(self.view) * len(self.paths)


class Encoder:
    """A backbone's image encoder, on views of image files."""

    def __init__(self, backbone: Backbone) -> None:
        self.backbone = backbone
        self._pixels = Pixels(backbone)

    def features(
        self, blocks: Iterable[Block], kind: str, bar: Bar | None = None
    ) -> Iterator[tuple[Block, Tensor]]:
        """Each block's [views, n, d] ("pooled"), [views, n, P, d] ("local") or [views, n, c + d] ("preproj": with the
        pooled ones behind them), float32, on the CPU."""
        model = self.backbone.model
        own = {"local": partial(encode_local, model), "preproj": partial(encode_before, model)}
        encode = own.get(kind, model.encode_image)
        batches: list[Tensor] = []
        for block, features in self.through(encode, blocks):
            batches.append(features.unflatten(0, (-1, len(block.view))).transpose(0, 1).contiguous())
            if bar:
                bar(len(features))
            if sum(batch.shape[1] for batch in batches) == len(block.paths):
                yield block, torch.cat(batches, dim=1)
                batches = []

    def through(self, encode: Callable[[Tensor], Tensor], blocks: Iterable[Block]) -> Iterator[tuple[Block, Tensor]]:
        """What `encode` makes of all views, batch by batch: the block, [images of a batch · views, …], float32, on the
        CPU. A batch is of one block, so what a block holds does not depend on those beside it.

        Each core has a worker. It decodes images and makes their views, ahead of what is encoded, also those of the
        next block; without a GPU it also runs `encode`, each time on a few views and on one thread. So no core waits
        for another within an operation, and the numbers do not depend on how many there are.

        Raises
        ------
        ImageChanged : a file's bytes are not those of its digest. UserError : it is no image.
        """
        (h, w), device = self.backbone.image_size, self.backbone.device
        on_cpu = device.type == "cpu"
        at_once = max(1, PIXELS_ON_CPU // (h * w)) if on_cpu else CROPS_PER_BATCH
        batches = (
            (block, slice(i, i + n))
            for block in blocks
            for n in [max(1, CROPS_PER_BATCH // len(block.view))]
            for i in range(0, len(block.paths), n)
        )
        ahead: deque[tuple[Block, Tensor, Iterator[None]]] = deque()

        def encoded(part: Tensor, view: View) -> Tensor:
            with torch.no_grad():  # holds for the thread that says it
                return encode(self._pixels.input(part.to(device), view)).float().cpu()

        def fitted(part: Tensor, view: View) -> Tensor:
            pieces = in_halves(partial(encoded, view=view), part, "views of images")
            return pieces[0] if len(pieces) == 1 else torch.cat(pieces)

        with _workers() as pool:

            def load(n: int) -> None:
                for block, part in islice(batches, n):
                    paths, digests = block.paths[part], block.digests[part]
                    pixels = self._pixels.room(len(paths), block.view)
                    ahead.append((block, pixels, pool.map(self._load, paths, digests, repeat(block.view), pixels)))

            load(BATCHES_AHEAD)
            while ahead:
                block, pixels, loading = ahead.popleft()
                list(loading)  # waits
                parts = pixels.flatten(0, 1).split(at_once)
                features = (pool.map if on_cpu else map)(fitted, parts, repeat(block.view))
                load(1)
                yield block, torch.cat(list(features))

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
