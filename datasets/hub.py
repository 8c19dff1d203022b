"""Readers of Hugging Face `datasets` and of torchvision's own classes.

Everything after a reader speaks of files (splits, few-shot lists, the features' cache), and these libraries hand out
rows. So the rows' images are written as files once, bytes unchanged where the library has them, beside a list of
their labels. Only `fetch` downloads; a run never does.
"""

from __future__ import annotations

import importlib
import inspect
import io
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from hashlib import blake2b
from pathlib import Path
from typing import Any

from PIL import Image

from bench.datasets.images import FORMATS
from bench.datasets.items import Item, Listing, MissingData, class_name
from bench.datasets.places import cache_place, writable_places
from bench.datasets.readers import Options
from bench.datasets.splitfiles import check_names, read_json, write_json
from bench.errors import UserError, nearest

SUFFIXES = {"JPEG": ".jpg", "PNG": ".png", "BMP": ".bmp", "GIF": ".gif", "TIFF": ".tif", "WEBP": ".webp"}
INDEX = "index.json"  # {"names": [...], "parts": {part: [[path, label], ...]}}, written last

Row = tuple[str, bytes, Any]  # part, the image's bytes, label as the library has it


def read_huggingface(folder: Path, options: Options) -> Listing:
    """A data set of Hugging Face's library: a `hub` id, Parquet `files`, or an `imagefolder`; columns by name.

    Local files are read as they are; a hub id must have been fetched.
    """
    _one_origin(options)
    place = _exported(folder, options)
    if place is None and "hub" not in options:
        place = fetch(folder, options)
    return _listing(place, folder, f"Hugging Face {options.get('hub', 'files')}")


def read_torchvision(folder: Path, options: Options) -> Listing:
    """A class of `torchvision.datasets`, once fetched."""
    return _listing(_exported(folder, options), folder, f"torchvision {options['class']}")


def fetch(folder: Path, options: Options) -> Path:
    """Write the images of a data set as files (downloading where its library does); the folder they stand in."""
    there = _exported(folder, options)
    if there:
        return there
    errors = []
    for place in writable_places(folder):
        try:
            return _export(place / _name(options), folder, options)
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


def _export(place: Path, folder: Path, options: Options) -> Path:
    """All of it or nothing: the files are written beside `place` and moved there."""
    place.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{place.name}-", dir=place.parent))
    try:
        read = _torchvision_rows if options["kind"] == "torchvision" else _huggingface_rows
        names, rows = read(folder, options)
        parts: dict[str, list[tuple[str, int]]] = {part: [] for part in _parts(options)}
        for part, data, label in rows:
            if not isinstance(label, int) or not 0 <= label < len(names):
                raise UserError(f"{folder}: label {label!r} in {part!r} has no name; leave that part out of `parts`")
            path = f"{part}/{label}/{len(parts[part]):06d}{_suffix(data, folder, part, len(parts[part]))}"
            (draft / path).parent.mkdir(parents=True, exist_ok=True)
            (draft / path).write_bytes(data)
            parts[part].append((path, label))
        write_json(draft / INDEX, {"names": names, "parts": parts})
        draft.chmod(0o755)  # mkdtemp's folders are private
        try:
            os.rename(draft, place)
        except OSError:
            if not (place / INDEX).is_file():  # else another process was faster
                raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return place


def _exported(folder: Path, options: Options) -> Path | None:
    places = [folder / _name(options), cache_place(folder) / _name(options)]
    return next((place for place in places if (place / INDEX).is_file()), None)


def _name(options: Options) -> str:
    """The folder of the files: another one for each choice of columns and parts."""
    text = json.dumps({key: options[key] for key in sorted(options)}, ensure_ascii=True)
    return f"files-{options['kind']}-{blake2b(text.encode(), digest_size=4).hexdigest()}"


def _listing(place: Path | None, folder: Path, source: str) -> Listing:
    if place is None:
        raise MissingData(f"{folder}: {source} is not fetched yet; `python -m bench data fetch` does")
    content = read_json(place / INDEX)
    names = check_names(place / INDEX, dict(enumerate(content["names"])))
    parts = {part: [Item(path, label) for path, label in rows] for part, rows in content["parts"].items()}
    return Listing(place, names, parts, source)


def _suffix(data: bytes, folder: Path, part: str, number: int) -> str:
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            return SUFFIXES.get(str(image.format), ".img")
    except (OSError, SyntaxError, ValueError) as error:
        raise UserError(f"{folder}: image {number} of {part!r} cannot be read ({error})") from None


def _parts(options: Options) -> Mapping[str, str]:
    """Our part → the library's."""
    parts: Mapping[str, str] = options.get("parts", {"all": "train"})
    if set(parts) not in ({"all"}, {"trainval", "test"}, {"train", "val", "test"}):
        raise UserError(f"parts: {sorted(parts)} must be all, or trainval and test, or train, val and test")
    return parts


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


def _huggingface_rows(folder: Path, options: Options) -> tuple[list[str], Iterator[Row]]:
    _one_origin(options)
    library = _library("datasets", "datasets")
    image, label = options.get("image", "image"), options.get("label", "label")
    parts = {part: _huggingface_part(library, folder, options, theirs) for part, theirs in _parts(options).items()}
    for data in parts.values():
        for column in (image, label):
            if column not in data.column_names:
                raise UserError(f"{folder}: there is no column {column!r}; {nearest(column, data.column_names)}")
    features = next(iter(parts.values())).features
    names = options.get("names") or getattr(features[label], "names", None)
    texts = not names and any(isinstance(value, str) for value in next(iter(parts.values()))[label][:1])
    if texts:
        names = sorted({value for data in parts.values() for value in data[label]})
    if not names:
        raise UserError(f"{folder}: column {label!r} holds numbers without names; give them as `names`")
    numbers = {name: number for number, name in enumerate(names)}

    def rows() -> Iterator[Row]:
        for part, data in parts.items():
            for row in data.cast_column(image, library.Image(decode=False)):
                held = row[image]
                content = held["bytes"] if held["bytes"] is not None else Path(held["path"]).read_bytes()
                yield part, content, numbers.get(row[label], row[label])

    return [class_name(name) for name in names], rows()


def _huggingface_part(library: Any, folder: Path, options: Options, theirs: str) -> Any:
    """One part of the data set as the library holds it."""
    if "hub" in options:
        what: dict[str, Any] = {"path": options["hub"]}
        what.update({key: options[key] for key in ("revision",) if key in options})
        what.update({"name": options["config"]} if "config" in options else {})
    elif "imagefolder" in options:
        if not (folder / options["imagefolder"]).is_dir():
            raise MissingData(f"{folder / options['imagefolder']}: no such folder")
        what = {"path": "imagefolder", "data_dir": str(folder / options["imagefolder"])}
    else:
        patterns = options["files"]
        if theirs not in patterns:
            raise UserError(f"{folder}: `files` has no {theirs!r}; {nearest(theirs, patterns)}")
        files = sorted(str(file) for file in folder.glob(patterns[theirs]))
        if not files:
            raise MissingData(f"{folder / patterns[theirs]}: no such file")
        what = {"path": "parquet", "data_files": {theirs: files}}
    try:
        return library.load_dataset(split=theirs, **what)
    except Exception as error:  # network, format, names: the library's own errors are of many types
        first_line = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"{folder}: Hugging Face `datasets` cannot read part {theirs!r} ({first_line})") from None


# torchvision -------------------------------------------------------------------------------------------------


def _torchvision_rows(folder: Path, options: Options) -> tuple[list[str], Iterator[Row]]:
    library = _library("torchvision.datasets", "torchvision")
    kind = getattr(library, options["class"], None)
    if not inspect.isclass(kind):
        raise UserError(
            f"torchvision has no data set {options['class']!r}; {nearest(options['class'], library.__all__)}"
        )
    parts = {part: _torchvision_part(kind, folder, theirs) for part, theirs in _parts(options).items()}
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


def _torchvision_part(kind: Any, folder: Path, theirs: str) -> Any:
    """torchvision's classes name a part by `split`, by `train`, or have none; some cannot download."""
    known = inspect.signature(kind).parameters
    arguments: dict[str, Any] = {"download": True} if "download" in known else {}
    if "split" in known:
        arguments["split"] = theirs
    elif "train" in known:
        arguments["train"] = theirs == "train"
    try:
        return kind(str(folder / "torchvision"), **arguments)
    except Exception as error:  # network, checksums, unknown split: of many types
        first_line = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"{folder}: torchvision cannot get part {theirs!r} of {kind.__name__} ({first_line})") from None


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
