"""The few-shot draw: which training images a cell may see."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from hashlib import blake2b

from bench.datasets.types import Item, Split
from bench.errors import UserError

NESTED, COOP = "nested", "coop"
DRAWN = (NESTED, COOP)  # draws that are made: the bench's own, or as CoOp's code makes them
VAL_SHOTS = 4  # validation few-shot: at most so many images per class, unless a run asks for more


def seeded_order(path: str, seed: int) -> tuple[bytes, str]:
    """Where an image stands in the seeded order: a hash, so it depends on nothing but seed and path."""
    return blake2b(f"{seed}\0{path}".encode("utf-8", "surrogateescape")).digest(), path


def few_shot(items: Sequence[Item], shots: int, seed: int) -> list[Item]:
    """Per class the first `shots` items in the seeded order (fewer where a class has fewer).

    Draws of a seed are nested: the 8-shot set is part of the 16-shot set. The order of `items`, of the file
    system and of Python's dicts plays no part. The result is sorted by label, then rank.
    """
    if shots < 1:
        raise UserError(f"shots: {shots} images per class cannot be drawn; give 1 or more")
    drawn = []
    for _, own in sorted(by_label(items).items()):
        ranked = sorted(own, key=lambda item: seeded_order(item.path, seed))
        drawn.extend(ranked[:shots])
    return drawn


def by_label(items: Iterable[Item]) -> dict[int, list[Item]]:
    """The items of each label, in their order; labels in the order in which they come up."""
    found: dict[int, list[Item]] = {}
    for item in items:
        found.setdefault(item.label, []).append(item)
    return found


def draw(split: Split, shots: int, seed: int, like: str = NESTED) -> tuple[list[Item], list[Item]]:
    """The images to train and to validate on, drawn in one of the ways in `DRAWN`."""
    if like == COOP:
        return coop_draw(split, shots, seed)
    return few_shot(split.train, shots, seed), few_shot(split.val, min(shots, VAL_SHOTS), seed) if split.val else []


def coop_draw(split: Split, shots: int, seed: int, val_shots: int = VAL_SHOTS) -> tuple[list[Item], list[Item]]:
    """The images to train and to validate on as CoOp's code draws them: not nested, by the order of the split's lists.

    One generator of Python's, seeded with `seed`, samples `shots` of each class in the order in which the classes come
    up among the training images, then min(shots, val_shots) of each among the validation images (theirs: 4); a class
    that has fewer gives all of its own. Read in github.com/KaiyangZhou/Dassl.pytorch
    (dassl/data/datasets/base_dataset.py, dassl/utils/tools.py).
    """
    if shots < 1:
        raise UserError(f"shots: {shots} images per class cannot be drawn; give 1 or more")
    rng = random.Random(seed)  # noqa: S311 - a seeded draw, no secret
    parts = []
    for items, n in ((split.train, shots), (split.val, min(shots, val_shots))):
        parts.append([i for own in by_label(items).values() for i in (rng.sample(own, n) if len(own) >= n else own)])
    return parts[0], parts[1]
