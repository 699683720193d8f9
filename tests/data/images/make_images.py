"""Makes the files of this folder and their golden pixels; see README.md. Run once: python make_images.py.

What a lossless file must give is computed here with NumPy from what went into it, never with the decoder under test.
"""

import hashlib
import io
import json
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

FOLDER = Path(__file__).parent
HEIGHT, WIDTH = 24, 32
ORIENTATION = 274

# (24, 32, 3) uint8, smooth, without any symmetry: red grows to the right, green downwards, a blue spot lies above left.
rows, columns = np.mgrid[0:HEIGHT, 0:WIDTH]
blue = 255 * np.exp(-((rows - 7) ** 2 + (columns - 9) ** 2) / 60)
PICTURE = np.stack([columns * 8, rows * 10, blue], axis=-1).astype(np.uint8)
GREY = PICTURE[:, :, 0] // 2 + PICTURE[:, :, 1] // 3
ALPHA = (255 - PICTURE[:, :, 2]).astype(np.uint8)
# 6 levels of red by 4 of green, as indices and as a palette.
INDICES = ((columns * 6 // WIDTH) * 4 + rows * 4 // HEIGHT).astype(np.uint8)
PALETTE = np.array([(red * 51, green * 85, 40) for red in range(6) for green in range(4)], np.uint8)
DEEP = (GREY.astype(np.uint16) << 8) + PICTURE[:, :, 2]
BITS = ((rows + columns) % 5 == 0).astype(np.uint8)

lossless: dict[str, np.ndarray] = {}
lossy: dict[str, np.ndarray] = {}


def rgb(grey: np.ndarray) -> np.ndarray:
    return np.repeat(grey[:, :, None], 3, axis=2).astype(np.uint8)


def encoded(pixels: np.ndarray | Image.Image, file_format: str, **options) -> bytes:
    file = io.BytesIO()
    (pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)).save(file, file_format, **options)
    return file.getvalue()


def palette_image() -> Image.Image:
    image = Image.fromarray(INDICES).convert("L")
    image.putpalette(PALETTE.tobytes())
    return image


def oriented(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    return exif


def png(colour_type: int, bits: int, scanlines: bytes, interlace: int = 0) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", WIDTH, HEIGHT, bits, colour_type, 0, 0, interlace)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(scanlines, 9))
        + chunk(b"IEND", b"")
    )


def unfiltered(rows_of_bytes: np.ndarray) -> bytes:
    return b"".join(b"\0" + row.tobytes() for row in rows_of_bytes)


def interlaced(pixels: np.ndarray) -> bytes:
    """Adam7: seven passes from coarse to fine (PNG specification, 8.2)."""
    passes = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]
    return b"".join(unfiltered(pixels[y::high, x::wide]) for y, x, high, wide in passes)


def ycck() -> bytes:
    """A CMYK JPEG of YCbCr and K instead; its Adobe marker is then made to say so. Pillow inverts what it writes."""
    cmy = np.asarray(Image.fromarray(255 - PICTURE).convert("YCbCr"))
    channels = Image.fromarray(np.dstack([255 - cmy, 0 * GREY]), "CMYK")
    content = bytearray(encoded(channels, "JPEG", quality=95, subsampling=0))
    content[content.index(b"Adobe") + 11] = 2
    return bytes(content)


def run_lengths() -> bytes:
    """BMP compression RLE8: (count, index) pairs, rows from the bottom, 0 0 ends a row, 0 1 the image."""
    data = b""
    for row in INDICES[::-1]:
        ends = [*np.flatnonzero(np.diff(row)) + 1, WIDTH]
        starts = [0, *ends[:-1]]
        data += b"".join(bytes([end - start, row[start]]) for start, end in zip(starts, ends, strict=True)) + b"\0\0"
    data += b"\0\1"
    colours = b"".join(bytes([*colour[::-1], 0]) for colour in PALETTE.tolist())
    offset = 54 + len(colours)
    header = struct.pack("<IiiHHIIiiII", 40, WIDTH, HEIGHT, 1, 8, 1, len(data), 0, 0, len(PALETTE), 0)
    return b"BM" + struct.pack("<IHHI", offset + len(data), 0, 0, offset) + header + colours + data


def tiff(order: str, bits: int, data: bytes, photometric: int = 1) -> bytes:
    """An uncompressed grey TIFF, `order` as `struct` names it; Pillow writes none like these."""
    tags = [(256, WIDTH), (257, HEIGHT), (258, bits), (259, 1), (262, photometric), (273, 8), (277, 1)]
    tags += [(278, HEIGHT), (279, len(data))]
    # 4-byte integers, one each.
    entries = b"".join(struct.pack(order + "HHII", tag, 4, 1, value) for tag, value in tags)
    magic = b"II*\0" if order == "<" else b"MM\0*"
    return (
        magic
        + struct.pack(order + "I", 8 + len(data))
        + data
        + struct.pack(order + "H", len(tags))
        + entries
        + bytes(4)
    )


def twelve_bits() -> bytes:
    """Two pixels in three bytes."""
    left, right = (DEEP >> 4).reshape(-1, 2).T
    return np.stack([left >> 4, (left & 15) << 4 | right >> 8, right & 255], axis=1).astype(np.uint8).tobytes()


def add(name: str, content: bytes, pixels: np.ndarray | None = None) -> None:
    """Write a file; `pixels` (24, 32, 3) uint8 is what it must give, None where only the encoder knows."""
    (FOLDER / name).write_bytes(content)
    if pixels is None:
        lossy[name] = np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))
    else:
        lossless[name] = pixels.astype(np.uint8)


with_alpha = np.dstack([PICTURE, ALPHA])
palette = PALETTE[INDICES]
second_frame = Image.fromarray(255 - INDICES)
two_bit = (GREY // 64).astype(np.uint8)

add("baseline.jpg", encoded(PICTURE, "JPEG", quality=90))
add("progressive.jpg", encoded(PICTURE, "JPEG", quality=90, progressive=True, subsampling=0))
add("grey.jpg", encoded(GREY, "JPEG", quality=90))
add("cmyk.jpg", encoded(Image.fromarray(PICTURE).convert("CMYK"), "JPEG", quality=95))
add("ycck.jpg", ycck())
add("turned-6.jpg", encoded(np.rot90(PICTURE), "JPEG", quality=95, subsampling=0, exif=oriented(6)))
lossy["turned-6.jpg"] = np.rot90(lossy["turned-6.jpg"], -1)

add("palette.png", encoded(palette_image(), "PNG"), palette)
add("palette-transparent-colour.png", encoded(palette_image(), "PNG", transparency=3), palette)
add("palette-alphas.png", encoded(palette_image(), "PNG", transparency=bytes(range(0, 240, 10))), palette)
add("grey-alpha.png", encoded(Image.fromarray(np.dstack([GREY, ALPHA]), "LA"), "PNG"), rgb(GREY))
add("rgb-alpha.png", encoded(with_alpha, "PNG"), PICTURE)
add("one-bit.png", encoded(Image.fromarray(BITS * 255).convert("1"), "PNG"), rgb(BITS * 255))
packed = (two_bit[:, 0::4] << 6) + (two_bit[:, 1::4] << 4) + (two_bit[:, 2::4] << 2) + two_bit[:, 3::4]
add("two-bit-grey.png", png(0, 2, unfiltered(packed)), rgb(two_bit * 85))
add("grey16.png", png(0, 16, unfiltered(DEEP.astype(">u2"))), rgb(DEEP >> 8))
deep_rgb = (PICTURE.astype(np.uint16) << 8) + 200
add("rgb16.png", png(2, 16, unfiltered(deep_rgb.astype(">u2"))), PICTURE)
add("interlaced.png", png(2, 8, interlaced(PICTURE), interlace=1), PICTURE)
add("turned-8.png", encoded(np.rot90(PICTURE, -1), "PNG", exif=oriented(8)), PICTURE)

add("animated.gif", encoded(palette_image(), "GIF", save_all=True, append_images=[second_frame]), palette)
add("transparent.gif", encoded(palette_image(), "GIF", transparency=3, interlace=1), palette)

add("lossy.webp", encoded(PICTURE, "WEBP", quality=90))
add("lossless-turned-3.webp", encoded(np.rot90(PICTURE, 2), "WEBP", lossless=True, exif=oriented(3)), PICTURE)
frames = {"save_all": True, "append_images": [second_frame.convert("RGB")], "lossless": True}
add("animated.webp", encoded(PICTURE, "WEBP", **frames), PICTURE)
add("alpha.webp", encoded(with_alpha, "WEBP", lossless=True, exact=True), PICTURE)

add("lzw.tif", encoded(PICTURE, "TIFF", compression="tiff_lzw"), PICTURE)
# Stored transposed, as orientation 5 says.
turned = {"tiffinfo": {ORIENTATION: 5}}
add("deflate-turned-5.tif", encoded(PICTURE.swapaxes(0, 1), "TIFF", compression="tiff_deflate", **turned), PICTURE)
pages = {"save_all": True, "append_images": [second_frame], "compression": "packbits"}
add("two-pages.tif", encoded(palette_image(), "TIFF", **pages), palette)
add("fax4.tif", encoded(Image.fromarray(BITS * 255).convert("1"), "TIFF", compression="group4"), rgb(BITS * 255))
add("cmyk.tif", encoded(Image.fromarray(np.dstack([255 - PICTURE, 0 * GREY]), "CMYK"), "TIFF"), PICTURE)
add("jpeg.tif", encoded(PICTURE, "TIFF", compression="jpeg", quality=90))
add("lab.tif", encoded(Image.fromarray(PICTURE).convert("LAB"), "TIFF", compression="tiff_lzw"))
add("grey16.tif", tiff(">", 16, DEEP.astype(">u2").tobytes()), rgb(DEEP >> 8))
add("grey16-white-is-zero.tif", tiff("<", 16, (65535 - DEEP).astype("<u2").tobytes(), 0), rgb(DEEP >> 8))
add("grey12.tif", tiff("<", 12, twelve_bits()), rgb(DEEP >> 8))

add("rgb.bmp", encoded(PICTURE, "BMP"), PICTURE)
add("run-lengths.bmp", run_lengths(), palette)

golden = lossless | lossy
np.savez_compressed(FOLDER / "golden.npz", names=np.array(list(golden)), pixels=np.stack(list(golden.values())))
sums = {name: hashlib.sha256(pixels.tobytes()).hexdigest() for name, pixels in sorted(lossless.items())}
(FOLDER / "lossless.json").write_text(json.dumps(sums, indent=2) + "\n")
