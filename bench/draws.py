"""The images of a run, each looked at once: what is tested, and what each number of shots and seed learns from."""

from __future__ import annotations

import hashlib
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from bench.datasets.draws import find_draw, read_draw, validation_file
from bench.datasets.fewshot import COOP, VAL_SHOTS, coop_draw, few_shot, seeded_order
from bench.datasets.splits import Task
from bench.datasets.types import Item
from bench.errors import UserError
from bench.features.hashes import ImageHashes, Images, copies, describe_copies, named
from bench.progress import bar, count
from bench.protocols import Protocol
from bench.wording import wording


@dataclass(frozen=True)
class Draw:
    """The few-shot images of all tasks, for one number of shots and one seed.

    train, val : by task's name, in the blocks that their features are kept in. described : by task's name, all that
        numbers follow from: its names and classes, the images' content and labels, and their order.
    """

    train: Mapping[str, tuple[Images, ...]]
    val: Mapping[str, tuple[Images, ...]]
    described: Mapping[str, Any]

    def fingerprint(self, tasks: Sequence[str]) -> str:
        """The hash of what is learned from these tasks; "" without images."""
        return _hash(self.described, tasks) if self.described else ""

    def images(self, task: str) -> Images:
        """All of a task's, those to train on first."""
        parts = [*self.train[task], *self.val[task]]
        items, digests = (tuple(chain.from_iterable(getattr(p, name) for p in parts)) for name in ("items", "digests"))
        return Images(parts[0].root, items, digests) if parts else Images(Path(), (), ())


@dataclass(frozen=True)
class RunImages:
    """All images of a run.

    tests : by task's name. described : as a draw's, of the tests. draws : by shots and seed; (0, 0) is empty.
    """

    tests: Mapping[str, Images]
    described: Mapping[str, Any]
    draws: Mapping[tuple[int, int], Draw]

    def fingerprint(self, tasks: Sequence[str]) -> str:
        """The hash of what is tested of these tasks."""
        return _hash(self.described, tasks)


def look_at_images(
    tasks: Sequence[Task],
    protocol: Protocol,
    hashes: ImageHashes,
    shots: Sequence[int],
    seeds: Sequence[int],
    like: str | Path | None,
    hide: bool | None,
    val_shots: int = VAL_SHOTS,
) -> RunImages:
    """Draw the few-shot images, and hash all images of a run, under a bar: of tasks that the protocol trains on their
    few-shot images, of those that it scores their test images.

    like : "coop" for CoOp's draws, the folder of the user's own, or None for the bench's.
    val_shots : validation images of a class at most; never more than the shots.
    Copies of few-shot images among the test images are reported.

    Raises
    ------
    UserError : images are broken (all are named at once), or a draw's file is missing or does not fit.
    """
    sizes = [(0, 0), *((n, seed) for seed in seeds for n in shots)]
    trained, scored = seen_and_scored(protocol, tasks)
    none: tuple[Blocks, Blocks] = [], []
    drawn = {
        size: {t.name: few_shot_set(t, protocol, *size, like, val_shots) if t.name in trained else none for t in tasks}
        for size in sizes
    }
    few = {t.name: _unique(b for sets in drawn.values() for blocks in sets[t.name] for b in blocks) for t in tasks}
    items = {t.name: _unique([few[t.name], t.split.test if t.name in scored else ()]) for t in tasks}
    paths = {t.name: [t.split.root / item.path for item in items[t.name]] for t in tasks}
    broken: dict[str, list[str]] = {}
    with bar("reading images", sum(map(len, paths.values())), "image", hide, position=0) as shown:
        for name, files in paths.items():
            broken[name] = hashes.broken(files, shown.update)
    if any(broken.values()):
        lines = [f"  {name}: {named(faults)}" for name, faults in broken.items() if faults]
        n = count(sum(map(len, broken.values())), "image")
        head = f"{n} cannot be read; replace or delete them (docs/data.md says how):"
        raise UserError("\n".join([head, *lines]))
    known = {name: dict(zip(items[name], hashes.of(files), strict=True)) for name, files in paths.items()}

    def images(task: Task, chosen: Sequence[Item]) -> Images:
        return Images(task.split.root, tuple(chosen), tuple(known[task.name][item] for item in chosen))

    tested = [t for t in tasks if t.name in scored]
    tests = {t.name: images(t, t.split.test) for t in tested}
    for t in tested:
        found = copies(images(t, few[t.name]).by_content(), tests[t.name].by_content())
        if told := describe_copies(t.split.root, found, "few-shot images"):
            tqdm.write(f"warning: {t.name}: of the test images, {told}", file=sys.stderr)
    for told in _copies_of_others(protocol, tasks, {t.name: images(t, few[t.name]) for t in tasks}, tests):
        tqdm.write(f"warning: {told}", file=sys.stderr)
    for t in [t for t in tasks if t.name in trained]:
        if without := [size for size, sets in drawn.items() if size[0] and not sets[t.name][1]]:
            tqdm.write(f"warning: {t.name}: {_unvalidated(t, without, like)}", file=sys.stderr)
    draws = {}
    for (size, seed), sets in drawn.items():
        train, val = ({t.name: tuple(images(t, block) for block in sets[t.name][i]) for t in tasks} for i in (0, 1))
        ordered = [images(t, _in_order(sets[t.name], seed)) for t in tasks]
        halves = [protocol.trained(t) for t in tasks]
        draws[size, seed] = Draw(train, val, _described(halves, ordered) if size else {})
    first = [task.worded(1) for task in tested]  # whatever the tasks are called: the tests are the same
    return RunImages(tests, _described(first, list(tests.values())), draws)


def seen_and_scored(protocol: Protocol, tasks: Sequence[Task]) -> tuple[list[str], list[str]]:
    """The names of the tasks that a protocol trains on, and of those that it scores, in any of its folds."""
    folds, names = protocol.folds(tasks), [task.name for task in tasks]
    trained, scored = ({*chain(*parts)} for parts in ((f.trained for f in folds), (f.scored for f in folds)))
    return [name for name in names if name in trained], [name for name in names if name in scored]


def _copies_of_others(
    protocol: Protocol, tasks: Sequence[Task], few: Mapping[str, Images], tests: Mapping[str, Images]
) -> Iterator[str]:
    """What to say of each unseen task with test images of the same bytes as images which other tasks train on."""
    holders: dict[str, list[str]] = {}  # tasks by the content of their few-shot images
    for task in tasks:
        for digest in set(few[task.name].digests):
            holders.setdefault(digest, []).append(task.name)
    found: dict[str, Counter[str]] = {}
    for fold in protocol.folds(tasks):
        trained = set(fold.trained)
        for name in (name for name in fold.scored if name not in trained):
            held = Counter(o for d in tests[name].digests for o in holders.get(d, ()) if o in trained)
            found[name] = found.get(name, Counter()) | held  # the same in another fold (--train-tasks) counts once
    for name, others in found.items():
        if others:
            told = ", ".join(f"{other} {n}" for other, n in others.most_common())
            yield f"{name}: among its test images, never to be seen, are few-shot images of tasks trained on: {told}"


def _described(tasks: Sequence[Task], given: Sequence[Images]) -> dict[str, Any]:
    """What a method's numbers follow from, by task: names, and the images' content with their labels."""
    described = {}
    for task, own in zip(tasks, given, strict=True):
        images = [(digest, item.label) for digest, item in zip(own.digests, own.items, strict=True)]
        described[task.name] = [task.name, task.task_name, wording(task), task.metric, task.class_names, images]
    return described


def _hash(described: Mapping[str, Any], tasks: Sequence[str]) -> str:
    return hashlib.blake2b(json.dumps([described[name] for name in tasks]).encode(), digest_size=12).hexdigest()


Blocks = list[list[Item]]


def few_shot_set(
    task: Task, protocol: Protocol, shots: int, seed: int, like: str | Path | None, val_shots: int = VAL_SHOTS
) -> tuple[Blocks, Blocks]:
    """The images to train on and those to validate on, each in the blocks that their features are kept in.

    task : complete, because a draw's file holds images of all classes; those the protocol trains on are taken.
    like, val_shots : as in `look_at_images`; a file that fixes the seed's own draw gives the same images.
    """
    split = task.split
    if like is None or not shots:
        parts = (split.train, shots), (split.val, min(shots, val_shots))
        train, val = (shards(items, partial(protocol.sizes, task, items, seed), n, seed) for items, n in parts)
    elif like == COOP:
        train, val = ([items] for items in coop_draw(split, shots, seed, val_shots))
    else:
        folder = Path(like)
        file = find_draw(task, folder, shots, seed)
        if file is None:
            wanted = folder / task.name / f"shot_{shots}-seed_{seed}.json"
            raise UserError(f"--draws {folder}: {wanted} is missing; `python -m bench data splits` writes such files")
        train, val = ([items] for items in read_draw(file, split))
    return _trained(task, protocol, train), _trained(task, protocol, val)


def _unvalidated(task: Task, sizes: Sequence[tuple[int, int]], like: str | Path | None) -> str:
    """What is said of draws without validation images."""
    (shots, seed), why = sizes[0], ""
    file = None if like in (None, COOP) else find_draw(task, Path(like or ""), shots, seed)
    if file is not None:
        beside = validation_file(file)
        why = f" ({beside} is missing)" if not beside.is_file() else f" ({beside} lists none)"
    n = count(len(sizes), "draw")
    return f"no validation images in {n}, e.g. {count(shots, 'shot')}, seed {seed}{why}: no validation accuracy there"


def _trained(task: Task, protocol: Protocol, blocks: Blocks) -> Blocks:
    kept = [list(protocol.trained_items(task, block)) for block in blocks]
    return [block for block in kept if block]  # a block is empty where classes are small


def shards(items: Sequence[Item], sizes: Callable[[int], Sequence[int]], shots: int, seed: int) -> Blocks:
    """The few-shot set cut by the draw of 1, 2, 4, 8, … shots that an image comes in: 16 shots reuse the blocks that 1,
    2, 4 and 8 shots left.

    sizes : how many images each class gives at so many shots: its first in the seeded order.
    """
    if not shots:
        return []
    cuts = [sizes(n) for n in (*(2**k for k in range(shots.bit_length()) if 2**k < shots), shots)]
    ranks: Counter[int] = Counter()  # of the next image of each class
    blocks: Blocks = [[] for _ in cuts]
    for item in few_shot(items, max(1, *cuts[-1]), seed):
        rank = ranks[item.label]
        ranks[item.label] += 1
        if rank < cuts[-1][item.label]:
            blocks[next(b for b, cut in enumerate(cuts) if rank < cut[item.label])].append(item)
    return [block for block in blocks if block]


def _unique(lists: Iterable[Iterable[Item]]) -> list[Item]:
    return list(dict.fromkeys(chain.from_iterable(lists)))


def _in_order(parts: tuple[Blocks, Blocks], seed: int) -> list[Item]:
    """Those to train on, then those to validate on, each by class and the seed's order, however they are cut."""
    return [
        item
        for blocks in parts
        for item in sorted(chain(*blocks), key=lambda item: (item.label, seeded_order(item.path, seed)))
    ]
