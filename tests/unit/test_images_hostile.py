"""Files that cannot be used: each gives its code, costs no more than its header, and prints and raises nothing else."""

import json
import re
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cnnlib.errors import IMAGE_ERROR_CODES, ImageError
from cnnlib.sealed.frozen.images import MAX_PIXELS, ImageSpec, Limits, decode_image
from tests.unit.bombs import bombs, handmade_bmp, handmade_gif, handmade_tiff, jpeg_of_exif_parts, jpeg_of_scans
from tests.unit.fuzz_images import originals
from tests.unit.pictures import RED, encoded, handmade_png, noise, noisy_jpeg, noisy_png, uniform

ROOT = Path(__file__).parents[2]
SPEC = ImageSpec(8, 8, 3)


def refusal(content: bytes, limits: Limits = Limits()) -> ImageError:  # noqa: B008
    with pytest.raises(ImageError) as caught:
        decode_image(content, SPEC, limits)
    return caught.value


def jpeg_of_12_bits() -> bytes:
    content = bytearray(noisy_jpeg())
    content[content.index(b"\xff\xc0") + 4] = 12
    return bytes(content)


def noisy_tiff() -> bytes:
    return encoded(Image.fromarray(noise()), "TIFF", compression="tiff_lzw")


FILES = dict(originals())


@pytest.mark.parametrize(
    ("code", "content"),
    [
        pytest.param("empty_file", b"", id="empty"),
        pytest.param("not_an_image", b"Not found. Please try again.", id="text"),
        pytest.param("not_an_image", b"BMW, Audi, Opel, Volkswagen and others", id="text-that-begins-like-a-bmp"),
        pytest.param("not_an_image", b"II. Teil", id="text-that-begins-like-a-tiff"),
        pytest.param("not_an_image", b"RIFF\x24\0\0\0WAVEfmt \x10\0\0\0", id="sound"),
        pytest.param("not_an_image", b"%PDF-1.7", id="pdf"),
        pytest.param("not_an_image", bytes(1000), id="zeros"),
        pytest.param("not_an_image", b"\xff", id="one-byte"),
        pytest.param("truncated", noisy_jpeg()[:3], id="jpeg-magic-alone"),
        # The JPEG has 1,130 bytes. The first 623 are headers.
        pytest.param("truncated", noisy_jpeg()[:300], id="half-a-jpegs-header"),
        pytest.param("truncated", noisy_jpeg()[:800], id="half-a-jpeg"),
        pytest.param("truncated", noisy_jpeg()[:-2], id="jpeg-without-its-last-two-bytes"),
        pytest.param("truncated", noisy_png()[:1000], id="half-a-png"),
        pytest.param("truncated", noisy_png()[:20], id="half-a-pngs-header"),
        pytest.param("truncated", handmade_png(2, 2, scanlines=b"\0\1"), id="too-few-scanlines"),
        pytest.param("truncated", handmade_bmp(8, 8, data=bytes(63)), id="bmp-without-its-last-byte"),
        pytest.param("truncated", handmade_bmp(8, 8, 1, b"\x08\1\0\0"), id="run-lengths-of-one-row"),
        pytest.param("truncated", handmade_gif((8, 8), (8, 8))[:-4], id="gif-without-pixels"),
        pytest.param("unsupported_mode", encoded(uniform("F", 1.0), "TIFF"), id="floats"),
        pytest.param("unsupported_mode", encoded(uniform("I", 1), "TIFF"), id="32-bit-integers"),
        pytest.param(
            "unsupported_mode",
            handmade_tiff(1, 1, b"\0\0", t258=(16,), t339=(2,), t273=(8,), t279=(2,)),
            id="16-bits-with-a-sign",
        ),
        pytest.param("unsupported_mode", handmade_tiff(1, 1, b"\0\0\0", t258=(24,), t273=(8,)), id="24-bit-grey"),
        pytest.param("unsupported_mode", handmade_tiff(1, 1, b"\0", t259=(34712,)), id="tiff-of-jpeg-2000"),
        pytest.param("unsupported_mode", jpeg_of_12_bits(), id="jpeg-of-12-bits"),
        pytest.param("unsupported_mode", handmade_bmp(8, 8, 5, noisy_png()), id="png-in-a-bmp"),
        pytest.param("unreadable", b"\x89PNG\r\n\x1a\n" + bytes(100), id="png-magic-and-zeros"),
        pytest.param("unreadable", handmade_png(8, 8, bits=3), id="png-of-3-bits"),
        pytest.param("unreadable", handmade_png(0, 8, scanlines=b"\0"), id="no-width"),
    ],
)
def test_refused_with_code(code, content):
    assert refusal(content).code == code


@pytest.mark.parametrize("name", sorted(FILES))
def test_half_a_file_is_truncated(name):
    content = FILES[name]
    if name != "two-pages.tif":
        assert refusal(content[: len(content) // 2]).code == "truncated"
        return
    # Half of this file has the whole first page. Half of that lacks the palette, which Pillow reports in several ways.
    assert refusal(content[:600]).code in ("truncated", "unreadable")


def test_codes_are_those_of_the_documented_list():
    assert list(IMAGE_ERROR_CODES) == [
        "empty_file",
        "not_an_image",
        "truncated",
        "unsupported_mode",
        "too_many_pixels",
        "too_many_bytes",
        "too_small",
        "unknown_label",
        "missing_file",
        "unreadable",
    ]


@pytest.mark.parametrize("content", [b"text", noisy_png()[:1000], handmade_tiff(1, 1, b""), bytes(99)])
def test_message_names_no_address_in_memory(content):
    # Two ingests of the same files must give the same rejects.
    assert not re.search(r"0x[0-9a-f]+", refusal(content).message)


# --- limits


def test_greatest_number_of_pixels_is_taken():
    assert 9_459 * 9_459 <= MAX_PIXELS < 9_460 * 9_460
    assert refusal(handmade_png(9_460, 9_460)).code == "too_many_pixels"
    assert refusal(handmade_png(9_459, 9_459)).code == "truncated"
    assert decode_image(noisy_png(), SPEC, Limits(max_pixels=24 * 32)).shape == (8, 8, 3)
    error = refusal(noisy_png(), Limits(max_pixels=24 * 32 - 1))
    assert (error.code, error.message) == ("too_many_pixels", "768 pixels exceed the limit of 767")


def test_greatest_number_of_bytes_is_taken():
    content = noisy_jpeg()
    assert decode_image(content, SPEC, Limits(max_bytes=len(content))).shape == (8, 8, 3)
    error = refusal(content, Limits(max_bytes=len(content) - 1))
    assert (error.code, error.message) == ("too_many_bytes", "1130 bytes exceed the limit of 1129")
    assert refusal(b"text", Limits(max_bytes=3)).code == "too_many_bytes"


def test_smallest_side_is_taken():
    assert decode_image(noisy_png(), SPEC, Limits(min_side=24)).shape == (8, 8, 3)
    error = refusal(noisy_png(), Limits(min_side=25))
    assert error.code == "too_small"
    assert error.message == "32 x 24 (width x height) has a side below the limit of 25"


def test_limits_are_checked_before_any_pixel():
    damaged = noisy_png()[:100]
    assert refusal(damaged).code == "truncated"
    assert refusal(damaged, Limits(min_side=25)).code == "too_small"
    assert refusal(damaged, Limits(max_pixels=700)).code == "too_many_pixels"


def test_tiles_that_reach_beyond_the_image_are_taken():
    tiles = encoded(uniform("L", 90, size=(16, 16)), "TIFF", tiffinfo={322: 16, 323: 16})
    assert decode_image(tiles, SPEC).shape == (8, 8, 3)
    data = np.full((16, 16), 90, np.uint8).tobytes()
    tile = {"t322": (16,), "t323": (16,), "t324": (8,), "t325": (256,)}
    assert (decode_image(handmade_tiff(10, 10, data, **tile), SPEC) == 90).all()
    assert refusal(handmade_tiff(10, 10, data, **tile), Limits(max_pixels=255)).code == "too_many_pixels"


def test_strips_of_channels_apart_are_taken():
    # PlanarConfiguration 2: red, green and blue have a strip each.
    data = np.repeat(np.array([10, 20, 30], np.uint8), 64).tobytes()
    # handmade_tiff cannot write three numbers of 16 bits. One number for all channels is enough.
    planes = {"t262": (2,), "t277": (3,), "t284": (2,), "t278": (8,), "t273": (8, 72, 136), "t279": (64, 64, 64)}
    pixels = decode_image(handmade_tiff(8, 8, data, **planes), SPEC)
    assert pixels.reshape(-1, 3).tolist() == [[10, 20, 30]] * 64


def test_many_scans_and_exif_parts_are_taken():
    assert decode_image(jpeg_of_scans(90), SPEC).shape == (8, 8, 3)
    assert decode_image(jpeg_of_exif_parts(80), SPEC).shape == (8, 8, 3)
    assert refusal(jpeg_of_scans(101)).code == "unreadable"


# --- time, memory and output


def test_bombs_are_refused_at_once_and_without_memory():
    program = subprocess.run(
        [sys.executable, "-m", "tests.unit.bombs"], cwd=ROOT, capture_output=True, text=True, timeout=120, check=True
    )
    report = json.loads(program.stdout)
    assert report["codes"] == {name: code for name, (code, _) in bombs().items()}
    assert max(report["seconds"].values()) < 0.5, report["seconds"]
    # The files themselves have 4 MB.
    assert report["growth_mb"] < 30
    assert program.stderr == ""


@pytest.mark.full
def test_mutants_end_in_pixels_or_a_known_code():
    """`fuzz_images` also limits time and memory, and allows no output. On a failure, it prints the mutant."""
    program = subprocess.run(
        # A warning that gets through becomes an error, whose message shows it.
        [sys.executable, "-W", "error", "-m", "tests.unit.fuzz_images", "--mutants", "8000", "--seed", "4"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    *_, mutant, report = ["", *program.stdout.splitlines()]
    assert program.returncode == 0, f"{mutant}\n{report}\n{program.stderr}"
    assert program.stderr == ""
    outcomes = json.loads(report)["outcomes"]
    assert sum(outcomes.values()) == 8000
    # Many of them decode to pixels.
    assert outcomes["pixels"] > 1000


def damaged_deflate() -> bytes:
    content = bytearray(encoded(Image.fromarray(noise()), "TIFF", compression="tiff_adobe_deflate"))
    content[500:520] = bytes(20)
    return bytes(content)


@pytest.mark.parametrize(
    ("code", "content"),
    [
        pytest.param("truncated", damaged_deflate(), id="libtiff-prints"),
        pytest.param("unreadable", handmade_tiff(1, 1, b"\0", t277=(99,), t273=(8,)) + b"\0", id="pillow-logs"),
        pytest.param("truncated", noisy_tiff()[:-20], id="pillow-warns"),
        pytest.param("too_many_pixels", handmade_gif((8, 8), (10_000, 10_000)), id="pillow-warns-of-a-bomb"),
    ],
)
def test_nothing_is_printed(code, content, capfd, recwarn):
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        assert refusal(content).code == code
        first = len(warnings.filters)
        assert refusal(content).code == code
        assert len(warnings.filters) == first
    assert capfd.readouterr() == ("", "")
    assert [str(warning.message) for warning in recwarn] == []


def test_gif_that_asks_for_disposal_is_read():
    assert (decode_image(encoded(uniform("RGB", RED), "GIF", disposal=2), SPEC) == RED).all()
