"""A Spark table, or Parquet files, with the columns of Spark's binaryFile source and a label."""

from collections.abc import Iterator
from contextlib import contextmanager

import pyarrow as pa
from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

from cnnlib.config import TableSource
from cnnlib.errors import SourceError, first_line
from cnnlib.image_set.contract import CODE, MESSAGE, PATH, SIZE_BYTES
from cnnlib.image_set.ledger import CLASS_NAME, FILE, GIVEN_SPLIT, GROUP, IMAGES, VERSION
from cnnlib.image_set.splits import SPLITS, TEST
from cnnlib.image_set.writer import CONTENT, SOURCE_COLUMNS
from pipelines.sources.source import FileNames, Images, Source, empty_columns, files_table, frame_of_files, label_order
from pipelines.spark.session import root_cause


def open_table(spark: SparkSession, settings: TableSource, max_bytes: int) -> Source:
    """Open a table by its name, or Parquet files by their path, as Databricks' Auto Loader writes them.

    The path of a row identifies it. `max_bytes` is not used, because Spark has read the images already. Raises
    SourceError if a column is missing.
    """
    table = _read(spark, settings.path)
    columns = set(table.columns)
    _check_columns(columns, settings)
    described = table.select(
        F.col("path").cast("string").alias(FILE),
        F.col("content").cast("binary").alias(CONTENT),
        _label(settings).alias(CLASS_NAME),
        _optional_text(settings.group_column).alias(GROUP),
        _optional_text(settings.split_column).alias(GIVEN_SPLIT),
        (F.col("length") if "length" in columns else F.length("content")).cast("long").alias(SIZE_BYTES),
        (F.col("modificationTime").cast("string") if "modificationTime" in columns else F.sha2("content", 256)).alias(
            VERSION
        ),
    )
    with as_source_error(settings.path):
        check_splits(described, settings.path, grouped=settings.group_column is not None)
        files, classes, gives_test, has_groups = describe_files(described)

    # `tasks` is not used: Spark splits these files over tasks by itself, see `pipelines.ingest.decode`.
    def images(names: FileNames, tasks: int) -> Images:
        rows = frame_of_files(described, names).select("*", F.col(FILE).alias(PATH), *empty_columns(CODE, MESSAGE))
        return Images(rows.select(*SOURCE_COLUMNS))

    return Source(files, classes, images, gives_test, grouped=has_groups)


@contextmanager
def as_source_error(path: str) -> Iterator[None]:
    """Turn errors of the Spark queries in a `with` block into a SourceError."""
    try:
        yield
    except (PySparkException, Py4JJavaError) as error:
        raise SourceError(f"source.path={path} cannot be read by Spark: {root_cause(error)}") from error


def describe_files(described: DataFrame) -> tuple[pa.Table, tuple[str, ...], bool, bool]:
    """Return (files, classes, whether test images are given, whether there are groups) of images described by rows.

    Several images may have the same file.
    """
    parts = (F.coalesce(F.col(name).cast("string"), F.lit("")) for name in (CLASS_NAME, GROUP, GIVEN_SPLIT))
    found = (
        described.groupBy(FILE)
        .agg(
            F.concat_ws(" ", F.sort_array(F.collect_list(F.concat_ws("-", VERSION, *parts)))).alias(VERSION),
            F.max(SIZE_BYTES).alias(SIZE_BYTES),
            F.count("*").alias(IMAGES),
            F.collect_set(CLASS_NAME).alias(CLASS_NAME),
            F.max(F.coalesce(F.col(GIVEN_SPLIT) == TEST, F.lit(False))).alias(GIVEN_SPLIT),
            F.max(F.col(GROUP).isNotNull()).alias(GROUP),
        )
        .collect()
    )
    classes = label_order(name for row in found for name in row[CLASS_NAME])
    gives_test, has_groups = (any(row[name] for row in found) for name in (GIVEN_SPLIT, GROUP))
    return files_table(row.asDict() for row in found), classes, gives_test, has_groups


def check_splits(described: DataFrame, path: str, *, grouped: bool) -> None:
    """Raise SourceError if a given split is not one of SPLITS, or if one group has images in several given splits."""
    odd = described.where(~F.col(GIVEN_SPLIT).isin(*SPLITS)).groupBy(GIVEN_SPLIT).count().first()
    if odd is not None:
        raise SourceError(
            f"source.path={path} has {odd['count']} rows with split {odd[GIVEN_SPLIT]}; use {', '.join(SPLITS)}, or "
            "leave it empty"
        )
    if not grouped:
        return
    given = described.where(F.col(GROUP).isNotNull() & F.col(GIVEN_SPLIT).isNotNull())
    splits = given.groupBy(GROUP).agg(F.sort_array(F.collect_set(GIVEN_SPLIT)).alias(GIVEN_SPLIT))
    torn = splits.where(F.size(GIVEN_SPLIT) > 1).orderBy(GROUP).first()
    if torn is not None:
        raise SourceError(
            f"source.path={path} has images of group {torn[GROUP]} in {' and '.join(torn[GIVEN_SPLIT])}, but a group "
            "is never divided; give all its images one split, or give them other groups"
        )


def _read(spark: SparkSession, path: str) -> DataFrame:
    try:
        if "/" not in path and spark.catalog.tableExists(path):
            return spark.table(path)
        return spark.read.parquet(path)
    except (PySparkException, Py4JJavaError) as error:
        raise SourceError(
            f"source.path={path} is neither a table that Spark knows nor Parquet that it can read: {first_line(error)}"
        ) from error


def _check_columns(columns: set[str], settings: TableSource) -> None:
    needed = {"path": "", "content": ""}
    if settings.labels == "given" and settings.label_pattern is None:
        needed[settings.label_column] = " (name another with source.label_column, or use source.label_pattern)"
    for column in (settings.split_column, settings.group_column):
        if column is not None:
            needed[column] = ""
    for column, advice in needed.items():
        if column not in columns:
            raise SourceError(
                f"source.path={settings.path} has no column {column}{advice}; it has {', '.join(sorted(columns))}"
            )


def _label(settings: TableSource) -> Column:
    if settings.labels == "none":
        return F.lit(None).cast("string")
    if settings.label_pattern is None:
        return F.col(settings.label_column).cast("string")
    # Spark returns "" if the pattern is not found.
    return F.nullif(F.regexp_extract("path", settings.label_pattern, 1), F.lit(""))


def _optional_text(column: str | None) -> Column:
    """Return a column as text, null where it is empty; null everywhere without a column."""
    return F.lit(None).cast("string") if column is None else F.nullif(F.col(column).cast("string"), F.lit(""))
