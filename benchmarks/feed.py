"""Measure the speed of the feed: `python -m benchmarks.feed`, about five minutes on two cores; `--quick` takes one.

There are three questions. Each compares the feed with a peer, in alternating turns of the same run:

- LeNet on MNIST: an epoch of `fit` through Parquet, compared with one on arrays in memory; and the fraction of the
  epoch that is spent waiting for data.
- The feed alone, 28 x 28 raw: images per second, compared with tf.data on arrays in memory, with the same shuffling and
  batches.
- The feed alone, 96 x 96 JPEG: decoded images per second, compared with tf.data on TFRecords of the same bytes, read as
  TensorFlow's guide recommends.

The table also has petastorm's plain `make_petastorm_dataset(...).unbatch().shuffle().batch()` on the same Parquet. All
files are read once before anything is timed, so every feed reads them from the machine's page cache.
"""

import argparse
import io
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image, ImageFilter
from rich.console import Console
from rich.table import Table

from cnnlib.quiet import import_tensorflow_quietly

import_tensorflow_quietly()

import keras  # noqa: E402  (TensorFlow must be imported quietly first)
import tensorflow as tf  # noqa: E402

from benchmarks.goals import verdict  # noqa: E402
from cnnlib.feed import make_dataset  # noqa: E402
from cnnlib.feed.data_wait import DataWait  # noqa: E402
from cnnlib.feed.petastorm import arrow_bridge  # noqa: E402
from cnnlib.image_set.contract import SCHEMA, Counts, ImageSet, Split, publish_image_set  # noqa: E402
from cnnlib.image_set.splits import TRAIN  # noqa: E402
from cnnlib.mnist import read_mnist_file  # noqa: E402
from cnnlib.models import build_model  # noqa: E402
from cnnlib.sealed.frozen.images import ImageSpec  # noqa: E402
from cnnlib.sources.idx import parse_idx  # noqa: E402
from cnnlib.storage.folder import new_run_id, open_folder, part_name  # noqa: E402
from cnnlib.storage.parts import PartWriter  # noqa: E402

arrow_bridge.install()

import petastorm.reader  # noqa: E402  (the bridge must be in place first)
from petastorm import make_batch_reader  # noqa: E402
from petastorm.tf_utils import make_petastorm_dataset  # noqa: E402

from cnnlib.feed.petastorm.thread_pool import WholeThreadPool  # noqa: E402

BATCH_SIZE = 128
SEED = 0
CLASSES = tuple("0123456789")
# The defaults of ingest: 8,192 rows per file, 2 MB of raw pixels per row group.
ROWS_PER_FILE = 8192
ROW_GROUP_BYTES = 2_000_000
JPEG_SPEC = ImageSpec(96, 96, 3, encoding="jpeg")
JPEG_QUALITY = 85

# A function that runs one measurement and returns its seconds.
Pass = Callable[[], float]


# --- the sets


def mnist(rows: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the first training digits: (rows, 28, 28, 1) uint8 and labels (rows,) int32."""
    images = parse_idx(read_mnist_file("train-images-idx3-ubyte.gz"), "images")[:rows, :, :, np.newaxis]
    labels = parse_idx(read_mnist_file("train-labels-idx1-ubyte.gz"), "labels")[:rows]
    return images, labels.astype(np.int32)


def photo_of(digit: np.ndarray, random: np.random.Generator) -> bytes:
    """Turn a digit (28, 28) uint8 into a coloured photo on cloth, lit from one side: a 96 x 96 JPEG of 2 to 5 KB."""
    blurred = Image.fromarray(digit).resize((96, 96), Image.Resampling.BICUBIC).filter(ImageFilter.GaussianBlur(1))
    # (96, 96, 1) float32: 0 is ground, 1 is ink
    ink = np.asarray(blurred, np.float32)[:, :, np.newaxis] / 255
    ground_colour, ink_colour = random.integers(0, 256, (2, 3))
    ramp = np.linspace(0, 1, 96, dtype=np.float32)
    light = 0.6 + 0.4 * (ramp[:, np.newaxis] * random.random() + ramp * random.random())
    threads = Image.fromarray(random.integers(0, 256, (24, 24), dtype=np.uint8))
    cloth = np.asarray(threads.resize((96, 96), Image.Resampling.BICUBIC), np.float32) - 128
    # (96, 96, 3) float32 -> uint8
    pixels = (ground_colour * (1 - ink) + ink_colour * ink) * light[:, :, np.newaxis] + cloth[:, :, np.newaxis] / 4
    pixels += random.normal(0, 4, pixels.shape)
    file = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=JPEG_QUALITY)
    return file.getvalue()


def write_set(path: Path, spec: ImageSpec, images: Sequence[bytes], labels: np.ndarray) -> ImageSet:
    """Publish a set with a train split only, in files and row groups as ingest makes them."""
    folder, run_id, files = open_folder(str(path)), new_run_id(), []
    rows_per_row_group = max(1, ROW_GROUP_BYTES // spec.size_bytes)
    for task, start in enumerate(range(0, len(images), ROWS_PER_FILE)):
        rows = range(start, min(start + ROWS_PER_FILE, len(images)))
        columns = [[f"{row:064d}" for row in rows], [f"{row}.jpg" for row in rows]]
        columns += [images[rows.start : rows.stop], labels[rows.start : rows.stop]]
        arrays = [pa.array(column, field.type) for column, field in zip(columns, SCHEMA, strict=True)]
        with PartWriter(folder, f"{TRAIN}/{part_name(run_id, task, 0)}", SCHEMA, rows_per_row_group) as writer:
            writer.write(pa.record_batch(arrays, schema=SCHEMA))
            files.append(writer.close())
    empty = Split(0, (0,) * len(CLASSES), ())
    class_counts = tuple(np.bincount(labels, minlength=len(CLASSES)).tolist())
    image_set = ImageSet(
        folder=folder,
        classes=CLASSES,
        image=spec,
        counts=Counts(len(images), len(images), 0, 0),
        splits={TRAIN: Split(len(images), class_counts, tuple(files)), "val": empty, "test": empty},
        mean=(0.1307,) * spec.channels,
        std=(0.3081,) * spec.channels,
        settings={},
        fingerprint="0" * 64,
    )
    publish_image_set(image_set)
    return image_set


def write_tf_records(folder: Path, images: Sequence[bytes], labels: np.ndarray) -> list[str]:
    """Write the same bytes as TFRecord files, as many as the set has Parquet files; return their paths."""
    folder.mkdir()
    paths = []
    for start in range(0, len(images), ROWS_PER_FILE):
        paths.append(str(folder / f"{start:08d}.tfrecord"))
        with tf.io.TFRecordWriter(paths[-1]) as writer:
            for image, label in zip(
                images[start : start + ROWS_PER_FILE], labels[start : start + ROWS_PER_FILE].tolist(), strict=True
            ):
                features = {
                    "image": tf.train.Feature(bytes_list=tf.train.BytesList(value=[image])),
                    "label": tf.train.Feature(int64_list=tf.train.Int64List(value=[label])),
                }
                example = tf.train.Example(features=tf.train.Features(feature=features))
                writer.write(example.SerializeToString())
    return paths


# --- the feeds; each yields one tf.data.Dataset of batches


@contextmanager
def own_feed(image_set: ImageSet, shuffle_mb: float) -> Iterator[tf.data.Dataset]:
    with make_dataset(image_set, TRAIN, worker_batch_size=BATCH_SIZE, seed=SEED, shuffle_mb=shuffle_mb) as dataset:
        yield dataset


@contextmanager
def arrays_feed(images: np.ndarray, labels: np.ndarray, shuffle_rows: int) -> Iterator[tf.data.Dataset]:
    dataset = tf.data.Dataset.from_tensor_slices((images, labels))
    yield dataset.shuffle(shuffle_rows, seed=SEED).batch(BATCH_SIZE).prefetch(tf.data.AUTOTUNE)


@contextmanager
def tf_records_feed(paths: list[str], shuffle_rows: int) -> Iterator[tf.data.Dataset]:
    """Read TFRecords as https://www.tensorflow.org/guide/data_performance recommends.

    That is: parallel interleave, parallel map, prefetch.
    """
    features = {"image": tf.io.FixedLenFeature([], tf.string), "label": tf.io.FixedLenFeature([], tf.int64)}

    def decode(record: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        example = tf.io.parse_single_example(record, features)
        image = tf.ensure_shape(tf.io.decode_jpeg(example["image"], channels=3), JPEG_SPEC.shape)
        return image, tf.cast(example["label"], tf.int32)

    dataset = tf.data.Dataset.from_tensor_slices(paths).shuffle(len(paths), seed=SEED)
    dataset = dataset.interleave(tf.data.TFRecordDataset, num_parallel_calls=tf.data.AUTOTUNE)
    dataset = dataset.shuffle(shuffle_rows, seed=SEED).map(decode, num_parallel_calls=tf.data.AUTOTUNE)
    yield dataset.batch(BATCH_SIZE).prefetch(tf.data.AUTOTUNE)


@contextmanager
def petastorm_feed(image_set: ImageSet, epochs: int, shuffle_rows: int) -> Iterator[tf.data.Dataset]:
    """Use petastorm as its own examples do. Its data set can be read only once, so it contains all epochs."""
    spec = image_set.image

    def decode(row: Any) -> tuple[tf.Tensor, tf.Tensor]:
        if spec.encoding == "raw":
            return tf.reshape(tf.io.decode_raw(row.image, tf.uint8), spec.shape), row.label
        return tf.ensure_shape(tf.io.decode_jpeg(row.image, channels=spec.channels), spec.shape), row.label

    urls = image_set.files(TRAIN)
    # The pool that petastorm publishes sometimes loses row groups, which would make it look faster.
    petastorm.reader.ThreadPool = WholeThreadPool
    reader = make_batch_reader(urls, schema_fields=["^image$", "^label$"], num_epochs=epochs, seed=SEED)
    try:
        dataset = make_petastorm_dataset(reader).unbatch().shuffle(shuffle_rows, seed=SEED)
        yield dataset.map(decode, num_parallel_calls=tf.data.AUTOTUNE).batch(BATCH_SIZE).prefetch(tf.data.AUTOTUNE)
    finally:
        reader.stop()
        reader.join()


# --- the measurements


def in_turns(passes: Mapping[str, Pass], repeats: int) -> dict[str, list[float]]:
    """Run every pass once untimed, then all of them in turns, so that other load on the machine affects all of them."""
    for run in passes.values():
        run()
    seconds: dict[str, list[float]] = {name: [] for name in passes}
    for _ in range(repeats):
        for name, run in passes.items():
            seconds[name].append(run())
    return seconds


def epochs_of(feed: Callable[[], Any], rows: int, *, passes: int, epochs_per_pass: int = 1) -> Pass:
    """Return a pass that opens a feed, reads all its batches `passes` times, and closes it."""

    def run() -> float:
        start = time.perf_counter()
        taken = 0
        with feed() as dataset:
            for _ in range(passes):
                for _, labels in dataset:
                    taken += int(labels.shape[0])
        seconds = time.perf_counter() - start
        if taken != rows * passes * epochs_per_pass:
            raise RuntimeError(f"{taken} rows came, expected {rows * passes * epochs_per_pass}")
        return seconds

    return run


class EpochTimes(keras.callbacks.Callback):
    """Collect the clock and CPU seconds of each epoch, and the fraction of the epoch spent waiting for data."""

    def __init__(self, data_wait: DataWait | None = None) -> None:
        super().__init__()
        self._data_wait = data_wait
        self.seconds: list[float] = []
        self.cpu_seconds: list[float] = []
        self.waited: list[float] = []

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._start, self._cpu_start = time.perf_counter(), time.process_time()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.seconds.append(time.perf_counter() - self._start)
        self.cpu_seconds.append(time.process_time() - self._cpu_start)
        if self._data_wait is not None:
            self.waited.append(self._data_wait.take() / self.seconds[-1])


def lenet(image_set: ImageSet) -> keras.Model:
    """Build and compile LeNet as training does, each time with the same initial weights."""
    keras.utils.set_random_seed(SEED)
    model = build_model(
        "lenet", image_shape=image_set.image.shape, classes=len(CLASSES), mean=image_set.mean, std=image_set.std
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(1e-3), loss, metrics=["accuracy"])
    return model


def measure_lenet(
    image_set: ImageSet, images: np.ndarray, labels: np.ndarray, *, repeats: int, epochs: int
) -> tuple[EpochTimes, EpochTimes]:
    """Measure `fit` on arrays and `fit` through Parquet, in turns of `epochs`, after one untimed epoch each."""
    on_arrays, through_parquet, data_wait = lenet(image_set), lenet(image_set), DataWait()
    arrays, parquet = EpochTimes(), EpochTimes(data_wait)
    steps = -(-len(images) // BATCH_SIZE)
    with make_dataset(
        image_set, TRAIN, worker_batch_size=BATCH_SIZE, seed=SEED, repeat=True, data_wait=data_wait
    ) as dataset:

        def fit_arrays(turn: int, **options: Any) -> None:
            callbacks = [arrays] * bool(turn)
            on_arrays.fit(images, labels, batch_size=BATCH_SIZE, shuffle=True, callbacks=callbacks, **options)

        def fit_parquet(turn: int, **options: Any) -> None:
            data_wait.take()
            callbacks = [parquet] * bool(turn)
            through_parquet.fit(dataset, steps_per_epoch=steps, shuffle=False, callbacks=callbacks, **options)

        for turn in range(repeats + 1):
            # Alternate which one is first, so that a machine that gets slower or faster favours neither.
            for fit in (fit_arrays, fit_parquet) if turn % 2 else (fit_parquet, fit_arrays):
                fit(turn, epochs=epochs if turn else 1, verbose=0)
    return arrays, parquet


# --- the table


def add_row(table: Table, name: str, values: Sequence[float], form: str, *notes: str) -> None:
    median, low, high = statistics.median(values), min(values), max(values)
    table.add_row(name, f"{median:{form}}", f"{low:{form}} .. {high:{form}}", *notes)


def ratio(own: Sequence[float], peer: Sequence[float]) -> float:
    return statistics.median(own) / statistics.median(peer)


def add_speeds(table: Table, speeds: Mapping[str, Sequence[float]], limit: float) -> None:
    """Add images per second. The first entry is the feed, the second its peer; `limit` is the required ratio."""
    own, peer, *_ = speeds
    for name, values in speeds.items():
        if name == own:
            reached = ratio(values, speeds[peer])
            add_row(table, name, values, ",.0f", f"{reached:.2f}", verdict(reached >= limit, f"at least {limit:.2f}"))
        else:
            add_row(table, name, values, ",.0f", "1.00" if name == peer else f"{ratio(values, speeds[peer]):.2f}", "")
    table.add_section()


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure the speed of the feed beside its peers.")
    parser.add_argument("--quick", action="store_true", help="smaller sets and fewer repeats, to check that it runs")
    parser.add_argument("--repeats", type=int, help="number of turns of each measurement (default 5, quick 2)")
    parser.add_argument("--only", choices=["lenet", "raw", "jpeg"], help="answer only one of the three questions")
    options = parser.parse_args()
    repeats = options.repeats or (2 if options.quick else 5)
    table = Table(title=f"feed, {os.cpu_count()} cores, batch {BATCH_SIZE}, median of {repeats} turns")
    for column in ("", "median", "min .. max", "ratio", "goal"):
        table.add_column(column, justify="left" if column in ("", "goal") else "right")
    with tempfile.TemporaryDirectory(prefix="sparkcnn-benchmark-") as folder:
        for name, measure in {"lenet": add_lenet, "raw": add_raw, "jpeg": add_jpeg}.items():
            if options.only in (None, name):
                measure(table, Path(folder), quick=options.quick, repeats=repeats)
    Console(width=120).print(table)


def add_lenet(table: Table, folder: Path, *, quick: bool, repeats: int) -> None:
    images, labels = mnist(12_000 if quick else 60_000)
    image_set = write_set(folder / "lenet", ImageSpec(28, 28, 1), list(map(np.ndarray.tobytes, images)), labels)
    arrays, parquet = measure_lenet(image_set, images, labels, repeats=repeats, epochs=2)
    times = ratio(parquet.seconds, arrays.seconds)
    goal = verdict(times <= 1.05, "at most 1.050")
    add_row(
        table,
        f"LeNet, {len(images):,} digits: s per epoch, through Parquet",
        parquet.seconds,
        ".2f",
        f"{times:.3f}",
        goal,
    )
    add_row(table, "  on arrays", arrays.seconds, ".2f", "1.000", "")
    add_row(table, "  fraction of an epoch waiting for data", parquet.waited, ".2%", "", "")
    # A busy machine stretches the clock time, but hardly the CPU time.
    times = ratio(parquet.cpu_seconds, arrays.cpu_seconds)
    add_row(table, "  CPU seconds per epoch, through Parquet", parquet.cpu_seconds, ".2f", f"{times:.3f}", "")
    add_row(table, "  CPU seconds per epoch, on arrays", arrays.cpu_seconds, ".2f", "1.000", "")
    table.add_section()


def add_raw(table: Table, folder: Path, *, quick: bool, repeats: int) -> None:
    images, labels = mnist(20_000 if quick else 60_000)
    image_set = write_set(folder / "raw", ImageSpec(28, 28, 1), list(map(np.ndarray.tobytes, images)), labels)
    # A third of the set, so that rows leave the pool while others still arrive.
    shuffle_rows, epochs = len(images) // 3, 4
    shuffle_mb = shuffle_rows * image_set.image.size_bytes / 2**20
    passes = {
        "28 x 28 raw: images/s, the feed": epochs_of(
            lambda: own_feed(image_set, shuffle_mb), len(images), passes=epochs
        ),
        "  tf.data on arrays": epochs_of(lambda: arrays_feed(images, labels, shuffle_rows), len(images), passes=epochs),
        "  petastorm, plain": epochs_of(
            lambda: petastorm_feed(image_set, epochs, shuffle_rows), len(images), passes=1, epochs_per_pass=epochs
        ),
    }
    add_speeds(table, speeds_of(passes, repeats, len(images) * epochs), limit=0.5)


def add_jpeg(table: Table, folder: Path, *, quick: bool, repeats: int) -> None:
    digits, labels = mnist(3_000 if quick else 16_000)
    random = np.random.default_rng(SEED)
    images = [photo_of(digit[:, :, 0], random) for digit in digits]
    image_set = write_set(folder / "jpeg", JPEG_SPEC, images, labels)
    paths = write_tf_records(folder / "tfrecord", images, labels)
    shuffle_rows, epochs = len(images) // 3, 2
    shuffle_mb = sum(map(len, images)) / 3 / 2**20
    passes = {
        f"96 x 96 JPEG of {sum(map(len, images)) / len(images) / 1000:.1f} KB: images/s, the feed": epochs_of(
            lambda: own_feed(image_set, shuffle_mb), len(images), passes=epochs
        ),
        "  tf.data on TFRecords": epochs_of(lambda: tf_records_feed(paths, shuffle_rows), len(images), passes=epochs),
        "  petastorm, plain": epochs_of(
            lambda: petastorm_feed(image_set, epochs, shuffle_rows), len(images), passes=1, epochs_per_pass=epochs
        ),
    }
    add_speeds(table, speeds_of(passes, repeats, len(images) * epochs), limit=0.9)


def speeds_of(passes: Mapping[str, Pass], repeats: int, images: int) -> dict[str, list[float]]:
    return {name: [images / second for second in seconds] for name, seconds in in_turns(passes, repeats).items()}


if __name__ == "__main__":
    main()
