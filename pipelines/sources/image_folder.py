"""Class folders: tasks list the files and read them."""

from collections.abc import Callable, Iterator, Mapping

import pyarrow as pa
from pyspark.sql import SparkSession

from cnnlib.config import ImageFolderSource
from cnnlib.errors import SourceError
from cnnlib.image_set.contract import CODE, MESSAGE, PATH, SIZE_BYTES
from cnnlib.image_set.ledger import CLASS_NAME, FILE, GIVEN_SPLIT, IMAGES, VERSION
from cnnlib.image_set.splits import TEST
from cnnlib.sources.image_folder import (
    SUFFIXES,
    are_splits,
    class_and_split_of,
    first_folder,
    is_hidden,
    is_image_name,
)
from cnnlib.storage.folder import Folder, open_folder
from pipelines.sources.files import list_files, open_source_folder, read_files
from pipelines.sources.source import Entry, Images, Source, files_table, label_order, spread_over_tasks, table_of_files


def open_image_folder(spark: SparkSession, settings: ImageFolderSource, max_bytes: int) -> Source:
    """Open DIR/CLASS/** or DIR/{train,val,test}/CLASS/**. Raises SourceError if there are no images."""
    folder = open_source_folder(settings.path)
    listed = [file for file in list_files(spark, folder) if is_image_name(file.name)]
    if not listed:
        raise SourceError(
            f"source.path={folder.uri} has no images; expected DIR/CLASS/** below it, with files that end in "
            f"{', '.join(SUFFIXES)}"
        )
    shown = [file.name for file in listed if not is_hidden(file.name)]
    has_splits = are_splits(top for top in map(first_folder, shown) if top is not None)
    labelled = settings.labels == "given"
    given = {class_and_split_of(name, has_splits) for name in shown}
    read = _reader(folder.uri, max_bytes, has_splits=has_splits, labelled=labelled)
    files = files_table(
        {
            FILE: file.name,
            # Class and split belong to the version: if a folder is added beside them, splits may become classes.
            VERSION: " ".join([file.version, *map(str, class_and_split_of(file.name, has_splits))]),
            SIZE_BYTES: file.size_bytes,
            IMAGES: 1,
        }
        for file in listed
    )
    sizes = files.select([FILE, SIZE_BYTES])
    return Source(
        files,
        label_order(name for name, _ in given if name is not None) if labelled else (),
        lambda names, tasks: spread_over_tasks(spark, table_of_files(sizes, names), tasks, read),
        gives_test=any(split == TEST for _, split in given),
    )


def unlabelled_images(
    spark: SparkSession, folder: Folder, files: Mapping[str, int], tasks: int, max_bytes: int
) -> Images:
    """Make images of files in a folder, without classes and splits.

    `files` has the bytes of each file, by its name relative to the folder.
    """
    table = pa.table({FILE: list(files), SIZE_BYTES: list(files.values())})
    return spread_over_tasks(spark, table, tasks, _reader(folder.uri, max_bytes, has_splits=False, labelled=False))


def _reader(
    uri: str, max_bytes: int, *, has_splits: bool, labelled: bool
) -> Callable[[Iterator[Entry]], Iterator[pa.RecordBatch]]:
    """Return the function with which a task reads files of the folder at a URI."""

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
    """Return (code, message) if a file must not be read, else None."""
    if not size_bytes:
        return "empty_file", "the file has no bytes"
    if is_hidden(name):
        return "unreadable", "its name, or the name of a folder above it, begins with a dot: it is hidden; rename it"
    if size_bytes > max_bytes:
        return "too_many_bytes", f"{size_bytes} bytes exceed the limit of {max_bytes}"
    return None
