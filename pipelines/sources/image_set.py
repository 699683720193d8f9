"""The data files of an image set, for scoring: tasks read them row group by row group."""

from collections.abc import Iterator, Sequence
from itertools import groupby

import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.sql import SparkSession

from cnnlib.errors import ImageSetError, first_line
from cnnlib.image_set.contract import IMAGE, IMAGE_ID, LABEL, PATH, ImageSet
from cnnlib.image_set.writer import CONTENT
from cnnlib.storage.folder import open_folder
from pipelines.sources.source import Entry, Images, spread_over_tasks

_FILE = "file"
_ROW_GROUP = "row_group"


def images_of_set(
    spark: SparkSession, image_set: ImageSet, splits: Sequence[str], tasks: int, *, labels: bool = False
) -> Images:
    """Make images of some splits, with IMAGE_ID, PATH, the stored image as CONTENT, and LABEL if `labels` is set.

    In a task, ImageSetError is raised if a file cannot be read.
    """
    columns = [IMAGE_ID, PATH, IMAGE, *([LABEL] if labels else [])]
    names = [CONTENT if column == IMAGE else column for column in columns]
    files = [file for split in splits for file in image_set.split(split).files]
    row_groups = [(file.path, number) for file in files for number in range(file.row_groups)]
    # The last row group of a file may be short. Put these at the end, or some tasks might get no others.
    last = {(file.path, file.row_groups - 1) for file in files}
    row_groups.sort(key=last.__contains__)
    uri = image_set.folder.uri

    def read(rows: Iterator[Entry]) -> Iterator[pa.RecordBatch]:
        folder = open_folder(uri)
        in_order = sorted(rows, key=lambda row: (row[_FILE], row[_ROW_GROUP]))
        for path, rows_of_file in groupby(in_order, key=lambda row: row[_FILE]):
            try:
                with folder.fs.open(folder.path(path), "rb") as file:
                    parquet = pq.ParquetFile(file)
                    for row in rows_of_file:
                        table = parquet.read_row_group(row[_ROW_GROUP], columns=columns)
                        yield from table.rename_columns(names).combine_chunks().to_batches()
            except (OSError, IndexError, pa.ArrowException) as error:
                raise ImageSetError(
                    f"{folder.path(path)} cannot be read: {first_line(error)}; ingest the set again"
                ) from error

    table = pa.table(dict(zip((_FILE, _ROW_GROUP), map(list, zip(*row_groups, strict=True)), strict=True)))
    return spread_over_tasks(spark, table, tasks, read)
