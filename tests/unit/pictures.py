"""Make small image files for the tests, intact and damaged ones."""

import io
import struct
import zlib

import numpy as np
from PIL import Image

GREY, RGB, GREY_AND_ALPHA = 0, 2, 4

# Images of these colours have 8 x 8 pixels, so a JPEG of them has whole blocks.
RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def encoded(image: Image.Image, file_format: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, file_format, **options)
    return file.getvalue()


def uniform(mode: str, colour, *, size=(8, 8)) -> Image.Image:
    return Image.new(mode, size, colour)


def red_left_blue_right(size=(16, 8)) -> Image.Image:
    width, height = size
    image = Image.new("RGB", size, RED)
    image.paste(BLUE, (width // 2, 0, width, height))
    return image


def oriented(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[274] = orientation
    return exif


def noise(height: int = 24, width: int = 32, channels: int = 3, seed: int = 0) -> np.ndarray:
    """Return random pixels (height, width, channels) uint8."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)


def noisy_jpeg() -> bytes:
    return encoded(Image.fromarray(noise()), "JPEG")


def noisy_png() -> bytes:
    return encoded(Image.fromarray(noise()), "PNG")


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def handmade_png(width: int, height: int, *, bits: int = 8, colour_type: int = GREY, scanlines: bytes = b"") -> bytes:
    """Make a PNG with this header and these scanlines, which need not fit. A scanline begins with a filter byte."""
    header = struct.pack(">IIBBBBB", width, height, bits, colour_type, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + png_chunk(b"IHDR", header)
        + png_chunk(b"IDAT", zlib.compress(scanlines))
        + png_chunk(b"IEND", b"")
    )


def with_mended_checksums(png: bytes) -> bytes:
    """Give each chunk the CRC of its present bytes, so damage is noticed only when the pixels are decoded."""
    mended, position = png[:8], 8
    while position + 12 <= len(png):
        (length,) = struct.unpack(">I", png[position : position + 4])
        mended += png_chunk(png[position + 4 : position + 8], png[position + 8 : position + 8 + length])
        position += 12 + length
    return mended
