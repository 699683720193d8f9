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

from cnnlib.config import ManifestSource
from cnnlib.errors import ImageError, SourceError, SparkcnnError, first_line
from cnnlib.image_set.contract import CODE, LABEL, MESSAGE, PATH, SIZE_BYTES
from cnnlib.image_set.ledger import CLASS_NAME, FILE, GIVEN_SPLIT, VERSION
from cnnlib.image_set.ledger import GROUP as GROUP_NAME
from cnnlib.sources.manifest import GROUP, SPLIT, check_columns, format_of, is_absolute, links_out, resolve
from cnnlib.storage.folder import Folder, is_local, open_folder
from pipelines.sources.files import read_files, version_of
from pipelines.sources.source import Entry, FileNames, Images, Source, frame_of_files, rows_of
from pipelines.sources.table import as_source_error, check_splits, describe_files
from pipelines.spark.cluster import task_slots
from pipelines.spark.read_parts import literal_path

_URI = "uri"
# For a cluster that does not say how many tasks it runs at once.
_DEFAULT_TASKS = 32
_LOOKED_UP = pa.schema(
    [
        (FILE, pa.string()),
        (_URI, pa.string()),
        (CLASS_NAME, pa.string()),
        (GROUP_NAME, pa.string()),
        (GIVEN_SPLIT, pa.string()),
        (SIZE_BYTES, pa.int64()),
        (VERSION, pa.string()),
        (CODE, pa.string()),
        (MESSAGE, pa.string()),
    ]
)


def open_manifest(spark: SparkSession, settings: ManifestSource, max_bytes: int) -> Source:
    """Open a manifest with the columns path and label, and optionally split and group.

    Tasks look up every file. A file becomes a reject if it does not exist, or if it is outside the manifest's folder
    and its entry is not a full path or URI. Raises SourceError if the manifest cannot be read or lacks a column.
    """
    folder = open_folder(_parent(settings.path))
    entries = _read(spark, settings.path, folder)
    labelled = settings.labels == "given"
    check_columns(entries.columns, settings.path, labelled=labelled)
    uri = folder.uri

    def look_up(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        opened = open_folder(uri)
        for batch in batches:
            found = [row | _looked_up(row.pop(PATH), opened, max_bytes) for row in batch.to_pylist()]
            yield pa.RecordBatch.from_pylist(found, schema=_LOOKED_UP)

    columns = entries.select(
        F.col(PATH).cast("string").alias(PATH),
        (_text(entries, LABEL) if labelled else F.lit(None).cast("string")).alias(CLASS_NAME),
        _text(entries, GROUP).alias(GROUP_NAME),
        _text(entries, SPLIT).alias(GIVEN_SPLIT),
    )
    # Spark reads a CSV in one task, but all tasks should look up its files.
    described = columns.repartition(task_slots(spark) or _DEFAULT_TASKS).mapInArrow(
        look_up, from_arrow_schema(_LOOKED_UP)
    )
    # Spark compares plans, not files: it may have cached this manifest's earlier content for an ingest in this session.
    described.unpersist()
    described.cache()
    with as_source_error(settings.path):
        check_splits(described, settings.path, grouped=GROUP in entries.columns)
        files, classes, gives_test, has_groups = describe_files(described)

    def read(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        def locate(entry: Entry) -> tuple[AbstractFileSystem, str]:
            opened = open_folder(entry[_URI])
            return opened.fs, opened.root

        return read_files((row | {PATH: row[FILE]} for row in rows_of(batches)), locate, max_bytes)

    def images(names: FileNames, tasks: int) -> Images:
        return Images(frame_of_files(described, names).drop(VERSION).repartition(tasks), read)

    return Source(files, classes, images, gives_test, grouped=has_groups)


def _read(spark: SparkSession, path: str, folder: Folder) -> DataFrame:
    kind = format_of(path, is_folder=folder.fs.isdir(open_folder(path).root))
    reader = spark.read
    if kind == "csv":
        # Spreadsheets and pandas double a quote within quotes; Spark would expect a backslash before it.
        reader = reader.options(header="true", escape='"', multiLine="true", mode="FAILFAST")
    try:
        return reader.format({"jsonl": "json"}.get(kind, kind)).load(literal_path(path))
    except (PySparkException, Py4JJavaError) as error:
        raise SourceError(f"source.path={path} cannot be read as a manifest ({kind}): {first_line(error)}") from error


def _parent(path: str) -> str:
    """Return the folder of a file, by its path or URI.

    >>> _parent("a/b.csv"), _parent("b.csv"), _parent("/b.csv"), _parent("dbfs:/b.csv")
    ('a', '.', '/', 'dbfs:/')
    """
    parent, slash, _ = path.rpartition("/")
    return f"{parent}/" if slash and (not parent or parent.endswith(":")) else parent or "."


def _text(entries: DataFrame, column: str) -> Column:
    """Return a column as text without blanks around it. It is null if the text is empty, or if there is no column."""
    if column not in entries.columns:
        return F.lit(None).cast("string")
    return F.nullif(F.trim(F.col(column).cast("string")), F.lit(""))


def _looked_up(path: str | None, folder: Folder, max_bytes: int) -> dict[str, Any]:
    """Return the columns that a task adds to an entry when it looks up its file."""
    found: dict[str, Any] = {FILE: path or "", _URI: None, SIZE_BYTES: None, VERSION: "", CODE: None, MESSAGE: None}
    try:
        uri = uri_of(path, folder)
        file = open_folder(uri)
        info = file.fs.info(file.root)
    except ImageError as error:
        return found | {CODE: error.code, MESSAGE: error.message}
    except (OSError, ValueError, SparkcnnError) as error:
        return found | {CODE: "missing_file", MESSAGE: f"no such file: {first_line(error)}"}
    found |= {_URI: uri, SIZE_BYTES: info["size"], VERSION: version_of(info)}
    if info["type"] != "file":
        return found | {CODE: "missing_file", MESSAGE: f"it is a {info['type']}, not a file"}
    if info["size"] > max_bytes:
        return found | {CODE: "too_many_bytes", MESSAGE: f"{info['size']} bytes exceed the limit of {max_bytes}"}
    return found if info["size"] else found | {CODE: "empty_file", MESSAGE: "the file has no bytes"}


def uri_of(path: str | None, folder: Folder) -> str:
    """Return the URI of an entry's file; `folder` is that of the manifest.

    Raises ImageError if the file is outside the manifest's folder and the path is not a full one.
    """
    resolved = resolve(path, folder.uri)
    if "::" in resolved and ("://" not in resolved or resolved.startswith("file:")):
        # For fsspec it is a file inside another file, and the text after :: is a location of its own.
        raise ImageError("unreadable", "its name contains ::, which marks a file inside another file; rename it")
    if is_absolute(resolved):
        return resolved
    uri = f"{folder.uri}/{resolved}"
    if is_local(folder) and links_out(folder.path(resolved), folder.root):
        raise ImageError("unreadable", "a link leads out of the manifest's folder; move the image, or give its URI")
    return uri
