"""A manifest: a CSV, JSON lines or Parquet file that names images and their labels."""

from collections.abc import Iterable, Iterator
from typing import Any

import pyarrow as pa
from fsspec import AbstractFileSystem
from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.pandas.types import from_arrow_schema

from cnnlib.config import SourceSettings
from cnnlib.errors import ImageError, SourceError, SparkcnnError, first_line
from cnnlib.image_set.contract import CODE, MESSAGE, PATH, SIZE_BYTES
from cnnlib.image_set.ledger import CLASS_NAME, FILE, GIVEN_SPLIT, GROUP, VERSION
from cnnlib.sources import manifest
from cnnlib.storage.folder import Folder, is_local, open_folder
from pipelines.sources.files import read_files, version_of
from pipelines.sources.source import Entry, Images, Names, Source, only, rows
from pipelines.sources.table import check_splits, files_of, spark_errors_told
from pipelines.spark.cluster import task_slots
from pipelines.spark.read_parts import literal_path

_URI = "uri"
# Spark does not always tell how many tasks it runs at once.
_TASKS_WHERE_UNKNOWN = 32
_LOOKED_UP = pa.schema(
    [
        (FILE, pa.string()),
        (_URI, pa.string()),
        (CLASS_NAME, pa.string()),
        (GROUP, pa.string()),
        (GIVEN_SPLIT, pa.string()),
        (SIZE_BYTES, pa.int64()),
        (VERSION, pa.string()),
        (CODE, pa.string()),
        (MESSAGE, pa.string()),
    ]
)


def open_manifest(spark: SparkSession, settings: SourceSettings, max_bytes: int) -> Source:
    """Open a manifest with the columns path and label, and if need be split and group.

    Tasks look every file up; one that is not there, or lies outside the manifest's folder though no full URI says so,
    becomes a reject. Raises SourceError where the manifest cannot be read or lacks a column.
    """
    path = settings.path or ""
    folder = open_folder(_parent(path))
    entries = _read(spark, path, folder)
    unlabelled = settings.labels == "none"
    grouped = "group" in entries.columns
    manifest.check_columns(entries.columns, path, labelled=not unlabelled)
    uri = folder.uri

    def look_up(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        opened = open_folder(uri)
        for batch in batches:
            found = [row | _looked_up(row.pop("path"), opened, max_bytes) for row in batch.to_pylist()]
            yield pa.RecordBatch.from_pylist(found, schema=_LOOKED_UP)

    described = entries.select(
        F.col("path").cast("string").alias("path"),
        (F.lit(None) if unlabelled else _given(entries, "label")).cast("string").alias(CLASS_NAME),
        _given(entries, "group").alias(GROUP),
        _given(entries, "split").alias(GIVEN_SPLIT),
    )
    # Spark reads a CSV in one task; to look up its files is the work of all.
    spread_over_tasks = described.repartition(task_slots(spark) or _TASKS_WHERE_UNKNOWN)
    described = spread_over_tasks.mapInArrow(look_up, from_arrow_schema(_LOOKED_UP))
    # An earlier ingest of this session may have left what the same manifest had then: Spark compares plans, not files.
    described.unpersist()
    described.cache()
    with spark_errors_told(path):
        check_splits(described, path, grouped=grouped)
        files, classes, gives_test, has_groups = files_of(described)

    def read(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        def locate(entry: Entry) -> tuple[AbstractFileSystem, str]:
            opened = open_folder(entry[_URI])
            return opened.fs, opened.root

        return read_files((row | {PATH: row[FILE]} for row in rows(batches)), locate, max_bytes)

    def images(names: Names, tasks: int) -> Images:
        return Images(only(described, names).drop(VERSION).repartition(tasks), read)

    return Source(files, classes, images, gives_test, grouped=has_groups)


def _read(spark: SparkSession, path: str, folder: Folder) -> DataFrame:
    kind = manifest.format_of(path, is_folder=folder.fs.isdir(open_folder(path).root))
    reader = spark.read
    if kind == "csv":
        # Quotes within quotes are doubled, as spreadsheets and pandas write them; Spark would have a backslash.
        reader = reader.options(header="true", escape='"', multiLine="true", mode="FAILFAST")
    try:
        return reader.format({"jsonl": "json"}.get(kind, kind)).load(literal_path(path))
    except (PySparkException, Py4JJavaError) as error:
        raise SourceError(f"source.path={path} cannot be read as a manifest ({kind}): {first_line(error)}") from error


def _parent(path: str) -> str:
    """
    >>> _parent("a/b.csv"), _parent("b.csv"), _parent("/b.csv"), _parent("dbfs:/b.csv")
    ('a', '.', '/', 'dbfs:/')
    """
    parent, slash, _ = path.rpartition("/")
    return f"{parent}/" if slash and (not parent or parent.endswith(":")) else parent or "."


def _given(entries: DataFrame, column: str) -> Column:
    """A column of text that may not be there; empty text is none."""
    if column not in entries.columns:
        return F.lit(None).cast("string")
    return F.nullif(F.trim(F.col(column).cast("string")), F.lit(""))


def _looked_up(path: str | None, folder: Folder, max_bytes: int) -> dict[str, Any]:
    """What a task finds of one entry's file."""
    found: dict[str, Any] = {FILE: path or "", _URI: None, SIZE_BYTES: None, VERSION: "", CODE: None, MESSAGE: None}
    try:
        uri = _uri(path, folder)
        file = open_folder(uri)
        info = file.fs.info(file.root)
    except ImageError as error:
        return found | {CODE: error.code, MESSAGE: error.message}
    except (OSError, ValueError, SparkcnnError) as error:
        return found | {CODE: "missing_file", MESSAGE: f"no such file: {first_line(error)}"}
    found |= {_URI: uri, SIZE_BYTES: info["size"], VERSION: version_of(info)}
    if info["type"] != "file":
        return found | {CODE: "missing_file", MESSAGE: f"it is a {info['type']}, no file"}
    if info["size"] > max_bytes:
        return found | {CODE: "too_many_bytes", MESSAGE: f"{info['size']} bytes exceed the limit of {max_bytes}"}
    return found if info["size"] else found | {CODE: "empty_file", MESSAGE: "the file has no bytes"}


def _uri(path: str | None, folder: Folder) -> str:
    """Where an entry's file is.

    Raises ImageError where that is outside the manifest's folder, and no full path says so.
    """
    resolved = manifest.resolve(path, folder.uri)
    if "::" in resolved and ("://" not in resolved or resolved.startswith("file:")):
        # To fsspec it is a file within a file, and what follows another place.
        raise ImageError("unreadable", "its name has ::, as URIs of files within files; rename it")
    if manifest.is_absolute(resolved):
        return resolved
    uri = f"{folder.uri}/{resolved}"
    if is_local(folder) and manifest.links_out(folder.path(resolved), folder.root):
        raise ImageError("unreadable", "a link leads out of the manifest's folder; move the image, or give its URI")
    return uri
