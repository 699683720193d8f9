"""The result of opening a source: a list of its files, and their images, which tasks read later."""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
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
from cnnlib.sources.spelling import Spelling
from pipelines.spark.interruptible_job import run_interruptibly
from pipelines.spark.progress import Progress, images_done
from pipelines.spark.session import ROWS_PER_ARROW_BATCH
from pipelines.spark.tasks import Result, Work, run_on_partitions, user_errors_from_tasks

_ARROW_TYPES = {CONTENT: pa.binary(), SIZE_BYTES: pa.int64()}
IMAGES_SCHEMA = pa.schema([(name, _ARROW_TYPES.get(name, pa.string())) for name in SOURCE_COLUMNS])

_BATCH_BYTES = 32 * 2**20

# An image or a file, by column name.
Entry = dict[str, Any]
# The files to read, by their names in FILE; None means all files.
FileNames = Sequence[str] | None


def pass_through(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Return the batches unchanged: the `read` of images that Spark itself has read."""
    return iter(batches)


@dataclass(frozen=True)
class Images:
    """Images that no task has read yet.

    Spark splits `rows` over its tasks; a row says which images to read. In a task, `read` turns the batches of its rows
    into batches of IMAGES_SCHEMA, one row per image. There, `content` is an encoded file or the bytes of an array; an
    image that cannot be read has `code` and `message` instead. The task that decodes should also read, because then the
    bytes do not pass through the JVM.
    """

    rows: DataFrame
    read: Callable[[Iterable[pa.RecordBatch]], Iterator[pa.RecordBatch]] = pass_through

    def map(self, work: Work[Result], progress: Progress, title: str, total: int) -> list[Result]:
        """Call `work(batches, task, attempt)` once in each task, with the images that the task reads.

        Returns the small result of each task. The progress display shows how many of the `total` images are done.
        Raises the SparkcnnError that a task ended with.
        """
        spark, read = self.rows.sparkSession, self.read
        with images_done(progress, spark, title, total) as count_images:

            def read_and_work(batches: Iterable[pa.RecordBatch], task: int, attempt: int) -> Result:
                return work(counted(read(batches), count_images), task, attempt)

            return run_on_partitions(self.rows, read_and_work)

    def frame(self, schema: pa.Schema = IMAGES_SCHEMA) -> DataFrame:
        """Return a DataFrame of the images; `schema` is what `read` yields."""
        return self.rows.mapInArrow(self.read, from_arrow_schema(schema))


def counted(batches: Iterable[pa.RecordBatch], count_images: Callable[[int], None] | None) -> Iterator[pa.RecordBatch]:
    """Yield the same batches; when the next batch is asked for, pass the rows of the last one to `count_images`."""
    for batch in batches:
        yield batch
        if count_images is not None:
            count_images(batch.num_rows)


@dataclass(frozen=True)
class Source:
    """An opened source: its files are listed, but no image has been read.

    `files` has the columns of `ledger.FILES_SCHEMA`, one row per file. `images(names, tasks)` returns the images of
    these files, split over about this many tasks. If `raw_shape` (height, width, channels) is set, the images are bytes
    of arrays. `gives_test` says whether the source has test images of its own, `grouped` whether images have groups.
    `left_out` counts the files that are no images, by reason or ending. `spelling` says which class names of `images`
    belong to which of `classes`. `warnings` are sentences for the user.
    """

    files: pa.Table
    classes: tuple[str, ...]
    images: Callable[[FileNames, int], Images]
    gives_test: bool = False
    raw_shape: tuple[int, int, int] | None = None
    grouped: bool = False
    left_out: Counter[str] = field(default_factory=Counter)
    spelling: Spelling = field(default_factory=Spelling)
    warnings: tuple[str, ...] = ()

    @cached_property
    def found(self) -> int:
        """Number of images in all files."""
        return pc.sum(self.files[IMAGES]).as_py() or 0

    @cached_property
    def digest(self) -> str:
        """SHA-256 over the files. It changes if a file is added, removed or changed."""
        digest = hashlib.sha256()
        for row in self.files.select([FILE, VERSION]).sort_by(FILE).to_batches():
            for name, version in zip(*(column.to_pylist() for column in row.columns), strict=True):
                digest.update(f"{name}\0{version}\0".encode(errors="surrogatepass"))
        return digest.hexdigest()


def files_table(files: Iterable[Mapping[str, Any]]) -> pa.Table:
    """Make the table of a source's files from mappings with the columns of `ledger.FILES_SCHEMA`."""
    return pa.Table.from_pylist(list(files), schema=FILES_SCHEMA)


def table_of_files(table: pa.Table, names: FileNames) -> pa.Table:
    """Return the rows of an Arrow table that belong to these files."""
    return table if names is None else table.filter(pc.is_in(table[FILE], pa.array(names, pa.string())))


def frame_of_files(frame: DataFrame, names: FileNames) -> DataFrame:
    """Return the rows of a DataFrame that belong to these files."""
    if names is None:
        return frame
    return frame.join(F.broadcast(names_frame(frame.sparkSession, names)), FILE, "left_semi")


def names_frame(spark: SparkSession, names: Iterable[str]) -> DataFrame:
    """Make a DataFrame of file names, with the column FILE."""
    return spark.createDataFrame([(name,) for name in names], f"{FILE} string")


def empty_columns(*names: str) -> list[Column]:
    """Make text columns that are null in every row."""
    return [F.lit(None).cast("string").alias(name) for name in names]


def rows_of(batches: Iterable[pa.RecordBatch]) -> Iterator[Entry]:
    """Yield the rows of Arrow batches."""
    for batch in batches:
        yield from batch.to_pylist()


def spread_over_tasks(
    spark: SparkSession, table: pa.Table, tasks: int, read: Callable[[Iterator[Entry]], Iterator[pa.RecordBatch]]
) -> Images:
    """Make images whose rows are an Arrow table in the driver. Every task gets the table and reads a part of its rows.

    This saves the shuffle that a DataFrame of these rows would need. A table of a million files is a few megabytes.
    """
    parts = max(1, min(tasks, table.num_rows))
    packed = pa.BufferOutputStream()
    with pa.ipc.new_stream(packed, table.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as stream:
        stream.write_table(table)
    content = packed.getvalue().to_pybytes()

    def read_part(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        everything = pa.ipc.open_stream(content).read_all()
        for row in rows_of(batches):
            # Every n-th row of n parts: files beside each other have one class and similar sizes.
            part = everything.take(pa.array(range(row["id"], everything.num_rows, parts), pa.int64()))
            yield from read(rows_of(part.to_batches()))

    return Images(spark.range(0, parts, 1, parts), read_part)


def collect_from_tasks(
    spark: SparkSession,
    table: pa.Table,
    tasks: int,
    read: Callable[[Iterator[Entry]], Iterator[pa.RecordBatch]],
    schema: pa.Schema,
) -> list[Row]:
    """Split the rows of a table over tasks, and collect the rows that `read` yields there, with the columns `schema`.

    Raises the SparkcnnError that a task ended with.
    """
    with user_errors_from_tasks(spark):
        return run_interruptibly(spark, spread_over_tasks(spark, table, tasks, read).frame(schema).collect)


def image_batches(images: Iterable[Entry]) -> Iterator[pa.RecordBatch]:
    """Yield images as batches of IMAGES_SCHEMA; columns that an image lacks are null."""
    for entries in in_batches(images, lambda image: len(image.get(CONTENT) or b"")):
        yield pa.RecordBatch.from_pylist(entries, schema=IMAGES_SCHEMA)


def in_batches(entries: Iterable[Entry], bytes_of: Callable[[Entry], int]) -> Iterator[list[Entry]]:
    """Yield entries in lists that fit an Arrow batch: many rows, for little overhead, but few bytes, for a task."""
    batch: list[Entry] = []
    size = 0
    for entry in entries:
        batch.append(entry)
        size += bytes_of(entry)
        if len(batch) == ROWS_PER_ARROW_BATCH or size >= _BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
