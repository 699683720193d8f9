"""Write IDX, the format of MNIST's files."""

import struct

import numpy as np


def idx_bytes(array: np.ndarray) -> bytes:
    """Return the content of an IDX file for an array of uint8 of any shape."""
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.astype(np.uint8).tobytes()
