"""The cache of features: blocks in files, how they are found again, read, written, listed and cleared."""

from __future__ import annotations

import contextlib
import hashlib
import json
import zlib
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from bench.claims import CLAIMS
from bench.clip.backbone import Backbone
from bench.datasets.cache_paths import cache_folder
from bench.errors import UserError
from bench.features.encode import Block, Encoder
from bench.features.hashes import HASHES, Bar, ImageChanged, ImageHashes, Images, named
from bench.features.views import View
from bench.files import write_whole
from bench.numerics import FEATURES, unconfirmed
from bench.progress import bar as progress_bar

FORMAT = 1  # raised when the same key would stand for other numbers
VIEWS_PER_BLOCK = 10  # training views are kept in blocks of so many: 50 views reuse what 10 views left
IMAGES_PER_BLOCK = 2048  # a kill loses at most one block
CHUNK = 1 << 22  # bytes of a block that are checked at a time

# The files that the bench keeps below the cache folder, and nothing else that may stand there.
_DATA = f"splits/*-{'[0-9a-f]' * 16}"  # of folders of data that cannot be written
_OWN = {
    "features": ["features/*/*.safetensors"],
    "hashes of image files": [f"features/{HASHES}*"],
    "where backbones of files stand": ["backbones/*.json"],
    "rendered demo images": [  # of every version; drafts
        *("demo/demo-*[0-9]/**/*", "demo/.demo-*.draft/**/*", "demo/.demo-*[0-9]-*/**/*", "demo/.fetch.lock"),
    ],
    "divisions of images": [f"{_DATA}/split_bench_*.json"],
    "fetched images": [f"{_DATA}/files-*/**/*", f"{_DATA}/.files-*.draft/**/*", f"{_DATA}/.fetch.lock"],
    "left by a stopped run": ["features/*/.*.part", "features/*/*.claim", "features/*/.claims.lock",
                              "backbones/.*.part", f"{_DATA}/.split_bench_*.part"],
}


class ImageFeatures:
    """Features of image files under one backbone, from the cache or newly encoded.

    Wherever images are asked for, they are given as paths, or as `Images`, whose content is known.

    Parameters
    ----------
    backbone : encodes what the cache lacks.
    folder : the cache, default `cache_folder()`.
    """

    def __init__(self, backbone: Backbone, folder: Path | None = None) -> None:
        self.backbone = backbone
        self.folder = (folder.expanduser() if folder else cache_folder()) / "features"
        self.hashes = ImageHashes(self.folder)
        self.encoder = Encoder(backbone)
        edit = unconfirmed(FEATURES)  # features made by other code are never read
        self._format = f"{FORMAT}{edit}" if edit else FORMAT
        self._checked: dict[Path, tuple[int, int]] = {}  # blocks whose checksum this process has seen to be right

    def get(self, images: Images | Sequence[Path], view: View, kind: str = "pooled") -> Tensor:
        """Features [views, n, d] ("pooled"), [views, n, P, d] ("local") or [views, n, c] ("preproj": before the image
        tower's projection), raw (not normalised), float32, from disk."""
        if not len(images):
            return torch.zeros(len(view), 0, self.backbone.embed_dim)
        rows = []
        for part in _view_blocks(view):
            columns = list(self.blocks(images, part, kind))
            rows.append(columns[0] if len(columns) == 1 else torch.cat(columns, dim=1))
        return rows[0] if len(rows) == 1 else torch.cat(rows)

    def blocks(self, images: Images | Sequence[Path], view: View, kind: str = "pooled") -> Iterator[Tensor]:
        """`get` in blocks of images, [views, n, …] each, mapped into memory; of at most VIEWS_PER_BLOCK views."""
        for block in self._cut(images, view):
            yield self._block(block, kind)

    def missing(
        self, wanted: Iterable[tuple[Images | Sequence[Path], View]], kind: str = "pooled"
    ) -> list[Block]:
        """The blocks that `get` would have to encode for these."""
        blocks = [
            block for images, view in wanted for part in _view_blocks(view) for block in self._cut(images, part)
        ]
        return [block for block in blocks if not self._path(block, kind).is_file()]

    def make(self, blocks: Iterable[Block], kind: str = "pooled", bar: Bar | None = None) -> None:
        """Encode blocks, all in one go, so that cores need not wait at the end of each, and keep each as soon as it is
        made. One that another process encodes just now is left to it: `get` waits for it."""
        held: deque[contextlib.ExitStack] = deque()

        def claimed() -> Iterator[Block]:
            for block in blocks:
                path = self._path(block, kind)
                with contextlib.ExitStack() as claim:
                    (own,) = claim.enter_context(CLAIMS.taking([path.with_suffix(".claim")]))
                    if own and self._of_shape(path, block) is None:
                        held.append(claim.pop_all())
                        yield block

        try:
            for block, features in self._encode(claimed(), kind, bar):
                self._keep(block, kind, features)
                held.popleft().close()
        finally:
            for claim in held:
                claim.close()

    def is_cached(self, images: Images | Sequence[Path], view: View, kind: str = "pooled") -> bool:
        """Whether every block that `get` would read is there."""
        return not self.missing([(images, view)], kind)

    @contextlib.contextmanager
    def naming_broken(self, paths: Sequence[Path], hide: bool | None = None) -> Iterator[None]:
        """Where an image cannot be decoded, look at all of `paths` and name every broken one, not only the first.

        hide : the progress bar, as in `bench.progress.bar`.
        """
        try:
            yield
        except ImageChanged:
            raise
        except UserError as error:
            with progress_bar("  looking for more broken images", len(paths), "image", hide) as shown:
                faults = self.hashes.broken(paths, shown.update, decode=True)
            if len(faults) > 1:
                raise UserError(f"{len(faults)} images cannot be read: {named(faults)}") from error
            raise

    def _cut(self, images: Images | Sequence[Path], view: View) -> Iterator[Block]:
        if isinstance(images, Images):
            paths, digests = images.paths, images.digests
        else:
            paths, digests = list(images), tuple(self.hashes.of(images))
        for i in range(0, len(paths), IMAGES_PER_BLOCK):
            part = slice(i, i + IMAGES_PER_BLOCK)
            yield Block(paths[part], digests[part], view)

    def _path(self, block: Block, kind: str) -> Path:
        view = block.view
        key = [self._format, kind, self.backbone.weights, view.seed, view.first, view.last, list(block.digests)]
        crop = [] if view.crop == View.crop else [view.crop]  # blocks from before there were others are found
        name = hashlib.blake2b(json.dumps([*key, *crop]).encode(), digest_size=16).hexdigest()
        backbone = f"{self.backbone.name.replace('/', '_')}-{self.backbone.weights[:8]}"
        return self.folder / backbone / f"{name}.safetensors"

    def _block(self, block: Block, kind: str) -> Tensor:
        path = self._path(block, kind)
        found = self._of_shape(path, block)
        if found is None:
            with CLAIMS.waiting(path.with_suffix(".claim")):  # what another process encodes just now is waited for
                found = self._of_shape(path, block)
                if found is None:
                    ((_, features),) = self._encode([block], kind)
                    found = self._keep(block, kind, features)
        return found

    def _encode(self, blocks: Iterable[Block], kind: str, bar: Bar | None = None) -> Iterator[tuple[Block, Tensor]]:
        try:
            yield from self.encoder.features(blocks, kind, bar)
        except ImageChanged as changed:
            self.hashes.forget(changed.path)  # size and times may be the old ones
            raise

    def _keep(self, block: Block, kind: str, features: Tensor) -> Tensor:
        """Write a block's features; they come back as they are mapped."""
        path = self._path(block, kind)
        if kind == "preproj":  # the pooled ones come with them: whoever asks for these encodes nothing
            features, pooled = features.split([features.shape[2] - self.backbone.embed_dim, self.backbone.embed_dim], 2)
            beside = self._path(block, "pooled")
            if self._read(beside) is None:
                write_block(beside, pooled, f"pooled, {block.view}")
        write_block(path, features, f"{kind}, {block.view}")
        mapped = self._read(path)
        return features if mapped is None else mapped

    def _of_shape(self, path: Path, wanted: Block) -> Tensor | None:
        block = self._read(path)
        return block if block is not None and block.shape[:2] == (len(wanted.view), len(wanted.paths)) else None

    def _read(self, path: Path) -> Tensor | None:
        """A block, whose checksum is computed once for each state of its file."""
        try:
            stat = path.stat()
        except OSError:
            return None
        state = stat.st_mtime_ns, stat.st_ctime_ns
        block = read_block(path, check=self._checked.get(path) != state)
        if block is not None:
            self._checked[path] = state
        return block


def _view_blocks(view: View) -> list[View]:
    edges = [*range(view.first, view.last, VIEWS_PER_BLOCK), view.last]
    return [replace(view, first=a, last=b) for a, b in pairwise(edges)]


def read_block(path: Path, check: bool = True) -> Tensor | None:
    """The block in a file, memory-mapped; None when it is missing or damaged (then it is made again).

    check : compare the checksum, where there is one (blocks of older versions have none). The file is read for it, not
        the mapped tensor, so that its pages do not count as this process's memory.
    """
    try:
        with safe_open(str(path), framework="pt") as file:
            block, metadata = file.get_tensor("features"), file.metadata() or {}
        if check and "checksum" in metadata and metadata["checksum"] != _checksum(block, _content(path)):
            return None
    except (OSError, SafetensorError, ValueError):
        return None
    return block


def write_block(path: Path, features: Tensor, what: str) -> None:
    """Another process may have written the same numbers meanwhile: either file will do."""
    features = features.contiguous()
    metadata = {"what": what, "checksum": _checksum(features, [features.flatten().view(torch.uint8).numpy().data])}
    write_whole(path, lambda part: save_file({"features": features}, str(part), metadata=metadata))


def _checksum(block: Tensor, content: Iterable[bytes | memoryview]) -> str:
    """CRC-32 of a block's type, shape and bytes: finds every flipped bit, and keeps up with a fast disk."""
    total = zlib.crc32(f"{block.dtype} {tuple(block.shape)}".encode())
    for part in content:
        total = zlib.crc32(part, total)
    return f"{total:08x}"


def _content(path: Path) -> Iterator[bytes]:
    """A safetensors file's numbers, behind its header."""
    with path.open("rb") as file:
        file.seek(int.from_bytes(file.read(8), "little"), 1)
        while part := file.read(CHUNK):
            yield part


def cache_contents(folder: Path | None = None) -> list[dict[str, Any]]:
    """One row a cached file: backbone, what, megabytes, file."""
    rows = []
    for path, what in _own_files(folder or cache_folder()).items():
        block = what == "features"
        with contextlib.suppress(FileNotFoundError):  # another process was faster
            rows.append({
                "backbone": path.parent.name if block else "",
                "what": _described(path) if block else what,
                "MB": path.stat().st_size / 1e6,
                "file": path.name,
            })  # fmt: skip
    return rows


def clear_cache(folder: Path | None = None) -> int:
    """Delete what `cache_contents` lists, and nothing else; returns the bytes freed."""
    root = folder or cache_folder()
    freed = 0
    for path in _own_files(root):
        with contextlib.suppress(FileNotFoundError):
            freed += path.stat().st_size
            path.unlink()
    for name in ("features", "demo", "backbones", "splits"):
        for empty in sorted([root / name, *root.glob(f"{name}/**/")], reverse=True):  # the deepest first
            with contextlib.suppress(OSError):  # foreign files keep their folders
                empty.rmdir()
    return freed


def _own_files(root: Path) -> dict[Path, str]:
    found = {path: what for what, patterns in _OWN.items() for pattern in patterns for path in root.glob(pattern)}
    return {path: found[path] for path in sorted(found) if path.is_file()}


def _described(block: Path) -> str:
    try:
        with safe_open(str(block), framework="pt") as file:
            return (file.metadata() or {}).get("what", "?")
    except (OSError, SafetensorError):
        return "damaged; will be made again"
