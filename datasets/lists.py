"""Readers of lists: the data sets' own (text files, MATLAB files, JSON), tables, and names of files that tell classes.

Each collects (path, key of the class) by part; `listing_of` makes labels of the keys, checked.
"""

from __future__ import annotations

import csv
import io
import os
import posixpath
import re
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.datasets.matlab import read_matlab
from bench.datasets.readers import Options, image_root, parts_of, text_of
from bench.datasets.splitfiles import check_names, read_json, safe_path
from bench.datasets.types import Item, Listing, files_below, is_image_file, present
from bench.errors import UserError, nearest
from bench.files import is_text

Rows = list[tuple[str, Any]]  # path of an image, key of its class
Row = Callable[[list[str]], tuple[str, str]]  # a line's words → what it stands for


@dataclass(frozen=True)
class TextLists:
    """The text files in which a data set's authors list its images and classes."""

    images: str  # the folder of the images
    parts: Mapping[str, str]  # part → its list
    row: Row  # a line of it → path of the image, key of the class
    n_words: int = 1  # on a line of it
    classes: str = ""  # the list of the classes, in label order; without one their names are the keys, sorted
    named: Row = lambda words: (" ".join(words), " ".join(words))  # a line of it → key and name of the class

    def read(self, folder: Path, options: Options) -> Listing:
        names = dict(_list(folder / self.classes, 1, self.named)) if self.classes else None
        given = {
            part: _list(folder / file, self.n_words, self.row, names, self.classes) for part, file in self.parts.items()
        }
        return listing_of(folder, image_root(folder, options, self.images), given, names)


def _words(action: str) -> list[str]:
    return re.findall(r"[A-Z][^A-Z]*", action)


def _frame(words: list[str]) -> tuple[str, str]:
    """UCF101's lists name videos ("ApplyEyeMakeup/v_x.avi"), the frames are in "Apply_Eye_Makeup/v_x.jpg"."""
    action, _, video = words[0].partition("/")
    return f"{'_'.join(_words(action))}/{video.removesuffix('.avi')}.jpg", action


def _scene(words: list[str]) -> tuple[str, str]:
    """SUN397's "/a/airfield/indoor" is "indoor airfield"; the first part is the letter that the scene begins with."""
    path = words[0].strip("/")
    return path, " ".join(reversed(path.split("/")[1:]))


TEXT_LISTS = {
    "pets": TextLists(  # the label in the list is the place of the breed, which the image's name begins with
        images="images",
        parts={"trainval": "annotations/trainval.txt", "test": "annotations/test.txt"},
        row=lambda words: (f"{words[0]}.jpg", words[0].rpartition("_")[0].lower()),
    ),
    "fgvc": TextLists(
        images="images",
        parts={part: f"images_variant_{part}.txt" for part in ("train", "val", "test")},
        row=lambda words: (f"{words[0]}.jpg", " ".join(words[1:])),
        n_words=2,
        classes="variants.txt",
    ),
    "sun397": TextLists(
        images="SUN397",
        parts={"trainval": "Training_01.txt", "test": "Testing_01.txt"},
        row=lambda words: (words[0].lstrip("/"), words[0].lstrip("/").rpartition("/")[0]),
        classes="ClassName.txt",
        named=_scene,
    ),
    "ucf101": TextLists(
        images="UCF-101-midframes",
        parts={"trainval": "ucfTrainTestlist/trainlist01.txt", "test": "ucfTrainTestlist/testlist01.txt"},
        row=_frame,
        classes="ucfTrainTestlist/classInd.txt",
        named=lambda words: (words[-1], " ".join(_words(words[-1]))),
    ),
}


def read_flowers(folder: Path, options: Options) -> Listing:
    """Flowers102: `imagelabels.mat` (one label per image, in their order), `cat_to_name.json`."""
    file, named = folder / "imagelabels.mat", folder / "cat_to_name.json"
    rows: Rows = []
    labels = matlab_entries(file, "labels")
    content = read_json(present(named))
    texts = list(content.items()) if isinstance(content, dict) else [("", None)]
    if not all(key.isdecimal() and len(key) < 10 and is_text(name) for key, name in texts):
        raise UserError(f'{named}: must hold names by label, as in {{"1": "pink primrose"}}')
    names = {int(key): name for key, name in sorted(texts, key=lambda pair: int(pair[0]))}
    for number, value in enumerate(labels, start=1):
        label = whole_entry(file, f"label of image {number}", value)
        if label not in names:
            raise UserError(f"{file}: label {label} of image {number} has no name in cat_to_name.json")
        rows.append((f"image_{number:05d}.jpg", label))
    return listing_of(folder, image_root(folder, options, "jpg"), {"all": rows}, names)


def read_cars(folder: Path, options: Options) -> Listing:
    """StanfordCars: `devkit/cars_meta.mat`, `devkit/cars_train_annos.mat`, `cars_test_annos_withlabels.mat`.

    "<make model> <year>" is read as "<year> <make model>".
    """
    names = car_names(folder / "devkit" / "cars_meta.mat")
    test = folder / "cars_test_annos_withlabels.mat"
    if not test.is_file() and (folder / "devkit" / test.name).is_file():
        test = folder / "devkit" / test.name
    train = car_labels(folder / "devkit" / "cars_train_annos.mat", "cars_train", names)
    given = {"trainval": train, "test": car_labels(test, "cars_test", names)}
    return listing_of(folder, image_root(folder, options), given, names)


def car_names(file: Path) -> dict[int, str]:
    """Class names by label."""
    names = {}
    for label, text in enumerate(matlab_entries(file, "class_names"), start=1):
        make_model, _, year = text_entry(file, f"class name {label}", text).rpartition(" ")
        names[label] = f"{year} {make_model}"
    return names


def car_labels(file: Path, image_folder: str, names: Container[int]) -> Rows:
    rows: Rows = []
    for number, row in enumerate(matlab_entries(file, "annotations"), start=1):
        if not isinstance(row, dict) or not {"fname", "class"} <= row.keys():
            raise UserError(f"{file}: `annotations` must have the fields fname and class; fetch the file again")
        label = whole_entry(file, f"class of row {number}", row["class"])
        rows.append((f"{image_folder}/{text_entry(file, f'fname of row {number}', row['fname'])}", label))
        if label not in names:
            raise UserError(f"{file}: label {label} has no name in cars_meta.mat")
    return rows


def read_csv(folder: Path, options: Options) -> Listing:
    """Tables of images and their classes, one for each of `parts`; the first line names the columns.

    Options: `image` and `label` (the columns), `suffix` (added to the images' names), `rename` (the table's class →
    class name). Columns are separated by commas, semicolons or tabs. Classes are sorted as texts.
    """
    root, columns = image_root(folder, options), (options["image"], options["label"])
    given = {
        part: [(f"{image}{options.get('suffix', '')}", label) for image, label in _table(folder / name, columns)]
        for part, name in parts_of(options).items()
    }
    listing = listing_of(folder, root, given, None, "table", options.get("rename", {}))
    read = {item.path for items in listing.parts.values() for item in items}
    listing.left_out.add("images that the table does not name", _other_images(root, read))
    return listing


def read_names(folder: Path, options: Options) -> Listing:
    """Images whose names tell their classes: what the one group of `pattern` finds in the name without its suffix.

    Options: `parts` (a folder for each; default: all images below the folder), `rename` (that text → class name).
    """
    root, pattern = image_root(folder, options), re.compile(options["pattern"])
    if pattern.groups != 1:
        said = f"`pattern` {options['pattern']!r} must have one group (…), for the class"
        raise UserError(f"{folder}: the reader's {said}")
    given: dict[str, Rows] = {}
    odd = []
    for part, top in options.get("parts", {"all": "."}).items():
        given[part] = []
        for path in files_below(root, posixpath.normpath(top)):
            if is_image_file(root, path):
                match = pattern.fullmatch(os.path.splitext(os.path.basename(path))[0])
                if match and match[1]:
                    given[part].append((path, match[1]))
                else:
                    odd.append(path)
    if not any(given.values()):
        said = f"e.g. not {min(odd)!r}" if odd else "there are no images"
        raise UserError(f"{root}: `pattern` {options['pattern']!r} fits no image's name; {said}")
    found = {path for rows in given.values() for path, _ in rows}
    listing = listing_of(folder, root, given, None, "file names", options.get("rename", {}), known=found)
    listing.left_out.add("images whose names do not fit `pattern`", odd)
    listing.left_out.add("images in no folder of `parts`", _other_images(root, found.union(odd)))
    return listing


def _other_images(root: Path, read: Container[str]) -> list[str]:
    return [path for path in files_below(root) if path not in read and is_image_file(root, path)]


# What the readers share -----------------------------------------------------------------------------------


def listing_of(
    listed_in: Path,
    root: Path,
    given: Mapping[str, Rows],
    names: Mapping[Any, str] | None = None,
    source: str = "official lists",
    rename: Mapping[str, str] | None = None,
    known: Container[str] = (),
) -> Listing:
    """A listing whose labels run from 0 over the classes that occur.

    names : class names by key, in label order; without it, the keys, sorted, are the names, but for those that `rename`
        has others for. known : paths that are taken as they are on disk.
    """
    used = {key for rows in given.values() for _, key in rows}
    if not used:
        raise UserError(f"{listed_in}: the lists name no images")
    for text in sorted((rename or {}).keys() - used):
        raise UserError(f"{listed_in}: `rename` names {text!r}, which is no class here; {nearest(text, used)}")
    names = names or {key: (rename or {}).get(key, key) for key in sorted(used)}
    labels = {key: label for label, key in enumerate(key for key in names if key in used)}
    class_names = check_names(listed_in, {label: names[key] for key, label in labels.items()})
    parts: dict[str, list[Item]] = {}
    everything: dict[str, Item] = {}
    for part, rows in given.items():
        by_path: dict[str, Item] = {}
        for path, key in rows:
            item = Item(safe_path(listed_in, path, known), labels[key])
            if everything.setdefault(item.path, item) != item:
                raise UserError(f"{listed_in}: {path!r} has two labels")
            by_path[item.path] = item
        parts[part] = list(by_path.values())
    return Listing(root, class_names, parts, source)


def _list(file: Path, n_words: int, row: Row, known: Container[str] | None = None, named_in: str = "") -> Rows:
    """The lines of a list that are neither empty nor comments; without `known`, of any class."""
    rows: Rows = []
    for number, line in enumerate(text_of(file).splitlines(), start=1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        if len(words) < n_words:
            raise UserError(f"{file}: line {number} must have {n_words} words or more, not {line!r}")
        path, key = row(words)
        if known is not None and key not in known:
            raise UserError(f"{file}: line {number}: class {key!r} is not in {named_in}")
        rows.append((path, key))
    return rows


def _table(file: Path, columns: Sequence[str]) -> list[list[str]]:
    """The cells of these columns, row by row."""
    text = text_of(file)
    delimiter = max(",;\t", key=text.partition("\n")[0].count)
    try:
        head, *rows = list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)) or [[]]
    except csv.Error as error:
        raise UserError(f"{file}: not a table ({error})") from None
    known = [name.strip() for name in head]
    cells = []
    for column in columns:
        if column not in known:
            raise UserError(f"{file}: there is no column {column!r}; {nearest(column, known)}")
        if known.count(column) > 1:
            raise UserError(f"{file}: several columns are called {column!r}")
    for number, row in enumerate(rows, start=2):
        if len(row) > len(known):  # "Peach, all" would be read as "Peach"
            raise UserError(
                f"{file}: row {number} has {len(row)} cells, the first line has {len(known)}; a text that holds a "
                f"{delimiter!r} must stand in quotes"
            )
        if row:
            by_column = dict(zip(known, map(str.strip, row), strict=False))
            for column in columns:
                if not by_column.get(column):
                    raise UserError(f"{file}: row {number} has no {column!r}")
            cells.append([by_column[column] for column in columns])
    return cells


def matlab_entries(file: Path, key: str) -> list[Any]:
    """The entries of an array of a MATLAB file."""
    try:
        return read_matlab(present(file).read_bytes(), key)
    except KeyError:
        raise UserError(f"{file}: holds no {key!r}; fetch the file again") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{file}: not a MATLAB file ({error}); fetch the file again") from None


def text_entry(file: Path, what: str, value: Any) -> str:
    if not isinstance(value, str):
        raise UserError(f"{file}: {what} must be text, not {_shown(value)}; fetch the file again")
    return value


def whole_entry(file: Path, what: str, value: Any) -> int:
    """A label of a MATLAB file, where numbers are floating-point unless said otherwise."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not float(value).is_integer():
        raise UserError(f"{file}: {what} must be a whole number, not {_shown(value)}; fetch the file again")
    return int(value)


def _shown(value: Any) -> str:
    return " ".join(repr(value).split())[:80]
