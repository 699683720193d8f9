"""What every source gives: a list of its files, and the images in them, lazily."""

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from cnnlib.imageset import CODE, MESSAGE, PATH, SIZE_BYTES
from cnnlib.imageset_writer import CONTENT, SOURCE_COLUMNS
from cnnlib.ledger import CLASS_NAME, FILE, FILES_SCHEMA, GIVEN_SPLIT, GROUP, IMAGES, VERSION

IMAGES_SCHEMA = (
    f"{FILE} string, {PATH} string, {CONTENT} binary, {CLASS_NAME} string, {GROUP} string, {GIVEN_SPLIT} string, "
    f"{CODE} string, {MESSAGE} string, {SIZE_BYTES} long"
)
_ARROW_TYPES = {CONTENT: pa.binary(), SIZE_BYTES: pa.int64()}
ARROW_IMAGES = pa.schema([(name, _ARROW_TYPES.get(name, pa.string())) for name in SOURCE_COLUMNS])

# Files to read, by their names in FILE; None is all.
Names = Sequence[str] | None


@dataclass(frozen=True)
class Source:
    """A source, opened: its files are listed, no image is read.

    `files` has `ledger.FILES_SCHEMA`, a row a file. `images(names)` has IMAGES_SCHEMA, a row an image of these files:
    `content` is an encoded file, or where `raw_shape` (height, width, channels) is set, an array's bytes; an image
    that is known not to be readable has `code` and `message` instead. Files that Spark finds it cannot read have no
    row. `gives_test` says whether test images are set apart; `spread` that images come in few partitions, and should
    be spread over tasks.
    """

    files: pa.Table
    classes: tuple[str, ...]
    images: Callable[[Names], DataFrame]
    gives_test: bool = False
    raw_shape: tuple[int, int, int] | None = None
    spread: bool = False

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


def rows(batches: Iterable[pa.RecordBatch]) -> Iterator[dict[str, Any]]:
    """The rows of Arrow batches, one after the other."""
    for batch in batches:
        yield from batch.to_pylist()


def image_batches(images: Iterable[dict[str, Any]], batch_rows: int, batch_bytes: int) -> Iterator[pa.RecordBatch]:
    """Batches of at least one image that end with these rows or bytes; columns that an image lacks are null."""
    waiting: list[dict[str, Any]] = []
    size = 0
    for image in images:
        waiting.append(image)
        size += len(image.get(CONTENT) or b"")
        if len(waiting) >= batch_rows or size >= batch_bytes:
            yield pa.RecordBatch.from_pylist(waiting, schema=ARROW_IMAGES)
            waiting, size = [], 0
    if waiting:
        yield pa.RecordBatch.from_pylist(waiting, schema=ARROW_IMAGES)
