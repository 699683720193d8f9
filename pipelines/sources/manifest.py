"""A manifest: a CSV, JSON or Parquet file that names images and their labels."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pyarrow as pa
from fsspec import AbstractFileSystem
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.pandas.types import from_arrow_schema

from cnnlib.config import ManifestSource
from cnnlib.errors import ImageError, SourceError, SparkcnnError, first_line
from cnnlib.image_set.contract import CODE, MESSAGE, PATH, SIZE_BYTES
from cnnlib.image_set.ledger import CLASS_NAME, FILE, GIVEN_SPLIT, VERSION
from cnnlib.image_set.ledger import GROUP as GROUP_NAME
from cnnlib.image_set.splits import split_called
from cnnlib.sources.labels import label_text
from cnnlib.sources.manifest import find_columns, format_of, is_absolute, links_out, other_readings, resolve
from cnnlib.sources.manifest_text import parse_manifest
from cnnlib.storage.folder import Folder, is_local, open_folder
from pipelines.sources.files import read_files, version_of
from pipelines.sources.source import (
    Entry,
    FileNames,
    Images,
    Source,
    frame_of_files,
    in_batches,
    rows_of,
    spread_over_tasks,
)
from pipelines.sources.table import (
    as_source_error,
    check_splits,
    column_called,
    describe_files,
    label_column,
    read_table_files,
    usual_split,
    without_junk,
)
from pipelines.spark.cluster import task_slots

_URI = "uri"
# For a cluster that does not say how many tasks it runs at once.
_DEFAULT_TASKS = 32
_ROWS = pa.schema([(name, pa.string()) for name in (PATH, CLASS_NAME, GROUP_NAME, GIVEN_SPLIT)])
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
    is_folder = folder.fs.isdir(open_folder(settings.path).root)
    kind = format_of(settings.path, is_folder=is_folder)
    uri = folder.uri

    def look_up(rows: Iterable[Entry]) -> Iterator[pa.RecordBatch]:
        opened = open_folder(uri)
        for batch in in_batches(rows, lambda row: 0):
            found = [row | _looked_up(row.pop(PATH), opened, max_bytes) for row in batch]
            yield pa.RecordBatch.from_pylist(found, schema=_LOOKED_UP)

    tasks = task_slots(spark) or _DEFAULT_TASKS
    if kind == "parquet":
        rows, grouped = _parquet_rows(spark, settings)
        described = rows.repartition(tasks).mapInArrow(
            lambda batches: look_up(rows_of(batches)), from_arrow_schema(_LOOKED_UP)
        )
    else:
        table = _text_rows(settings, kind)
        grouped = table[GROUP_NAME].null_count < table.num_rows
        described = spread_over_tasks(spark, table, tasks, look_up).frame(_LOOKED_UP)
    # Spark compares plans, not files: it may have cached this manifest's earlier content for an ingest in this session.
    described.unpersist()
    described.cache()
    with as_source_error(settings.path):
        _refuse_windows_paths(described, settings.path)
        check_splits(described, settings.path, grouped=grouped)
        found = describe_files(described, settings)

    def read(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        def locate(entry: Entry) -> tuple[AbstractFileSystem, str]:
            opened = open_folder(entry[_URI])
            return opened.fs, opened.root

        return read_files((row | {PATH: row[FILE]} for row in rows_of(batches)), locate, max_bytes)

    def images(names: FileNames, tasks: int) -> Images:
        return Images(frame_of_files(without_junk(described), names).drop(VERSION).repartition(tasks), read)

    return found.source(images)


def _text_rows(settings: ManifestSource, kind: str) -> pa.Table:
    """Read a manifest of CSV or JSON in the driver, into a table of _ROWS."""
    file = open_folder(settings.path)
    try:
        content = file.fs.cat_file(file.root)
    except OSError as error:
        raise SourceError(f"source.path={settings.path} cannot be read: {first_line(error)}") from error
    entries = parse_manifest(content, settings.path, kind, settings.encoding)
    columns = find_columns(entries.columns, settings)

    def values(name: str | None, read: Callable[[Any, str], str | None]) -> list[str | None]:
        if name is None:
            return [None] * len(entries.rows)
        return [
            _as_utf8(read(row.get(name), f"{settings.path}: {name} of entry {number}"))
            for number, row in enumerate(entries.rows, 1)
        ]

    return pa.table(
        {
            PATH: values(columns.path, lambda value, where: None if value is None else str(value)),
            CLASS_NAME: values(columns.label, label_text),
            GROUP_NAME: values(columns.group, label_text),
            GIVEN_SPLIT: [split and (split_called(split) or split) for split in values(columns.split, label_text)],
        },
        schema=_ROWS,
    )


def _as_utf8(text: str | None) -> str | None:
    """Replace what Arrow and Java cannot hold: half of a pair of surrogates, which JSON may have."""
    return text and text.encode("utf-8", "replace").decode()


def _parquet_rows(spark: SparkSession, settings: ManifestSource) -> tuple[DataFrame, bool]:
    """Return the rows of a manifest of Parquet files, with the columns of _ROWS, and whether it has groups."""
    entries = read_table_files(spark, settings.path)
    columns = find_columns(entries.columns, settings)

    def optional(name: str | None) -> Column:
        return F.lit(None).cast("string") if name is None else label_column(entries, name, settings.path)

    rows = entries.select(
        column_called(columns.path).cast("string").alias(PATH),
        optional(columns.label).alias(CLASS_NAME),
        optional(columns.group).alias(GROUP_NAME),
        usual_split(optional(columns.split)).alias(GIVEN_SPLIT),
    )
    return rows, columns.group is not None


def _refuse_windows_paths(described: DataFrame, path: str) -> None:
    """Raise SourceError if files are missing because their paths are written as on Windows."""
    missing = described.where(F.col(CODE) == "missing_file").select(FILE)
    odd = missing.where(F.col(FILE).contains("\\") | F.col(FILE).rlike("^[A-Za-z]:/"))
    first = odd.first()
    if first is not None:
        raise SourceError(
            f"source.path={path} has {odd.count()} paths that do not exist here and are written as on Windows, with "
            f"backslashes or a drive, such as {first[FILE]}; write them with / and relative to the manifest's folder"
        )


def _parent(path: str) -> str:
    """Return the folder of a file, by its path or URI.

    >>> _parent("a/b.csv"), _parent("b.csv"), _parent("/b.csv"), _parent("dbfs:/b.csv")
    ('a', '.', '/', 'dbfs:/')
    """
    parent, slash, _ = path.rpartition("/")
    return f"{parent}/" if slash and (not parent or parent.endswith(":")) else parent or "."


def _looked_up(path: str | None, folder: Folder, max_bytes: int) -> dict[str, Any]:
    """Return the columns that a task adds to an entry when it looks up its file."""
    found: dict[str, Any] = {FILE: path or "", _URI: None, SIZE_BYTES: None, VERSION: "", CODE: None, MESSAGE: None}
    try:
        uri, info = _find_file(path, folder)
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


def _find_file(path: str | None, folder: Folder) -> tuple[str, Any]:
    """Return the URI of an entry's file, and its description. Raises the error about the path as it is written."""
    missing: Exception | None = None
    for reading in (path, *other_readings(path or "")):
        try:
            uri = uri_of(reading, folder)
            file = open_folder(uri)
            return uri, file.fs.info(file.root)
        except (OSError, ValueError, SparkcnnError) as error:
            missing = missing or error
    assert missing is not None  # there is at least one reading
    raise missing


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
