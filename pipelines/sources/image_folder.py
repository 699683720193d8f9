"""Class folders, listed and read by Spark's tasks."""

from collections.abc import Callable, Iterator, Mapping

import pyarrow as pa
from pyspark.sql import SparkSession

from cnnlib.config import SourceSettings
from cnnlib.errors import SourceError
from cnnlib.image_set.contract import CODE, MESSAGE, PATH, SIZE_BYTES
from cnnlib.image_set.ledger import CLASS_NAME, FILE, GIVEN_SPLIT, IMAGES, VERSION
from cnnlib.image_set.splits import TEST
from cnnlib.sources.image_folder import (
    SUFFIXES,
    class_and_split_of,
    class_of,
    is_hidden,
    is_image_name,
    layout_of,
)
from cnnlib.storage.folder import Folder, open_folder
from pipelines.sources.files import list_files, read_files
from pipelines.sources.source import Entry, Images, Source, files_table, label_order, of_files, spread_over_tasks


def open_image_folder(spark: SparkSession, folder: Folder, settings: SourceSettings, max_bytes: int) -> Source:
    """Open DIR/CLASS/** or DIR/{train,val,test}/CLASS/**. Raises SourceError where it has no images."""
    listed = [file for file in list_files(spark, folder) if is_image_name(file.name)]
    if not listed:
        raise SourceError(
            f"source.path={folder.uri} has no images; expected DIR/CLASS/** below it, with files that end in "
            f"{', '.join(SUFFIXES)}"
        )
    shown = [file.name for file in listed if not is_hidden(file.name)]
    has_splits = layout_of(top for top in map(class_of, shown) if top is not None)
    labelled = settings.labels == "given"
    given = {class_and_split_of(name, has_splits) for name in shown}
    read = _reader(folder.uri, max_bytes, has_splits=has_splits, labelled=labelled)
    files = files_table(
        {
            FILE: file.name,
            # Another folder beside may make classes of what were splits.
            VERSION: " ".join([file.version, *map(str, class_and_split_of(file.name, has_splits))]),
            SIZE_BYTES: file.size_bytes,
            IMAGES: 1,
        }
        for file in listed
    )
    return Source(
        files,
        label_order(name for name, _ in given if name is not None) if labelled else (),
        lambda names, tasks: spread_over_tasks(spark, of_files(files, names).select([FILE, SIZE_BYTES]), tasks, read),
        gives_test=any(split == TEST for _, split in given),
    )


def unlabelled_images(
    spark: SparkSession, folder: Folder, files: Mapping[str, int], tasks: int, max_bytes: int
) -> Images:
    """Files of a folder as images, whatever folders they are in: bytes by name, relative to the folder."""
    table = pa.table({FILE: list(files), SIZE_BYTES: list(files.values())})
    return spread_over_tasks(spark, table, tasks, _reader(folder.uri, max_bytes, has_splits=False, labelled=False))


def _reader(
    uri: str, max_bytes: int, *, has_splits: bool, labelled: bool
) -> Callable[[Iterator[Entry]], Iterator[pa.RecordBatch]]:
    """How a task reads files of a folder."""

    def read(files: Iterator[Entry]) -> Iterator[pa.RecordBatch]:
        opened = open_folder(uri)

        def described(file: Entry) -> Entry:
            name = file[FILE]
            class_name, split = class_and_split_of(name, has_splits)
            code, message = _problem(name, file[SIZE_BYTES], max_bytes) or (None, None)
            class_name = class_name if labelled else None
            return file | {PATH: name, CLASS_NAME: class_name, GIVEN_SPLIT: split, CODE: code, MESSAGE: message}

        return read_files(map(described, files), lambda entry: (opened.fs, opened.path(entry[FILE])), max_bytes)

    return read


def _problem(name: str, size_bytes: int, max_bytes: int) -> tuple[str, str] | None:
    """What keeps a file from being read, as (code, message)."""
    if not size_bytes:
        return "empty_file", "the file has no bytes"
    if is_hidden(name):
        return "unreadable", "its name, or that of a folder above it, begins with a dot, as of hidden files; rename it"
    if size_bytes > max_bytes:
        return "too_many_bytes", f"{size_bytes} bytes exceed the limit of {max_bytes}"
    return None
