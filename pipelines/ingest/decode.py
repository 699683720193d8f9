"""Decode a source's images in Spark tasks, each of which writes the images it has read; no image may get lost."""

from functools import partial, reduce
from operator import add

import pyarrow.compute as pc
from pyspark.sql import SparkSession

from cnnlib.errors import SourceError
from cnnlib.image_set.ledger import IMAGES
from cnnlib.image_set.writer import WritePlan, WrittenImages, write_images
from pipelines.sources.source import FileNames, Source, table_of_files
from pipelines.spark.progress import Progress
from pipelines.spark.session import with_settings
from pipelines.spark.tasks import tasks_for


def decode_images(
    spark: SparkSession, source: Source, names: FileNames, plan: WritePlan, progress: Progress
) -> WrittenImages:
    """Decode and write the images of these files, or of all files if `names` is None. Return what was written.

    Raises SourceError if the tasks read another number of images than the source had when it was listed.
    """
    expected = pc.sum(table_of_files(source.files, names)[IMAGES]).as_py() or 0
    if not expected:
        return WrittenImages()
    tasks = tasks_for(spark, expected, plan.rows_per_file)
    images = source.images(names, tasks)
    with with_settings(spark, _split_files_over(tasks)):
        by_task = images.map(partial(write_images, plan), progress, f"ingest {expected:,} images", expected)
    written = reduce(add, by_task, WrittenImages())
    if written.found != expected:
        raise SourceError(
            f"the source had {expected} images when it was listed, but {written.found} when they were read. Nothing "
            "was published; ingest again when nobody changes the source"
        )
    return written


def _split_files_over(tasks: int) -> dict[str, str]:
    """Return Spark settings that split files evenly over tasks, by their bytes."""
    return {
        "spark.sql.files.minPartitionNum": str(tasks),
        "spark.sql.files.maxPartitionBytes": str(2**50),
        # The cost of opening a file, in bytes. With Spark's default of 4 MB, a task would get only thirty small images.
        "spark.sql.files.openCostInBytes": str(4 * 2**10),
    }
