"""The pixels of small files of every kind are those in tests/data/images."""

import hashlib
import json

import numpy as np
import pytest

from cnnlib.sealed.frozen.images import ImageSpec, decode_image, read_image
from tests.unit.fuzz_images import FOLDER, originals

with np.load(FOLDER / "golden.npz") as stored:
    # Name -> (24, 32, 3) uint8.
    GOLDEN = dict(zip(stored["names"].tolist(), stored["pixels"], strict=True))
SHA256 = json.loads((FOLDER / "lossless.json").read_text())
FILES = dict(originals())
# Other builds of the libraries round the transforms of JPEG, lossy WebP and CIELAB differently.
TOLERANCE = 2


def test_every_file_has_golden_pixels():
    assert sorted(GOLDEN) == sorted(FILES)
    assert len(SHA256) >= 12


@pytest.mark.parametrize("name", SHA256)
def test_lossless_file_gives_exactly_its_pixels(name):
    pixels = decode_image(FILES[name], ImageSpec(24, 32, 3))
    np.testing.assert_array_equal(pixels, GOLDEN[name])
    assert hashlib.sha256(pixels.tobytes()).hexdigest() == SHA256[name]


@pytest.mark.parametrize("name", sorted(GOLDEN.keys() - SHA256))
def test_lossy_file_gives_its_pixels(name):
    pixels = decode_image(FILES[name], ImageSpec(24, 32, 3))
    np.testing.assert_allclose(pixels.astype(int), GOLDEN[name].astype(int), atol=TOLERANCE)


@pytest.mark.parametrize("name", sorted(GOLDEN))
def test_grey_is_the_luma_of_the_colours(name):
    pixels = decode_image(FILES[name], ImageSpec(24, 32, 1))[:, :, 0]
    luma = (GOLDEN[name] @ np.array([299, 587, 114]) + 500) // 1000
    # Pillow's weights are multiples of 1/65536. A JPEG stores the luma before any rounding to RGB.
    np.testing.assert_allclose(pixels.astype(int), luma, atol=1 if name in SHA256 else TOLERANCE)


@pytest.mark.parametrize("name", sorted(GOLDEN))
def test_source_size_is_upright(name):
    decoded = read_image(FILES[name], ImageSpec(5, 5, 3))
    assert (decoded.source_height, decoded.source_width) == (24, 32)
