"""ImageNet (ILSVRC 2012), and test sets that others made for its classes.

A class is a WordNet number ("n01440764"), the name of its folder; the classes' order is that of these numbers. What
they are called is read from a list that comes with the user's copy, of ImageNet or of the test set:

    classnames.txt            CoOp's: a number and a name a line
    LOC_synset_mapping.txt    Kaggle's: a number and its synonyms, of which the first is the name
    ILSVRC2012_devkit_t12/data/meta.mat    the authors' own, as Kaggle's
"""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping
from pathlib import Path

from bench.datasets.lists import matlab_entries, text_entry, whole_entry
from bench.datasets.readers import Options, image_root, parts_of, text_of
from bench.datasets.splitfiles import check_names
from bench.datasets.types import Item, Listing, MissingData, left_out, list_folder
from bench.errors import UserError
from bench.progress import bar

IMAGES = "images"
BESIDE = "imagenet"  # beside a test set's folder: ImageNet's own, whose list serves all
COOP, KAGGLE, DEVKIT = "classnames.txt", "LOC_synset_mapping.txt", "ILSVRC2012_devkit_t12/data/meta.mat"
ANSWERS = "LOC_val_solution.csv"
TRUTH = "ILSVRC2012_validation_ground_truth.txt"  # beside DEVKIT
NUMBER = re.compile(r"n[0-9]{8}")
VALIDATION = re.compile(r"ILSVRC2012_val_([0-9]{8})")


def read_imagenet(folder: Path, options: Options) -> Listing:
    """Folders of classes below a folder for each of `parts`; the official validation images may lie in one folder.

    Options: `parts` (as of the reader of folders; {test: "."} is a set to test on only), `numbered` (class folders are
    named by the class's place in the order, from 0).

    A name that the list gives to two classes is kept: only a method that learns something of each predicts the second.
    """
    root, (names, listed) = image_root(folder, options, IMAGES), class_names(folder)
    given: dict[str, list[tuple[str, str]]] = {}  # path, class
    tops: set[str] = set()  # the folders whose images are read
    for part, top in parts_of(options).items():
        prefix = "" if top == "." else f"{top}/"
        folders, images = list_folder(root / top)
        given[part] = []
        with bar(f"reading {root / top}", len(folders), "folder", None, position=0) as shown:
            for name in folders:
                key = _class_of(root / top / name, names, listed, bool(options.get("numbered")))
                tops.add(prefix + name)
                given[part] += [(f"{prefix}{name}/{image}", key) for image in list_folder(root / top / name)[1]]
                shown.update()
        if images and not folders:
            truth = _truth(folder, names)
            tops.add(top)
            given[part] = [(prefix + image, _answer(root / top / image, truth)) for image in images]
        if not given[part]:
            raise MissingData(f"{root / top}: holds no class folders")
    used = {key for rows in given.values() for _, key in rows}
    labels = {key: label for label, key in enumerate(key for key in names if key in used)}
    called = check_names(listed, {label: names[key] for key, label in labels.items()}, twice=True)
    parts = {part: [Item(path, labels[key]) for path, key in rows] for part, rows in given.items()}
    unread = left_out(root, tops, {path for rows in given.values() for path, _ in rows})
    return Listing(root, called, parts, source="folders", left_out=unread)


def class_names(folder: Path) -> tuple[dict[str, str], Path]:
    """The classes' names by WordNet number, in the order of the numbers, and the file that lists them.

    Names that differ in case alone are one to CLIP, and are spelt like the first of them.
    """
    for place in (folder, folder.parent / BESIDE):
        for name, read in ((COOP, _lines), (KAGGLE, _lines), (DEVKIT, _synsets)):
            if (place / name).is_file():
                found = read(place / name)
                spelt: dict[str, str] = {}
                names = {key: spelt.setdefault(text.casefold(), text) for key, text in sorted(found.items())}
                return names, place / name
    others = f"{KAGGLE} or {DEVKIT}, nor one in {folder.parent / BESIDE}"
    raise MissingData(f"{folder / COOP}: no such file, and no {others}")


def _lines(file: Path) -> dict[str, str]:
    """Of lines such as "n01440764 tench"; Kaggle's go on with ", Tinca tinca"."""
    names: dict[str, str] = {}
    for number, line in enumerate(text_of(file).splitlines(), start=1):
        key, _, text = line.strip().partition(" ")
        if not line.strip():
            continue
        if not NUMBER.fullmatch(key) or not text.strip():
            wanted = "a WordNet number and a name, as n01440764 tench"
            raise UserError(f"{file}: line {number} must be {wanted}, not {line!r:.80}")
        if key in names:
            raise UserError(f"{file}: line {number}: {key} stands twice")
        names[key] = text.partition(", ")[0] if file.name == KAGGLE else text
    if not names:
        raise UserError(f"{file}: lists no classes")
    return names


def _synsets(file: Path) -> dict[str, str]:
    return {key: name for key, name in _devkit(file).values()}


def _devkit(file: Path) -> dict[int, tuple[str, str]]:
    """WordNet number and name of each class, by the authors' own number of it; without WordNet's inner nodes."""
    found = {}
    for place, row in enumerate(matlab_entries(file, "synsets"), start=1):
        if not isinstance(row, dict) or not {"ILSVRC2012_ID", "WNID", "words", "num_children"} <= row.keys():
            raise UserError(f"{file}: `synsets` must have the fields ILSVRC2012_ID, WNID, words and num_children")
        if whole_entry(file, f"num_children of row {place}", row["num_children"]):
            continue
        key = text_entry(file, f"WNID of row {place}", row["WNID"])
        if not NUMBER.fullmatch(key):
            raise UserError(f"{file}: WNID of row {place} is {key!r:.80}, no WordNet number")
        words = text_entry(file, f"words of row {place}", row["words"])
        found[whole_entry(file, f"ILSVRC2012_ID of row {place}", row["ILSVRC2012_ID"])] = key, words.partition(", ")[0]
    return found


def _class_of(folder: Path, names: Mapping[str, str], listed: Path, numbered: bool) -> str:
    """The class whose images a folder holds."""
    if not numbered:
        if folder.name not in names:
            raise UserError(f"{folder}: {listed} lists no class {folder.name!r}; remove the folder, or add a line")
        return folder.name
    if not folder.name.isdecimal() or int(folder.name) >= len(names):
        raise UserError(f"{folder}: class folders are named 0 to {len(names) - 1} here, for the classes of {listed}")
    return list(names)[int(folder.name)]


def _truth(folder: Path, names: Mapping[str, str]) -> dict[str, str]:
    """Which class a validation image shows, by its name without suffix: as Kaggle tells, or the development kit."""
    answers, truth = folder / ANSWERS, (folder / DEVKIT).with_name(TRUTH)
    if answers.is_file():
        try:
            rows = list(csv.reader(text_of(answers).splitlines()))[1:]  # ImageId, "n01440764 1 2 3 4 …": class and box
        except csv.Error as error:
            raise UserError(f"{answers}: not a table ({error})") from None
        found = {row[0]: row[1].split()[0] for row in rows if len(row) > 1 and row[1].split()}
    elif truth.is_file():
        numbers, classes = text_of(truth).split(), _devkit(folder / DEVKIT)
        known = {*map(str, classes)}
        if odd := next((n for n in numbers if n not in known), None):
            raise UserError(f"{truth}: {odd!r:.80} is the number of no class in {DEVKIT}")
        found = {f"ILSVRC2012_val_{place:08d}": classes[int(n)][0] for place, n in enumerate(numbers, start=1)}
    else:
        raise MissingData(
            f"{truth}: no such file, which says what validation images show that lie in no class folders (nor is there "
            f"{ANSWERS})"
        )
    if odd := next((key for key in found.values() if key not in names), None):
        raise UserError(f"{folder}: an answer to the validation images is {odd!r:.80}, which is no class")
    return found


def _answer(image: Path, truth: Mapping[str, str]) -> str:
    if not VALIDATION.fullmatch(image.stem) or image.stem not in truth:
        raise UserError(f"{image}: no validation image that has an answer; remove it, or move it into a class folder")
    return truth[image.stem]
