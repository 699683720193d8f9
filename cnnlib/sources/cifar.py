"""CIFAR-10 and CIFAR-100 in their binary version: records of label bytes and 32 x 32 pixels, without anything between.

Format: A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009, and "Binary version" on
https://www.cs.toronto.edu/~kriz/cifar.html. The Python version consists of pickles. Reading a pickle runs code that is
in it, so pickles are never opened here.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from cnnlib.errors import SourceError
from cnnlib.sources.gzipped import unzip

Kind = Literal["CIFAR-10", "CIFAR-100"]

SIDE = 32
PIXEL_BYTES = 3 * SIDE * SIDE

BATCH_NAMES: dict[Kind, re.Pattern[str]] = {
    "CIFAR-10": re.compile(r"(data_batch_\d+|test_batch)\.bin(\.gz)?"),
    "CIFAR-100": re.compile(r"(train|test)\.bin(\.gz)?"),
}
CLASS_NAMES_FILES: dict[Kind, str] = {"CIFAR-10": "batches.meta.txt", "CIFAR-100": "fine_label_names.txt"}
# The number of values of each label byte in a record. The last byte is the label; CIFAR-100 has a coarse one before it.
LABEL_VALUES: dict[Kind, tuple[int, ...]] = {"CIFAR-10": (10,), "CIFAR-100": (20, 100)}

_PICKLED_NAMES = re.compile(r"data_batch_\d+|test_batch|batches\.meta|train|test|meta")
_DOWNLOAD = (
    "download and unpack the binary version: https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz or "
    "cifar-100-binary.tar.gz there"
)


@dataclass(frozen=True)
class CifarFiles:
    """The names of the files in one folder: the batches, sorted, and the file of class names, None if it is missing."""

    kind: Kind
    batches: tuple[str, ...]
    class_names: str | None


def find_files(names: Iterable[str]) -> CifarFiles:
    """Find the batches of CIFAR-10 or CIFAR-100 among the names in a folder.

    Raises SourceError if there are none (with a hint if there are pickles), if there are both kinds, or if one is there
    twice.

    >>> find_files(["test.bin", "train.bin.gz", "fine_label_names.txt", "coarse_label_names.txt"])
    CifarFiles(kind='CIFAR-100', batches=('test.bin', 'train.bin.gz'), class_names='fine_label_names.txt')
    """
    known = sorted(set(names))
    found = {kind: [name for name in known if pattern.fullmatch(name)] for kind, pattern in BATCH_NAMES.items()}
    kinds = [kind for kind, batches in found.items() if batches]
    if not kinds:
        pickled = next((name for name in known if _PICKLED_NAMES.fullmatch(name)), None)
        if pickled is not None:
            raise SourceError(
                f"{pickled} looks like CIFAR's Python version: pickles, which are never read; {_DOWNLOAD}"
            )
        raise SourceError(f"no file is named like data_batch_1.bin, test_batch.bin, train.bin or test.bin; {_DOWNLOAD}")
    if len(kinds) > 1:
        raise SourceError("the folder has batches of CIFAR-10 and of CIFAR-100; put each kind into a folder of its own")
    kind, batches = kinds[0], found[kinds[0]]
    twice = next((name for name in batches if f"{name}.gz" in batches), None)
    if twice is not None:
        raise SourceError(f"{twice} is there twice, with and without gzip; remove one of them")
    class_names = CLASS_NAMES_FILES[kind]
    return CifarFiles(kind, tuple(batches), class_names if class_names in known else None)


def is_test(name: str) -> bool:
    """Return whether a batch has test images, by its name.

    >>> is_test("test_batch.bin"), is_test("test.bin.gz"), is_test("data_batch_5.bin")
    (True, True, False)
    """
    return name.startswith("test")


def record_bytes(kind: Kind) -> int:
    """Return the bytes of one record: an image and its labels.

    >>> record_bytes("CIFAR-10"), record_bytes("CIFAR-100")
    (3073, 3074)
    """
    return len(LABEL_VALUES[kind]) + PIXEL_BYTES


def parse_batch(content: bytes, name: str, kind: Kind) -> tuple[np.ndarray, np.ndarray]:
    """Parse a batch, gzipped or not, into pixels (count, 32, 32, 3) and labels (count,), both uint8.

    The labels of CIFAR-100 are the fine ones. Raises SourceError if the file is a pickle, if its size is not a whole
    number of records, or if a label is out of range. `name` is for the messages.
    """
    content = unzip(content, name)
    # Pickles begin like this since protocol 2. As a label, this byte would be out of range in both kinds.
    if content.startswith(b"\x80"):
        raise SourceError(f"{name} is a pickle of CIFAR's Python version, which is never read; {_DOWNLOAD}")
    size = record_bytes(kind)
    if not content or len(content) % size:
        raise SourceError(
            f"{name} has {len(content)} bytes, not a whole number of {kind} records of {size} bytes; {_DOWNLOAD}"
        )
    records = np.frombuffer(content, np.uint8).reshape(-1, size)
    for column, values in enumerate(LABEL_VALUES[kind]):
        wrong = np.flatnonzero(records[:, column] >= values)
        if len(wrong):
            raise SourceError(
                f"{name} has label {records[wrong[0], column]} in image {wrong[0]}, but {kind} has labels 0 to "
                f"{values - 1}: the file is damaged, or it is not {kind}; {_DOWNLOAD}"
            )
    label_bytes = len(LABEL_VALUES[kind])
    # (count, 3072) -> (count, 3, 32, 32), one plane per channel -> (count, 32, 32, 3)
    planes = records[:, label_bytes:].reshape(-1, 3, SIDE, SIDE)
    return np.ascontiguousarray(planes.transpose(0, 2, 3, 1)), records[:, label_bytes - 1].copy()


def parse_class_names(content: bytes | None, name: str, kind: Kind) -> tuple[str, ...]:
    """Parse the file of class names: one line per class, in label order.

    Without a file (`content` is None), the labels are the names. Raises SourceError if it is not text, or if it does
    not have one different name per label.

    >>> parse_class_names(None, "", "CIFAR-10")[8:]
    ('8', '9')
    """
    count = LABEL_VALUES[kind][-1]
    if content is None:
        return tuple(str(label) for label in range(count))
    try:
        lines = content.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise SourceError(f"{name} is not UTF-8 text ({error.reason}); {_DOWNLOAD}") from error
    classes = tuple(line.strip() for line in lines if line.strip())
    if len(set(classes)) != count or len(classes) != count:
        raise SourceError(
            f"{name} has {len(classes)} names, {len(set(classes))} of them different, but {kind} has {count} classes; "
            "correct the file, or remove it to use the labels as names"
        )
    return classes
