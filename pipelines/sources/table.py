"""A Spark table, or Parquet files, with the columns of Spark's binaryFile source and a label."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import pyarrow as pa
from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import (
    ArrayType,
    BinaryType,
    DecimalType,
    DoubleType,
    FloatType,
    MapType,
    StructType,
    TimestampType,
)

from cnnlib.config import ManifestSource, TableSource
from cnnlib.errors import ConfigError, SourceError, first_line
from cnnlib.image_set.contract import CODE, MESSAGE, PATH, SIZE_BYTES
from cnnlib.image_set.ledger import CLASS_NAME, FILE, GIVEN_SPLIT, GROUP, IMAGES, VERSION
from cnnlib.image_set.splits import SPLITS, TEST, USUAL_NAMES
from cnnlib.image_set.writer import CONTENT, SOURCE_COLUMNS
from cnnlib.sources.labels import MISSING, check_no_lists, label_order
from cnnlib.sources.left_out import JUNK, SYSTEM, is_junk
from cnnlib.sources.spelling import Spelling
from cnnlib.sources.table_logs import LOGS, table_log_above
from cnnlib.storage.folder import open_folder
from pipelines.sources.source import FileNames, Images, Source, empty_columns, files_table, frame_of_files
from pipelines.spark.read_parts import literal_path
from pipelines.spark.session import is_classic, root_cause, with_settings

# Levels of folders in which a log is looked for through Spark, which takes a query each.
_LEVELS_ABOVE = 4
# Whole numbers below this are exact in 64 bits.
_EXACT = 2.0**53


def open_table(spark: SparkSession, settings: TableSource, max_bytes: int) -> Source:
    """Open a table by its name, or Parquet files by their path, as Databricks' Auto Loader writes them.

    A path that exists is a path; a name in backquotes is always a table's. The path of a row identifies it. `max_bytes`
    is not used, because Spark has read the images already. Raises SourceError if a column is missing.
    """
    table = _read(spark, settings.path)
    columns = set(table.columns)
    _check_columns(columns, settings)
    content = column_called(settings.content_column)
    described = table.select(
        column_called(settings.path_column).cast("string").alias(FILE),
        content.cast("binary").alias(CONTENT),
        _label(table, settings).alias(CLASS_NAME),
        _optional(table, settings.group_column, settings.path).alias(GROUP),
        usual_split(_optional(table, settings.split_column, settings.path)).alias(GIVEN_SPLIT),
        (F.col("length") if "length" in columns else F.length(content)).cast("long").alias(SIZE_BYTES),
        _version(table, content).alias(VERSION),
    )
    with as_source_error(settings.path):
        check_splits(described, settings.path, grouped=settings.group_column is not None)
        found = describe_files(described, settings)

    # `tasks` is not used: Spark splits these files over tasks by itself, see `pipelines.ingest.decode`.
    def images(names: FileNames, tasks: int) -> Images:
        rows = frame_of_files(without_junk(described), names)
        rows = rows.select("*", F.col(FILE).alias(PATH), *empty_columns(CODE, MESSAGE))
        return Images(rows.select(*SOURCE_COLUMNS))

    return found.source(images)


def _version(table: DataFrame, content: Column) -> Column:
    """Return a text that changes when an image does: when it was modified, or else a hash of its bytes."""
    if "modificationTime" not in table.columns:
        return F.sha2(content, 256)
    time = F.col("modificationTime")
    if isinstance(table.schema["modificationTime"].dataType, TimestampType):
        # The text must not depend on the time zone of the session.
        time = F.to_utc_timestamp(time, F.current_timezone())
    return time.cast("string")


@contextmanager
def as_source_error(path: str) -> Iterator[None]:
    """Turn errors of the Spark queries in a `with` block into a SourceError."""
    try:
        yield
    except (PySparkException, Py4JJavaError) as error:
        raise SourceError(f"source.path={path} cannot be read by Spark: {root_cause(error)}") from error


def without_junk(described: DataFrame) -> DataFrame:
    """Return the rows whose files people made, and not systems."""
    return described.where(~F.coalesce(F.col(FILE).rlike(JUNK), F.lit(False)))


def usual_split(name: Column) -> Column:
    """Return the split that people mean by a name, or the name itself if it is not a usual one."""
    splits = F.create_map(*(F.lit(text) for pair in USUAL_NAMES.items() for text in pair))
    return F.coalesce(splits.getItem(F.lower(F.trim(name))), name)


class DescribedFiles(NamedTuple):
    """What the rows that describe images say about all of them; see the fields of `Source`."""

    files: pa.Table
    spelling: Spelling
    gives_test: bool
    grouped: bool
    left_out: Counter[str]

    def source(self, images: Callable[[FileNames, int], Images]) -> Source:
        """Make the source whose images these are."""
        return Source(
            self.files,
            label_order(self.spelling.classes),
            images,
            self.gives_test,
            grouped=self.grouped,
            left_out=self.left_out,
            spelling=self.spelling,
        )


def describe_files(described: DataFrame, settings: ManifestSource | TableSource) -> DescribedFiles:
    """Describe the files of images described by rows. Several images may have the same file.

    Raises SourceError if labels are lists.
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
    junk = sum(row[IMAGES] for row in found if is_junk(row[FILE] or ""))
    rows = [row for row in found if not is_junk(row[FILE] or "")]
    gives_test, grouped = (any(row[name] for row in rows) for name in (GIVEN_SPLIT, GROUP))
    names = {name for row in rows for name in row[CLASS_NAME]}
    check_no_lists(names, f"source.path={settings.path}")
    return DescribedFiles(
        files_table(row.asDict() for row in rows),
        Spelling.of(names, joined=settings.join_spellings, whole_numbers=True),
        gives_test,
        grouped,
        +Counter({SYSTEM: junk}),
    )


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
    if not path.startswith("`") and _exists(path):
        return read_table_files(spark, path)
    try:
        if "/" not in path and spark.catalog.tableExists(path):
            return spark.table(path)
    except (PySparkException, Py4JJavaError) as error:
        raise _neither(path) from error
    if "/" in path:
        return read_table_files(spark, path)
    raise _neither(path)


def _neither(path: str) -> SourceError:
    name = path.strip("`")
    return SourceError(
        f"source.path={path} is neither a path that exists nor a table that Spark knows; check it. A table whose name "
        f"has other characters than letters, digits and _ goes between backquotes: `{name}`"
    )


def _exists(path: str) -> bool:
    try:
        folder = open_folder(path)
        return folder.fs.exists(folder.root)
    except (ConfigError, OSError):
        # Spark may have a file system that fsspec lacks.
        return False


def read_table_files(spark: SparkSession, path: str) -> DataFrame:
    """Read Parquet files, or a table of Delta, Iceberg or Hudi by its path. The values of partitions stay text.

    Raises SourceError if that is not possible: the Parquet files of such a table have rows that were deleted from it.
    """
    exists = _exists(path)
    log = table_log_above(path) if exists else _log_that_spark_sees(spark, path)
    # What exists is read as it is called, from this process' folder. All else may be a pattern that Spark knows.
    location = literal_path(open_folder(path).uri) if exists else path
    try:
        if log is None:
            return _read_parquet(spark, location)
        format, table = log
        if table not in (path.rstrip("/"), open_folder(path).uri if exists else ""):
            raise SourceError(
                f"source.path={path} is a part of the {format} table {table}, whose files also have rows that were "
                "deleted from it; name the table, by its path or its name"
            )
        frame = spark.read.format(format).load(location)
        # Spark Connect looks for the table only now.
        _ = frame.schema
        return frame
    except (PySparkException, Py4JJavaError) as error:
        if log is not None:
            raise SourceError(
                f"source.path={path} is a table of {log[0]}, and this Spark session cannot read it: "
                f"{first_line(error)}; start Spark with the package of {log[0]}, or name a copy of the table in Parquet"
            ) from error
        raise SourceError(f"source.path={path} is no Parquet that Spark can read: {first_line(error)}") from error


def _read_parquet(spark: SparkSession, location: str) -> DataFrame:
    # Spark would make 7 of the partition label=007.
    with with_settings(spark, {"spark.sql.sources.partitionColumnTypeInference.enabled": "false"}):
        frame = spark.read.parquet(location)
        schema = frame.schema
    # Spark Connect would look at the files again for each query, and then infer the types of the partitions.
    return frame if is_classic(spark) else spark.read.schema(schema).parquet(location)


def _log_that_spark_sees(spark: SparkSession, path: str) -> tuple[str, str] | None:
    """Do what `table_log_above` does, for a path that only Spark can see, and for a pattern."""
    folder = path.rstrip("/")
    for _ in range(_LEVELS_ABOVE):
        if not folder or folder.endswith((":", "/")):
            return None
        for format, log in LOGS.items():
            if _spark_sees(spark, f"{folder}/{log}"):
                return format, folder
        folder = folder.rpartition("/")[0]
    return None


def _spark_sees(spark: SparkSession, folder: str) -> bool:
    try:
        return bool(spark.read.format("binaryFile").load(folder).select("path").limit(1).collect())
    except (PySparkException, Py4JJavaError):
        return False


def column_called(name: str) -> Column:
    """Return a column by its name, in which a dot is a dot, and no field of a struct."""
    return F.col(f"`{name.replace('`', '``')}`")


def label_column(table: DataFrame, name: str, path: str) -> Column:
    """Return a column as text, as the label or group of an image: null if it is empty or missing.

    Whole numbers have no decimal point. Raises SourceError for a column of lists, structs or bytes.
    """
    column, kind = column_called(name), table.schema[name].dataType
    if isinstance(kind, ArrayType | MapType | StructType | BinaryType):
        raise SourceError(
            f"source.path={path}: the column {name} has the type {kind.simpleString()}; an image has one label, a text "
            "or a number"
        )
    text = F.trim(column.cast("string"))
    if isinstance(kind, FloatType | DoubleType):
        is_whole = (column == F.floor(column)) & (F.abs(column) < F.lit(_EXACT))
        text = F.when(F.isnan(column), F.lit(None)).when(is_whole, column.cast("long").cast("string")).otherwise(text)
    elif isinstance(kind, DecimalType):
        text = F.regexp_replace(text, r"\.0+$", "")
    return F.when(~text.isin(*MISSING), text)


def _check_columns(columns: set[str], settings: TableSource) -> None:
    needed = {name: setting for setting, name in _named_columns(settings)}
    for column, setting in needed.items():
        if column not in columns:
            raise SourceError(
                f"source.path={settings.path} has no column {column} (name another with source.{setting}); it has "
                f"{', '.join(sorted(columns))}"
            )


def _named_columns(settings: TableSource) -> Iterator[tuple[str, str]]:
    """Yield (setting, name) of each column that a table must have."""
    yield "path_column", settings.path_column
    yield "content_column", settings.content_column
    if settings.labels == "given" and settings.label_pattern is None:
        yield "label_column", settings.label_column
    if settings.split_column is not None:
        yield "split_column", settings.split_column
    if settings.group_column is not None:
        yield "group_column", settings.group_column


def _label(table: DataFrame, settings: TableSource) -> Column:
    if settings.labels == "none":
        return F.lit(None).cast("string")
    if settings.label_pattern is None:
        return label_column(table, settings.label_column, settings.path)
    # Spark returns "" if the pattern is not found.
    path = column_called(settings.path_column)
    return F.nullif(F.regexp_extract(path, settings.label_pattern, 1), F.lit(""))


def _optional(table: DataFrame, column: str | None, path: str) -> Column:
    """Return a column as text, null where it is empty; null everywhere without a column."""
    return F.lit(None).cast("string") if column is None else label_column(table, column, path)
