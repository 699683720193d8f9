"""Decoding a source's images in Spark's tasks, each of which writes its share; none is lost on the way."""

from functools import partial, reduce
from operator import add

import pyarrow.compute as pc
from pyspark.sql import SparkSession

from cnnlib.errors import SourceError
from cnnlib.image_set.ledger import IMAGES
from cnnlib.image_set.writer import WritePlan, WrittenImages, write_images
from pipelines.sources.source import Names, Source, of_files
from pipelines.spark.progress import Progress
from pipelines.spark.session import with_settings
from pipelines.spark.tasks import tasks_for


def decode_images(
    spark: SparkSession, source: Source, names: Names, plan: WritePlan, progress: Progress
) -> WrittenImages:
    """Decode and write the images of these files, None is all. Gives what was written."""
    expected = pc.sum(of_files(source.files, names)[IMAGES]).as_py() or 0
    if not expected:
        return WrittenImages()
    tasks = tasks_for(spark, expected, plan.rows_per_file)
    images = source.images(names, tasks)
    with with_settings(spark, _files_over(tasks)):
        shares = images.map(partial(write_images, plan), progress, f"ingest {expected:,} images", expected)
    share = reduce(add, shares, WrittenImages())
    if share.found != expected:
        raise SourceError(
            f"the source had {expected} images when it was listed, and {share.found} when they were read; nothing was "
            "published: ingest it when nobody changes it"
        )
    return share


def _files_over(tasks: int) -> dict[str, str]:
    """Settings by which Spark divides files evenly over tasks, by their bytes."""
    return {
        "spark.sql.files.minPartitionNum": str(tasks),
        "spark.sql.files.maxPartitionBytes": str(2**50),
        # What a file costs besides its bytes; Spark's 4 MB would give each task some thirty small images.
        "spark.sql.files.openCostInBytes": str(4 * 2**10),
    }
