"""How suffixes (a class name and EOT, after a context) are placed side by side: as trees in packs of like size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from heapq import heappop, heappush

PACK = 32  # tokens of a pack, about: attention looks at a whole pack to use a path's share of it

Suffix = tuple[int, ...]  # token ids, from what follows the prefix to EOT


@dataclass(frozen=True)
class Pack:
    """Suffixes of one context side by side, as trees, depth first: what members that follow each other begin with
    alike stands there once."""

    members: list[int]  # which suffixes
    ids: list[int]
    places: list[int]  # place in the suffix, which is the depth in the tree
    until: list[int]  # the last token below this one, itself for a leaf: it and all between see this one
    ends: list[int]  # the last token of each member

    @property
    def size(self) -> int:
        return len(self.ids)

    @classmethod
    def of(cls, members: list[int], suffixes: Sequence[Suffix]) -> Pack:
        """members : which suffixes; those that begin alike follow each other."""
        pack = cls(members, [], [], [], [])
        before: Suffix = ()
        path: list[int] = []  # the tokens of the member before
        for j in members:
            shared = _common_length(before, suffixes[j])
            del path[shared:]
            for place in range(shared, len(suffixes[j])):
                path.append(len(pack.ids))
                pack.ids.append(suffixes[j][place])
                pack.places.append(place)
                pack.until.append(-1)
            for token in path:
                pack.until[token] = len(pack.ids) - 1
            pack.ends.append(path[-1])
            before = suffixes[j]
        return pack


@dataclass(frozen=True)
class Placed:
    """A pack after a context; the rows of its members begin at first_row."""

    pack: Pack
    context: int
    first_row: int


def packs_of(suffixes: Sequence[Suffix]) -> list[Pack]:
    """Packs of about PACK tokens that hold the suffixes of one context; those that begin alike stay together in runs of
    up to PACK tokens."""
    runs: list[list[int]] = []
    sizes: list[int] = []
    before: Suffix = ()
    for j in sorted(range(len(suffixes)), key=lambda j: suffixes[j]):
        shared = _common_length(before, suffixes[j])
        before = suffixes[j]
        if shared and sizes[-1] + len(before) - shared <= PACK:
            runs[-1].append(j)
            sizes[-1] += len(before) - shared
        else:
            runs.append([j])
            sizes.append(len(before))
    return [Pack.of([j for run in pack for j in runs[run]], suffixes) for pack in _balanced(sizes)]


def _common_length(a: Suffix, b: Suffix) -> int:
    """How many tokens two suffixes begin with alike."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def _balanced(lengths: Sequence[int]) -> list[list[int]]:
    """Runs of these lengths in as few packs of PACK tokens as hold them, about; sizes differ by a run at most."""
    packs: list[tuple[int, int, list[int]]] = [(0, k, []) for k in range(-(-sum(lengths) // PACK))]
    for j in sorted(range(len(lengths)), key=lambda j: -lengths[j]):  # the longest first, into the emptiest
        size, k, members = heappop(packs)
        heappush(packs, (size + lengths[j], k, [*members, j]))
    return [members for _, _, members in packs if members]


def alike(placed: list[Placed], cost: float) -> list[list[Placed]]:
    """Packs in groups that are padded to their largest: fewest tokens, where each group counts as `cost` more."""
    packs = sorted(placed, key=lambda x: x.pack.size)
    sizes = [x.pack.size for x in packs]
    ends = [i for i in range(1, len(packs) + 1) if i == len(packs) or sizes[i] > sizes[i - 1]]  # of equal sizes
    best: dict[int, tuple[float, int]] = {0: (0.0, 0)}  # packs grouped -> (tokens, where the last group begins)
    for end in ends:
        best[end] = min((best[a][0] + (end - a) * sizes[end - 1] + cost, a) for a in best)
    groups, end = [], len(packs)
    while end:
        begin = best[end][1]
        groups.append(packs[begin:end])
        end = begin
    return groups
