"""IDX, the format of MNIST, EMNIST and Fashion-MNIST: a big-endian header, then the bytes of the array.

Format: the description on the MNIST page of Y. LeCun, C. Cortes and C. Burges ("THE IDX FILE FORMAT").
"""

import gzip
import math
import re
import struct
import zlib
from collections.abc import Iterable
from typing import BinaryIO

import numpy as np

from cnnlib.errors import SourceError
from cnnlib.sources.gzipped import MAGIC, unzip

UINT8 = 0x08

# train-images-idx3-ubyte.gz, t10k-images.idx3-ubyte, emnist-letters-test-images-idx3-ubyte.gz
IMAGES_NAME = re.compile(r"^(?P<stem>.+?)-images[.-]idx3-ubyte(?P<gz>\.gz)?$")
# emnist-letters-test
PART_OF_SET = re.compile(r"^((?P<set>.+)[-_.])?(train|t10k|test)$")


def parse_idx(content: bytes, name: str) -> np.ndarray:
    """Parse an IDX file, gzipped or not, into an array of uint8 with the shape that its header states.

    Raises SourceError if the file is not IDX of unsigned bytes, or has more or fewer bytes than its header states.
    `name` is for the messages.
    """
    content = unzip(content, name)
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] != UINT8:
        raise SourceError(f"{name} is not an IDX file of unsigned bytes; it begins with {content[:4].hex()}")
    dimensions = content[3]
    header_bytes = 4 + 4 * dimensions
    if len(content) < header_bytes:
        raise SourceError(f"{name} ends within its header, after {len(content)} bytes; download it again")
    shape = struct.unpack(f">{dimensions}I", content[4:header_bytes])
    expected = header_bytes + math.prod(shape)
    if len(content) != expected:
        raise SourceError(f"{name} has {len(content)} bytes, but its header states {expected}; download it again")
    return np.frombuffer(content, np.uint8, offset=header_bytes).reshape(shape)


def image_size(file: BinaryIO, name: str) -> tuple[int, int]:
    """Read (height, width) from the header of an open images file, gzipped or not.

    Raises SourceError if it is not the header of an images file.
    """
    gzipped = file.read(2) == MAGIC
    file.seek(0)
    try:
        header = (gzip.GzipFile(fileobj=file) if gzipped else file).read(16)
    except (OSError, EOFError, zlib.error) as error:
        raise SourceError(f"{name} is a damaged gzip file ({error}); download it again") from error
    if len(header) < 16 or header[:4] != bytes([0, 0, UINT8, 3]):
        raise SourceError(f"{name} is not an IDX file of images; it begins with {header[:4].hex()}")
    _, height, width = struct.unpack(">3I", header[4:])
    return height, width


def parse_pair(images: bytes, labels: bytes, images_name: str, labels_name: str) -> tuple[np.ndarray, np.ndarray]:
    """Parse an images file into (count, height, width) and its labels file into (count,), both uint8.

    Raises SourceError if either has another number of dimensions, or if the counts differ.
    """
    image_array = parse_idx(images, images_name)
    label_array = parse_idx(labels, labels_name)
    if image_array.ndim != 3 or label_array.ndim != 1:
        raise SourceError(
            f"images must be (count, height, width) and labels (count,), received {image_array.shape} in {images_name} "
            f"and {label_array.shape} in {labels_name}; check that these files belong together"
        )
    if len(image_array) != len(label_array):
        raise SourceError(
            f"{images_name} has {len(image_array)} images, but {labels_name} has {len(label_array)} labels; check that "
            "these files belong together"
        )
    return image_array, label_array


def find_pairs(names: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Match each images file among `names` with its labels file. Return {stem: (images, labels)}, sorted by stem.

    Raises SourceError if there is no images file, if one has no labels file, or if they belong to several sets, because
    a label means something else in each set of EMNIST.

    >>> find_pairs(["t10k-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "readme.txt"])
    {'t10k': ('t10k-images-idx3-ubyte', 't10k-labels-idx1-ubyte')}
    """
    known = set(names)
    pairs = {}
    for images_name in sorted(known):
        match = IMAGES_NAME.match(images_name)
        if match is None:
            continue
        ending = images_name.removeprefix(f"{match['stem']}-images")
        labels_name = f"{match['stem']}-labels{ending.replace('idx3', 'idx1')}"
        twin = labels_name.removesuffix(".gz") if match["gz"] else f"{labels_name}.gz"
        found = next((name for name in (labels_name, twin) if name in known), None)
        if found is None:
            raise SourceError(f"{images_name} has no {labels_name} beside it; add it, or remove the images file")
        if match["stem"] in pairs:
            raise SourceError(f"{match['stem']} is there twice, with and without gzip; remove one of them")
        pairs[match["stem"]] = (images_name, found)
    if not pairs:
        raise SourceError(
            "no file is named like train-images-idx3-ubyte or train-images-idx3-ubyte.gz; check the path, or rename "
            "the files"
        )
    sets = {match["set"] for match in map(PART_OF_SET.match, pairs) if match}
    if len(sets) > 1:
        raise SourceError(f"{', '.join(pairs)} belong to {len(sets)} sets; put each set into a folder of its own")
    return pairs


def is_test(stem: str) -> bool:
    """Return whether a pair of files has test images, by the names that the published sets use.

    >>> is_test("t10k"), is_test("emnist-letters-test"), is_test("train"), is_test("latest")
    (True, True, False, False)
    """
    return bool(re.search(r"(^|[-_.])(t10k|test)$", stem))
