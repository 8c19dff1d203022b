"""Readers of Hugging Face `datasets` and of torchvision's own classes.

Everything after a reader speaks of files (splits, few-shot lists, the features' cache), and these libraries hand out
rows. So the rows' images are written as files once, bytes unchanged where the library has them, beside a list of
their labels. Only `fetch` downloads; a run never does. Rows are a stranger's data: they name no file of the user's.
"""

from __future__ import annotations

import glob
import importlib
import inspect
import io
import json
import os
import posixpath
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from hashlib import blake2b
from itertools import chain
from pathlib import Path
from typing import Any

from PIL import Image

from bench.datasets.cache_paths import cache_place, writable_places
from bench.datasets.images import FORMATS
from bench.datasets.readers import PARTS, Options, parts_of, suite_line
from bench.datasets.splitfiles import check_names, read_json, safe_path, write_json
from bench.datasets.types import (
    Item,
    LeftOut,
    Listing,
    MissingData,
    class_name,
    files_below,
    is_image_file,
    is_image_name,
)
from bench.errors import UserError, nearest
from bench.files import locked

SUFFIXES = {"JPEG": ".jpg", "PNG": ".png", "BMP": ".bmp", "GIF": ".gif", "TIFF": ".tif", "WEBP": ".webp"}
INDEX = "index.json"  # {"names": [...], "parts": {part: [[path, label], ...]}, "left_out": ...}, written last
METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")  # of an `imagefolder`, as the library knows them
READING = 2  # raised when other images of the same local files are read

Row = tuple[str, bytes, Any]  # part, the image's bytes, label as the library has it


class NotWritten(MissingData):
    """Local rows are there; their images become files when they are first used."""


def read_huggingface(folder: Path, options: Options) -> Listing:
    """A data set of Hugging Face's library: a `hub` id, Parquet `files`, or an `imagefolder`; columns by name.

    A hub id must have been fetched; of local files the images must have been written (`prepare`).
    """
    _one_origin(options)
    place = _exported(folder, options)
    if place is None and "hub" not in options:
        raise NotWritten(f"{folder}: its images are not written as files yet; the first run does so")
    return _listing(place, folder, f"Hugging Face {options.get('hub', 'files')}")


def read_torchvision(folder: Path, options: Options) -> Listing:
    """A class of `torchvision.datasets`, once fetched."""
    return _listing(_exported(folder, options), folder, f"torchvision {options['class']}")


def prepare(folder: Path, options: Options) -> None:
    """Write the images of local rows as files. What must be downloaded is left to `fetch`."""
    if options["kind"] == "torchvision":
        with suppress(MissingData):
            fetch(folder, options, download=False)
    elif options["kind"] == "huggingface" and "hub" not in options:
        fetch(folder, options)


def fetch(folder: Path, options: Options, download: bool = True) -> Path:
    """Write the images of a data set as files (downloading where its library does); the folder they stand in.

    Without `download`, torchvision's data that is not on disk is `MissingData`.
    """
    if options["kind"] == "huggingface":
        _one_origin(options)
    there = _exported(folder, options)
    if there:
        return there
    errors = []
    for place in writable_places(folder):
        try:
            return _export(place / _name(folder, options), folder, options, download)
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


def _export(place: Path, folder: Path, options: Options, download: bool) -> Path:
    """All of it or nothing: the files are written into a draft beside `place`, which then gets its name.

    The draft always has the same name, so that what a killed run left is cleared away by the next.
    """
    draft = place.with_name(f".{_chosen(options)}.draft")
    with locked(place.parent, "fetch"):
        if (place / INDEX).is_file():  # another process was faster
            return place
        if draft.is_symlink():
            draft.unlink()  # it came with the data; what it points to must not be cleared
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir()
        try:
            _write(draft, folder, options, download)
            os.rename(draft, place)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    return place


def _write(draft: Path, folder: Path, options: Options, download: bool) -> None:
    unread = LeftOut()  # known once the rows are read
    if options["kind"] == "torchvision":
        names, rows = _torchvision_rows(folder, options, download)
    else:
        names, rows = _huggingface_rows(folder, options, unread)
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


def _exported(folder: Path, options: Options) -> Path | None:
    name = _name(folder, options)
    places = [folder / name, cache_place(folder) / name]
    return next((place for place in places if (place / INDEX).is_file()), None)


def _name(folder: Path, options: Options) -> str:
    """The folder of the files: another one for each choice of columns and parts, and whenever local data changes."""
    if options["kind"] == "torchvision" or "hub" in options:
        return _chosen(options)
    seen = [(file.relative_to(folder).as_posix(), file.stat()) for file in _local_files(folder, options)]
    text = json.dumps([READING, *((name, stat.st_size, stat.st_mtime_ns) for name, stat in seen)])
    return f"{_chosen(options)}-{blake2b(text.encode(), digest_size=4).hexdigest()}"


def _chosen(options: Options) -> str:
    text = json.dumps({key: options[key] for key in sorted(options)}, ensure_ascii=True)
    return f"files-{options['kind']}-{blake2b(text.encode(), digest_size=4).hexdigest()}"


def _local_files(folder: Path, options: Options) -> list[Path]:
    """The user's files that Hugging Face's library would read, sorted by name."""
    if "imagefolder" in options:
        top = folder / options["imagefolder"]
        if not top.is_dir():
            raise MissingData(f"{top}: no such folder")
        return sorted(file for path in files_below(top) if (file := top / path).is_file())
    return sorted({file for theirs in parts_of(options).values() for file in _matching(folder, options, theirs)})


def _matching(folder: Path, options: Options, theirs: str) -> list[Path]:
    patterns = options["files"]
    if theirs not in patterns:
        raise UserError(f"{folder}: `files` has no {theirs!r}; {nearest(theirs, patterns)}")
    files = sorted(file for file in folder.glob(patterns[theirs]) if file.is_file())
    if not files:
        raise MissingData(f"{folder / patterns[theirs]}: no such file")
    return files


def _listing(place: Path | None, folder: Path, source: str) -> Listing:
    if place is None:
        raise MissingData(f"{folder}: {source} is not fetched yet")
    file = place / INDEX
    content = read_json(file)
    try:
        names = check_names(file, dict(enumerate(content["names"])))
        listed = {part: [_item(file, names, *row) for row in rows] for part, rows in content["parts"].items()}
        unread = LeftOut({which: (int(count), str(one)) for which, (count, one) in content.get("left_out", {}).items()})
        if set(listed) not in PARTS:
            raise ValueError
    except (AttributeError, KeyError, TypeError, ValueError):
        raise UserError(f"{file}: damaged; remove {place} to have the images written again") from None
    return Listing(place, names, listed, source, left_out=unread)


def _item(file: Path, names: Sequence[str], path: object, label: object) -> Item:
    if type(label) is not int or not 0 <= label < len(names):  # true is no label
        raise ValueError
    return Item(safe_path(file, path), label)


def _suffix(data: bytes, folder: Path, part: str, number: int) -> str:
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            return SUFFIXES.get(str(image.format), ".img")
    except (OSError, SyntaxError, ValueError, EOFError, MemoryError, Image.DecompressionBombError) as error:
        raise UserError(f"{folder}: image {number} of {part!r} cannot be read ({error})") from None


def _library(name: str, install: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UserError(f"this reader takes {name} ({error}); install it with `pip install {install}`") from None


# Hugging Face ------------------------------------------------------------------------------------------------


def _one_origin(options: Options) -> None:
    given = [key for key in ("hub", "files", "imagefolder") if key in options]
    if len(given) != 1:
        raise UserError(f"reader huggingface needs one of `hub`, `files`, `imagefolder`, not {given or 'none'}")


def _huggingface_rows(folder: Path, options: Options, unread: LeftOut) -> tuple[list[str], Iterator[Row]]:
    """Class names and rows; what is left out is added to `unread`, at the latest when the rows are read."""
    _one_origin(options)
    files = _imagefolder_files(folder, options, unread) if "imagefolder" in options else {}
    library = _library("datasets", "datasets")
    image, label = options.get("image", "image"), options.get("label", "label")
    parts = {
        part: _huggingface_part(library, folder, options, theirs, files.get(part, ()))
        for part, theirs in parts_of(options).items()
    }
    for data in parts.values():
        _check_columns(folder, options, data.column_names)
    features = next(iter(parts.values())).features
    names = options.get("names") or getattr(features[label], "names", None) or _texts(folder, parts, label)
    if not names:
        raise UserError(f"{folder}: column {label!r} holds numbers without names; give them as `names`")
    numbers = {name: number for number, name in enumerate(names)}
    if "hub" in options:
        _tell_other_parts(parts, options, unread)
    places = _image_places(library, folder, options)
    wanted = {os.path.abspath(file) for file in chain(*files.values()) if is_image_name(file.name)}

    def rows() -> Iterator[Row]:
        for part, data in parts.items():
            for number, row in enumerate(_with_bytes(library, folder, part, data, image)):
                given, held = row[label], row[image]
                content = _image_bytes(places, folder, held, f"image {number} of {part!r}")
                wanted.discard(os.path.abspath(held.get("path") or ""))
                yield part, content, numbers.get(given, given) if isinstance(given, str) else given
        top = os.path.abspath(folder / options.get("imagefolder", "."))
        unread.add("images that the metadata does not name", [os.path.relpath(file, top) for file in wanted])

    return [class_name(name) for name in names], rows()


def _check_columns(folder: Path, options: Options, known: Sequence[str]) -> None:
    for column in (options.get("image", "image"), options.get("label", "label")):
        if column not in known:
            raise UserError(f"{folder}: there is no column {column!r}; {nearest(column, known)}")


def _texts(folder: Path, parts: Mapping[str, Any], label: str) -> list[str]:
    """The class names of a column of texts, sorted; none where it holds anything else."""
    texts: set[str] = set()
    for part, data in parts.items():
        values = list(data[label])
        if not all(isinstance(value, str) for value in values):
            if texts:
                raise UserError(f"{folder}: column {label!r} of {part!r} holds other values than texts")
            return []
        texts.update(values)
    return sorted(texts)


def _with_bytes(library: Any, folder: Path, part: str, data: Any, image: str) -> Iterator[Any]:
    """The rows with their images as bytes or paths, not decoded."""
    rows = None
    while True:
        try:
            rows = rows or iter(data.cast_column(image, library.Image(decode=False)))
            row = next(rows)
        except StopIteration:
            return
        except Exception as error:  # damaged pages, a column of no images: the library's own are of many types
            raise UserError(f"{folder}: the rows of {part!r} cannot be read ({_first_line(error)})") from None
        yield row


def _image_bytes(places: Sequence[Path], folder: Path, held: object, what: str) -> bytes:
    """An image's bytes as the row holds them, or of the file it names where that stands in one of `places`."""
    content = held.get("bytes") if isinstance(held, dict) else None
    path = held.get("path") if isinstance(held, dict) else None
    if isinstance(content, bytes):
        return content
    if content is not None or not isinstance(path, str) or "\0" in path:
        raise UserError(f"{folder}: {what} is none: neither bytes nor a path; leave such rows out")
    try:
        file = Path(path).resolve()
        if not any(file.is_relative_to(place.resolve()) for place in places):
            raise UserError(f"{folder}: {what} has no bytes, and its path {path!r} is no file of the data set")
        return file.read_bytes()
    except (OSError, RuntimeError, ValueError) as error:  # resolve's: loops of links, names no disk takes
        raise UserError(f"{folder}: {what} cannot be read from {path!r} ({error})") from None


def _image_places(library: Any, folder: Path, options: Options) -> list[Path]:
    """Where the files of a data set of loose images stand. Parquet holds bytes; a path in it could name any file."""
    if "files" in options:
        return []
    hub = importlib.import_module("huggingface_hub.constants")
    # What the library itself has downloaded or unpacked.
    return [*_own_places(folder, options), Path(library.config.HF_DATASETS_CACHE), Path(hub.HF_HUB_CACHE)]


def _own_places(folder: Path, options: Options) -> list[Path]:
    return [folder, folder / options["imagefolder"]] if "imagefolder" in options else []


def _tell_other_parts(parts: Mapping[str, Any], options: Options, unread: LeftOut) -> None:
    """Count the rows of the library's parts that `parts` does not name, where it says what parts there are."""
    known = getattr(getattr(next(iter(parts.values())), "info", None), "splits", None) or {}
    used = " ".join(parts_of(options).values())  # such as "train[:50%]+test"
    others = {
        name: split.num_examples for name, split in known.items() if not re.search(rf"\b{re.escape(name)}\b", used)
    }
    if others:
        unread["images in parts that the reader's `parts` does not name"] = (sum(others.values()), min(others))


def _imagefolder_files(folder: Path, options: Options, unread: LeftOut) -> dict[str, list[Path]]:
    """The files of each part: no file's or folder's name decides what is read, as it would in the library.

    Parts are folders below the `imagefolder`; without `parts` all that lies there is one. A metadata file says of which
    class an image is: folders of classes are the kind `folders`'s.
    """
    top = folder / options["imagefolder"]
    chosen = parts_of(options) if "parts" in options else {"all": "."}
    paths = {part: sorted(_below(top, theirs)) for part, theirs in chosen.items()}
    everything = {path for found in paths.values() for path in found}
    metadata = {path for path in everything if os.path.basename(path) in METADATA}
    if not metadata:
        kept = {"images": options["imagefolder"], **{key: options[key] for key in ("parts",) if key in options}}
        line = suite_line({"kind": "folders"}, kept)
        raise UserError(f"{top}: holds none of {', '.join(METADATA)}; where the folders are classes, write {line}")
    images = {path for path in everything - metadata if is_image_file(top, path)}
    others = [path for path in files_below(top) if path not in everything and is_image_file(top, path)]
    unread.add("images in no folder of `parts`", others)
    unread.add("files that are no images", list(everything - images - metadata))
    return {part: [top / path for path in found if path in metadata | images] for part, found in paths.items()}


def _below(top: Path, part: str) -> Iterator[str]:
    if not (top / part).is_dir():
        raise MissingData(f"{top / part}: no such folder; leave `parts` out to have all of {top.name} read")
    return files_below(top, posixpath.normpath(part))


def _huggingface_part(library: Any, folder: Path, options: Options, theirs: str, files: Sequence[Path]) -> Any:
    """One part of the data set as the library holds it; of an `imagefolder` these files."""
    if "hub" in options:
        what: dict[str, Any] = {"path": options["hub"]}
        what.update({key: options[key] for key in ("revision",) if key in options})
        what.update({"name": options["config"]} if "config" in options else {})
    elif "imagefolder" in options:
        theirs = "train"  # the library's name for whatever it is given
        what = {"path": "imagefolder", "data_files": {theirs: [glob.escape(str(file)) for file in files]}}
    else:
        matching = [str(file) for file in _matching(folder, options, theirs)]
        what = {"path": "parquet", "data_files": {theirs: matching}}
    try:
        return library.load_dataset(split=theirs, **what)
    except Exception as error:  # network, format, names: the library's own errors are of many types
        text = f"Hugging Face `datasets` cannot read part {theirs!r} ({_first_line(error)})"
        raise UserError(f"{folder}: {text}") from None


def _first_line(error: BaseException) -> str:
    """What an error says, and what its cause says: `datasets` alone says no more than that something failed."""
    line = (str(error).strip() or type(error).__name__).splitlines()[0]
    return f"{line}: {_first_line(error.__cause__)}" if error.__cause__ else line


# torchvision -------------------------------------------------------------------------------------------------


def _torchvision_rows(folder: Path, options: Options, download: bool) -> tuple[list[str], Iterator[Row]]:
    library = _library("torchvision.datasets", "torchvision")
    kind = getattr(library, options["class"], None)
    if not inspect.isclass(kind):
        raise UserError(
            f"torchvision has no data set {options['class']!r}; {nearest(options['class'], library.__all__)}"
        )
    parts = {part: _torchvision_part(kind, folder, theirs, download) for part, theirs in parts_of(options).items()}
    first = next(iter(parts.values()))
    names = options.get("names") or getattr(first, "classes", None) or getattr(first, "categories", None)
    if not names:
        raise UserError(f"{folder}: torchvision's {options['class']} names no classes; give them as `names`")

    def rows() -> Iterator[Row]:
        for part, data in parts.items():
            for number in range(len(data)):
                image, label = data[number]
                yield part, _file_bytes(data, number) or _png_bytes(image), int(label)

    return [class_name(str(name)) for name in names], rows()


def _torchvision_part(kind: Any, folder: Path, theirs: str, download: bool) -> Any:
    """One part, from the disk where it is there: below the task's folder, in it, or beside it; else downloaded.

    torchvision's classes name a part by `split`, by `train`, or have none; some cannot download.
    """
    known = inspect.signature(kind).parameters
    part: dict[str, Any] = {"split": theirs} if "split" in known else {}
    if "split" not in known and "train" in known:
        part["train"] = theirs == "train"
    own = folder / "torchvision"
    if "download" in known:
        for root in (own, folder, folder.parent):
            with suppress(Exception):  # not there, damaged or an unknown part: what downloads says which
                return kind(str(root), download=False, **part)
        part["download"] = True
    if not download and ("download" in known or not own.is_dir()):
        raise MissingData(f"{own}: torchvision's {kind.__name__} is not there, nor beside it")
    try:
        return kind(str(own), **part)
    except Exception as error:  # network, checksums, unknown split: of many types
        text = f"torchvision cannot get part {theirs!r} of {kind.__name__} ({_first_line(error)})"
        raise UserError(f"{folder}: {text}") from None


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
