"""Opening images: every kind a collection may hold comes out as RGB or as an error that names the file."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from bench.datasets.images import SUFFIXES, is_image, open_image
from bench.errors import UserError


def photograph(size: tuple[int, int] = (40, 30)) -> Image.Image:
    """Smooth colours, so that JPEG changes little."""
    x, y = np.meshgrid(np.linspace(0, 255, size[0]), np.linspace(0, 255, size[1]))
    return Image.fromarray(np.stack([x, y, 255 - x], axis=-1).astype(np.uint8))


def saved(image: Image.Image, file: Path, **options: object) -> Path:
    image.save(file, **options)  # type: ignore[arg-type]
    return file


MODES = {
    ".jpg": ["RGB", "L", "1", "CMYK", "YCbCr"],
    ".png": ["RGB", "L", "1", "P", "RGBA", "LA"],
    ".bmp": ["RGB", "L", "1", "P", "RGBA"],
    ".gif": ["RGB", "L", "1", "P", "RGBA", "LA"],
    ".tif": ["RGB", "L", "1", "P", "RGBA", "LA", "CMYK", "YCbCr"],
    ".webp": ["RGB", "L", "RGBA"],
}


@pytest.mark.parametrize(("suffix", "mode"), [(suffix, mode) for suffix, modes in MODES.items() for mode in modes])
def test_every_mode_opens_as_coop_opens_it(tmp_path: Path, mode: str, suffix: str) -> None:
    file = saved(photograph().convert(mode), tmp_path / f"a{suffix}")
    with Image.open(file) as reference:
        expected = reference.convert("RGB")
    opened = open_image(file)
    assert opened.mode == "RGB" and opened.tobytes() == expected.tobytes()


def test_cmyk_jpeg_has_its_colours(tmp_path: Path) -> None:
    file = saved(Image.new("RGB", (16, 16), (200, 30, 40)).convert("CMYK"), tmp_path / "a.jpg", quality=95)
    assert np.abs(np.asarray(open_image(file)).astype(int) - (200, 30, 40)).max() < 8


def test_16_bit_grey_is_scaled_not_clipped(tmp_path: Path) -> None:
    levels = np.array([[0, 256, 32768, 65535]], dtype=np.uint16)
    for suffix in (".png", ".tif"):
        file = saved(Image.fromarray(levels), tmp_path / f"a{suffix}")
        assert np.asarray(open_image(file))[0, :, 0].tolist() == [0, 1, 128, 255]


def test_floating_point_image_is_refused(tmp_path: Path) -> None:
    file = saved(Image.fromarray(np.ones((4, 4), dtype=np.float32)), tmp_path / "a.tif")
    with pytest.raises(UserError, match=r"a\.tif: an image of floating-point values"):
        open_image(file)


def test_palette_with_transparency_opens(tmp_path: Path) -> None:
    file = saved(photograph().convert("P"), tmp_path / "a.png", transparency=bytes(range(256)))
    assert open_image(file).mode == "RGB"


def test_animation_gives_its_first_frame(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    for suffix in (".gif", ".webp", ".png"):
        lossless = {"lossless": True} if suffix == ".webp" else {}
        file = saved(frames[0], tmp_path / f"a{suffix}", save_all=True, append_images=frames[1:], **lossless)
        assert open_image(file).getpixel((4, 4)) == (255, 0, 0)


def test_rotation_flag_is_not_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # "turn by 90 degrees"
    file = saved(photograph((40, 30)), tmp_path / "a.jpg", exif=exif)
    assert open_image(file).size == (40, 30)


def test_format_is_told_by_content(tmp_path: Path) -> None:
    file = saved(photograph(), tmp_path / "a.png")
    misnamed = file.rename(tmp_path / "a.jpg")
    assert open_image(misnamed).tobytes() == photograph().tobytes()


@pytest.mark.parametrize(
    "content", [b"", b"GIF89a", b"\xff\xd8\xff\xe0", b"<html>not here</html>", b"\x89PNG\r\n\x1a\n"]
)
def test_a_file_that_is_no_image_is_named(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "a.jpg"
    file.write_bytes(content)
    with pytest.raises(UserError, match=r"a\.jpg: (not an image|cannot be read)"):
        open_image(file)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".bmp", ".gif", ".tif", ".webp"])
def test_a_truncated_image_is_named(tmp_path: Path, suffix: str) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8))
    file = saved(noise, tmp_path / f"a{suffix}")
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match=rf"a\{suffix}"):
        open_image(file)


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"a\.jpg: no such image"):
        open_image(tmp_path / "a.jpg")
    (tmp_path / "b.jpg").mkdir()
    with pytest.raises(UserError, match=r"b\.jpg: cannot be read as an image"):
        open_image(tmp_path / "b.jpg")


def test_a_file_that_may_not_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path, **_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Image, "open", refuse)
    with pytest.raises(UserError, match=r"a\.jpg: cannot be read as an image \(.*Permission denied"):
        open_image(tmp_path / "a.jpg")


def bomb(file: Path, side: int) -> Path:
    """A PNG of a few bytes that says it is side × side pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    data = zlib.compress(b"\0" * 1000)
    file.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b""))
    return file


def test_a_decompression_bomb_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"a\.png: too large to open safely"):
        open_image(bomb(tmp_path / "a.png", 30_000))


def test_a_text_bomb_in_a_png_is_refused(tmp_path: Path) -> None:
    info = PngImagePlugin.PngInfo()
    info.add_text("comment", "0" * (PngImagePlugin.MAX_TEXT_CHUNK + 1), zip=True)
    file = saved(photograph(), tmp_path / "a.png", pnginfo=info)
    with pytest.raises(UserError, match=r"a\.png: cannot be read as an image"):
        open_image(file)


def test_formats_that_start_programs_are_not_opened(tmp_path: Path) -> None:
    stream = io.BytesIO()
    photograph().save(stream, "EPS")
    (tmp_path / "a.jpg").write_bytes(stream.getvalue())
    with pytest.raises(UserError, match="not an image in a known format"):
        open_image(tmp_path / "a.jpg")


@pytest.mark.parametrize("suffix", sorted(SUFFIXES))
def test_images_of_every_suffix_that_is_read_open(tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"a{suffix}"
    kind = Image.registered_extensions()[suffix]
    Image.new("RGB", (16, 16), "white").convert("1" if suffix == ".pbm" else "RGB").save(file, kind)
    image = open_image(file)
    assert (image.mode, image.size) == ("RGB", (16, 16)) and min(image.getpixel((8, 8))) > 250
    assert is_image(file)


def test_what_is_no_image_is_none_by_its_content(tmp_path: Path) -> None:
    for content in (b"", b"P3 text", b"BM text", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", b"\xff\xd8\xff"):
        (tmp_path / "a").write_bytes(content)
        assert not is_image(tmp_path / "a")


def test_a_tiff_whose_offsets_are_no_whole_numbers_is_named(tmp_path: Path) -> None:
    """Pillow raises a TypeError of it (found by `make fuzz`)."""
    file = saved(photograph(), tmp_path / "a.tif")
    data = file.read_bytes()
    at = data.index(struct.pack("<HH", 273, 4))  # the strips' offsets, 32-bit whole numbers
    file.write_bytes(data[:at] + struct.pack("<HH", 273, 11) + data[at + 4 :])  # as floating-point
    with pytest.raises(UserError, match=r"a\.tif: cannot be read as an image"):
        open_image(file)
