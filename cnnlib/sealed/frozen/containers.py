"""Checks of files before Pillow reads them: PNG, PPM and JPEG 2000 can hide much work and memory in a few bytes.

This module travels inside every registered model, as `images` does.
"""

import math
import re
import struct
import zlib
from collections.abc import Iterator

from .errors import ImageError

_J2K_SIGNATURE = b"\xff\x4f\xff\x51"
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"

_PNG_TEXTS = (b"iCCP", b"tEXt", b"zTXt", b"iTXt")
# Keywords of texts in which programs keep EXIF data and XMP.
_WITH_ORIENTATION = (b"Raw profile type exif", b"Raw profile type APP1", b"XML:com.adobe.xmp")
# Pillow refuses longer texts. Of a file with more texts than this, the others are dropped unread.
_MAX_PNG_TEXT, _MAX_PNG_TEXTS = 1_000_000, 20
# Real files have chunks of 8 KB and more.
_MAX_PNG_CHUNKS = 200_000
_PPM_HEADER = re.compile(rb"P[1-6]((\s|#[^\r\n]*[\r\n])+\d+){2,3}\s")
_MAX_PPM_HEADER, _MAX_PPM_COMMENTS = 4096, 100
# Markers of JPEG 2000: size, coding style, coding style of a component, start of a tile part, start of its data.
_SIZ, _COD, _COC, _SOT, _SOD = 0xFF51, 0xFF52, 0xFF53, 0xFF90, 0xFF93
# An image of 89 megapixels with the usual tiles of 256 x 256 has 1,366 of them.
_MAX_J2K_TILES, _MAX_J2K_LAYERS, _MAX_J2K_MARKERS = 4096, 100, 20_000
# A code block has a width of 2**x and a height of 2**y pixels; this is the least x + y. The exponent of a
# precinct's side is at least half of this.
_MIN_J2K_EXPONENTS = 8


def check_ppm(content: bytes) -> None:
    """Refuse a PPM whose comments Pillow would read byte by byte, or join again and again.

    Raises ImageError: unreadable.
    """
    if not _PPM_HEADER.match(content[:_MAX_PPM_HEADER]):
        raise ImageError("unreadable", f"PPM: its header has more than {_MAX_PPM_HEADER} bytes, or is damaged")
    if content[1:2] in b"123":
        refuse_above(_MAX_PPM_COMMENTS, content.count(b"#"), "comments")


def check_jpeg_2000(content: bytes, max_pixels: int) -> None:
    """Refuse a JPEG 2000 image that needs far more memory or time than its number of pixels suggests.

    Its code stream may have another size than its file says. It may also have tiles, precincts or code blocks of a few
    pixels, and each of those takes hundreds of bytes. Raises ImageError: too_many_pixels, unreadable, truncated.
    """
    tile_parts = 0
    for number, (marker, body) in enumerate(_jpeg_2000_markers(content)):
        refuse_above(_MAX_J2K_MARKERS, number, "markers")
        if marker == _SIZ and len(body) >= 36:
            width, height, left, top, tile_width, tile_height = struct.unpack_from(">6I", body, 2)
            if (width - left) * (height - top) > max_pixels:
                raise ImageError(
                    "too_many_pixels",
                    f"{(width - left) * (height - top)} pixels exceed the limit of {max_pixels}",
                )
            tiles = math.ceil(width / max(tile_width, 1)) * math.ceil(height / max(tile_height, 1))
            refuse_above(_MAX_J2K_TILES, tiles, "tiles")
        elif marker == _COD and len(body) >= 10:
            refuse_above(_MAX_J2K_LAYERS, int.from_bytes(body[2:4], "big"), "layers")
            _check_code_blocks(body[5:8], body[10:] if body[0] & 1 else b"")
        elif marker == _COC and len(body) >= 7:
            _check_code_blocks(body[2:5], body[7:] if body[1] & 1 else b"")
        elif marker == _SOT:
            tile_parts += 1
            refuse_above(_MAX_J2K_TILES, tile_parts, "parts of tiles")


def _check_code_blocks(style: bytes, precincts: bytes) -> None:
    """Refuse code blocks and precincts that are too small.

    `style` begins with the number of decompositions, and the exponents of width and height of a code block, less 2. A
    byte of `precincts` has the exponents of width and height of a precinct, from the lowest resolution to the highest.
    """
    levels, *exponents = style[:3]
    # A pixel of a lower resolution stands for 4, 16, … of the image.
    smallest = [min(byte & 15, byte >> 4) + levels - number for number, byte in enumerate(precincts[: levels + 1])]
    if sum(exponents) + 4 < _MIN_J2K_EXPONENTS or min(smallest, default=15) < _MIN_J2K_EXPONENTS // 2:
        raise ImageError("unreadable", "JPEG 2000: its code blocks or precincts have fewer than 16 x 16 pixels")


def _jpeg_2000_markers(content: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the markers of the main header and of those of the tile parts, each with its body (ISO/IEC 15444-1, A)."""
    position = _codestream_start(content) + 2
    next_part = 0
    while position + 4 <= len(content):
        marker, length = struct.unpack_from(">HH", content, position)
        if marker == _SOD:
            # What follows is the data of this tile part. The next marker is at the start of the next part.
            if next_part <= position:
                raise ImageError("unreadable", "JPEG 2000: its parts overlap")
            position = next_part
            continue
        if marker < 0xFF4F or length < 2:
            raise ImageError("unreadable", "JPEG 2000: its header is damaged")
        body = content[position + 4 : position + 2 + length]
        yield marker, body
        if marker == _SOT:
            part_length = int.from_bytes(body[2:6], "big")
            next_part = position + part_length if part_length else len(content)
        position += 2 + length


def _codestream_start(content: bytes) -> int:
    """Return where the code stream begins, which is in a box of its own in a JP2 file."""
    if content.startswith(_J2K_SIGNATURE):
        return 0
    position = 0
    for _ in range(_MAX_J2K_MARKERS):
        if position + 16 > len(content):
            break
        length, kind = struct.unpack_from(">I4s", content, position)
        header = 8
        if length == 1:
            (length,) = struct.unpack_from(">Q", content, position + 8)
            header = 16
        if kind == b"jp2c":
            return position + header
        if length < header:
            break
        position += length
    raise ImageError("truncated", "it ends early or is damaged; JPEG 2000: it has no code stream")


def without_needless_chunks(content: bytes) -> bytes:
    """Return a PNG without the chunks that can only do harm. If it has none of them, it is returned unchanged.

    They are colour profiles and texts, which Pillow unpacks and refuses above 1 MB, and chunks with a wrong checksum
    that have neither pixels nor a palette. Texts with the orientation of the image stay, if they are not large.
    """
    kept: list[bytes] = []
    texts = 0
    start = position = len(PNG_SIGNATURE)
    for _ in range(_MAX_PNG_CHUNKS):
        if position + 12 > len(content):
            break
        length, kind = struct.unpack_from(">I4s", content, position)
        end = position + 12 + length
        if end > len(content):
            break
        texts += kind in _PNG_TEXTS
        if _is_needless(kind, content, position, end, unpack=texts <= _MAX_PNG_TEXTS):
            kept.append(content[start:position])
            start = end
        position = end
    if not kept:
        return content
    return b"".join([PNG_SIGNATURE, *kept, content[start:]])


def _is_needless(kind: bytes, content: bytes, start: int, end: int, *, unpack: bool) -> bool:
    # The name of a chunk that a reader may leave out begins with a small letter.
    if not kind[:1].islower():
        return False
    (checksum,) = struct.unpack_from(">I", content, end - 4)
    if zlib.crc32(memoryview(content)[start + 4 : end - 4]) != checksum:
        return True
    if kind not in _PNG_TEXTS:
        return False
    if not unpack or not content.startswith(_WITH_ORIENTATION, start + 8):
        return True
    return _is_large_text(kind, content[start + 8 : end - 4])


def _is_large_text(kind: bytes, text: bytes) -> bool:
    """Return whether a text of a PNG unpacks to more bytes than Pillow takes."""
    rest = text.partition(b"\0")[2]
    if kind == b"zTXt":
        packed = rest[1:]
    elif kind == b"iTXt" and rest.startswith(b"\1"):
        # Language and translated keyword come before the text, each with a zero at its end.
        packed = rest[2:].partition(b"\0")[2].partition(b"\0")[2]
    else:
        return len(text) > _MAX_PNG_TEXT
    try:
        return len(zlib.decompressobj().decompress(packed, _MAX_PNG_TEXT + 1)) > _MAX_PNG_TEXT
    except zlib.error:
        return True


def refuse_above(limit: int, count: int, unit: str) -> None:
    """Raise ImageError (unreadable) if there are more than `limit` of something.

    >>> refuse_above(100, 7, "scans")
    """
    if count > limit:
        raise ImageError("unreadable", f"{count} {unit} exceed the limit of {limit}")
