"""Class folders, read by Spark."""

from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from cnnlib.config import SourceSettings
from cnnlib.errors import SourceError, first_line
from cnnlib.imageset import CODE, MESSAGE, PATH, SIZE_BYTES
from cnnlib.imageset_writer import CONTENT, SOURCE_COLUMNS
from cnnlib.ledger import CLASS_NAME, FILE, GIVEN_SPLIT, GROUP, IMAGES, VERSION
from cnnlib.sources.image_folder import (
    GLOB,
    SUFFIXES,
    class_and_split_of,
    class_of,
    is_hidden,
    is_image_name,
    layout_of,
)
from cnnlib.splits import TEST
from cnnlib.storage import Folder
from pipelines.sources.binary_files import ListedFile, list_files, read_folder
from pipelines.sources.source import Names, Source, empty_columns, files_table, label_order


def open_image_folder(spark: SparkSession, folder: Folder, settings: SourceSettings, max_bytes: int) -> Source:
    """Open DIR/CLASS/** or DIR/{train,val,test}/CLASS/**. Raises SourceError where it has no images."""
    listed = {file.name: file for file in list_files(spark, folder) if is_image_name(file.name)}
    if not listed:
        raise SourceError(
            f"source.path={folder.uri} has no images; expected DIR/CLASS/** below it, with files that end in "
            f"{', '.join(SUFFIXES)}"
        )
    has_splits = layout_of({top for top in map(class_of, listed) if top is not None})
    labelled = settings.labels == "given"
    classes, splits = zip(*(class_and_split_of(name, has_splits) for name in listed), strict=True)
    passed_over = {name: problem for name, file in listed.items() if (problem := _problem(file, max_bytes))}
    described = (
        F.col(FILE),
        (_part(2 if has_splits else 1) if labelled else F.lit(None).cast("string")).alias(CLASS_NAME),
        (_part(1) if has_splits else F.lit(None).cast("string")).alias(GIVEN_SPLIT),
    )

    def images(names: Names) -> DataFrame:
        chosen = listed if names is None else names
        readable = None if names is None else [name for name in names if name not in passed_over]
        bad = [(name, listed[name].size_bytes, *passed_over[name]) for name in chosen if name in passed_over]
        try:
            read = read_folder(spark, folder, readable, GLOB).where(F.col(SIZE_BYTES) <= max_bytes)
        except (PySparkException, Py4JJavaError) as error:
            raise SourceError(f"source.path={folder.uri} cannot be read by Spark: {first_line(error)}") from error
        rows = read.select(*described, CONTENT, SIZE_BYTES, *empty_columns(GROUP, CODE, MESSAGE))
        if bad:
            schema = f"{FILE} string, {SIZE_BYTES} long, {CODE} string, {MESSAGE} string"
            problems = spark.createDataFrame(bad, schema).select(*described, SIZE_BYTES, CODE, MESSAGE)
            rows = rows.unionByName(problems, allowMissingColumns=True)
        return rows.withColumn(PATH, F.col(FILE)).select(*SOURCE_COLUMNS)

    return Source(
        files_table(
            {FILE: file.name, VERSION: file.version, SIZE_BYTES: file.size_bytes, IMAGES: 1} for file in listed.values()
        ),
        label_order(name for name in classes if name is not None) if labelled else (),
        images,
        gives_test=TEST in splits,
    )


def _problem(file: ListedFile, max_bytes: int) -> tuple[str, str] | None:
    """What keeps a file from being read, as (code, message): Spark leaves the first two out without a word."""
    if not file.size_bytes:
        return "empty_file", "the file has no bytes"
    if is_hidden(file.name):
        return (
            "unreadable",
            "Spark does not list names that begin with _ or . (the file's, or a folder's above it); rename it",
        )
    if file.size_bytes > max_bytes:
        return "too_many_bytes", f"{file.size_bytes} bytes exceed the limit of {max_bytes}"
    return None


def _part(number: int) -> Column:
    """A folder of a file's path, the first is 1; null where the file lies above."""
    parts = F.split(FILE, "/")
    return F.when(F.size(parts) > number, F.element_at(parts, number))
