"""Tar shards. A shard may be larger than a row of Spark's can be, so tasks stream them through fsspec."""

from collections.abc import Iterator
from itertools import chain
from typing import Any

import pyarrow as pa
from pyspark.sql import SparkSession

from cnnlib.config import SourceSettings
from cnnlib.errors import SourceError
from cnnlib.image_set.contract import CODE, MESSAGE, PATH, SIZE_BYTES
from cnnlib.image_set.ledger import CLASS_NAME, FILE, GIVEN_SPLIT, IMAGES, VERSION
from cnnlib.image_set.splits import TEST
from cnnlib.image_set.writer import CONTENT
from cnnlib.sources.image_folder import class_and_split_of, layout_of
from cnnlib.sources.webdataset import SHARD_SUFFIXES, index_shard, is_shard_name, read_shard
from cnnlib.storage.folder import Folder, open_folder
from pipelines.sources.files import list_files, opened_file
from pipelines.sources.source import (
    Entry,
    Source,
    collect_from_tasks,
    files_table,
    image_batches,
    label_order,
    of_files,
    spread_over_tasks,
)

_INDEX_SCHEMA = pa.schema([(FILE, pa.string()), (IMAGES, pa.int64()), ("classes", pa.list_(pa.string()))])


def open_webdataset(spark: SparkSession, folder: Folder, settings: SourceSettings, max_bytes: int) -> Source:
    """Open a folder of tar shards, or one with folders train, val and test of them; tasks read the index of each.

    Raises SourceError where there are none.
    """
    uri, labelled = folder.uri, settings.labels == "given"
    shards = {file.name: file for file in list_files(spark, folder) if is_shard_name(file.name)}
    if not shards:
        raise SourceError(
            f"source.path={folder.uri} has no shards; expected files that end in {', '.join(SHARD_SUFFIXES)}"
        )
    has_splits = layout_of(name.split("/")[0] for name in shards)

    def index(names: Iterator[Entry]) -> Iterator[pa.RecordBatch]:
        opened = open_folder(uri)
        for row in names:
            yield pa.RecordBatch.from_pylist([_index(opened, row[FILE], labelled)], schema=_INDEX_SCHEMA)

    def read(names: Iterator[Entry]) -> Iterator[pa.RecordBatch]:
        opened = open_folder(uri)
        images = (_images(opened, row[FILE], has_splits, labelled, max_bytes) for row in names)
        return image_batches(chain.from_iterable(images))

    found = collect_from_tasks(spark, pa.table({FILE: list(shards)}), len(shards), index, _INDEX_SCHEMA)
    files = files_table(
        {
            FILE: row[FILE],
            # Another folder beside may make nothing of what were splits.
            VERSION: f"{shards[row[FILE]].version} {class_and_split_of(row[FILE], has_splits)[1]}",
            SIZE_BYTES: shards[row[FILE]].size_bytes,
            IMAGES: row[IMAGES],
        }
        for row in found
    )
    return Source(
        files,
        label_order(name for row in found for name in row["classes"]),
        lambda names, tasks: spread_over_tasks(spark, of_files(files, names).select([FILE]), tasks, read),
        gives_test=any(class_and_split_of(name, has_splits)[1] == TEST for name in shards),
    )


def _index(folder: Folder, name: str, labelled: bool) -> dict[str, Any]:
    with opened_file(folder, name) as file:
        classes = [entry.class_name for entry in index_shard(file, name, labelled=labelled)]
    return {FILE: name, IMAGES: len(classes), "classes": sorted({name for name in classes if name is not None})}


def _images(folder: Folder, name: str, has_splits: bool, labelled: bool, max_bytes: int) -> Iterator[dict[str, Any]]:
    split = class_and_split_of(name, has_splits)[1]
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
