"""IDX files parse, or end in one clear error for each kind of fault."""

import gzip
import io
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from cnnlib.errors import SourceError
from cnnlib.sources.idx import find_pairs, image_size, is_test, parse_idx, parse_pair

IMAGES = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
LABELS = np.array([7, 1], np.uint8)


def idx(array: np.ndarray) -> bytes:
    header = bytes([0, 0, 0x08, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + array.tobytes()


GZIPPED = gzip.compress(idx(IMAGES), mtime=0)


@given(arrays(np.uint8, array_shapes(min_dims=1, max_dims=4, max_side=3)), st.sampled_from([bytes, gzip.compress]))
def test_parse_gives_what_was_written(array, pack):
    parsed = parse_idx(pack(idx(array)), "x")
    assert parsed.dtype == np.uint8
    np.testing.assert_array_equal(parsed, array)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        pytest.param(b"", "not an IDX file", id="empty"),
        pytest.param(b"<html>not found</html>", "not an IDX file", id="text"),
        pytest.param(b"\0\0\x0d\1" + bytes(8), "unsigned bytes; it begins with 00000d01", id="floats"),
        pytest.param(b"\0\1" + idx(LABELS)[2:], "not an IDX file", id="no-zeros-at-the-start"),
        pytest.param(idx(IMAGES)[:10], "ends within its header, after 10 bytes", id="half-a-header"),
        pytest.param(idx(IMAGES)[:-1], "has 39 bytes, but its header states 40", id="a-byte-short"),
        pytest.param(idx(IMAGES) + b"\0", "has 41 bytes, but its header states 40", id="a-byte-long"),
        pytest.param(idx(IMAGES)[:16], "has 16 bytes, but its header states 40", id="header-alone"),
        pytest.param(GZIPPED[:-9], "damaged gzip file", id="half-a-gzip"),
        pytest.param(GZIPPED[:-5] + b"\0\0\0\0\0", "damaged gzip file", id="gzip-with-wrong-checksum"),
        pytest.param(GZIPPED[:10] + b"\xff" * 20, "damaged gzip file", id="gzip-of-nonsense"),
    ],
)
def test_parse_refuses(content, says):
    with pytest.raises(SourceError, match=says) as caught:
        parse_idx(content, "train-images")
    assert caught.value.message.startswith("train-images ")


@given(st.integers(0, len(GZIPPED) - 1), st.integers(0, 255))
@settings(max_examples=300)
def test_damaged_gzip_gives_the_array_or_a_source_error(position, value):
    content = bytearray(GZIPPED)
    content[position] = value
    try:
        parsed = parse_idx(bytes(content), "x")
    except SourceError:
        return
    np.testing.assert_array_equal(parsed, IMAGES)


# --- image_size


@pytest.mark.parametrize("content", [idx(IMAGES), GZIPPED], ids=["plain", "gzipped"])
def test_image_size_is_height_and_width(content):
    assert image_size(io.BytesIO(content), "x") == (3, 4)


def test_image_size_reads_the_header_alone():
    assert image_size(io.BytesIO(idx(IMAGES)[:16]), "x") == (3, 4)


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="empty"),
        pytest.param(idx(IMAGES)[:15], id="half-a-header"),
        pytest.param(idx(LABELS) + bytes(20), id="labels"),
        pytest.param(b"<html>not found</html>", id="text"),
        pytest.param(GZIPPED[:12], id="half-a-gzip"),
        pytest.param(GZIPPED[:10] + b"\xff" * 20, id="gzip-of-nonsense"),
    ],
)
def test_image_size_refuses(content):
    with pytest.raises(SourceError, match="^t10k-images "):
        image_size(io.BytesIO(content), "t10k-images")


# --- pairs


def test_pair_of_plain_and_gzipped_file_parses():
    images, labels = parse_pair(GZIPPED, idx(LABELS), "i", "l")
    np.testing.assert_array_equal(images, IMAGES)
    np.testing.assert_array_equal(labels, LABELS)


@pytest.mark.parametrize(
    ("images", "labels", "says"),
    [
        pytest.param(IMAGES, np.zeros(3, np.uint8), "i has 2 images, but l has 3 labels", id="counts-differ"),
        pytest.param(LABELS, IMAGES, r"received \(2,\) in i and \(2, 3, 4\) in l", id="swapped"),
        pytest.param(IMAGES[0], LABELS, r"received \(3, 4\) in i", id="a-single-image"),
    ],
)
def test_pair_that_does_not_fit_is_refused(images, labels, says):
    with pytest.raises(SourceError, match=says):
        parse_pair(idx(images), idx(labels), "i", "l")


@pytest.mark.parametrize(
    ("names", "pairs"),
    [
        pytest.param(
            ["train-labels-idx1-ubyte.gz", "train-images-idx3-ubyte.gz", "t10k-images-idx3-ubyte", "notes.txt"]
            + ["t10k-labels-idx1-ubyte"],
            {
                "t10k": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
                "train": ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"),
            },
            id="mnist",
        ),
        pytest.param(
            ["train-images.idx3-ubyte", "train-labels.idx1-ubyte"],
            {"train": ("train-images.idx3-ubyte", "train-labels.idx1-ubyte")},
            id="dots",
        ),
        pytest.param(
            ["train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte"],
            {"train": ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte")},
            id="labels-unpacked",
        ),
        pytest.param(
            ["train-images-idx3-ubyte", "train-labels-idx1-ubyte.gz"],
            {"train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte.gz")},
            id="images-unpacked",
        ),
        pytest.param(
            ["emnist-letters-test-images-idx3-ubyte.gz", "emnist-letters-test-labels-idx1-ubyte.gz"],
            {
                "emnist-letters-test": (
                    "emnist-letters-test-images-idx3-ubyte.gz",
                    "emnist-letters-test-labels-idx1-ubyte.gz",
                )
            },
            id="emnist",
        ),
        pytest.param(
            ["my-images-2-images-idx3-ubyte", "my-images-2-labels-idx1-ubyte"],
            {"my-images-2": ("my-images-2-images-idx3-ubyte", "my-images-2-labels-idx1-ubyte")},
            id="images-in-the-stem",
        ),
    ],
)
def test_pairs_are_found(names, pairs):
    assert find_pairs(names) == pairs
    assert list(find_pairs(names)) == sorted(pairs)


@pytest.mark.parametrize(
    ("names", "says"),
    [
        pytest.param([], "no file is named like", id="nothing"),
        pytest.param(["a.png", "train-labels-idx1-ubyte"], "no file is named like", id="no-images"),
        pytest.param(["train-images-idx3-ubyte"], "has no train-labels-idx1-ubyte beside it", id="no-labels"),
        pytest.param(
            ["train-images-idx3-ubyte", "train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte"],
            "train is there twice",
            id="twice",
        ),
        pytest.param(
            [
                f"{stem}-{kind}-ubyte"
                for stem in ("emnist-letters-train", "emnist-digits-train", "emnist-digits-test")
                for kind in ("images-idx3", "labels-idx1")
            ],
            "^emnist-digits-test, emnist-digits-train, emnist-letters-train belong to 2 sets",
            id="several sets",
        ),
        pytest.param(
            [f"{stem}-{kind}-ubyte" for stem in ("train", "a-test") for kind in ("images-idx3", "labels-idx1")],
            "^a-test, train belong to 2 sets",
            id="a set without a name",
        ),
    ],
)
def test_pairs_are_refused(names, says):
    with pytest.raises(SourceError, match=says):
        find_pairs(names)


@pytest.mark.parametrize(
    ("stem", "expected"),
    [("t10k", True), ("emnist-letters-test", True), ("test", True), ("train", False), ("emnist-letters-train", False)],
)
def test_test_files_are_known_by_published_names(stem, expected):
    assert is_test(stem) is expected
