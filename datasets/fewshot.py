"""The few-shot draw: which training images a cell may see."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b

from bench.datasets.types import Item
from bench.errors import UserError


def seeded_order(path: str, seed: int) -> tuple[bytes, str]:
    """Where an image stands in the seeded order: a hash, so it depends on nothing but seed and path."""
    return blake2b(f"{seed}\0{path}".encode("utf-8", "surrogateescape")).digest(), path


def few_shot(items: Sequence[Item], shots: int, seed: int, first: int = 0) -> list[Item]:
    """Per class the items of rank `first` to `shots` - 1 in the seeded order (fewer where a class has fewer).

    Draws of a seed are nested: the 8-shot set is part of the 16-shot set. The order of `items`, of the file
    system and of Python's dicts plays no part. The result is sorted by label, then rank.
    """
    if shots < 1:
        raise UserError(f"shots: {shots} images a class cannot be drawn; give 1 or more")
    if not 0 <= first <= shots:
        raise UserError(f"first: rank {first} is not between 0 and shots = {shots}")
    by_label: dict[int, list[Item]] = {}
    for item in items:
        by_label.setdefault(item.label, []).append(item)
    drawn = []
    for label in sorted(by_label):
        ranked = sorted(by_label[label], key=lambda item: seeded_order(item.path, seed))
        drawn.extend(ranked[first:shots])
    return drawn
