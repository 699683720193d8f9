"""Fixtures for all kinds of tests: small real data, and one Spark session for all tests that need one."""

import gc
import gzip
import os
import shutil
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cnnlib.mnist import read_mnist_file
from cnnlib.quiet import set_tensorflow_defaults
from cnnlib.sources.idx import parse_idx
from pipelines.spark.session import class_archive_options

# The JVMs of the tests live for seconds only, so the second compiler does not pay off. Without it, short jobs took 0.75
# to 0.9 of the time, and jobs on two executors took 0.9 of it.
JAVA = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"
os.environ.setdefault(
    "SPARK_SUBMIT_OPTS", f'{JAVA} {class_archive_options()} "-Dspark.executor.extraJavaOptions={JAVA}"'
)

# The jobs do this too. Any test may be the first one that imports TensorFlow, and others check the standard error.
set_tensorflow_defaults()

TRAIN_DIGITS = 600
TEST_DIGITS = 200

# Files that tests read. One of them is the code of an old sealed model, whose doctests cannot run here.
collect_ignore_glob = ["data/*"]


# Tests here need Spark or whole processes. `make test` runs those that are marked main_path, one path through every
# capability; `make test-full` runs the others.
MOSTLY_FULL = ("tests/spark", "tests/end_to_end")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that only `make test-full` runs."""
    for item in items:
        if item.nodeid.startswith(MOSTLY_FULL) and item.get_closest_marker("main_path") is None:
            item.add_marker(pytest.mark.full)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object:
    """Give a process whole files, and in `make test` give one process all tests that need Spark.

    Two processes would start two JVMs, and import TensorFlow in twice as many Python workers. The other process runs
    the unit tests in the meantime.
    """
    from xdist.scheduler import LoadFileScheduling

    class Scheduling(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = super()._split_scope(nodeid)
            one_process = config.option.markexpr == "not full" and file.startswith(MOSTLY_FULL)
            return "Spark" if one_process else file

    return Scheduling(config, log)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Keep everything imported so far out of garbage collection, which would visit TensorFlow's objects each time."""
    gc.collect()
    gc.freeze()


def pytest_sessionfinish() -> None:
    """Let Python free everything at its end. DuckDB would write lines about what it finds left."""
    gc.unfreeze()


@pytest.fixture(scope="session")
def digits_idx(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with MNIST's first 600 training and 200 test digits as IDX files. The training files are gzipped."""
    folder = tmp_path_factory.mktemp("digits")
    for stem, count, suffix in (("train", TRAIN_DIGITS, ".gz"), ("t10k", TEST_DIGITS, "")):
        for kind in ("images-idx3-ubyte", "labels-idx1-ubyte"):
            whole = parse_idx(read_mnist_file(f"{stem}-{kind}.gz"), kind)
            content = idx_bytes(whole[:count])
            (folder / f"{stem}-{kind}{suffix}").write_bytes(gzip.compress(content) if suffix else content)
    return folder


@pytest.fixture(scope="session")
def new_store(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], str]:
    """Return a function that puts an empty MLflow store, a SQLite file, into a folder, and returns its URI.

    MLflow takes two seconds to create such a file, so it creates only one, and the function copies that.
    """
    from mlflow import MlflowClient

    from pipelines.tracking.store import SQLITE, STORE_FILE, quieten

    quieten()
    empty = tmp_path_factory.mktemp("mlflow") / STORE_FILE
    MlflowClient(f"{SQLITE}{empty}").search_experiments(max_results=1)

    def copy(folder: Path) -> str:
        return f"{SQLITE}{shutil.copy(empty, folder / STORE_FILE)}"

    return copy


@pytest.fixture(scope="session")
def spark() -> Iterator[object]:
    """The Spark session of all Spark tests. It is built as for users, and has all cores of this machine."""
    from pipelines.spark.session import spark_session

    session = spark_session("sparkcnn tests")
    yield session
    session.stop()


def write_photos(folder: Path, per_class: int = 30, side: int = 40) -> Path:
    """Write the class folders `dark` and `light` with JPEG and PNG files: noise around two levels of grey."""
    random = np.random.default_rng(0)
    for name, level in (("dark", 60), ("light", 190)):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number in range(per_class):
            pixels = random.integers(level - 50, level + 50, (side, side + 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number:03d}.{'jpg' if number % 2 else 'png'}")
    return folder


def idx_bytes(array: np.ndarray) -> bytes:
    """Return the content of the IDX file of an array of uint8."""
    header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    return header + array.tobytes()
