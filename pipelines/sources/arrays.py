"""Files that hold arrays of images, read by tasks: one task parses a file, then its images are split over tasks."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pyarrow as pa
from pyspark.sql import SparkSession

from cnnlib.image_set.contract import PATH, SIZE_BYTES
from cnnlib.image_set.ledger import CLASS_NAME, FILE, GIVEN_SPLIT
from cnnlib.image_set.splits import TEST
from cnnlib.image_set.writer import CONTENT
from pipelines.sources.source import Entry, FileNames, Images, image_batches, spread_over_tasks, table_of_files


def images_of_arrays(
    spark: SparkSession, table: pa.Table, parse: Callable[[Entry], Iterator[pa.RecordBatch]]
) -> Callable[[FileNames, int], Images]:
    """Make the `images` of a source; `table` has one row per file, and `parse` yields the images of such a row.

    The images are many and small, so after parsing they are split over the tasks.
    """

    def parse_files(rows: Iterator[Entry]) -> Iterator[pa.RecordBatch]:
        for row in rows:
            yield from parse(row)

    def images(names: FileNames, tasks: int) -> Images:
        files = table_of_files(table, names)
        return Images(spread_over_tasks(spark, files, files.num_rows, parse_files).frame().repartition(tasks))

    return images


def array_batches(
    file: str, pixels: np.ndarray, class_names: Sequence[str | None], is_test: bool
) -> Iterator[pa.RecordBatch]:
    """Yield the images of one file, (count, height, width[, channels]) uint8, as batches of IMAGES_SCHEMA."""
    return image_batches(
        {
            FILE: file,
            PATH: f"{file}#{number:05d}",
            CONTENT: image.tobytes(),
            CLASS_NAME: class_name,
            GIVEN_SPLIT: TEST if is_test else None,
            SIZE_BYTES: image.size,
        }
        for number, (image, class_name) in enumerate(zip(pixels, class_names, strict=True))
    )
