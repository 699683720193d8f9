"""Helpers of the feed's tests: small sets whose rows all differ, and how to read one through tf.data."""

import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
from fsspec.implementations.local import LocalFileSystem

from cnnlib.image_set.contract import ImageSet
from tests.unit.image_sets import write_image_set

PROJECT = Path(__file__).resolve().parents[2]
CLASSES = tuple("abcdefghij")
ROWS = 1000
VAL_ROWS = 60

# All rows differ: (rows, 4, 4, 1) uint8.
IMAGES = np.random.default_rng(0).integers(0, 256, (ROWS + VAL_ROWS, 4, 4, 1), dtype=np.uint8)
LABELS = [number % 10 for number in range(len(IMAGES))]

# (pixels, label)
Row = tuple[bytes, int]
TRAIN: list[Row] = [(image.tobytes(), label) for image, label in zip(IMAGES[:ROWS], LABELS, strict=False)]

# The size of 200 of these images: a pool smaller than the set.
POOL_MB = 200 * 16 / 2**20


def write(path: Path, **options) -> ImageSet:
    """Write a set of 1,000 train and 60 val images."""
    splits = ["train"] * ROWS + ["val"] * VAL_ROWS
    return write_image_set(path, IMAGES, LABELS, splits, classes=CLASSES, **options)


def batches_of(dataset, steps: int | None = None) -> list[list[Row]]:
    """Return the rows of each batch in order, for one pass or its first `steps` steps."""
    return [
        [(image.tobytes(), int(label)) for image, label in zip(images, labels, strict=True)]
        for images, labels in (dataset if steps is None else dataset.take(steps)).as_numpy_iterator()
    ]


def rows_of(batches: list[list[Row]]) -> list[Row]:
    return [row for batch in batches for row in batch]


def within(seconds: float, work: Callable[[], object]) -> None:
    """Run `work` for at most this long, so that one hanging test fails instead of stopping the whole suite."""
    raised: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=run, name="test", daemon=True)
    thread.start()
    thread.join(seconds)
    assert not thread.is_alive(), f"still running after {seconds} s"
    if raised:
        raise raised[0]


def run_python(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a program in a fresh interpreter."""
    return subprocess.run(
        [sys.executable, "-c", program, *arguments],
        capture_output=True,
        text=True,
        cwd=PROJECT,
        check=False,
        timeout=240,
    )


class StuckFileSystem(LocalFileSystem):
    """A local file system. While `stuck` is set, opening a file whose path contains `names` waits for `freed`."""

    cachable = False
    names = ""

    def __init__(self) -> None:
        super().__init__()
        self.stuck = threading.Event()
        self.freed = threading.Event()

    def open(self, path, *args, **kwargs):
        if self.stuck.is_set() and self.names in path:
            self.freed.wait()
        return super().open(path, *args, **kwargs)
