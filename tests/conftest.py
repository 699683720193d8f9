"""What tests of several kinds share: small real data, and one Spark session for all that need one."""

import gc
import gzip
import os
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cnnlib.mnist import read_mnist_file
from cnnlib.sources.idx import parse_idx
from pipelines.spark.session import class_archive_options

# The JVMs of the tests live for seconds, which the second compiler would spend on making them faster (a
# short job took 0.75 to 0.9 of the time).
os.environ.setdefault("SPARK_SUBMIT_OPTS", f"-XX:TieredStopAtLevel=1 -XX:+UseSerialGC {class_archive_options()}")

# As the jobs set it: whichever test imports TensorFlow first, the others look at what is written.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

TRAIN_DIGITS = 600
TEST_DIGITS = 200


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests first: of two processes that share the files, neither begins a long one at the end."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


def pytest_collection_finish(session: pytest.Session) -> None:
    """What has been imported stays: a collection of garbage need not go through TensorFlow each time."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def digits_idx(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the first 600 training and 200 test digits of MNIST as IDX files; the training files gzipped."""
    folder = tmp_path_factory.mktemp("digits")
    for stem, count, suffix in (("train", TRAIN_DIGITS, ".gz"), ("t10k", TEST_DIGITS, "")):
        for kind in ("images-idx3-ubyte", "labels-idx1-ubyte"):
            whole = parse_idx(read_mnist_file(f"{stem}-{kind}.gz"), kind)
            content = idx_bytes(whole[:count])
            (folder / f"{stem}-{kind}{suffix}").write_bytes(gzip.compress(content) if suffix else content)
    return folder


@pytest.fixture(scope="session")
def spark() -> Iterator[object]:
    """The session that every Spark test shares: built as users get it, on all cores of this machine."""
    from pipelines.spark.session import spark_session

    session = spark_session("sparkcnn tests")
    yield session
    session.stop()


def write_photos(folder: Path, per_class: int = 30, side: int = 40) -> Path:
    """Write class folders of JPEG and PNG files: `dark` and `light`, noise about two levels of grey."""
    random = np.random.default_rng(0)
    for name, level in (("dark", 60), ("light", 190)):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number in range(per_class):
            pixels = random.integers(level - 50, level + 50, (side, side + 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number:03d}.{'jpg' if number % 2 else 'png'}")
    return folder


def idx_bytes(array: np.ndarray) -> bytes:
    """The IDX file of an array of uint8."""
    header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    return header + array.tobytes()
