"""Formats that come without a golden file: PPM and its kin, JPEG 2000, AVIF and HEIF."""

import io

import numpy as np
import pytest
from PIL import Image, features

from cnnlib.errors import ImageError
from cnnlib.sealed.frozen.images import FIRST_BYTES, ImageSpec, Limits, begins_like_an_image, decode_image
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
