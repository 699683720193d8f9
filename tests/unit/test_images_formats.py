"""Formats that come without a golden file: PPM and its kin, JPEG 2000, AVIF and HEIF."""

import io
import struct
import zlib
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image, features

from cnnlib.errors import ImageError
from cnnlib.sealed.frozen.images import (
    FIRST_BYTES,
    ImageSpec,
    Limits,
    begins_like_an_image,
    decode_image,
    read_image,
)
from tests.unit.pictures import encoded, noise, oriented, red_left_blue_right

PIXELS = noise(24, 32, 3, seed=5)
PICTURE = Image.fromarray(PIXELS)
SPEC = ImageSpec(24, 32, 3)


def plain(magic: str, values: np.ndarray, *header: int) -> bytes:
    """Return a PPM whose values are text."""
    height, width = values.shape[:2]
    return f"{magic}\n# by hand\n{width} {height}\n{' '.join(map(str, (*header, *values.ravel())))}\n".encode()


def heif(image: Image.Image, **options) -> bytes:
    pillow_heif = pytest.importorskip("pillow_heif")
    file = io.BytesIO()
    pillow_heif.from_pillow(image).save(file, **options)
    return file.getvalue()


GREY = np.arange(24 * 32, dtype=np.uint16).reshape(24, 32)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        pytest.param(encoded(PICTURE, "PPM"), PIXELS, id="p6"),
        pytest.param(plain("P3", PIXELS, 255), PIXELS, id="p3"),
        pytest.param(encoded(PICTURE.convert("L"), "PPM"), np.asarray(PICTURE.convert("L").convert("RGB")), id="p5"),
        pytest.param(plain("P2", GREY % 256, 255), np.repeat((GREY % 256)[..., None], 3, 2), id="p2"),
        # 16 bits: the upper 8 remain. 65,535 / 767 is no whole number, so Pillow rounds.
        pytest.param(
            b"P5 32 24 65535\n" + (GREY * 85).astype(">u2").tobytes(),
            np.repeat((GREY * 85 >> 8)[..., None], 3, 2),
            id="p5-of-16-bits",
        ),
        pytest.param(b"P4 32 24\n" + bytes(96), np.full((24, 32, 3), 255), id="p4-where-0-is-white"),
        pytest.param(plain("P1", GREY % 2), np.repeat((255 - 255 * (GREY % 2))[..., None], 3, 2), id="p1"),
        pytest.param(encoded(PICTURE, "JPEG2000", irreversible=False), PIXELS, id="jp2"),
        pytest.param(encoded(PICTURE, "JPEG2000", irreversible=False, no_jp2=True), PIXELS, id="j2k"),
        pytest.param(
            encoded(Image.fromarray((GREY * 85).astype(np.uint16)), "JPEG2000", irreversible=False),
            np.repeat((GREY * 85 >> 8)[..., None], 3, 2),
            id="jp2-of-16-bits",
        ),
    ],
)
def test_lossless_file_gives_exactly_its_pixels(content, expected):
    assert begins_like_an_image(content[:FIRST_BYTES])
    np.testing.assert_array_equal(decode_image(content, SPEC), expected)


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow reads no AVIF")
def test_avif_gives_its_colours():
    content = encoded(red_left_blue_right((32, 24)), "AVIF", quality=100)
    pixels = decode_image(content, SPEC).astype(int)
    np.testing.assert_allclose(pixels[:, :12], np.broadcast_to([255, 0, 0], (24, 12, 3)), atol=12)
    np.testing.assert_allclose(pixels[:, 20:], np.broadcast_to([0, 0, 255], (24, 12, 3)), atol=12)


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow reads no AVIF")
def test_avif_is_turned_upright():
    content = encoded(red_left_blue_right((32, 24)), "AVIF", quality=100, exif=oriented(6))
    pixels = decode_image(content, ImageSpec(32, 24, 3)).astype(int)
    # Orientation 6 is turned by 90 degrees to the right: what was left is at the top.
    assert pixels[2, 12, 0] > 240
    assert pixels[-3, 12, 2] > 240


def test_heif_gives_its_colours():
    content = heif(red_left_blue_right((64, 48)), quality=95)
    assert begins_like_an_image(content[:FIRST_BYTES])
    pixels = decode_image(content, ImageSpec(48, 64, 3)).astype(int)
    np.testing.assert_allclose(pixels[:, :28], np.broadcast_to([255, 0, 0], (48, 28, 3)), atol=12)
    np.testing.assert_allclose(pixels[:, 36:], np.broadcast_to([0, 0, 255], (48, 28, 3)), atol=12)


def test_heif_without_its_package_says_what_to_install(monkeypatch):
    from cnnlib.sealed.frozen import images

    without = tuple(
        format if format.name != "HEIF" else images._Format("HEIF", format.first_bytes, None, format.needs)
        for format in images._FORMATS
    )
    monkeypatch.setattr(images, "_FORMATS", without)
    with pytest.raises(ImageError) as refused:
        decode_image(b"\0\0\0\x18ftypheic" + bytes(100), SPEC)
    assert (refused.value.code, refused.value.message) == (
        "unsupported_mode",
        "it is HEIF, which needs the package pillow-heif",
    )


@pytest.mark.parametrize("name", ["PPM", "JPEG2000", "AVIF"])
def test_half_a_file_is_refused(name):
    if name == "AVIF" and not features.check("avif"):
        pytest.skip("this Pillow reads no AVIF")
    content = encoded(PICTURE, name)
    for part in (content[: len(content) // 2], content[:40]):
        with pytest.raises(ImageError) as refused:
            decode_image(part, SPEC)
        assert refused.value.code in ("truncated", "unreadable")


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"P6 60000 60000 255\n", id="ppm"),
        # Pillow reads values that are text in Python, so the limit is lower.
        pytest.param(b"P3 5000 5000 255\n", id="plain-ppm"),
        pytest.param(b"P6 5000 5000 254\n", id="ppm-of-odd-values"),
        pytest.param(b"P5 4000 4000 4095\n", id="pgm-of-12-bits"),
    ],
)
def test_bomb_is_refused_by_its_header(content):
    with pytest.raises(ImageError) as refused:
        decode_image(content + bytes(100), SPEC)
    assert refused.value.code == "too_many_pixels"


def test_jpeg_2000_above_the_limit_is_refused_by_its_header():
    content = encoded(PICTURE, "JPEG2000")
    with pytest.raises(ImageError) as refused:
        decode_image(content, SPEC, Limits(max_pixels=24 * 32 - 1))
    assert refused.value.code == "too_many_pixels"


@pytest.mark.parametrize(
    "text",
    [
        b"P5 is my favourite bus line.",
        b"P1",
        b"P7\nWIDTH 2\n",
        b"Paris",
        b"ftypheic",
        b"\0\0\0\x18ftypmp42",
        b"\0\0\0\x14ftypqt  ",
    ],
)
def test_other_file_is_no_image(text):
    assert not begins_like_an_image(text)


# --- PNG with chunks that are no pixels


def chunk(kind: bytes, data: bytes, checksum: int | None = None) -> bytes:
    right = zlib.crc32(kind + data)
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", right if checksum is None else checksum)


def png_with(*chunks: bytes, last: bool = False) -> bytes:
    """Return a PNG of PIXELS with more chunks behind its header, or before its end."""
    content = encoded(PICTURE, "PNG")
    place = len(content) - 12 if last else 33
    return content[:place] + b"".join(chunks) + content[place:]


LARGE = zlib.compress(bytes(40_000_000))


@pytest.mark.parametrize("last", [False, True], ids=["before-the-pixels", "after-the-pixels"])
@pytest.mark.parametrize(
    "chunks",
    [
        pytest.param([chunk(b"iCCP", b"profile\0\0" + LARGE)], id="profile-of-40-MB"),
        pytest.param([chunk(b"iCCP", b"profile\0\0" + bytes(2_000_000))], id="damaged-profile-of-2-MB"),
        pytest.param([chunk(b"zTXt", b"Comment\0\0" + LARGE)], id="text-of-40-MB"),
        pytest.param([chunk(b"iTXt", b"Comment\0\1\0\0\0" + LARGE)], id="unicode-text-of-40-MB"),
        pytest.param([chunk(b"tEXt", b"Comment\0" + b"x" * 2_000_000)] * 40, id="80-MB-of-texts"),
        pytest.param([chunk(b"XTRa".swapcase(), b"any", 7)], id="wrong-checksum-of-an-unknown-chunk"),
        pytest.param([chunk(b"tIME", b"\7\xe8\1\1\0\0\0", 7)], id="wrong-checksum-of-a-time"),
        pytest.param([chunk(b"gAMA", b"\0\1\2\3", 7)], id="wrong-checksum-of-a-gamma"),
        pytest.param([chunk(b"zTXt", b"Raw profile type exif\0\0" + LARGE)], id="exif-of-40-MB"),
        pytest.param([chunk(b"zTXt", b"Raw profile type exif\0\0no zlib")], id="damaged-exif"),
        pytest.param([chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + LARGE)], id="xmp-of-40-MB"),
        pytest.param([chunk(b"tEXt", b"Raw profile type exif\0" + b"x" * 2_000_000)], id="exif-of-2-MB"),
    ],
)
def test_png_keeps_its_pixels_whatever_else_it_has(chunks, last):
    np.testing.assert_array_equal(decode_image(png_with(*chunks, last=last), SPEC), PIXELS)


def test_orientation_in_a_text_still_counts():
    exif = oriented(3).tobytes()
    text = f"\nexif\n{len(exif):8d}\n{exif.hex()}\n".encode()
    content = png_with(chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(text)))
    np.testing.assert_array_equal(decode_image(content, SPEC), PIXELS[::-1, ::-1])


@pytest.mark.parametrize("kind", [b"IHDR", b"PLTE"])
def test_wrong_checksum_of_header_or_palette_is_damage(kind):
    content = bytearray(encoded(PICTURE.quantize(16), "PNG"))
    start = content.index(kind)
    (length,) = struct.unpack_from(">I", content, start - 4)
    content[start + 4 + length] ^= 1
    with pytest.raises(ImageError) as refused:
        decode_image(bytes(content), SPEC)
    assert refused.value.code in ("truncated", "unreadable")


# --- JPEG: cut, and large


def jpeg(**options) -> bytes:
    """Return a JPEG of 800 x 800 pixels: left red, right blue."""
    return encoded(red_left_blue_right((800, 800)), "JPEG", quality=90, **options)


def test_cut_jpeg_is_taken_as_far_as_it_goes():
    whole = encoded(Image.fromarray(noise(64, 64, 3, seed=1)), "JPEG", quality=95)
    spec = ImageSpec(64, 64, 3)
    cut = whole[: len(whole) * 2 // 3]
    with pytest.raises(ImageError) as refused:
        read_image(cut, spec)
    assert refused.value.code == "truncated"
    taken = read_image(cut, spec, Limits(keep_truncated=True))
    assert taken.truncated
    np.testing.assert_array_equal(taken.pixels[:24], read_image(whole, spec).pixels[:24])
    assert np.ptp(taken.pixels[-8:]) == 0
    assert not read_image(whole, spec, Limits(keep_truncated=True)).truncated
    # The rule is of JPEGs alone, and ends with the file.
    with pytest.raises(ImageError):
        read_image(encoded(PICTURE, "PNG")[:1000], SPEC, Limits(keep_truncated=True))
    with pytest.raises(ImageError):
        read_image(cut, spec)


def test_pixels_of_a_large_jpeg_count_as_they_are_unpacked():
    small = ImageSpec(32, 32, 3)
    # It is unpacked to 100 x 100 pixels.
    assert decode_image(jpeg(), small, Limits(max_pixels=80_000)).shape == small.shape
    for content, spec, limit in (
        # More than 8 times the limit.
        (jpeg(), small, 79_999),
        # Its scans wait in memory at full size.
        (jpeg(progressive=True), small, 639_999),
        # The target needs the whole image.
        (jpeg(), ImageSpec(800, 800, 3), 639_999),
        (encoded(red_left_blue_right((800, 800)), "PNG"), small, 639_999),
    ):
        with pytest.raises(ImageError) as refused:
            decode_image(content, spec, Limits(max_pixels=limit))
        assert refused.value.code == "too_many_pixels"


# --- JPEG 2000 that takes more than its pixels


def patched_j2k(marker: bytes, change: Callable[[bytearray], bytes]) -> bytes:
    """Return a code stream of 128 x 128 pixels, with the body of its first such marker changed."""
    content = encoded(Image.fromarray(noise(128, 128, 3)), "JPEG2000", no_jp2=True)
    start = content.index(marker)
    (length,) = struct.unpack_from(">H", content, start + 2)
    body = change(bytearray(content[start + 4 : start + 2 + length]))
    return content[: start + 2] + struct.pack(">H", len(body) + 2) + body + content[start + 2 + length :]


def with_bytes(position: int, new: bytes) -> Callable[[bytearray], bytes]:
    return lambda body: bytes(body[:position] + new + body[position + len(new) :])


@pytest.mark.parametrize(
    ("content", "says"),
    [
        pytest.param(
            patched_j2k(b"\xff\x51", with_bytes(18, struct.pack(">II", 1, 1))),
            "16384 tiles exceed",
            id="tiles-of-a-pixel",
        ),
        pytest.param(
            patched_j2k(b"\xff\x51", with_bytes(2, struct.pack(">II", 60_000, 60_000))),
            "pixels exceed",
            id="other-size",
        ),
        pytest.param(patched_j2k(b"\xff\x52", with_bytes(2, b"\xff\xff")), "65535 layers exceed", id="layers"),
        pytest.param(patched_j2k(b"\xff\x52", with_bytes(6, b"\0\0")), "fewer than 16 x 16", id="code-blocks"),
        pytest.param(
            patched_j2k(b"\xff\x52", lambda body: bytes([body[0] | 1]) + bytes(body[1:]) + bytes(1 + body[5])),
            "fewer than 16 x 16",
            id="precincts-of-a-pixel",
        ),
    ],
)
def test_jpeg_2000_that_takes_more_than_its_pixels_is_refused(content, says):
    jp2 = encoded(Image.fromarray(noise(128, 128, 3)), "JPEG2000")
    in_a_box = jp2[: jp2.index(b"jp2c") + 4] + content
    for file in (content, in_a_box):
        with pytest.raises(ImageError, match=says) as refused:
            decode_image(file, SPEC)
        assert refused.value.code in ("unreadable", "too_many_pixels")


def test_jpeg_2000_with_usual_options_is_read():
    for options in (
        {"tile_size": (64, 64)},
        {"precinct_size": (64, 64), "codeblock_size": (32, 32)},
        {"num_resolutions": 3, "quality_layers": [40, 20, 10], "progression": "RPCL"},
    ):
        content = encoded(Image.fromarray(noise(128, 128, 3)), "JPEG2000", **options)
        assert decode_image(content, ImageSpec(128, 128, 3)).shape == (128, 128, 3)


@pytest.mark.parametrize("magic", [b"P1", b"P3", b"P6"])
def test_ppm_of_comments_is_refused(magic):
    for content in (magic + b"\n#" + b"x" * 10_000 + b"\n2 2 255\n", magic + b" 2 2 255\n" + b"#\n" * 200_000):
        if magic == b"P6" and content.startswith(b"P6 2"):
            continue  # these are pixels
        with pytest.raises(ImageError):
            decode_image(content, SPEC)


def test_thumbnail_of_a_raw_image_is_refused():
    content = encoded(PICTURE, "TIFF", tiffinfo={254: 1})
    with pytest.raises(ImageError, match="thumbnail of another") as refused:
        decode_image(content, SPEC)
    assert refused.value.code == "unsupported_mode"


def test_cut_jpeg_without_a_pixel_is_refused():
    whole = encoded(Image.fromarray(noise(64, 64, 3)), "JPEG")
    with pytest.raises(ImageError, match="hardly any of its pixels"):
        read_image(whole[: whole.index(b"\xff\xda") + 14], SPEC, Limits(keep_truncated=True))
