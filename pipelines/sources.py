"""What ingest and score can read, as one kind of DataFrame: a row an image."""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from cnnlib.config import SourceFormat
from cnnlib.errors import ConfigError, SourceError, first_line
from cnnlib.imageset import CODE, IMAGE_ID, MESSAGE, PATH, SIZE_BYTES, ImageSet
from cnnlib.imageset_writer import CLASS_NAME, CONTENT, GIVEN_SPLIT
from cnnlib.mnist import MD5 as MNIST_FILES
from cnnlib.mnist import read_mnist_file
from cnnlib.sources import idx, image_folder
from cnnlib.splits import TEST
from cnnlib.storage import Folder, open_folder
from pipelines.session import ROWS_PER_ARROW_BATCH

COLUMNS = (IMAGE_ID, PATH, CONTENT, CLASS_NAME, GIVEN_SPLIT, CODE, MESSAGE, SIZE_BYTES)

_RECORDS_SCHEMA = "path string, content binary, class_name string, given_split string"
_ARROW_RECORDS = pa.schema(
    [(PATH, pa.string()), (CONTENT, pa.binary()), (CLASS_NAME, pa.string()), (GIVEN_SPLIT, pa.string())]
)
_PAIR_SCHEMA = "stem string, images_name string, labels_name string"
_TO_THE_END = 2**31 - 1
# Codes and messages of the files that Spark does not list.
_EMPTY = ("empty_file", "the file has no bytes")
_HIDDEN = (
    "unreadable",
    "Spark does not list names that begin with _ or . (the file's, or a folder's above it); rename it",
)


@dataclass(frozen=True)
class SourceImages:
    """The images of a source.

    `frame` has COLUMNS: image_id (SHA-256 of the source bytes), path (relative to the source), content (the bytes),
    class_name and given_split (null where unknown), code and message (set where Spark cannot read the image at all),
    size_bytes. `raw_shape` is (height, width, channels) where content is an array's bytes, None where it is a file.
    `given_split` is either "test", or null: train and val are always told apart by hash; `gives_test` says whether
    any image is given as test.
    """

    frame: DataFrame
    classes: tuple[str, ...]
    found: int
    raw_shape: tuple[int, int, int] | None
    gives_test: bool = False


def read_source(spark: SparkSession, source_format: SourceFormat, path: str | None) -> SourceImages:
    """Read a source lazily: the driver lists names and classes, the bytes stay with the executors.

    Raises ConfigError for a missing path, SourceError where nothing at the path is of the format.
    """
    if source_format == "mnist":
        return _read_mnist(spark)
    if path is None:
        raise ConfigError(f"source.path is missing; {source_format} needs the folder to read")
    folder = open_folder(path)
    if not folder.fs.isdir(folder.root):
        raise SourceError(f"source.path={path} is not a folder that can be read; check the path")
    return _READERS[source_format](spark, folder)


def read_split(spark: SparkSession, image_set: ImageSet, *splits: str) -> DataFrame:
    """Read the splits of an image set, columns as in `imageset.SCHEMA`; only the files that belong to it."""
    files = [file.path for split in splits for file in image_set.split(split).files]
    return spark.read.parquet(*(literal_path(f"{image_set.folder.uri}/{path}") for path in files))


def _read_mnist(spark: SparkSession) -> SourceImages:
    pairs = idx.find_pairs(MNIST_FILES)
    labels = [idx.parse_idx(read_mnist_file(name), name) for _, name in pairs.values()]
    # Rows of names alone: the files come with the package on every executor, so no bytes are sent.
    names = spark.createDataFrame([(stem, *pair) for stem, pair in pairs.items()], _PAIR_SCHEMA)

    def records(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for row in _rows(batches):
            images, labels = read_mnist_file(row["images_name"]), read_mnist_file(row["labels_name"])
            yield from _idx_records(row, images, labels)

    return _idx_images(names.mapInArrow(records, _RECORDS_SCHEMA), pairs, labels, (28, 28, 1))


def _read_idx(spark: SparkSession, folder: Folder) -> SourceImages:
    names = [name.rsplit("/", 1)[-1] for name in folder.fs.ls(folder.root, detail=False)]
    pairs = idx.find_pairs(names)
    labels = [idx.parse_idx(folder.fs.cat_file(folder.path(name)), name) for _, name in pairs.values()]
    rows = [(stem, *pair) for stem, pair in pairs.items()]
    joined = (
        spark.createDataFrame(rows, _PAIR_SCHEMA)
        .join(_contents(spark, folder, [images for images, _ in pairs.values()], "images"), "images_name")
        .join(_contents(spark, folder, [name for _, name in pairs.values()], "labels"), "labels_name")
    )

    def records(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for row in _rows(batches):
            yield from _idx_records(row, row["images"], row["labels"])

    shape = _idx_image_shape(folder, pairs)
    return _idx_images(joined.mapInArrow(records, _RECORDS_SCHEMA), pairs, labels, shape)


def _contents(spark: SparkSession, folder: Folder, names: list[str], what: str) -> DataFrame:
    """The files' bytes, read by Spark: columns `{what}_name` and `{what}`."""
    paths = [literal_path(f"{folder.uri}/{name}") for name in names]
    return (
        spark.read.format("binaryFile")
        .load(paths)
        .select(F.element_at(F.split("path", "/"), -1).alias(f"{what}_name"), F.col("content").alias(what))
    )


def _idx_image_shape(folder: Folder, pairs: dict[str, tuple[str, str]]) -> tuple[int, int, int]:
    """(height, width, 1), from the header of each images file. Raises SourceError where they differ."""
    shapes = {}
    for images_name, _ in pairs.values():
        with folder.fs.open(folder.path(images_name), "rb") as file:
            shapes[images_name] = idx.image_size(file, images_name)
    if len(set(shapes.values())) > 1:
        raise SourceError(f"the images files of {folder.uri} differ in image size: {shapes}; ingest them one by one")
    return (*next(iter(shapes.values())), 1)


def _idx_records(row: dict[str, Any], images: bytes, labels: bytes) -> Iterator[pa.RecordBatch]:
    """Parse one pair of files into records of _RECORDS_SCHEMA."""
    pixels, classes = idx.parse_pair(images, labels, row["images_name"], row["labels_name"])
    split = TEST if idx.is_test(row["stem"]) else None
    for start in range(0, len(pixels), ROWS_PER_ARROW_BATCH):
        chunk = slice(start, start + ROWS_PER_ARROW_BATCH)
        count = len(classes[chunk])
        # Spelt out, for a column of nulls alone would have a type of its own.
        yield pa.RecordBatch.from_pydict(
            {
                PATH: [f"{row['images_name']}#{start + i:05d}" for i in range(count)],
                CONTENT: [image.tobytes() for image in pixels[chunk]],
                CLASS_NAME: [str(label) for label in classes[chunk]],
                GIVEN_SPLIT: [split] * count,
            },
            schema=_ARROW_RECORDS,
        )


def _idx_images(
    records: DataFrame,
    pairs: dict[str, tuple[str, str]],
    labels: list[np.ndarray],
    raw_shape: tuple[int, int, int],
) -> SourceImages:
    values = np.unique(np.concatenate(labels))
    if not len(values) or 0 in raw_shape:
        raise SourceError("the IDX files have no images, or images without pixels; check the source")
    return SourceImages(
        frame=_with_ids(records.withColumn(SIZE_BYTES, F.length(CONTENT).cast("long"))),
        classes=tuple(str(value) for value in values),
        found=sum(len(array) for array in labels),
        raw_shape=raw_shape,
        gives_test=any(idx.is_test(stem) for stem in pairs),
    )


def _read_image_folder(spark: SparkSession, folder: Folder) -> SourceImages:
    try:
        files = (
            spark.read.format("binaryFile")
            .option("pathGlobFilter", image_folder.GLOB)
            .option("recursiveFileLookup", "true")
            .load(literal_path(folder.uri))
        )
        # Spark may put a host into the URI, so only the path in it is sought.
        root = f"{folder.root}/"
        relative = F.col("path").substr(F.locate(root, F.col("path")) + F.lit(len(root)), F.lit(_TO_THE_END))
        records = files.select(
            relative.alias(PATH),
            F.col("content").alias(CONTENT),
            F.when(F.contains(relative, F.lit("/")), F.element_at(F.split(relative, "/"), 1)).alias(CLASS_NAME),
            F.lit(None).cast("string").alias(GIVEN_SPLIT),
            F.col("length").alias(SIZE_BYTES),
        )
        # Only names are read here: Spark opens no file whose content is not asked for.
        class_rows = records.groupBy(CLASS_NAME).count().collect()
    except (PySparkException, Py4JJavaError) as error:
        raise SourceError(f"source.path={folder.uri} cannot be read by Spark: {first_line(error)}") from error
    listed = sum(row["count"] for row in class_rows)
    images = {name: size for name, size in folder.file_sizes().items() if image_folder.is_image_name(name)}
    passed_over = _passed_over(images)
    if listed + len(passed_over) != len(images):
        raise SourceError(
            f"source.path={folder.uri} has {len(images)} images, of which Spark lists {listed}; were files added or "
            "taken away meanwhile, or have they names that Java cannot read (set LC_ALL=C.UTF-8)?"
        )
    if passed_over:
        schema = f"{PATH} string, {SIZE_BYTES} long, {CODE} string, {MESSAGE} string"
        records = records.unionByName(spark.createDataFrame(passed_over, schema), allowMissingColumns=True)
    if not images:
        raise SourceError(
            f"source.path={folder.uri} has no images; expected DIR/CLASS/**/*.jpg, .jpeg or .png below it"
        )
    return SourceImages(
        frame=_with_ids(records),
        classes=tuple(sorted(row[CLASS_NAME] for row in class_rows if row[CLASS_NAME] is not None)),
        found=len(images),
        raw_shape=None,
    )


def _passed_over(images: dict[str, int]) -> list[tuple[str, int, str, str]]:
    """Images that Spark's listing leaves out without a word, as (path, bytes, code, message): they must not vanish."""
    return [
        (name, size, *(_HIDDEN if size else _EMPTY))
        for name, size in images.items()
        if size == 0 or image_folder.is_hidden(name)
    ]


def _with_ids(records: DataFrame) -> DataFrame:
    for column in (CODE, MESSAGE):
        if column not in records.columns:
            records = records.withColumn(column, F.lit(None).cast("string"))
    # An image that cannot be read has no content to name it by; its path keeps it apart from the others.
    image_id = F.coalesce(F.sha2(CONTENT, 256), F.sha2(F.col(PATH).cast("binary"), 256))
    return records.withColumn(IMAGE_ID, image_id).select(*COLUMNS)


def _rows(batches: Iterable[pa.RecordBatch]) -> Iterator[dict[str, Any]]:
    for batch in batches:
        yield from batch.to_pylist()


def literal_path(path: str) -> str:
    """Escape what Hadoop would take for a pattern: a folder may well be called photos[1]."""
    return re.sub(r"([\\{}\[\]*?])", r"\\\1", path)


_READERS: dict[str, Callable[[SparkSession, Folder], SourceImages]] = {
    "idx": _read_idx,
    "image_folder": _read_image_folder,
}
