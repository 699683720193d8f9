"""What every source gives: a list of its files, and the images in them, lazily."""

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import Column, DataFrame, Row, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.pandas.types import from_arrow_schema

from cnnlib.image_set.contract import SIZE_BYTES
from cnnlib.image_set.ledger import FILE, FILES_SCHEMA, IMAGES, VERSION
from cnnlib.image_set.writer import CONTENT, SOURCE_COLUMNS
from pipelines.spark.progress import Progress, images_done
from pipelines.spark.session import ROWS_PER_ARROW_BATCH, user_errors_from_tasks
from pipelines.spark.tasks import Result, Work, run_on_partitions

_ARROW_TYPES = {CONTENT: pa.binary(), SIZE_BYTES: pa.int64()}
IMAGES_SCHEMA = pa.schema([(name, _ARROW_TYPES.get(name, pa.string())) for name in SOURCE_COLUMNS])

_PORTION_BYTES = 32 * 2**20

# An image, by columns of IMAGES_SCHEMA.
Entry = dict[str, Any]
# Files to read, by their names in FILE; None is all.
Names = Sequence[str] | None


def as_they_are(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """How a task reads images that Spark has read."""
    return iter(batches)


@dataclass(frozen=True)
class Images:
    """Images that no task has read yet.

    `places` are rows for Spark to share out. A task's `read` makes of the batches of its rows batches of IMAGES_SCHEMA,
    a row an image: `content` is an encoded file or an array's bytes; an image that cannot be read has `code` and
    `message` instead. It belongs into the task that decodes, so that the bytes need not go through the JVM.
    """

    places: DataFrame
    read: Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]] = as_they_are

    def map(self, work: Work[Result], progress: Progress, title: str, total: int) -> list[Result]:
        """Call `work(batches, task, attempt)` once in each task, with the images that the task reads.

        Returns the small result of each task. People see how many of the `total` images are done. Raises the
        SparkcnnError that a task ended with.
        """
        spark, read = self.places.sparkSession, self.read
        with images_done(progress, spark, title, total) as count_images:

            def read_and_work(batches: Iterable[pa.RecordBatch], task: int, attempt: int) -> Result:
                return work(counted(read(batches), count_images), task, attempt)

            return run_on_partitions(self.places, read_and_work)

    def frame(self, schema: pa.Schema = IMAGES_SCHEMA) -> DataFrame:
        """What tasks read, as rows for Spark."""
        return self.places.mapInArrow(self.read, from_arrow_schema(schema))


def counted(batches: Iterable[pa.RecordBatch], count_images: Callable[[int], None] | None) -> Iterator[pa.RecordBatch]:
    """The same batches; `count_images` hears of each batch's rows when the next one is asked for."""
    for batch in batches:
        yield batch
        if count_images is not None:
            count_images(batch.num_rows)


@dataclass(frozen=True)
class Source:
    """A source, opened: its files are listed, no image is read.

    `files` has `ledger.FILES_SCHEMA`, a row a file. `images(names, tasks)` gives the images of these files, over about
    so many tasks; where `raw_shape` (height, width, channels) is set, they are arrays' bytes. `gives_test` says
    whether test images are set apart, `grouped` whether images may have groups.
    """

    files: pa.Table
    classes: tuple[str, ...]
    images: Callable[[Names, int], Images]
    gives_test: bool = False
    raw_shape: tuple[int, int, int] | None = None
    grouped: bool = False

    @cached_property
    def found(self) -> int:
        """All images."""
        return pc.sum(self.files[IMAGES]).as_py() or 0

    @cached_property
    def digest(self) -> str:
        """SHA-256 over the files; the same as long as none is added, taken away or changed."""
        digest = hashlib.sha256()
        for row in self.files.select([FILE, VERSION]).sort_by(FILE).to_batches():
            for name, version in zip(*(column.to_pylist() for column in row.columns), strict=True):
                digest.update(f"{name}\0{version}\0".encode(errors="surrogatepass"))
        return digest.hexdigest()


def files_table(files: Iterable[Mapping[str, Any]]) -> pa.Table:
    """A source's files, of mappings with the columns of `ledger.FILES_SCHEMA`."""
    return pa.Table.from_pylist(list(files), schema=FILES_SCHEMA)


def of_files(table: pa.Table, names: Names) -> pa.Table:
    """The rows of these files."""
    return table if names is None else table.filter(pc.is_in(table[FILE], pa.array(names, pa.string())))


def label_order(names: Iterable[str]) -> tuple[str, ...]:
    """The classes in label order: numbers by their value, else by name.

    >>> label_order(["10", "9"]), label_order(["b", "10", "9"])
    (('9', '10'), ('10', '9', 'b'))
    """
    distinct = set(names)
    if all(re.fullmatch("0|[1-9][0-9]*", name) for name in distinct):
        return tuple(sorted(distinct, key=int))
    return tuple(sorted(distinct))


def only(frame: DataFrame, names: Names) -> DataFrame:
    """The rows of these files."""
    return (
        frame if names is None else frame.join(F.broadcast(names_frame(frame.sparkSession, names)), FILE, "left_semi")
    )


def names_frame(spark: SparkSession, names: Iterable[str]) -> DataFrame:
    """Names of files as a column FILE."""
    return spark.createDataFrame([(name,) for name in names], f"{FILE} string")


def empty_columns(*names: str) -> list[Column]:
    """Columns of text that are null throughout."""
    return [F.lit(None).cast("string").alias(name) for name in names]


def rows(batches: Iterable[pa.RecordBatch]) -> Iterator[Entry]:
    """The rows of Arrow batches, one after the other."""
    for batch in batches:
        yield from batch.to_pylist()


def spread_over_tasks(
    spark: SparkSession, table: pa.Table, tasks: int, read: Callable[[Iterator[Entry]], Iterator[pa.RecordBatch]]
) -> Images:
    """Images whose places are a table here: it goes to every task, which reads its share of the rows.

    That costs a shuffle less than a DataFrame made of them, and a table of a million files is a few megabytes.
    """
    shares = min(tasks, table.num_rows)
    packed = pa.BufferOutputStream()
    with pa.ipc.new_stream(packed, table.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as stream:
        stream.write_table(table)
    content = packed.getvalue().to_pybytes()

    def read_share(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        everything = pa.ipc.open_stream(content).read_all()
        for row in rows(batches):
            # Every so many-th: files that lie beside each other are of one class, and of one size.
            share = everything.take(pa.array(range(row["id"], everything.num_rows, shares)))
            yield from read(rows(share.to_batches()))

    return Images(spark.range(0, shares, 1, shares), read_share)


def collect_from_tasks(
    spark: SparkSession,
    table: pa.Table,
    tasks: int,
    read: Callable[[Iterator[Entry]], Iterator[pa.RecordBatch]],
    schema: pa.Schema,
) -> list[Row]:
    """What tasks find out of the rows of a table here, `schema` says of what columns, back in the driver.

    Raises the SparkcnnError that a task ended with.
    """
    with user_errors_from_tasks(spark):
        return spread_over_tasks(spark, table, tasks, read).frame(schema).collect()


def image_batches(images: Iterable[Entry]) -> Iterator[pa.RecordBatch]:
    """Batches of IMAGES_SCHEMA; columns that an image lacks are null."""
    for portion in portions(images, lambda image: len(image.get(CONTENT) or b"")):
        yield pa.RecordBatch.from_pylist(portion, schema=IMAGES_SCHEMA)


def portions(entries: Iterable[Entry], bytes_of: Callable[[Entry], int]) -> Iterator[list[Entry]]:
    """As many entries at a time as fit an Arrow batch: rows enough for little overhead, bytes few enough for a task."""
    portion: list[Entry] = []
    size = 0
    for entry in entries:
        portion.append(entry)
        size += bytes_of(entry)
        if len(portion) == ROWS_PER_ARROW_BATCH or size >= _PORTION_BYTES:
            yield portion
            portion, size = [], 0
    if portion:
        yield portion
