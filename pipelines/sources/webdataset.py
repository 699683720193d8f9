"""Tar shards. A shard may be too large for a row of Spark, so tasks stream it through fsspec."""

from collections import Counter
from collections.abc import Iterator
from itertools import chain
from typing import Any

import pyarrow as pa
from pyspark.sql import SparkSession

from cnnlib.config import WebdatasetSource
from cnnlib.errors import SourceError
from cnnlib.image_set.contract import CODE, MESSAGE, PATH, SIZE_BYTES
from cnnlib.image_set.ledger import CLASS_NAME, FILE, GIVEN_SPLIT, IMAGES, VERSION
from cnnlib.image_set.splits import TEST
from cnnlib.image_set.writer import CONTENT
from cnnlib.sources.image_folder import first_folder, splits_by_name
from cnnlib.sources.labels import label_order
from cnnlib.sources.left_out import IN_NO_SPLIT, is_junk
from cnnlib.sources.spelling import Spelling
from cnnlib.sources.webdataset import SHARD_SUFFIXES, index_shard, is_shard_name, read_shard
from cnnlib.storage.folder import Folder, open_folder
from pipelines.sources.files import list_files, open_source_folder, opened_file
from pipelines.sources.source import (
    Entry,
    Source,
    collect_from_tasks,
    files_table,
    image_batches,
    spread_over_tasks,
    table_of_files,
)

_CLASSES = "classes"
_LEFT_OUT = "left_out"
_INDEX_SCHEMA = pa.schema(
    [
        (FILE, pa.string()),
        (IMAGES, pa.int64()),
        (_CLASSES, pa.list_(pa.string())),
        (_LEFT_OUT, pa.map_(pa.string(), pa.int64())),
    ]
)


def open_webdataset(spark: SparkSession, settings: WebdatasetSource, max_bytes: int) -> Source:
    """Open a folder of tar shards, which may be in subfolders train, val and test. Tasks read the index of each shard.

    Raises SourceError if there are no shards.
    """
    folder = open_source_folder(settings.path)
    uri, labelled = folder.uri, settings.labels == "given"
    listed = [file for file in list_files(spark, folder) if is_shard_name(file.name) and not is_junk(file.name)]
    names = {_split_name(file.name) for file in listed}
    splits = splits_by_name(names, settings.layout, settings.path, labelled=labelled)

    def split_of(name: str) -> str | None:
        return splits.get(_split_name(name))

    # If some folders or names are those of splits, the shards beside them are left out.
    shards = {file.name: file for file in listed if not splits or split_of(file.name) is not None}
    if not shards:
        raise SourceError(f"source.path={uri} has no shards; expected files that end in {', '.join(SHARD_SUFFIXES)}")

    def index(rows: Iterator[Entry]) -> Iterator[pa.RecordBatch]:
        opened = open_folder(uri)
        for row in rows:
            yield pa.RecordBatch.from_pylist([_index(opened, row[FILE], labelled)], schema=_INDEX_SCHEMA)

    def read(rows: Iterator[Entry]) -> Iterator[pa.RecordBatch]:
        opened = open_folder(uri)
        images = (_images(opened, row[FILE], split_of(row[FILE]), labelled, max_bytes) for row in rows)
        return image_batches(chain.from_iterable(images))

    found = collect_from_tasks(spark, pa.table({FILE: list(shards)}), len(shards), index, _INDEX_SCHEMA)
    files = files_table(
        {
            FILE: row[FILE],
            # The split belongs to the version: if a folder is added beside them, splits may become plain folders.
            VERSION: f"{shards[row[FILE]].version} {split_of(row[FILE])}",
            SIZE_BYTES: shards[row[FILE]].size_bytes,
            IMAGES: row[IMAGES],
        }
        for row in found
    )
    names_alone = files.select([FILE])
    spelling = Spelling.of((name for row in found for name in row[_CLASSES]), joined=settings.join_spellings)
    left_out = sum((Counter(row[_LEFT_OUT]) for row in found), Counter({IN_NO_SPLIT: len(listed) - len(shards)}))
    return Source(
        files,
        label_order(spelling.classes),
        lambda names, tasks: spread_over_tasks(spark, table_of_files(names_alone, names), tasks, read),
        gives_test=any(split_of(name) == TEST for name in shards),
        left_out=+left_out,
        spelling=spelling,
    )


def _split_name(shard: str) -> str:
    """Return the name that may tell the split of a shard: that of its first folder, or else its own."""
    return first_folder(shard) or shard


def _index(folder: Folder, name: str, labelled: bool) -> dict[str, Any]:
    left_out = Counter[str]()
    with opened_file(folder, name) as file:
        entries = index_shard(file, name, labelled=labelled, left_out=left_out)
        classes = [entry.class_name for entry in entries]
    return {
        FILE: name,
        IMAGES: len(classes),
        _CLASSES: sorted({name for name in classes if name is not None}),
        _LEFT_OUT: list(left_out.items()),
    }


def _images(folder: Folder, name: str, split: str | None, labelled: bool, max_bytes: int) -> Iterator[dict[str, Any]]:
    with opened_file(folder, name) as file:
        for entry in read_shard(file, name, max_bytes, labelled=labelled):
            yield {
                FILE: name,
                PATH: f"{name}#{entry.path}",
                CONTENT: entry.content,
                CLASS_NAME: entry.class_name,
                GIVEN_SPLIT: split,
                CODE: entry.code,
                MESSAGE: entry.message,
                SIZE_BYTES: entry.size_bytes,
            }
