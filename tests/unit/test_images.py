"""Decode files to pixels and encode them: modes, orientation, sizes and arrays. test_images_*.py have more."""

import io

import numpy as np
import pytest
from PIL import Image

from cnnlib.errors import ImageError
from cnnlib.sealed.frozen.images import ImageSpec, decode_image, encode_image, encode_png, fit_array
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
    oriented,
    red_left_blue_right,
    uniform,
)

COLOUR = (200, 100, 50)
LUMA = 124  # (299 * 200 + 587 * 100 + 114 * 50) / 1000

PALETTE = Image.new("P", (8, 8), 1)
PALETTE.putpalette([0, 0, 0, *COLOUR])


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
    # A JPEG rounds its values in YCbCr.
    np.testing.assert_allclose(pixels.astype(int), np.broadcast_to(expected, (8, 8, channels)), atol=2)


def test_alpha_of_each_palette_colour_is_dropped():
    content = encoded(PALETTE, "PNG", transparency=b"\xff\x80")
    assert colours(decode_image(content, ImageSpec(8, 8, 3))) == {COLOUR}


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(handmade_png(1, 1, bits=16, colour_type=RGB, scanlines=b"\0" + 3 * b"\1\2"), id="rgb"),
        pytest.param(handmade_png(1, 1, bits=16, scanlines=b"\0\1\2"), id="grey"),
        pytest.param(
            handmade_png(1, 1, bits=16, colour_type=GREY_AND_ALPHA, scanlines=b"\0\1\2\xff\xff"), id="grey-alpha"
        ),
    ],
)
def test_of_16_bits_a_channel_the_upper_8_are_kept(content):
    assert colours(decode_image(content, ImageSpec(1, 1, 3))) == {(1, 1, 1)}


def test_png_of_the_specs_size_keeps_every_pixel():
    pixels = noise(24, 32, 3)
    assert (decode_image(encoded(Image.fromarray(pixels), "PNG"), ImageSpec(24, 32, 3)) == pixels).all()


@pytest.mark.parametrize("channels", [1, 3])
def test_encode_png_loses_nothing(channels):
    pixels = noise(5, 7, channels)
    assert (decode_image(encode_png(pixels), ImageSpec(5, 7, channels)) == pixels).all()


# --- orientation

# By EXIF orientation: where the red of an image belongs that is stored as "red left, blue right".
UPRIGHT = {1: "red left", 2: "red right", 3: "red right", 4: "red left"}
TURNED = {5: "red above", 6: "red above", 7: "red below", 8: "red below"}


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", UPRIGHT | TURNED)
def test_exif_orientation_is_applied(file_format, orientation):
    lossless = {"lossless": True} if file_format == "WEBP" else {}
    content = encoded(red_left_blue_right(), file_format, exif=oriented(orientation), **lossless)
    turned = orientation in TURNED
    pixels = decode_image(content, ImageSpec(16, 8, 3) if turned else ImageSpec(8, 16, 3))
    first, last = pixels[1, 1], pixels[-2, -2]
    red_first = (UPRIGHT | TURNED)[orientation] in ("red left", "red above")
    red, blue = (first, last) if red_first else (last, first)
    np.testing.assert_allclose(red.astype(int), RED, atol=3)
    np.testing.assert_allclose(blue.astype(int), BLUE, atol=3)


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", [b"damaged", b"II*\0\x08\0\0\0\1\0\x12\1\3\0\1\0\0\0\x09\0\0\0\0\0\0\0"])
def test_damaged_exif_leaves_the_pixels(file_format, orientation):
    content = encoded(uniform("L", 90), file_format, exif=b"Exif\0\0" + orientation)
    assert colours(decode_image(content, ImageSpec(8, 8, 1))) == {(90,)}


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_metadata_of_a_megabyte_leave_the_pixels(file_format):
    picture = Image.fromarray(noise(8, 8))
    plain = encoded(picture, file_format)
    large = encoded(picture, file_format, icc_profile=noise(1000, 1000, 1).tobytes())
    assert len(large) > 1_000_000
    assert (decode_image(large, ImageSpec(8, 8, 3)) == decode_image(plain, ImageSpec(8, 8, 3))).all()


# --- sizes


@pytest.mark.parametrize("size", [(8, 8), (300, 20), (1, 1), (3, 500), (1000, 1000)])
@pytest.mark.parametrize("file_format", ["PNG", "JPEG"])
def test_uniform_image_of_any_size_stays_uniform(size, file_format):
    content = encoded(uniform("L", 90, size=size), file_format, quality=100)
    pixels = decode_image(content, ImageSpec(10, 12, 1))
    assert pixels.shape == (10, 12, 1)
    assert colours(pixels) == {(90,)}


def test_halving_weighs_neighbours_by_a_triangle():
    # Bilinear with antialias: from 4 pixels to 2, the weights at the edge are 3/7, 3/7 and 1/7.
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


def test_spec_refuses_what_it_does_not_know():
    with pytest.raises(ValueError, match="resize='crop': choose one of stretch, fit_and_pad"):
        ImageSpec(8, 8, 3, resize="crop")
    with pytest.raises(ValueError, match="encoding='gif': choose one of raw, png, jpeg"):
        ImageSpec(8, 8, 3, encoding="gif")


# --- encoding


@pytest.mark.parametrize("channels", [1, 3])
def test_raw_encoding_is_the_pixels_themselves(channels):
    pixels = noise(5, 7, channels)
    assert (np.frombuffer(encode_image(pixels, "raw"), np.uint8).reshape(5, 7, channels) == pixels).all()


@pytest.mark.parametrize("channels", [1, 3])
def test_jpeg_encoding_is_close_and_of_the_quality_asked_for(channels):
    smooth = np.asarray(Image.fromarray(noise(3, 4)).resize((40, 30)))[:, :, :channels]
    error = {}
    for quality in (50, 95):
        decoded = decode_image(encode_image(smooth, "jpeg", quality), ImageSpec(30, 40, channels))
        error[quality] = np.abs(decoded.astype(int) - smooth).mean()
    assert error[95] < 2
    assert error[95] < error[50]


@pytest.mark.parametrize("encoding", ["raw", "png", "jpeg"])
def test_the_same_pixels_give_the_same_bytes(encoding):
    pixels = noise(5, 7, 3)
    assert encode_image(pixels, encoding) == encode_image(np.asfortranarray(pixels), encoding)


def test_files_hold_no_metadata():
    png = encode_image(noise(5, 7, 3), "png")
    assert [png.count(kind) for kind in (b"IHDR", b"IDAT", b"IEND")] == [1, 1, 1]
    # The signature has 8 bytes. Each chunk has 12 and its content.
    assert len(png) == 8 + 3 * 12 + 13 + int.from_bytes(png[33:37], "big")
    with Image.open(io.BytesIO(encode_image(noise(5, 7, 3), "jpeg"))) as jpeg:
        assert [name for name, _ in jpeg.applist] == ["APP0"]  # JFIF, 16 bytes
