"""The four ways to resize an image, compared with values computed by hand and by NumPy."""

from typing import get_args

import numpy as np
import pytest
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile

from cnnlib.errors import ImageError
from cnnlib.sealed.frozen.images import ImageSpec, Resize, decode_image, encode_png, fit_array, read_image
from tests.unit.pictures import encoded, noise, oriented

MODES = get_args(Resize)


def by_triangle(length: int, size: int, start: float, end: float) -> np.ndarray:
    """Return the weights (size, length) of the old pixels in each of `size` new ones, which cover `start` to `end`.

    Bilinear with antialias: a triangle over two new pixels, or over two old ones if these are larger.
    """
    step = (end - start) / size
    centres = start + (np.arange(size) + 0.5) * step
    distance = np.abs(np.arange(length) + 0.5 - centres[:, None]) / max(step, 1)
    weights = np.maximum(0, 1 - distance)
    return weights / weights.sum(axis=1, keepdims=True)


def resized(pixels: np.ndarray, height: int, width: int, *, box: tuple[float, float, float, float]) -> np.ndarray:
    """Resize the part of an image in `box`, (upper, lower, left, right), to (height, width, channels) floats."""
    rows = by_triangle(pixels.shape[0], height, *box[:2])
    columns = by_triangle(pixels.shape[1], width, *box[2:])
    return np.einsum("ij,jkc,lk->ilc", rows, pixels.astype(float), columns)


def ramp(height: int, width: int) -> np.ndarray:
    """Return (height, width, 1) uint8. Up to 256 pixels are all different."""
    return np.arange(height * width, dtype=np.uint8).reshape(height, width, 1)


def code_of(pixels: np.ndarray, spec: ImageSpec) -> str:
    with pytest.raises(ImageError) as caught:
        decode_image(encode_png(pixels), spec)
    return caught.value.code


# --- by hand


def test_padding_of_a_wide_image_lies_above_and_below():
    pixels = ramp(2, 4) + 1
    fitted = fit_array(pixels, ImageSpec(4, 4, 1, "fit_and_pad"))
    assert fitted[:, :, 0].tolist() == [[0, 0, 0, 0], [1, 2, 3, 4], [5, 6, 7, 8], [0, 0, 0, 0]]


def test_padding_of_a_high_image_lies_left_and_right():
    fitted = fit_array(ramp(2, 1) + 1, ImageSpec(2, 4, 1, "fit_and_pad"))
    # Three columns are filled. The odd one is on the right.
    assert fitted[:, :, 0].tolist() == [[0, 1, 0, 0], [0, 2, 0, 0]]


def test_padding_is_black_in_colour_too():
    fitted = fit_array(np.full((2, 4, 3), 200, np.uint8), ImageSpec(4, 4, 3, "fit_and_pad"))
    assert fitted[:, 0].tolist() == [[0, 0, 0], [200, 200, 200], [200, 200, 200], [0, 0, 0]]


def test_sliver_keeps_one_row():
    fitted = fit_array(np.full((1, 1000, 1), 200, np.uint8), ImageSpec(10, 10, 1, "fit_and_pad"))
    assert fitted[:, 0, 0].tolist() == [0] * 4 + [200] + [0] * 5


def test_crop_of_a_wide_image_takes_the_middle_columns():
    cropped = fit_array(ramp(2, 6), ImageSpec(2, 2, 1, "shorter_side_and_crop"))
    assert cropped[:, :, 0].tolist() == [[2, 3], [8, 9]]


def test_crop_of_a_high_image_takes_the_middle_rows():
    cropped = fit_array(ramp(6, 2), ImageSpec(2, 2, 1, "shorter_side_and_crop"))
    assert cropped[:, :, 0].tolist() == [[4, 5], [6, 7]]


def test_crop_of_an_odd_remainder_lies_between_pixels():
    cropped = fit_array(np.array([[[10], [20], [30]]], np.uint8), ImageSpec(1, 2, 1, "shorter_side_and_crop"))
    assert cropped.ravel().tolist() == [15, 25]


def test_small_image_is_enlarged():
    pixels = np.full((2, 4, 1), 200, np.uint8)
    assert (fit_array(pixels, ImageSpec(8, 8, 1, "stretch")) == 200).all()
    assert (fit_array(pixels, ImageSpec(8, 8, 1, "shorter_side_and_crop")) == 200).all()
    assert fit_array(pixels, ImageSpec(8, 8, 1, "fit_and_pad"))[:, 0, 0].tolist() == [0, 0] + 4 * [200] + [0, 0]


# --- by NumPy

# (resize, source, target, box of the source as (upper, lower, left, right), size of the box after resizing). Sizes are
# (height, width).
CASES = [
    ("stretch", (30, 40), (20, 20), (0, 30, 0, 40), (20, 20)),
    ("stretch", (30, 40), (50, 45), (0, 30, 0, 40), (50, 45)),
    ("fit_and_pad", (30, 40), (20, 20), (0, 30, 0, 40), (15, 20)),
    ("fit_and_pad", (40, 30), (20, 28), (0, 40, 0, 30), (20, 15)),
    ("fit_and_pad", (30, 40), (60, 50), (0, 30, 0, 40), (38, 50)),
    ("shorter_side_and_crop", (30, 40), (20, 20), (0, 30, 5, 35), (20, 20)),
    ("shorter_side_and_crop", (41, 30), (20, 20), (5.5, 35.5, 0, 30), (20, 20)),
    ("shorter_side_and_crop", (30, 40), (50, 50), (0, 30, 5, 35), (50, 50)),
    ("shorter_side_and_crop", (30, 40), (15, 30), (5, 25, 0, 40), (15, 30)),
]


@pytest.mark.parametrize(("resize", "source", "target", "box", "size"), CASES)
def test_pixels_are_those_of_a_bilinear_antialiased_resize(resize, source, target, box, size):
    pixels = noise(*source)
    expected = np.zeros((*target, 3))
    upper, left = (target[0] - size[0]) // 2, (target[1] - size[1]) // 2
    expected[upper : upper + size[0], left : left + size[1]] = resized(pixels, *size, box=box)
    # Pillow rounds after each of its two passes.
    np.testing.assert_allclose(fit_array(pixels, ImageSpec(*target, 3, resize)), expected, atol=1.01)


@pytest.mark.parametrize("resize", ["stretch", "fit_and_pad", "shorter_side_and_crop"])
def test_much_larger_image_is_close_to_the_same(resize):
    # The image is first reduced to twice the target.
    smooth = np.asarray(Image.fromarray(noise(6, 8)).resize((400, 300), Image.Resampling.BICUBIC))
    box = {"shorter_side_and_crop": (0, 300, 50, 350)}.get(resize, (0, 300, 0, 400))
    size = (15, 20) if resize == "fit_and_pad" else (20, 20)
    fitted = fit_array(smooth, ImageSpec(20, 20, 3, resize)).astype(float)
    picture = fitted[2:17] if resize == "fit_and_pad" else fitted
    assert np.abs(picture - resized(smooth, *size, box=box)).mean() < 1


# --- none


def test_without_resizing_the_size_stays():
    pixels = noise(8, 12)
    assert (decode_image(encode_png(pixels), ImageSpec(8, 12, 3, "none")) == pixels).all()


@pytest.mark.parametrize(
    ("height", "width", "code"),
    [
        (7, 12, "too_small"),
        (8, 11, "too_small"),
        (7, 99, "too_small"),
        (9, 12, "too_many_pixels"),
        (8, 13, "too_many_pixels"),
        (12, 12, "too_many_pixels"),
    ],
)
def test_without_resizing_another_size_is_refused(height, width, code):
    pixels = noise(height, width)
    assert code_of(pixels, ImageSpec(8, 12, 3, "none")) == code
    with pytest.raises(ImageError) as caught:
        fit_array(pixels, ImageSpec(8, 12, 3, "none"))
    assert caught.value.code == code
    expected = f"{width} x {height} (width x height) is not 12 x 8, and image.resize none does not resize it"
    assert caught.value.message == expected


def test_without_resizing_it_is_the_upright_size_that_counts():
    turned = encoded(Image.fromarray(noise(12, 8)), "JPEG", exif=oriented(6))
    assert decode_image(turned, ImageSpec(8, 12, 3, "none")).shape == (8, 12, 3)
    with pytest.raises(ImageError, match="12 x 8"):
        decode_image(turned, ImageSpec(12, 8, 3, "none"))


# --- all of them


@pytest.mark.parametrize("resize", MODES)
@pytest.mark.parametrize("channels", [1, 3])
def test_image_of_the_specs_size_is_left_alone(resize, channels):
    pixels = noise(17, 23, channels)
    assert (decode_image(encode_png(pixels), ImageSpec(17, 23, channels, resize)) == pixels).all()


@pytest.mark.parametrize("resize", ["stretch", "fit_and_pad", "shorter_side_and_crop"])
@pytest.mark.parametrize("target", [(9, 30), (30, 9), (16, 16)])
@pytest.mark.parametrize("size", [(40, 30), (31, 57), (8, 8), (1, 200), (200, 1)])
def test_array_and_file_give_the_same(resize, target, size):
    pixels = noise(*size)
    for channels in (1, 3):
        spec = ImageSpec(*target, channels, resize)
        assert (fit_array(pixels, spec) == decode_image(encode_png(pixels), spec)).all()


@pytest.mark.parametrize("resize", ["stretch", "fit_and_pad", "shorter_side_and_crop"])
@pytest.mark.parametrize("target", [(48, 48), (24, 96), (96, 24)])
@pytest.mark.parametrize("orientation", [1, 6])
def test_jpeg_is_unpacked_smaller_only_as_far_as_it_may_be(monkeypatch, resize, target, orientation):
    unpacked = []
    draft = JpegImageFile.draft

    def spy(self, mode, size):
        drafted = draft(self, mode, size)
        unpacked.append(self.size)
        return drafted

    monkeypatch.setattr(JpegImageFile, "draft", spy)
    smooth = Image.fromarray(noise(6, 8)).resize((800, 500), Image.Resampling.BICUBIC)
    upright = np.rot90(np.asarray(smooth), {1: 0, 6: -1}[orientation])
    spec = ImageSpec(*target, 3, resize)
    decoded = read_image(encoded(smooth, "JPEG", quality=95, exif=oriented(orientation)), spec)
    whole = decode_image(encode_png(upright), spec)
    assert (decoded.source_height, decoded.source_width) == upright.shape[:2]
    assert np.abs(decoded.pixels.astype(int) - whole).mean() < 2
    ((width, height),) = unpacked if orientation == 1 else [size[::-1] for size in unpacked]
    # Each side was unpacked with at least the pixels that the resize needs.
    scale = {"fit_and_pad": min, "shorter_side_and_crop": max}.get(resize)
    ratios = target[0] / upright.shape[0], target[1] / upright.shape[1]
    needed_y, needed_x = (scale(ratios),) * 2 if scale else ratios
    assert height >= min(1, needed_y) * upright.shape[0] - 1
    assert width >= min(1, needed_x) * upright.shape[1] - 1


def test_large_jpeg_is_indeed_unpacked_smaller(monkeypatch):
    loaded = []
    load = JpegImageFile.load
    monkeypatch.setattr(JpegImageFile, "load", lambda self: (loaded.append(self.size), load(self))[1])
    decode_image(encoded(Image.fromarray(noise(6, 8)).resize((800, 600)), "JPEG"), ImageSpec(48, 48, 3))
    assert set(loaded) == {(100, 75)} or set(loaded) == {(200, 150)}
