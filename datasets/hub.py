"""Readers of Hugging Face `datasets` and of torchvision's own classes.

Everything after a reader speaks of files (splits, few-shot lists, the features' cache), and these libraries hand out
rows. So the rows' images are written as files once, bytes unchanged where the library has them, beside a list of
their labels. Only `fetch` downloads; a run never does. Rows are a stranger's data: they name no file of the user's.
"""

from __future__ import annotations

import importlib
import inspect
import io
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import Any

from PIL import Image

from bench.datasets.cache_paths import cache_place, writable_places
from bench.datasets.images import FORMATS
from bench.datasets.readers import PARTS, Options, parts_of
from bench.datasets.splitfiles import check_names, item_of, read_json, rows_of, write_json
from bench.datasets.types import Item, LeftOut, Listing, MissingData, NotWritten, class_name
from bench.errors import UserError, nearest
from bench.files import make_folder

LIBRARIES = {"huggingface": "Hugging Face", "torchvision": "torchvision"}
SUFFIXES = {"JPEG": ".jpg", "PNG": ".png", "BMP": ".bmp", "GIF": ".gif", "TIFF": ".tif", "WEBP": ".webp"}
INDEX = "index.json"  # {"names": [...], "parts": {part: [[path, label], ...]}, "left_out": ...}
READING = 2  # raised when other images of the same local files are read

Rows = Iterator[tuple[str, bytes, Any]]  # part, the image's bytes, label as the library has it
UNPICKLE = ("LSUN", "LSUNClass")  # of torchvision: a pickle beside the data, without a checksum


def read_rows(folder: Path, options: Options) -> Listing:
    """A data set of Hugging Face's library (a `hub` id, or Parquet `files`), or a class of `torchvision.datasets`.

    What a library downloads must have been fetched; of local files the images must have been written (`prepare`).
    """
    theirs = "class" if options["kind"] == "torchvision" else "hub"
    source = f"{LIBRARIES[options['kind']]} {options.get(theirs, 'files')}"
    if place := _exported(folder, options):
        return _listing(place, source)
    if can_fetch(options):
        raise MissingData(f"{folder}: {source} is not fetched yet")
    raise NotWritten(f"{folder}: its images are not written as files yet; the first run does so")


def prepare(folder: Path, options: Options) -> None:
    """Write the images of local rows as files. What a library downloads is left to `fetch`."""
    if options["kind"] == "huggingface" and "hub" not in options:
        fetch(folder, options)


def fetch(folder: Path, options: Options) -> Path:
    """Write the images of a data set as files (downloading where its library does); the folder they are in."""
    if found := _exported(folder, options):
        return found
    errors = []
    for place in writable_places(folder):
        try:
            made = place / _name(folder, options)
            make_folder(made, partial(_write, folder, options), place / f".{_chosen(options)}.draft")
            return made
        except OSError as error:
            errors.append(f"{place}: {error}")
    raise UserError(f"the images of {folder.name} can be written nowhere ({'; '.join(errors)})")


def is_fetched(folder: Path, options: Options) -> bool:
    """Whether the images are there as files already."""
    return _exported(folder, options) is not None


def can_fetch(options: Options) -> bool:
    """Whether a reader of this kind downloads by itself."""
    return options["kind"] == "torchvision" or "hub" in options


# Images as files ---------------------------------------------------------------------------------------------


def _write(folder: Path, options: Options, draft: Path) -> None:
    unread = LeftOut()
    if options["kind"] == "torchvision":
        names, rows = _torchvision_rows(folder, options)
    else:
        names, rows = _huggingface_rows(folder, options, unread)
    names = [class_name(str(name)) for name in names]
    check_names(folder, dict(enumerate(names)))
    parts: dict[str, list[tuple[str, int]]] = {part: [] for part in parts_of(options)}
    for part, data, label in rows:
        if type(label) is not int or not 0 <= label < len(names):  # true is no label
            said = repr(label)[:80]
            raise UserError(f"{folder}: label {said} in {part!r} has no name; leave that part out of `parts`")
        path = f"{part}/{label}/{len(parts[part]):06d}{_suffix(data, folder, part, len(parts[part]))}"
        (draft / path).parent.mkdir(parents=True, exist_ok=True)
        (draft / path).write_bytes(data)
        parts[part].append((path, label))
    write_json(draft / INDEX, {"names": names, "parts": parts, "left_out": unread})


def _suffix(data: bytes, folder: Path, part: str, number: int) -> str:
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            return SUFFIXES.get(str(image.format), ".img")
    except Exception as error:  # of any kind, as in `open_image`
        raise UserError(f"{folder}: image {number} of {part!r} cannot be read ({error})") from None


def _exported(folder: Path, options: Options) -> Path | None:
    name = _name(folder, options)
    places = [folder / name, cache_place(folder) / name]
    return next((place for place in places if place.is_dir()), None)


def _name(folder: Path, options: Options) -> str:
    """The folder of the files: another one for each choice of columns and parts, and whenever local data changes."""
    if options["kind"] == "huggingface" and ("hub" in options) == ("files" in options):
        raise UserError(f"{folder}: reader huggingface needs one of `hub` and `files`")
    if can_fetch(options):
        return _chosen(options)
    files = sorted({file for theirs in parts_of(options).values() for file in _matching(folder, options, theirs)})
    seen = [(file.relative_to(folder).as_posix(), file.stat()) for file in files]
    text = json.dumps([READING, *((name, stat.st_size, stat.st_mtime_ns) for name, stat in seen)])
    return f"{_chosen(options)}-{blake2b(text.encode(), digest_size=4).hexdigest()}"


def _chosen(options: Options) -> str:
    text = json.dumps({key: options[key] for key in sorted(options)}, ensure_ascii=True)
    return f"files-{options['kind']}-{blake2b(text.encode(), digest_size=4).hexdigest()}"


def _listing(place: Path, source: str) -> Listing:
    file = place / INDEX
    content = read_json(file)
    try:
        names = check_names(file, dict(enumerate(content["names"])))
        listed: dict[str, list[Item]] = {}
        for part, rows in content["parts"].items():
            listed[part] = [item_of(file, *row) for row in rows_of(file, part, rows, "[path, label]", (2,))]
        unread = LeftOut({which: (int(count), str(one)) for which, (count, one) in content.get("left_out", {}).items()})
        if set(listed) not in PARTS or any(i.label >= len(names) for items in listed.values() for i in items):
            raise ValueError("other parts or labels than names")
    except (AttributeError, KeyError, TypeError, ValueError, UserError) as error:
        said = str(error).removeprefix(f"{file}: ")
        raise UserError(f"{file}: damaged; remove {place} to have the images written again ({said})") from None
    return Listing(place, names, listed, source, left_out=unread)


def _library(name: str, install: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UserError(f"this reader takes {name} ({error}); install it with `pip install {install}`") from None


def _tried(work: Callable[[], Any], what: str) -> Any:
    """What a library returns; its errors, of many types (network, formats, names), in one line."""
    try:
        return work()
    except Exception as error:
        raise UserError(f"{what} ({_first_line(error)})") from None


def _first_line(error: BaseException) -> str:
    """What an error says, and what its cause says: `datasets` alone says no more than that something failed."""
    line = (str(error).strip() or type(error).__name__).splitlines()[0]
    return f"{line}: {_first_line(error.__cause__)}" if error.__cause__ else line


# Hugging Face ------------------------------------------------------------------------------------------------


def _huggingface_rows(folder: Path, options: Options, unread: LeftOut) -> tuple[list[str], Rows]:
    """Class names and rows; the library's parts that are not read are added to `unread`."""
    library = _library("datasets", "datasets")
    image, label = options.get("image", "image"), options.get("label", "label")
    parts: dict[str, Any] = {}
    for part, theirs in parts_of(options).items():
        if "hub" in options:
            given = {"path": options["hub"], "revision": options.get("revision"), "name": options.get("config")}
            what = {key: value for key, value in given.items() if value}
        else:
            files = [str(file) for file in _matching(folder, options, theirs)]
            what = {"path": "parquet", "data_files": {theirs: files}}
        said = f"{folder}: Hugging Face `datasets` cannot read part {theirs!r}"
        data = parts[part] = _tried(partial(library.load_dataset, split=theirs, **what), said)
        for column in (image, label):
            if column not in data.column_names:
                raise UserError(f"{folder}: there is no column {column!r}; {nearest(column, data.column_names)}")
    names = options.get("names") or getattr(data.features[label], "names", None) or _texts(parts, label)
    if not names or not all(isinstance(name, str) for name in names):
        raise UserError(f"{folder}: column {label!r} holds numbers without names; give them as `names`")
    known = getattr(getattr(data, "info", None), "splits", None) or {}
    used = " ".join(parts_of(options).values())  # such as "train[:50%]+test"
    others = {name: part.num_examples for name, part in known.items() if not re.search(rf"\b{re.escape(name)}\b", used)}
    if "hub" in options and others:
        unread["images in parts that the reader's `parts` does not name"] = (sum(others.values()), min(others))
    return names, _read_rows(library, folder, options, parts, {name: number for number, name in enumerate(names)})


def _read_rows(
    library: Any, folder: Path, options: Options, parts: Mapping[str, Any], numbers: Mapping[str, int]
) -> Rows:
    image, label = options.get("image", "image"), options.get("label", "label")
    places: list[Path] = []  # Parquet holds bytes; a path in it could name any file
    if "hub" in options:  # what the library itself has downloaded or unpacked
        hub = importlib.import_module("huggingface_hub.constants")
        places = [Path(library.config.HF_DATASETS_CACHE), Path(hub.HF_HUB_CACHE)]
    for part, data in parts.items():
        said = f"{folder}: the rows of {part!r} cannot be read"
        undecoded = _tried(partial(data.cast_column, image, library.Image(decode=False)), said)  # bytes or paths
        rows = enumerate(undecoded)
        while numbered := _tried(partial(next, rows, None), said):
            number, row = numbered
            given = row[label]
            content = _image_bytes(places, f"{folder}: image {number} of {part!r}", row[image])
            yield part, content, numbers.get(given, given) if isinstance(given, str) else given


def _matching(folder: Path, options: Options, theirs: str) -> list[Path]:
    """The user's Parquet files of one part, sorted by name."""
    patterns = options["files"]
    if theirs not in patterns:
        raise UserError(f"{folder}: `files` has no {theirs!r}; {nearest(theirs, patterns)}")
    files = sorted(file for file in folder.glob(patterns[theirs]) if file.is_file())
    if not files:
        raise MissingData(f"{folder / patterns[theirs]}: no such file")
    return files


def _texts(parts: Mapping[str, Any], label: str) -> list[str]:
    """The class names of a column of texts, sorted; none where it holds anything else."""
    values = [value for data in parts.values() for value in data[label]]
    return sorted(set(values)) if all(isinstance(value, str) for value in values) else []


def _image_bytes(places: Sequence[Path], what: str, held: object) -> bytes:
    """An image's bytes as the row holds them, or of the file it names where that is in one of `places`."""
    content, path = (held.get("bytes"), held.get("path")) if isinstance(held, dict) else (None, None)
    if isinstance(content, bytes):
        return content
    if content is not None or not isinstance(path, str) or "\0" in path:
        raise UserError(f"{what} is none: neither bytes nor a path; leave such rows out")
    try:
        file = Path(path).resolve()
        if any(file.is_relative_to(place.resolve()) for place in places):
            return file.read_bytes()
    except (OSError, RuntimeError, ValueError) as error:  # resolve's: loops of links, names no disk takes
        raise UserError(f"{what} cannot be read from {path!r} ({error})") from None
    raise UserError(f"{what} has no bytes, and its path {path!r} is no file of the data set")


# torchvision -------------------------------------------------------------------------------------------------


def _torchvision_rows(folder: Path, options: Options) -> tuple[list[str], Rows]:
    library, name = _library("torchvision.datasets", "torchvision"), options["class"]
    if name in UNPICKLE:
        raise UserError(f"{folder}: torchvision's {name} reads a pickle, which can run code; give images in folders")
    kind = getattr(library, name, None)
    if not inspect.isclass(kind):
        raise UserError(f"torchvision has no data set {name!r}; {nearest(name, library.__all__)}")
    parts = {part: _torchvision_part(kind, folder, theirs) for part, theirs in parts_of(options).items()}
    first = next(iter(parts.values()))
    names = options.get("names") or getattr(first, "classes", None) or getattr(first, "categories", None)
    if not names:
        raise UserError(f"{folder}: torchvision's {name} names no classes; give them as `names`")

    def rows() -> Rows:
        for part, data in parts.items():
            for number in range(len(data)):
                image, label = data[number]
                yield part, _file_bytes(data, number) or _png_bytes(image), int(label)

    return names, rows()


def _torchvision_part(kind: Any, folder: Path, theirs: str) -> Any:
    """One part, from the disk where it is there: below the task's folder, in it, or beside it; else downloaded.

    torchvision's classes name a part by `split`, by `train`, or have none; some cannot download.
    """
    known, own = inspect.signature(kind).parameters, folder / "torchvision"
    part = {key: value for key, value in (("split", theirs), ("train", theirs == "train")) if key in known}
    if "download" in known:
        for root in (own, folder, folder.parent):
            with suppress(Exception):  # not there, damaged or an unknown part: what downloads says which
                return kind(str(root), download=False, **part)
        part["download"] = True
    said = f"{folder}: torchvision cannot get part {theirs!r} of {kind.__name__}"
    return _tried(partial(kind, str(own), **part), said)


def _file_bytes(data: Any, number: int) -> bytes | None:
    """The image's own file, where the class keeps a list of them (the names differ from class to class)."""
    for name in ("_image_files", "_images", "_samples", "samples"):
        entries = getattr(data, name, None)
        if isinstance(entries, list) and len(entries) == len(data):
            file = entries[number][0] if isinstance(entries[number], tuple) else entries[number]
            if isinstance(file, (str, Path)) and Path(file).is_file():
                return Path(file).read_bytes()
    return None


def _png_bytes(image: Image.Image) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()
