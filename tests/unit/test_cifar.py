"""CIFAR's binary files parse, or end in one clear error for each kind of fault. Pickles are never opened."""

import gzip
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cnnlib.errors import SourceError
from cnnlib.sources.cifar import CifarFiles, find_files, is_test, parse_batch, parse_class_names, record_bytes

PIXELS = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)
CIFAR_10_LABELS = np.array([9, 0, 3], np.uint8)


def batch(pixels: np.ndarray, *labels: np.ndarray) -> bytes:
    """Write a batch in CIFAR's format: the labels, then the red, green and blue planes, row by row."""
    planes = pixels.transpose(0, 3, 1, 2).reshape(len(pixels), -1)
    return np.concatenate([*(column[:, None] for column in labels), planes], axis=1).astype(np.uint8).tobytes()


CIFAR_10 = batch(PIXELS, CIFAR_10_LABELS)
CIFAR_100 = batch(PIXELS, np.array([19, 0, 7]), np.array([99, 0, 50]))


# --- parse_batch


@given(st.integers(1, 4), st.integers(0, 2**32 - 1), st.sampled_from([bytes, gzip.compress]))
def test_cifar_10_gives_what_was_written(count, seed, pack):
    draw = np.random.default_rng(seed)
    pixels = draw.integers(0, 256, (count, 32, 32, 3), np.uint8)
    labels = draw.integers(0, 10, count, np.uint8)
    parsed, parsed_labels = parse_batch(pack(batch(pixels, labels)), "x", "CIFAR-10")
    assert parsed.dtype == parsed_labels.dtype == np.uint8
    np.testing.assert_array_equal(parsed, pixels)
    np.testing.assert_array_equal(parsed_labels, labels)


def test_cifar_100_gives_the_fine_labels():
    pixels, labels = parse_batch(CIFAR_100, "train.bin", "CIFAR-100")
    np.testing.assert_array_equal(pixels, PIXELS)
    assert labels.tolist() == [99, 0, 50]


def test_planes_are_red_green_blue_and_rows_run_from_left_to_right():
    content = bytes([4]) + bytes([200]) * 1 + bytes(1023) + bytes([0, 100]) + bytes(1022) + bytes(32) + b"\x32" * 992
    pixels, labels = parse_batch(content, "x", "CIFAR-10")
    assert labels.tolist() == [4]
    assert pixels[0, 0, 0].tolist() == [200, 0, 0]
    assert pixels[0, 0, 1].tolist() == [0, 100, 0]
    assert pixels[0, 1, 0].tolist() == [0, 0, 50]


@pytest.mark.parametrize(
    ("content", "kind", "says"),
    [
        pytest.param(b"", "CIFAR-10", "has 0 bytes, not a whole number of CIFAR-10 records of 3073", id="empty"),
        pytest.param(CIFAR_10[:-1], "CIFAR-10", "has 9218 bytes, not a whole number", id="a-byte-short"),
        pytest.param(CIFAR_10 + b"\0", "CIFAR-10", "has 9220 bytes, not a whole number", id="a-byte-long"),
        pytest.param(CIFAR_10, "CIFAR-100", "not a whole number of CIFAR-100 records of 3074", id="the-other-kind"),
        pytest.param(
            b"\x0a" + CIFAR_10[1:], "CIFAR-10", "has label 10 in image 0, but CIFAR-10 has labels 0 to 9", id="label"
        ),
        pytest.param(
            batch(PIXELS, np.array([1, 20, 2]), np.array([3, 4, 5])),
            "CIFAR-100",
            "has label 20 in image 1, but CIFAR-100 has labels 0 to 19",
            id="coarse-label",
        ),
        pytest.param(
            batch(PIXELS, np.array([1, 2, 3]), np.array([3, 4, 100])),
            "CIFAR-100",
            "has label 100 in image 2, but CIFAR-100 has labels 0 to 99",
            id="fine-label",
        ),
        pytest.param(pickle.dumps({b"data": PIXELS}, 2), "CIFAR-10", "is a pickle", id="pickle"),
        pytest.param(gzip.compress(pickle.dumps([1], 4)), "CIFAR-100", "is a pickle", id="gzipped-pickle"),
        pytest.param(gzip.compress(CIFAR_10)[:-9], "CIFAR-10", "damaged gzip file", id="half-a-gzip"),
    ],
)
def test_parse_refuses(content, kind, says):
    with pytest.raises(SourceError, match=says) as caught:
        parse_batch(content, "batch.bin", kind)
    assert caught.value.message.startswith("batch.bin ")


@given(st.binary(max_size=40) | st.binary(min_size=3073, max_size=3074))
def test_any_bytes_parse_or_are_a_source_error(content):
    for kind in ("CIFAR-10", "CIFAR-100"):
        try:
            pixels, labels = parse_batch(content, "x", kind)
        except SourceError:
            continue
        assert pixels.shape == (len(content) // record_bytes(kind), 32, 32, 3)
        assert labels.shape == pixels.shape[:1]


# --- find_files


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        pytest.param(
            ["test_batch.bin", "data_batch_2.bin", "data_batch_1.bin", "batches.meta.txt", "readme.html"],
            CifarFiles("CIFAR-10", ("data_batch_1.bin", "data_batch_2.bin", "test_batch.bin"), "batches.meta.txt"),
            id="cifar-10",
        ),
        pytest.param(
            ["train.bin.gz", "test.bin", "coarse_label_names.txt"],
            CifarFiles("CIFAR-100", ("test.bin", "train.bin.gz"), None),
            id="cifar-100-gzipped-without-names",
        ),
        pytest.param(["test_batch.bin"], CifarFiles("CIFAR-10", ("test_batch.bin",), None), id="test-alone"),
        pytest.param(
            ["data_batch_1", "data_batch_1.bin"],
            CifarFiles("CIFAR-10", ("data_batch_1.bin",), None),
            id="pickles-beside-are-passed-over",
        ),
    ],
)
def test_files_are_found(names, expected):
    assert find_files(names) == expected


@pytest.mark.parametrize(
    ("names", "says"),
    [
        pytest.param([], "no file is named like data_batch_1.bin", id="nothing"),
        pytest.param(["cifar-10-binary.tar.gz"], "download and unpack the binary version", id="still-packed"),
        pytest.param(
            ["batches.meta", "data_batch_1", "test_batch"], "batches.meta looks like CIFAR's Python", id="pickled"
        ),
        pytest.param(["meta", "train", "test"], "never read; download and unpack the binary version", id="pickled-100"),
        pytest.param(["train.bin", "test_batch.bin"], "CIFAR-10 and of CIFAR-100", id="both"),
        pytest.param(["train.bin", "train.bin.gz"], "train.bin is there twice", id="twice"),
    ],
)
def test_files_are_refused_in_one_line(names, says):
    with pytest.raises(SourceError, match=says) as caught:
        find_files(names)
    assert "\n" not in caught.value.message


@pytest.mark.parametrize(
    ("name", "expected"),
    [("test_batch.bin", True), ("test.bin.gz", True), ("data_batch_1.bin", False), ("train.bin", False)],
)
def test_test_batches_are_known_by_name(name, expected):
    assert is_test(name) is expected


# --- class names


def test_class_names_are_the_lines():
    content = b"airplane\nautomobile\r\nbird\ncat\ndeer\ndog\nfrog\nhorse\nship\ntruck\n\n"
    names = parse_class_names(content, "batches.meta.txt", "CIFAR-10")
    assert " ".join(names) == "airplane automobile bird cat deer dog frog horse ship truck"


def test_numbers_are_the_names_without_a_file():
    assert parse_class_names(None, "", "CIFAR-100") == tuple(str(label) for label in range(100))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        pytest.param(b"", "has 0 names", id="empty"),
        pytest.param(b"a\nb\n", "has 2 names", id="too-few"),
        pytest.param(b"a\n" * 10, "has 10 names, 1 of them different", id="all-the-same"),
        pytest.param(b"\xff\xfe", "is not UTF-8 text", id="binary"),
    ],
)
def test_class_names_are_refused(content, says):
    with pytest.raises(SourceError, match=says) as caught:
        parse_class_names(content, "batches.meta.txt", "CIFAR-10")
    assert caught.value.message.startswith("batches.meta.txt ")
