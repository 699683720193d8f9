"""Files of a few KB that make a decoder use gigabytes or hours. Each must be refused with the code beside it.

Run as a program, this module decodes all of them and prints the time and memory that this took.
"""

import json
import resource
import struct
import sys
import time
import zlib

from PIL import Image

from cnnlib.errors import ImageError
from cnnlib.sealed.frozen.images import ImageSpec, decode_image
from tests.unit.pictures import encoded, handmade_png, noise, noisy_jpeg

SPEC = ImageSpec(8, 8, 3)


def handmade_gif(screen: tuple[int, int], frame: tuple[int, int], disposal: int = 0) -> bytes:
    """Make a GIF with a screen and a frame of these sizes, (width, height)."""
    header = b"GIF89a" + struct.pack("<HHBBB", *screen, 0x80, 0, 0) + bytes(6)
    control = b"!\xf9\x04" + bytes([disposal << 2, 0, 0, 0, 0])
    return header + control + b"," + struct.pack("<HHHHB", 0, 0, *frame, 0) + b"\x02\x02\x4c\x01\0;"


def handmade_tiff(width: int, height: int, data: bytes, **tags: tuple[int, ...]) -> bytes:
    """Make an 8-bit grey TIFF. `data` begins at byte 8.

    More tags are given by number, as t278=(rows per strip,). Each is a tuple of 4-byte integers.
    """
    fields = {256: (width,), 257: (height,), 258: (8,), 259: (1,), 262: (1,), 277: (1,)}
    fields |= {int(name[1:]): values for name, values in tags.items()}
    blob, entries = data, b""
    for tag, values in sorted(fields.items()):
        packed = struct.pack(f"<{len(values)}I", *values)
        where = values[0] if len(values) == 1 else 8 + len(blob)
        blob += packed if len(values) > 1 else b""
        entries += struct.pack("<HHII", tag, 4, len(values), where)
    return b"II*\0" + struct.pack("<I", 8 + len(blob)) + blob + struct.pack("<H", len(fields)) + entries + bytes(4)


def handmade_bmp(width: int, height: int, compression: int = 0, data: bytes = b"") -> bytes:
    """Make a BMP of 8 bits and 256 colours."""
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, compression, len(data), 0, 0, 256, 0)
    return b"BM" + struct.pack("<IHHI", 0, 0, 0, 54 + 1024) + header + bytes(range(256)) * 4 + data


def webp_canvas(width: int, height: int) -> bytes:
    """Make an animation of two small frames that declares a large canvas."""
    frames = [Image.fromarray(noise(seed=seed)) for seed in (0, 1)]
    content = bytearray(encoded(frames[0], "WEBP", save_all=True, append_images=frames[1:]))
    content[24:30] = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return bytes(content)


def large_lossless_webp() -> bytes:
    """Make a lossless WebP whose header declares 16,383 x 16,383 pixels. The header has 14 bits per side."""
    chunk = b"VP8L" + struct.pack("<I", 6) + b"\x2f" + struct.pack("<I", 0x0FFFFFFF - (1 << 14) - 1) + b"\0"
    return b"RIFF" + struct.pack("<I", 4 + len(chunk)) + b"WEBP" + chunk


def large_jpeg() -> bytes:
    content = bytearray(noisy_jpeg())
    start_of_frame = content.index(b"\xff\xc0")
    content[start_of_frame + 5 : start_of_frame + 9] = struct.pack(">HH", 65_500, 65_500)
    return bytes(content)


def jpeg_of_scans(count: int) -> bytes:
    """Make a progressive JPEG that repeats its last scan."""
    content = encoded(Image.fromarray(noise()), "JPEG", progressive=True)
    last = content.rindex(b"\xff\xda")
    return content[:last] + content[last:-2] * count + content[-2:]


def jpeg_of_channel_scans(count: int) -> bytes:
    """Make a baseline JPEG whose first scan has one of three channels. The content of the others does not matter."""
    content = noisy_jpeg()
    scan = content.index(b"\xff\xda")
    one_channel = b"\xff\xda\0\x08\x01\x01\0\0\x3f\0"
    return content[:scan] + one_channel * count + content[scan + 14 :]


def jpeg_of_exif_parts(count: int) -> bytes:
    content = noisy_jpeg()
    large = b"\xff\xe1\xff\xffExif\0\0" + bytes(65_527)
    return content[:2] + 16 * large + count * b"\xff\xe1\0\x0aExif\0\0ab" + content[2:]


def bombs() -> dict[str, tuple[str, bytes]]:
    """Return (expected code, content) by name."""
    pixels = "too_many_pixels"
    strips = {"t273": (8,) * 40_000, "t279": (100,) * 40_000, "t278": (9,)}
    tile = zlib.compress(bytes(16_000 * 16_000), 9)
    tiles = {"t259": (8,), "t322": (16_000,), "t323": (16_000,), "t324": (8, 8, 8, 8), "t325": (len(tile),) * 4}
    return {
        "png": (pixels, handmade_png(20_000, 20_000)),
        "gif screen": (pixels, handmade_gif((65_535, 65_535), (1, 1))),
        "gif frame": (pixels, handmade_gif((8, 8), (65_535, 65_535))),
        "gif frame below Pillow's limit": (pixels, handmade_gif((8, 8), (13_000, 13_000), disposal=2)),
        "webp canvas": (pixels, webp_canvas(1 << 24, 255)),
        "webp canvas below Pillow's limit": (pixels, webp_canvas(13_000, 13_000)),
        "webp lossless": (pixels, large_lossless_webp()),
        "tiff": (pixels, handmade_tiff(1 << 20, 1 << 20, b"", t273=(8,), t278=(1 << 20,), t279=(1,))),
        "tiff below Pillow's limit": (pixels, handmade_tiff(13_000, 13_000, b"", t259=(8,), t273=(8,), t279=(1,))),
        "tiff tiles beyond the image": (pixels, handmade_tiff(20, 20, tile, **tiles)),
        "tiff strips on one another": ("unreadable", handmade_tiff(10, 10, bytes(100), **strips)),
        "bmp": (pixels, handmade_bmp(1 << 16, 1 << 16)),
        "bmp run lengths": (pixels, handmade_bmp(40_000_000, 2, 1, b"\1\0\0\0\1\0\0\0")),
        "jpeg": (pixels, large_jpeg()),
        "jpeg scans": ("unreadable", jpeg_of_scans(5_000)),
        "jpeg scans of a channel": ("unreadable", jpeg_of_channel_scans(5_000)),
        "jpeg exif parts": ("unreadable", jpeg_of_exif_parts(100_000)),
    }


def code_of(content: bytes) -> str:
    try:
        decode_image(content, SPEC)
    except ImageError as error:
        return error.code
    return "pixels"


def peak_mb() -> float:
    """Return the most memory that this process has used. macOS counts it in bytes, Linux in KB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20 if sys.platform == "darwin" else 1 << 10)


if __name__ == "__main__":
    files = bombs()
    for file_format in ("JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP"):
        decode_image(encoded(Image.fromarray(noise()), file_format), SPEC)
    before = peak_mb()
    codes, seconds = {}, {}
    for name, (_, content) in files.items():
        started = time.process_time()
        codes[name] = code_of(content)
        seconds[name] = time.process_time() - started
    print(json.dumps({"codes": codes, "seconds": seconds, "growth_mb": peak_mb() - before}))
