"""Thumbnails are small, keep their proportions, and never raise an error."""

import io

import numpy as np
import pytest
from PIL import Image

from cnnlib.image_set.thumbnails import thumbnail_png
from cnnlib.sealed.frozen.images import ImageSpec, decode_image, encode_png
from tests.unit.pictures import RED, encoded, handmade_png, noise, oriented, uniform


def size_of(png: bytes) -> tuple[int, int]:
    with Image.open(io.BytesIO(png), formats=["PNG"]) as image:
        return image.size


@pytest.mark.parametrize(
    ("image", "size"),
    [
        pytest.param(encoded(uniform("RGB", RED, size=(400, 200)), "JPEG"), (96, 48), id="wide"),
        pytest.param(encoded(uniform("CMYK", (9, 9, 9, 9), size=(200, 400)), "TIFF"), (48, 96), id="high"),
        pytest.param(encoded(uniform("RGB", RED, size=(400, 200)), "JPEG", exif=oriented(6)), (48, 96), id="turned"),
        pytest.param(encoded(uniform("L", 9, size=(30, 20)), "GIF"), (30, 20), id="small-ones-stay-small"),
        pytest.param(noise(192, 100, 1), (50, 96), id="array"),
    ],
)
def test_thumbnail_fits_and_keeps_proportions(image, size):
    assert size_of(thumbnail_png(image)) == size


def test_thumbnail_is_the_picture():
    picture = np.repeat(np.repeat(noise(4, 4), 24, axis=0), 24, axis=1)
    assert (decode_image(thumbnail_png(encode_png(picture)), ImageSpec(96, 96, 3)) == picture).all()


def test_thumbnail_has_no_colour_profile():
    content = encoded(uniform("RGB", RED), "JPEG", icc_profile=bytes(100_000))
    assert len(thumbnail_png(content)) < 200


@pytest.mark.parametrize(
    "image",
    [
        b"",
        b"text",
        encoded(uniform("RGB", RED), "JPEG")[:400],
        encoded(uniform("F", 1.0), "TIFF"),
        handmade_png(20_000, 20_000),
        np.zeros((4, 4), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
        np.zeros((4, 4, 3), np.float32),
        None,
    ],
)
def test_undecodable_content_gives_no_thumbnail(image):
    assert thumbnail_png(image) is None
