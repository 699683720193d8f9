"""Write IDX, the format of MNIST's files."""

import struct
from pathlib import Path

import numpy as np

from cnnlib.mnist import read_mnist_file
from cnnlib.sources.idx import parse_idx


def idx_bytes(array: np.ndarray) -> bytes:
    """Return the content of an IDX file for an array of uint8 of any shape."""
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.astype(np.uint8).tobytes()


def write_first_digits(folder: Path, train: int, test: int) -> None:
    """Write the first images of MNIST's training and test files, with their labels, as four IDX files."""
    for stem, count in (("train", train), ("t10k", test)):
        for kind in ("images-idx3-ubyte", "labels-idx1-ubyte"):
            array = parse_idx(read_mnist_file(f"{stem}-{kind}.gz"), kind)[:count]
            (folder / f"{stem}-{kind}").write_bytes(idx_bytes(array))
