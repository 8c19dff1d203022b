"""iNaturalist 2021 by taxa: one annotation file, hundreds of tasks, each a family or a genus with its species.

The data set's own form (github.com/visipedia/inat_comp/tree/master/2021): `train_mini.json` and `val.json` with the
lists "images" (id, file_name), "annotations" (image_id, category_id) and "categories" (name, common_name,
supercategory, and the ranks from kingdom to genus). A suite file has one entry of this kind; `tasks_of` makes the
suite's tasks of it when it knows where the data is. The files are read once per process, entry by entry.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TextIO

from bench.datasets.fewshot import seeded_order
from bench.datasets.lists import listing_of
from bench.datasets.readers import Options
from bench.datasets.types import Listing, class_name, present
from bench.errors import UserError, nearest
from bench.progress import bar

if TYPE_CHECKING:
    from bench.datasets.spec import TaskSpec

TRAIN, TEST = "train_mini.json", "val.json"  # the labels of the official test images were never published
RANKS = ("kingdom", "phylum", "class", "order", "family", "genus")
LEVELS = RANKS[3:]  # what may be a task
NAMES = ("common", "latin")
LEAST = 5  # species of a task
SHARES = {"train": 0.6, "val": 0.8, "test": 1.0}  # of all tasks, up to and including each part
SEED = 1  # of the division of the tasks
CHUNK = 1 << 20  # characters that are read at a time
LONGEST = 1 << 24  # characters of one entry


class Species(NamedTuple):
    """A category of the annotation file."""

    name: str  # Latin
    common: str
    group: str  # "Plants", "Birds", ...
    taxa: tuple[str, ...]  # by `RANKS`


@dataclass(frozen=True, eq=False)  # two are the same when they were read at the same time
class Annotations:
    """What an annotation file says."""

    file: Path
    species: tuple[Species, ...]
    images: Mapping[str, Sequence[str]]  # by the species' Latin name


def tasks_of(spec: TaskSpec, folder: Path) -> Sequence[TaskSpec]:
    """The tasks that an entry of a suite file stands for: every taxon of its `level` with `least` species or more.

    Without the annotation file the entry itself. In the entry's task names, {taxon} is the taxon's Latin name and
    {group} the data set's own word for the group ("birds"). The genera of a family, and the families of an order, are
    in the same part (train, val or test). A hash of that family's or order's name decides which: whatever is added or
    missing, no other task changes sides. A task's path is its group and the taxa from the order down to it.
    """
    _check(spec.name, spec.reader)
    if "taxon" in spec.reader or not (folder / TRAIN).is_file():
        return (spec,)
    found = species_of(folder / TRAIN, spec.reader)
    alone = Counter(taxon[-1].casefold() for taxon in found)
    made = []
    for taxon, (group, own) in found.items():
        task_names = tuple(_filled(name, taxon[-1], group) for name in spec.task_names)
        # A plant and an animal may share a genus' name.
        name = taxon[-1] if alone[taxon[-1].casefold()] == 1 else f"{taxon[-1]}-{taxon[2]}"
        task = replace(
            spec, name=_file_name(name), reader={**spec.reader, "taxon": "/".join(taxon)}, n_classes=len(own)
        )
        path = tuple(node for node in (group, *taxon[3:-1]) if node.strip())
        part = part_of(taxon[:-1])
        made.append(replace(task, task_name=task_names[0], task_names=task_names, path=path, part=part))
    return made


def part_of(taxon: Sequence[str]) -> str:
    """The part of all tasks below a taxon, given by the names from its kingdom down."""
    place = int.from_bytes(seeded_order("/".join(taxon), SEED)[0][:8], "big") / 2**64
    return next(part for part, share in SHARES.items() if place < share)


def read_taxa(folder: Path, options: Options) -> Listing:
    """One task: the species of a taxon, trained on "mini" images (50 a species), tested on validation images (10).

    Options: `level` (order, family or genus), `names` (common or latin), `least` (species that make a task), `deal` (a
    seed: the species of all tasks are dealt to them at random, as many to each as it has, so that its name says nothing
    of its classes: a control) and `taxon`, which `tasks_of` sets. Species are in the order of their Latin names. Where
    a common name is missing, or two species of the task share it, their Latin names stand instead.
    """
    _check(str(folder), options)
    train, test = read_annotations(folder / TRAIN), read_annotations(folder / TEST)
    if "taxon" not in options:
        raise UserError(f"{folder / TRAIN}: holds many tasks; set the reader's `taxon`, as in Plantae/…/Rosaceae")
    found = species_of(folder / TRAIN, options).get(tuple(options["taxon"].split("/")))
    if found is None:
        raise UserError(f"{folder / TRAIN}: there is no task {options['taxon']}")
    own = sorted(found[1])
    given = {
        part: [(path, species.name) for species in own for path in listed.images.get(species.name, ())]
        for part, listed in (("trainval", train), ("test", test))
    }
    return listing_of(folder / TRAIN, folder, given, class_names(own, options["names"]))


def species_of(file: Path, options: Options) -> dict[tuple[str, ...], tuple[str, list[Species]]]:
    """By taxon that is a task (the names from the kingdom down): its group, and the species that are its classes."""
    return _species_of(read_annotations(file), options["level"], options.get("least", LEAST), options.get("deal", 0))


@lru_cache(maxsize=4)
def _species_of(read: Annotations, level: str, least: int, deal: int) -> dict[tuple[str, ...], Any]:
    by_taxon: dict[tuple[str, ...], list[Species]] = {}
    for species in read.species:
        by_taxon.setdefault(species.taxa[: RANKS.index(level) + 1], []).append(species)
    found = {taxon: (own[0].group, own) for taxon, own in sorted(by_taxon.items()) if len(own) >= least}
    if not found:
        raise UserError(f"{read.file}: no {level} has {least} species or more")
    if deal:
        dealt = iter(sorted((s for _, own in found.values() for s in own), key=lambda s: seeded_order(s.name, deal)))
        found = {taxon: (group, [next(dealt) for _ in own]) for taxon, (group, own) in found.items()}
    return found


def class_names(own: Sequence[Species], names: str) -> dict[str, str]:
    """What the species of a task are called, by Latin name. No common name is one that another species has, Latin ones
    included."""
    shared = Counter(class_name(name).casefold() for s in own for name in (s.common, s.name) if name)
    return {
        s.name: s.common if names == "common" and shared[class_name(s.common).casefold()] == 1 and s.common else s.name
        for s in own
    }


def _check(at: str, options: Options) -> None:
    for option, known in (("level", LEVELS), ("names", NAMES)):
        if options[option] not in known:
            raise UserError(f"{at}: reader taxa: `{option}` {options[option]!r}: {nearest(options[option], known)}")
    if options.get("least", LEAST) < 2:
        raise UserError(f"{at}: reader taxa: `least` {options['least']}: a task has 2 species or more")


def _file_name(name: str) -> str:
    """As a task's name has to be; genera of hybrids have a "×"."""
    return re.sub(r"[^\w.+-]+", "-", name).strip("-.+") or "taxon"


def _filled(text: str, taxon: str, group: str) -> str:
    return text.replace("{taxon}", taxon).replace("{group}", group.lower())


# The annotation file --------------------------------------------------------------------------------------


def read_annotations(file: Path) -> Annotations:
    """What an annotation file says; read once, again where it has changed.

    For 500,000 images (223 MB) 4 seconds and 200 MB of memory, of which 140 MB stay.

    Raises
    ------
    MissingData : there is no such file. UserError : it is not of this form.
    """
    stat = present(file).stat()
    return _annotations(file, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=4)
def _annotations(file: Path, changed: int, size: int) -> Annotations:
    paths: dict[int, str] = {}
    category_of: dict[int, int] = {}
    species: dict[int, Species] = {}
    try:
        with bar(f"reading {file.name}", size, "B", None, position=0) as shown:
            shown.unit_scale = True
            for kind, entry in entries(file, ("images", "annotations", "categories"), shown.update):
                if kind == "images":
                    _put(paths, entry, "id", _of(entry, "file_name", str))
                elif kind == "annotations":
                    _put(category_of, entry, "image_id", _of(entry, "category_id", int))
                else:
                    names = [_of(entry, key, str) for key in ("name", "common_name", "supercategory", *RANKS)]
                    _put(species, entry, "id", Species(names[0], names[1], names[2], tuple(names[3:])))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{file}: not an annotation file of iNaturalist 2021 ({error}); fetch the file again") from None
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error})") from None
    if twice := [name for name, n in Counter(s.name for s in species.values()).items() if n > 1]:
        raise UserError(f"{file}: two categories have the name {twice[0]!r}")
    images: dict[str, list[str]] = {}
    for image, path in paths.items():
        if (known := species.get(category_of.get(image, -1))) is None:
            raise UserError(f"{file}: image {image} ({path}) has no annotation whose category the file lists")
        images.setdefault(known.name, []).append(path)
    return Annotations(file, tuple(species.values()), images)


def _put(found: dict[int, Any], entry: Mapping[str, Any], key: str, value: Any) -> None:
    """By the number that an entry has under `key`; what has two of one number cannot be told apart."""
    number = _of(entry, key, int)
    if found.setdefault(number, value) != value:
        raise ValueError(f"two entries have the {key} {number}, in {json.dumps(entry)[:120]}")


def _of(entry: Mapping[str, Any], key: str, kind: type) -> Any:
    value = entry.get(key) if isinstance(entry, dict) else None
    if not isinstance(value, kind) or isinstance(value, bool):
        raise ValueError(f"{key!r} must be {'text' if kind is str else 'a whole number'} in {json.dumps(entry)[:120]}")
    return value


def entries(
    file: Path, lists: Sequence[str], report: Callable[[int], object] = lambda n: None
) -> Iterator[tuple[str, Any]]:
    """The entries of these lists of the object that a JSON file holds, one by one: (list, entry), in the file's order.

    No more than a chunk of the file and an entry is in memory. Other values are passed over. report : is given the
    number of characters that were read.

    Raises
    ------
    ValueError : it is not JSON, or an entry is longer than `LONGEST`.
    """
    with file.open(encoding="utf-8-sig") as stream:
        text = _Text(stream, report)
        text.take("{")
        while True:
            key = text.value()
            text.take(":")
            if key in lists:
                text.take("[")
                if text.peek() != "]":
                    yield key, text.value()
                    while text.peek() == ",":
                        text.take(",")
                        yield key, text.value()
                text.take("]")
            else:
                text.value()
            if text.peek() != ",":
                break
            text.take(",")
        text.take("}")


class _Text:
    """The text of a JSON file, of which no more is held than is needed."""

    def __init__(self, stream: TextIO, report: Callable[[int], object]) -> None:
        self.stream, self.report, self.text, self.at = stream, report, "", 0
        self.decode, self.spaces = json.JSONDecoder().raw_decode, re.compile(r"[ \t\r\n]*")

    def more(self) -> bool:
        chunk = self.stream.read(CHUNK)
        if chunk:
            self.text, self.at = self.text[self.at :] + chunk, 0
            self.report(len(chunk))
        return bool(chunk)

    def peek(self) -> str:
        """The next character that is no space; "" at the end."""
        while True:
            self.at = self.spaces.match(self.text, self.at).end()  # type: ignore[union-attr]  # fits always
            if self.at < len(self.text) or not self.more():
                return self.text[self.at : self.at + 1]

    def take(self, wanted: str) -> None:
        if (found := self.peek()) != wanted:
            raise ValueError(f"{wanted!r} is missing" + (f" before {found!r}" if found else " at its end"))
        self.at += 1

    def value(self) -> Any:
        self.peek()
        while True:
            try:
                value, end = self.decode(self.text, self.at)
            except ValueError:  # at the end of what is here, or of no JSON
                if len(self.text) - self.at > LONGEST or not self.more():
                    raise
                continue
            if end == len(self.text) and self.more():  # a number may go on
                continue
            self.at = end
            return value
