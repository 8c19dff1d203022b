"""Open an image, whatever a real collection holds under that name."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from bench.datasets.items import is_image_name
from bench.errors import UserError
from bench.files import user_path

# Pillow's other formats are not photographs, and some start programs to draw them (EPS).
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP", "PPM", "JPEG2000")

# All suffixes of these formats; .mpo are a camera's JPEGs of several views, .pfm floating-point values (refused below).
SUFFIXES = frozenset(
    {end for end, kind in Image.registered_extensions().items() if kind in FORMATS} - {".pfm"} | {".mpo"}
)


def open_image(path: Path | str) -> Image.Image:
    """The image as RGB, as CoOp opens it: `Image.open(path).convert("RGB")`.

    So the first frame of an animation is taken, transparency is dropped, and a camera's rotation flag
    (EXIF) is not applied. What differs: 16-bit grey levels are scaled to 8 bits (Pillow would clip them to
    white), the format is told by content among `FORMATS` only, and a failure is an error that names the file.
    """
    try:
        with Image.open(path, formats=FORMATS) as image:
            if image.mode == "F":
                raise UserError(f"{path}: an image of floating-point values; save it with 8 bits a channel")
            if image.mode.startswith("I"):  # 16-bit grey levels, in whichever mode Pillow reads them
                return image.convert("I").point(lambda level: level / 256).convert("L").convert("RGB")
            image.load()  # before the file is closed
            return image if image.mode == "RGB" else image.convert("RGB")  # convert would copy all pixels
    except Image.DecompressionBombError as error:
        raise UserError(f"{path}: too large to open safely ({error})") from None
    except FileNotFoundError:
        raise UserError(f"{path}: no such image") from None
    except UnidentifiedImageError:
        raise UserError(f"{path}: not an image in a known format ({', '.join(FORMATS)})") from None
    except (OSError, SyntaxError, ValueError, EOFError, MemoryError) as error:
        raise UserError(f"{path}: cannot be read as an image ({error})") from None


def image_files(given: Sequence[Path | str]) -> list[Path]:
    """Image files as they were given, each once; a folder stands for the images in it and below it, by name.

    Hidden files and folders are left out. So are files that are no images by their names, with a warning.

    Raises
    ------
    UserError : no such file, or a folder without images.
    """
    found: list[Path] = []
    for path in map(user_path, given):
        if path.is_dir():
            found += _images_below(path)
        elif path.is_file():
            found.append(path)
        else:
            raise UserError(f"{path}: no such file or folder")
    return list(dict.fromkeys(found))


def _images_below(folder: Path) -> list[Path]:
    images, others = [], []
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith((".", "__MACOSX")))
        for name in sorted(names):
            if is_image_name(name):
                images.append(Path(place, name))
            elif not name.startswith("."):
                others.append(name)
    n = len(others)
    if not images:
        raise UserError(f"{folder}: holds no images, neither in it nor below it ({n} other file{'s' * (n != 1)})")
    if others:
        said = f"{n} file{'s' * (n != 1)} left out, by the name no image"
        warnings.warn(f"{folder}: {said}, e.g. {others[0]!r}", stacklevel=3)
    return images


def is_image(path: Path | str) -> bool:
    """Whether a file's first bytes are those of an image that `open_image` takes."""
    try:
        with Image.open(path, formats=FORMATS):
            return True
    except Exception:  # whatever a file of anything makes of a parser
        return False
