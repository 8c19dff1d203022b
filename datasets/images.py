"""Open an image, whatever a real collection holds under that name."""

from __future__ import annotations

import io
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from bench.errors import UserError

# Pillow's other formats are not photographs, and some start programs to draw them (EPS).
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP", "PPM", "JPEG2000")

# All suffixes of these formats; .mpo are a camera's JPEGs of several views, .pfm floating-point values (refused below).
SUFFIXES = frozenset(
    {end for end, kind in Image.registered_extensions().items() if kind in FORMATS} - {".pfm"} | {".mpo"}
)


def open_image(path: Path | str, data: bytes | None = None) -> Image.Image:
    """The image as RGB, as CoOp opens it: `Image.open(path).convert("RGB")`.

    So the first frame of an animation is taken, transparency is dropped, and a camera's rotation flag
    (EXIF) is not applied. What differs: 16-bit grey levels are scaled to 8 bits (Pillow would clip them to
    white), the format is told by content among `FORMATS` only, and a failure is an error that names the file.

    data : the file's bytes, where they were read already.
    """
    try:
        with Image.open(path if data is None else io.BytesIO(data), formats=FORMATS) as image:
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
    except UserError:
        raise
    except Exception as error:  # Pillow's readers raise whatever odd bytes lead to, TypeErrors among it
        raise UserError(f"{path}: cannot be read as an image ({error})") from None


def is_image(path: Path | str) -> bool:
    """Whether a file's first bytes are those of an image that `open_image` takes."""
    try:
        with Image.open(path, formats=FORMATS):
            return True
    except Exception:  # whatever a file of anything makes of a parser
        return False


def looks_whole(data: bytes) -> bool:
    """Whether a file's bytes are a whole JPEG or PNG, as far as is told without decoding them.

    A PNG's checksums are read; of a JPEG, the header, and whether the mark of its end is there. So a file that was cut
    off is not whole; damage inside a JPEG is not seen.
    """
    try:
        with Image.open(io.BytesIO(data), formats=("JPEG", "PNG")) as image:
            if image.format == "PNG":
                image.verify()
                return True
            return b"\xff\xd9" in data[-64:]  # some cameras add a few bytes
    except Exception:  # whatever a broken file makes of a parser: `open_image` says what is wrong
        return False
