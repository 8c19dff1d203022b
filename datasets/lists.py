"""Readers of the data sets' own lists: text files, MATLAB files and JSON, as their authors hand them out."""

from __future__ import annotations

import csv
import io
import math
import os
import posixpath
import re
from collections.abc import Collection, Container, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from bench.datasets.readers import Options, image_root, parts_of
from bench.datasets.splitfiles import check_names, read_json, safe_path
from bench.datasets.types import Item, Listing, MissingData, files_below, is_image_file
from bench.errors import UserError, nearest


def read_pets(folder: Path, options: Options) -> Listing:
    """OxfordPets: `annotations/{trainval,test}.txt`, lines "<image> <label from 1> <species> <breed>".

    The class is the image's name up to the last `_`, in lower case (the capital says cat or dog).
    """
    labelled: dict[str, list[tuple[str, int]]] = {}
    names: dict[int, str] = {}
    for part in ("trainval", "test"):
        file = folder / "annotations" / f"{part}.txt"
        labelled[part] = []
        for line, words in _lines(file, 4):
            name, label = words[0].rpartition("_")[0].lower(), _number(file, line, words[1])
            _same(file, line, names.setdefault(label, name), name, label)
            labelled[part].append((f"{words[0]}.jpg", label))
    return _listing(folder / "annotations", image_root(folder, options, "images"), labelled, names)


def read_fgvc(folder: Path, options: Options) -> Listing:
    """FGVC-Aircraft: `variants.txt`, `images_variant_{train,val,test}.txt` with lines "<image> <variant>"."""
    names = dict(enumerate(" ".join(words) for _, words in _lines(folder / "variants.txt", 1)))
    labels = {name: label for label, name in names.items()}
    labelled: dict[str, list[tuple[str, int]]] = {}
    for part in ("train", "val", "test"):
        file = folder / f"images_variant_{part}.txt"
        labelled[part] = []
        for line, words in _lines(file, 2):
            variant = " ".join(words[1:])
            labelled[part].append((f"{words[0]}.jpg", _known(file, line, variant, labels, "variants.txt")))
    return _listing(folder, image_root(folder, options, "images"), labelled, names)


def read_sun397(folder: Path, options: Options) -> Listing:
    """SUN397: `ClassName.txt`, `{Training,Testing}_01.txt`; "/a/airfield/indoor" is "indoor airfield"."""
    folders = [words[0].strip("/") for _, words in _lines(folder / "ClassName.txt", 1)]
    # The first part is the letter the scene begins with.
    names = {label: " ".join(reversed(path.split("/")[1:])) for label, path in enumerate(folders)}
    labels = {path: label for label, path in enumerate(folders)}
    labelled: dict[str, list[tuple[str, int]]] = {}
    for part, file in (("trainval", folder / "Training_01.txt"), ("test", folder / "Testing_01.txt")):
        labelled[part] = []
        for line, words in _lines(file, 1):
            path = words[0].lstrip("/")
            labelled[part].append((path, _known(file, line, path.rpartition("/")[0], labels, "ClassName.txt")))
    return _listing(folder, image_root(folder, options, "SUN397"), labelled, names)


def read_ucf101(folder: Path, options: Options) -> Listing:
    """UCF101's middle frames: `ucfTrainTestlist/{classInd,trainlist01,testlist01}.txt`.

    The lists name videos ("ApplyEyeMakeup/v_x.avi"), the frames stand in "Apply_Eye_Makeup/v_x.jpg".
    """
    lists = folder / "ucfTrainTestlist"
    words_of = {
        words[1]: (_number(lists / "classInd.txt", line, words[0]), re.findall(r"[A-Z][^A-Z]*", words[1]))
        for line, words in _lines(lists / "classInd.txt", 2)
    }
    labels = {action: label for action, (label, _) in words_of.items()}
    labelled: dict[str, list[tuple[str, int]]] = {}
    for part, file in (("trainval", lists / "trainlist01.txt"), ("test", lists / "testlist01.txt")):
        labelled[part] = []
        for line, words in _lines(file, 1):
            action, _, video = words[0].partition("/")
            label = _known(file, line, action, labels, "classInd.txt")
            frame = f"{'_'.join(words_of[action][1])}/{video.removesuffix('.avi')}.jpg"
            labelled[part].append((frame, label))
    names = {label: " ".join(words) for label, words in words_of.values()}
    return _listing(lists, image_root(folder, options, "UCF-101-midframes"), labelled, names)


def read_flowers(folder: Path, options: Options) -> Listing:
    """Flowers102: `imagelabels.mat` (one label an image, in their order), `cat_to_name.json`."""
    file = folder / "imagelabels.mat"
    marks = enumerate(_matlab(file, "labels").ravel().tolist(), start=1)
    labels = [_whole(file, f"label of image {number}", label) for number, label in marks]
    names = _flower_names(folder / "cat_to_name.json")
    for number, label in enumerate(labels, start=1):
        if label not in names:
            raise UserError(f"{file}: label {label} of image {number} has no name in cat_to_name.json")
    labelled = {"all": [(f"image_{number:05d}.jpg", label) for number, label in enumerate(labels, start=1)]}
    return _listing(folder, image_root(folder, options, "jpg"), labelled, names)


def read_cars(folder: Path, options: Options) -> Listing:
    """StanfordCars: `devkit/cars_meta.mat`, `devkit/cars_train_annos.mat`, `cars_test_annos_withlabels.mat`.

    "<make model> <year>" is read as "<year> <make model>".
    """
    meta = folder / "devkit" / "cars_meta.mat"
    test = folder / "cars_test_annos_withlabels.mat"
    if not test.is_file() and (folder / "devkit" / test.name).is_file():
        test = folder / "devkit" / test.name
    names = {}
    for label, cell in enumerate(_matlab(meta, "class_names").ravel(), start=1):
        make_model, _, year = _text(meta, f"class name {label}", cell).rpartition(" ")
        names[label] = f"{year} {make_model}"
    labelled = {
        "trainval": _car_labels(folder / "devkit" / "cars_train_annos.mat", "cars_train", names),
        "test": _car_labels(test, "cars_test", names),
    }
    return _listing(folder, image_root(folder, options), labelled, names)


def _car_labels(file: Path, image_folder: str, names: Mapping[int, str]) -> list[tuple[str, int]]:
    labelled = []
    rows = _matlab(file, "annotations").ravel()
    if not {"fname", "class"} <= set(rows.dtype.names or ()):
        raise UserError(f"{file}: `annotations` must have the fields fname and class; fetch the file again")
    for number, row in enumerate(rows, start=1):
        name = _text(file, f"fname of row {number}", row["fname"])
        labelled.append((f"{image_folder}/{name}", _whole(file, f"class of row {number}", _single(row["class"]))))
    unknown = {label for _, label in labelled} - names.keys()
    if unknown:
        raise UserError(f"{file}: label {min(unknown)} has no name in cars_meta.mat")
    return labelled


def _flower_names(file: Path) -> dict[int, str]:
    if not file.is_file():
        raise MissingData(f"{file}: no such file")
    content = read_json(file)
    if not isinstance(content, dict) or not all(
        _is_number(key) and isinstance(name, str) for key, name in content.items()
    ):
        raise UserError(f'{file}: must hold names by label, as in {{"1": "pink primrose"}}')
    return {int(key): name for key, name in content.items()}


# Images in one folder, with their classes in a table or in their names ------------------------------------


def read_csv(folder: Path, options: Options) -> Listing:
    """Tables of images and their classes, one for each of `parts`; the first line names the columns.

    Options: `image` and `label` (the columns), `suffix` (added to the images' names), `rename` (the table's class →
    class name). Columns are parted by commas, semicolons or tabs. Classes are sorted as texts.
    """
    root = image_root(folder, options)
    given: dict[str, list[tuple[str, str]]] = {}
    for part, name in parts_of(options).items():
        given[part] = [
            (f"{row[options['image']].strip()}{options.get('suffix', '')}", row[options["label"]].strip())
            for row in _table(folder / name, (options["image"], options["label"]))
        ]
    listing = _by_names(folder, root, given, options, "table")
    read = {item.path for items in listing.parts.values() for item in items}
    listing.left_out.add("images that the table does not name", _other_images(root, read))
    return listing


def read_names(folder: Path, options: Options) -> Listing:
    """Images whose names tell their classes: what the one group of `pattern` finds in the name without its suffix.

    Options: `parts` (a folder for each; default: all images below the folder), `rename` (that text → class name).
    """
    root, pattern = image_root(folder, options), re.compile(options["pattern"])
    if pattern.groups != 1:
        raise UserError(
            f"{folder}: the reader's `pattern` {options['pattern']!r} must have one group (…), for the class"
        )
    given: dict[str, list[tuple[str, str]]] = {}
    odd = []
    for part, top in options.get("parts", {"all": "."}).items():
        if not (root / top).is_dir():
            raise MissingData(f"{root / top}: no such folder")
        given[part] = []
        for path in files_below(root, posixpath.normpath(top)):
            if not is_image_file(root, path):
                continue
            match = pattern.fullmatch(os.path.splitext(os.path.basename(path))[0])
            if match and match[1]:
                given[part].append((path, match[1]))
            else:
                odd.append(path)
    if not any(given.values()):
        said = f"e.g. not {min(odd)!r}" if odd else "there are no images"
        raise UserError(f"{root}: `pattern` {options['pattern']!r} fits no image's name; {said}")
    found = {path for rows in given.values() for path, _ in rows}
    listing = _by_names(folder, root, given, options, "file names", known=found)
    listing.left_out.add("images whose names do not fit `pattern`", odd)
    listing.left_out.add("images in no folder of `parts`", _other_images(root, found.union(odd)))
    return listing


def _by_names(
    listed_in: Path,
    root: Path,
    given: Mapping[str, Sequence[tuple[str, str]]],
    options: Options,
    source: str,
    known: Container[str] = (),
) -> Listing:
    """A listing of images whose classes are given as texts; `known` are paths that stand as they are on disk."""
    texts = sorted({text for rows in given.values() for _, text in rows})
    labels = {text: label for label, text in enumerate(texts)}
    rename = options.get("rename", {})
    for text in sorted(rename.keys() - labels.keys()):
        raise UserError(f"{listed_in}: `rename` names {text!r}, which is no class here; {nearest(text, texts)}")
    names = {label: rename.get(text, text) for text, label in labels.items()}
    labelled = {part: [(path, labels[text]) for path, text in rows] for part, rows in given.items()}
    return replace(_listing(listed_in, root, labelled, names, known), source=source)


def _other_images(root: Path, read: Collection[str]) -> list[str]:
    return [path for path in files_below(root) if path not in read and is_image_file(root, path)]


def _table(file: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    """The rows of a table that has these columns."""
    text = _text_of(file)
    first = text.partition("\n")[0]
    delimiter = max(",;\t", key=first.count)
    try:
        table = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter)
        known = table.fieldnames = [name.strip() for name in table.fieldnames or []]
        rows = list(table)
    except csv.Error as error:
        raise UserError(f"{file}: not a table ({error})") from None
    for column in columns:
        if column not in known:
            raise UserError(f"{file}: there is no column {column!r}; {nearest(column, known)}")
    for number, row in enumerate(rows, start=2):
        for column in columns:
            if not (row.get(column) or "").strip():
                raise UserError(f"{file}: row {number} has no {column!r}")
    return rows


# What the readers share -----------------------------------------------------------------------------------


def _listing(
    listed_in: Path,
    root: Path,
    labelled: Mapping[str, Sequence[tuple[str, int]]],
    names: Mapping[int, str],
    known: Container[str] = (),
) -> Listing:
    """A listing whose labels run from 0 over the labels that occur, in their order."""
    used = sorted({label for rows in labelled.values() for _, label in rows})
    if not used:
        raise UserError(f"{listed_in}: the lists name no images")
    new = {label: number for number, label in enumerate(used)}
    class_names = check_names(listed_in, {new[label]: names[label] for label in used})
    parts: dict[str, list[Item]] = {}
    everything: dict[str, Item] = {}
    for part, rows in labelled.items():
        by_path: dict[str, Item] = {}
        for path, label in rows:
            item = Item(safe_path(listed_in, path, known), new[label])
            if everything.setdefault(item.path, item) != item:
                raise UserError(f"{listed_in}: {path!r} has two labels")
            by_path[item.path] = item
        parts[part] = list(by_path.values())
    return Listing(root, class_names, parts, source="official lists")


def _lines(file: Path, n_words: int) -> Iterator[tuple[int, list[str]]]:
    """(line number, words) of the lines that are neither empty nor comments."""
    for number, line in enumerate(_text_of(file).splitlines(), start=1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        if len(words) < n_words:
            raise UserError(f"{file}: line {number} must have {n_words} words or more, not {line!r}")
        yield number, words


def _text_of(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise MissingData(f"{file}: no such file") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{file}: cannot be read ({error})") from None


def _number(file: Path, line: int, word: str) -> int:
    if not _is_number(word):
        raise UserError(f"{file}: line {line}: {word[:80]!r} is not a label; labels are whole numbers")
    return int(word)


def _is_number(word: str) -> bool:
    return word.isdecimal() and len(word) < 10  # Python refuses to read thousands of digits


def _known(file: Path, line: int, name: str, labels: Mapping[str, int], listed_in: str) -> int:
    if name not in labels:
        raise UserError(f"{file}: line {line}: class {name!r} is not in {listed_in}")
    return labels[name]


def _same(file: Path, line: int, earlier: str, name: str, label: int) -> None:
    if earlier != name:
        raise UserError(f"{file}: line {line}: label {label} has two class names, {earlier!r} and {name!r}")


def _matlab(file: Path, key: str) -> Any:
    """One array of a MATLAB file (version 5 and earlier: data only, nothing in it is run)."""
    if not file.is_file():
        raise MissingData(f"{file}: no such file")
    from scipy.io import loadmat

    try:
        found = loadmat(str(file), variable_names=[key])[key]
    except KeyError:
        raise UserError(f"{file}: holds no {key!r}; fetch the file again") from None
    except Exception as error:  # scipy's reader fails in many ways on broken files
        text = " ".join(str(error).split())
        raise UserError(f"{file}: not a MATLAB file ({text}); fetch the file again") from None
    if not isinstance(found, np.ndarray):  # a sparse matrix, a function
        raise UserError(f"{file}: {key!r} is no array; fetch the file again")
    return found


def _single(cell: Any) -> Any:
    """What a MATLAB cell of one entry holds; a cell of more, or of none, as it is."""
    while isinstance(cell, np.ndarray) and cell.size == 1 and cell.dtype.names is None:
        cell = cell.item()
    return cell.item() if isinstance(cell, np.generic) else cell


def _text(file: Path, what: str, cell: Any) -> str:
    text = _single(cell)
    if not isinstance(text, str):
        raise UserError(f"{file}: {what} must be text, not {_shown(text)}; fetch the file again")
    return text


def _whole(file: Path, what: str, value: Any) -> int:
    """A label of a MATLAB file, where numbers are floating-point unless said otherwise."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    if not number or value != int(value):
        raise UserError(f"{file}: {what} must be a whole number, not {_shown(value)}; fetch the file again")
    return int(value)


def _shown(value: Any) -> str:
    return " ".join(repr(value).split())[:80]
