"""The MNIST files in the package are complete, and damaged ones are refused."""

import hashlib

import numpy as np
import pytest

from cnnlib import mnist
from cnnlib.errors import SourceError
from cnnlib.mnist import MD5, read_mnist_file
from cnnlib.sources.idx import find_pairs, parse_pair

# Published numbers of images per digit, 0 to 9.
COUNTS = {
    "train": [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949],
    "t10k": [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009],
}


@pytest.fixture(scope="module", params=COUNTS)
def part(request):
    """Return (name, images, labels) of the training or the test images."""
    names = find_pairs(MD5)[request.param]
    return request.param, *parse_pair(*map(read_mnist_file, names), *names)


def test_images_are_28_by_28(part):
    name, images, labels = part
    assert (images.shape, images.dtype) == ((sum(COUNTS[name]), 28, 28), np.uint8)
    assert labels.shape == (sum(COUNTS[name]),)


def test_every_digit_has_its_published_count(part):
    name, _, labels = part
    assert np.bincount(labels, minlength=10).tolist() == COUNTS[name]


def test_mean_and_deviation_are_the_published_ones(part):
    name, images, _ = part
    if name == "train":
        assert images.mean() / 255 == pytest.approx(0.1307, abs=5e-5)
        assert images.std() / 255 == pytest.approx(0.3081, abs=5e-5)


def test_first_digits_are_the_published_ones(part):
    name, _, labels = part
    assert labels[:5].tolist() == {"train": [5, 0, 4, 1, 9], "t10k": [7, 2, 1, 0, 4]}[name]


def test_damaged_file_is_refused(monkeypatch):
    name = "t10k-labels-idx1-ubyte.gz"
    received = MD5[name]
    monkeypatch.setitem(mnist.MD5, name, hashlib.md5(b"what was published", usedforsecurity=False).hexdigest())
    with pytest.raises(SourceError, match=f"{name} is damaged: MD5 {received}"):
        read_mnist_file(name)
