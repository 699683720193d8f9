"""Encoded bytes to pixels: golden values of what Pillow can open, and a code for all that it cannot."""

import re
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from cnnlib.errors import IMAGE_ERROR_CODES, ImageError
from cnnlib.images import MAX_PIXELS, ImageSpec, decode_image, encode_png, fit_array
from tests.unit.pictures import (
    BLUE,
    GREEN,
    GREY_AND_ALPHA,
    RED,
    RGB,
    WHITE,
    encoded,
    handmade_png,
    noise,
    noisy_jpeg,
    noisy_png,
    oriented,
    red_left_blue_right,
    uniform,
    with_mended_checksums,
)

COLOUR = (200, 100, 50)
LUMA = 124  # (299 * 200 + 587 * 100 + 114 * 50) / 1000

PALETTE = Image.new("P", (8, 8), 1)
PALETTE.putpalette([0, 0, 0, *COLOUR])


def code_of(content: bytes, spec: ImageSpec) -> str:
    with pytest.raises(ImageError) as caught:
        decode_image(content, spec)
    return caught.value.code


def colours(pixels: np.ndarray) -> set[tuple[int, ...]]:
    return {tuple(pixel) for pixel in pixels.reshape(-1, pixels.shape[-1]).tolist()}


# --- modes


@pytest.mark.parametrize(
    ("content", "grey", "rgb"),
    [
        pytest.param(encoded(uniform("L", 90), "PNG"), 90, (90, 90, 90), id="grey"),
        pytest.param(encoded(uniform("1", 1), "PNG"), 255, (255, 255, 255), id="one-bit"),
        pytest.param(encoded(uniform("RGB", COLOUR), "PNG"), LUMA, COLOUR, id="rgb"),
        pytest.param(encoded(PALETTE, "PNG"), LUMA, COLOUR, id="palette"),
        pytest.param(encoded(PALETTE, "PNG", transparency=1), LUMA, COLOUR, id="palette-transparent-colour"),
        pytest.param(encoded(uniform("LA", (90, 0)), "PNG"), 90, (90, 90, 90), id="grey-alpha"),
        pytest.param(encoded(uniform("RGBA", (*COLOUR, 0)), "PNG"), LUMA, COLOUR, id="alpha-is-dropped"),
    ],
)
def test_png_of_each_mode_gives_exact_pixels(content, grey, rgb):
    assert colours(decode_image(content, ImageSpec(8, 8, 1))) == {(grey,)}
    assert colours(decode_image(content, ImageSpec(8, 8, 3))) == {rgb}


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
@pytest.mark.parametrize("channels", [1, 3])
def test_jpeg_of_each_mode_gives_its_colour(mode, channels):
    content = encoded(uniform("RGB", RED).convert(mode), "JPEG", quality=100, subsampling=0)
    expected = [76] * channels if channels == 1 or mode == "L" else RED
    pixels = decode_image(content, ImageSpec(8, 8, channels))
    # A JPEG rounds in YCbCr.
    np.testing.assert_allclose(pixels.astype(int), np.broadcast_to(expected, (8, 8, channels)), atol=2)


@pytest.mark.filterwarnings("ignore:Palette images with Transparency")
def test_alpha_of_each_palette_colour_is_dropped():
    content = encoded(PALETTE, "PNG", transparency=b"\xff\x80")
    assert colours(decode_image(content, ImageSpec(8, 8, 3))) == {COLOUR}


def test_png_of_the_specs_size_keeps_every_pixel():
    pixels = noise(24, 32, 3)
    assert (decode_image(encoded(Image.fromarray(pixels), "PNG"), ImageSpec(24, 32, 3)) == pixels).all()


@pytest.mark.parametrize("channels", [1, 3])
def test_encode_png_loses_nothing(channels):
    pixels = noise(5, 7, channels)
    assert (decode_image(encode_png(pixels), ImageSpec(5, 7, channels)) == pixels).all()


# --- orientation

# By EXIF orientation: where red and blue of an image stored "red left, blue right" belong.
UPRIGHT = {1: "red left", 2: "red right", 3: "red right", 4: "red left"}
TURNED = {5: "red above", 6: "red above", 7: "red below", 8: "red below"}


@pytest.mark.parametrize("file_format", ["JPEG", "PNG"])
@pytest.mark.parametrize("orientation", UPRIGHT | TURNED)
def test_exif_orientation_is_applied(file_format, orientation):
    content = encoded(red_left_blue_right(), file_format, exif=oriented(orientation))
    turned = orientation in TURNED
    pixels = decode_image(content, ImageSpec(16, 8, 3) if turned else ImageSpec(8, 16, 3))
    first, last = pixels[1, 1], pixels[-2, -2]
    red_first = (UPRIGHT | TURNED)[orientation] in ("red left", "red above")
    red, blue = (first, last) if red_first else (last, first)
    np.testing.assert_allclose(red.astype(int), RED, atol=3)
    np.testing.assert_allclose(blue.astype(int), BLUE, atol=3)


def test_damaged_exif_leaves_the_pixels():
    content = encoded(uniform("L", 90), "JPEG", exif=b"Exif\0\0damaged")
    assert colours(decode_image(content, ImageSpec(8, 8, 1))) == {(90,)}


# --- sizes


@pytest.mark.parametrize("size", [(8, 8), (300, 20), (1, 1), (3, 500), (1000, 1000)])
@pytest.mark.parametrize("file_format", ["PNG", "JPEG"])
def test_uniform_image_of_any_size_stays_uniform(size, file_format):
    content = encoded(uniform("L", 90, size=size), file_format, quality=100)
    pixels = decode_image(content, ImageSpec(10, 12, 1))
    assert pixels.shape == (10, 12, 1)
    assert colours(pixels) == {(90,)}


def test_halving_weighs_neighbours_by_a_triangle():
    # Bilinear with antialias: a row of 4 into 2 weighs 3, 3, 1 of 7 at the edge.
    row = np.array([[[70], [140], [210], [7]]], np.uint8)
    first = round((3 * 70 + 3 * 140 + 1 * 210) / 7)
    last = round((1 * 140 + 3 * 210 + 3 * 7) / 7)
    assert fit_array(row, ImageSpec(1, 2, 1)).ravel().tolist() == [first, last]


def test_stretch_brings_each_half_to_its_half():
    pixels = decode_image(encoded(red_left_blue_right((64, 16)), "PNG"), ImageSpec(16, 16, 3))
    assert colours(pixels[:, :6]) == {RED}
    assert colours(pixels[:, -6:]) == {BLUE}


def test_jpeg_drafted_is_close_to_the_whole_resize():
    smooth = Image.fromarray(noise(6, 8)).resize((640, 480), Image.Resampling.BICUBIC)
    drafted = decode_image(encoded(smooth, "JPEG", quality=95), ImageSpec(48, 48, 3)).astype(int)
    whole = decode_image(encoded(smooth, "PNG"), ImageSpec(48, 48, 3)).astype(int)
    assert np.abs(drafted - whole).mean() < 2


# --- what is refused


@pytest.mark.parametrize(
    ("code", "content"),
    [
        pytest.param("empty_file", b"", id="empty"),
        pytest.param("not_an_image", b"Not found. Please try again.", id="text"),
        pytest.param("not_an_image", encoded(uniform("P", 1), "GIF"), id="gif"),
        pytest.param("not_an_image", encoded(uniform("RGB", RED), "BMP"), id="bmp"),
        pytest.param("not_an_image", noisy_jpeg()[:3], id="jpeg-magic-alone"),
        # Of the JPEG's 1,130 bytes the first 623 are headers.
        pytest.param("truncated", noisy_jpeg()[:800], id="half-a-jpeg"),
        pytest.param("truncated", noisy_jpeg()[:-2], id="jpeg-without-its-last-two-bytes"),
        pytest.param("truncated", noisy_png()[:1000], id="half-a-png"),
        pytest.param("truncated", handmade_png(2, 2, scanlines=b"\0\1"), id="too-few-scanlines"),
        pytest.param("too_many_pixels", handmade_png(20_000, 20_000), id="400-million-pixels"),
        pytest.param("too_many_pixels", handmade_png(10_000, 10_000), id="100-million-pixels"),
        pytest.param("unsupported_mode", handmade_png(1, 1, bits=16, scanlines=b"\0\1\2"), id="16-bit-grey"),
    ],
)
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_refused_with_code(code, content):
    assert code_of(content, ImageSpec(8, 8, 3)) == code


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(handmade_png(1, 1, bits=16, colour_type=RGB, scanlines=b"\0" + 3 * b"\1\2"), id="rgb"),
        pytest.param(
            handmade_png(1, 1, bits=16, colour_type=GREY_AND_ALPHA, scanlines=b"\0\1\2\xff\xff"), id="grey-alpha"
        ),
    ],
)
def test_16_bits_a_channel_of_several_channels_keep_the_upper_8(content):
    assert colours(decode_image(content, ImageSpec(1, 1, 3))) == {(1, 1, 1)}


def test_decompression_bomb_costs_no_time():
    started = time.monotonic()
    code_of(handmade_png(20_000, 20_000), ImageSpec(8, 8, 3))
    assert time.monotonic() - started < 0.2


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_greatest_size_is_taken():
    assert 9_459 * 9_459 <= MAX_PIXELS < 9_460 * 9_460
    assert code_of(handmade_png(9_460, 9_460), ImageSpec(8, 8, 1)) == "too_many_pixels"
    assert code_of(handmade_png(9_459, 9_459), ImageSpec(8, 8, 1)) == "truncated"


def test_message_names_no_address_in_memory():
    # Rejects of two ingests of the same files should be the same.
    with pytest.raises(ImageError) as caught:
        decode_image(b"text", ImageSpec(8, 8, 3))
    assert not re.search(r"0x[0-9a-f]+", caught.value.message)


@pytest.mark.parametrize("intact", [noisy_jpeg(), noisy_png()], ids=["jpeg", "png"])
@given(data=st.data())
@settings(max_examples=300)
def test_mutated_file_gives_pixels_or_a_known_code(intact, data):
    content = bytearray(intact)
    changes = st.tuples(st.integers(0, len(content) - 1), st.integers(0, 255))
    for position, value in data.draw(st.lists(changes, max_size=12)):
        content[position] = value
    if data.draw(st.booleans()):
        content = content[: data.draw(st.integers(0, len(content)))]
    mutated = bytes(content)
    if intact.startswith(b"\x89PNG") and data.draw(st.booleans()):
        mutated = with_mended_checksums(mutated)
    spec = ImageSpec(10, 12, data.draw(st.sampled_from([1, 3])))
    try:
        pixels = decode_image(mutated, spec)
        outcome = (pixels.shape, pixels.dtype)
    except ImageError as error:
        outcome = error.code
    assert outcome in {(spec.shape, np.dtype(np.uint8)), *IMAGE_ERROR_CODES}


# --- arrays


def test_array_of_the_specs_shape_is_given_as_it_is():
    pixels = noise(5, 7, 3)
    assert fit_array(pixels, ImageSpec(5, 7, 3)) is pixels


@pytest.mark.parametrize("colour", [RED, GREEN, BLUE, WHITE])
def test_array_and_png_of_it_give_the_same(colour):
    pixels = np.where(noise(9, 11, 1) > 99, np.uint8(colour), noise(9, 11, 3))
    for spec in (ImageSpec(9, 11, 1), ImageSpec(9, 11, 3), ImageSpec(4, 30, 3), ImageSpec(30, 4, 1)):
        assert (fit_array(pixels, spec) == decode_image(encode_png(pixels), spec)).all()


def test_grey_array_becomes_three_equal_channels():
    pixels = noise(5, 7, 1)
    assert (fit_array(pixels, ImageSpec(5, 7, 3)) == pixels).all()


@pytest.mark.parametrize(
    "pixels",
    [
        pytest.param(np.zeros((4, 4, 1), np.float32), id="float"),
        pytest.param(np.zeros((4, 4, 1), np.uint16), id="16-bit"),
        pytest.param(np.zeros((4, 4), np.uint8), id="no-channels"),
        pytest.param(np.zeros((4, 4, 2), np.uint8), id="two-channels"),
        pytest.param(np.zeros((1, 4, 4, 3), np.uint8), id="a-batch"),
        pytest.param(np.zeros((0, 4, 3), np.uint8), id="no-rows"),
        pytest.param(np.zeros((0, 0, 1), np.uint8), id="no-pixels"),
    ],
)
def test_array_that_is_no_image_is_refused(pixels):
    with pytest.raises(ImageError) as caught:
        fit_array(pixels, ImageSpec(8, 8, 3))
    assert caught.value.code == "unsupported_mode"


def test_spec_counts_shape_and_bytes_in_keras_order():
    spec = ImageSpec(height=28, width=32, channels=3)
    assert (spec.shape, spec.size_bytes) == ((28, 32, 3), 2688)
