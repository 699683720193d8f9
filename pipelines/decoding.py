"""Decoding a source's images in Spark's tasks, each of which writes its share; none is lost on the way."""

import math
from functools import partial, reduce
from operator import add

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from cnnlib.imageset import CODE, MESSAGE, PATH, SIZE_BYTES
from cnnlib.imageset_writer import CONTENT, SOURCE_COLUMNS, Share, SharePlan, write_share
from cnnlib.ledger import CLASS_NAME, FILE, GIVEN_SPLIT, GROUP, IMAGES, LEDGER
from pipelines.cluster import task_slots
from pipelines.progress import Progress, images_done
from pipelines.session import with_settings
from pipelines.sources.source import Names, Source, empty_columns
from pipelines.tasks import run_on_partitions

# Even a small set gets a few files, so that several workers and shuffling have something to choose from.
FEWEST_FILES = 4
# A task of fewer images is mostly overhead.
FEWEST_IMAGES_A_TASK = 256

_UNREAD = "Spark could not read the file: it has gone meanwhile, may not be read, or has a name that Java cannot read"


def decode_images(spark: SparkSession, source: Source, names: Names, plan: SharePlan, progress: Progress) -> Share:
    """Decode and write the images of these files, None is all. Gives what was written."""
    files = source.files
    if names is not None:
        files = files.filter(pc.is_in(files[FILE], pa.array(names, pa.string())))
    expected = pc.sum(files[IMAGES]).as_py() or 0
    if not expected:
        return Share()
    tasks = tasks_for(spark, expected, plan.rows_per_file)
    images = source.images(names)
    if source.spread:
        images = images.repartition(tasks)
    with (
        with_settings(spark, _files_over(tasks)),
        images_done(progress, spark, f"ingest {expected:,} images", expected) as count_images,
    ):
        share = reduce(add, run_on_partitions(images, partial(write_share, plan, count_images)), Share())
    if share.found < expected:
        # Files that Spark found it could not read have no row: they must not vanish.
        unread = _unread(spark, files, share, plan)
        share = reduce(add, run_on_partitions(unread, partial(write_share, plan, None)), share)
    return share


def tasks_for(spark: SparkSession, images: int, rows_per_file: int) -> int:
    """Over how many tasks to spread images: whole rounds of the tasks that run at once, none of them tiny."""
    slots = task_slots(spark) or 1
    rounds = math.ceil(images / rows_per_file / slots)
    return max(FEWEST_FILES, min(rounds * slots, images // FEWEST_IMAGES_A_TASK))


def _files_over(tasks: int) -> dict[str, str]:
    """Settings by which Spark divides files evenly over tasks, by their bytes."""
    return {
        "spark.sql.files.minPartitionNum": str(tasks),
        "spark.sql.files.maxPartitionBytes": str(2**50),
        # What a file costs besides its bytes; Spark's 4 MB would give each task some thirty small images.
        "spark.sql.files.openCostInBytes": str(4 * 2**10),
    }


def _unread(spark: SparkSession, files: pa.Table, share: Share, plan: SharePlan) -> DataFrame:
    """The files that no image came of, as images with a problem."""
    read: set[str] = set()
    for part in share.files.get(LEDGER, []):
        with plan.folder.fs.open(plan.folder.path(part.path), "rb") as file:
            read.update(pq.read_table(file, columns=[FILE])[FILE].to_pylist())
    unread = [
        (row[FILE], row[FILE], "unreadable", _UNREAD, row[SIZE_BYTES])
        for row in files.to_pylist()
        if row[FILE] not in read and row[IMAGES]
    ]
    rows = spark.createDataFrame(
        unread, f"{FILE} string, {PATH} string, {CODE} string, {MESSAGE} string, {SIZE_BYTES} long"
    )
    nothing = F.lit(None).cast("binary").alias(CONTENT)
    return rows.select("*", nothing, *empty_columns(CLASS_NAME, GROUP, GIVEN_SPLIT)).select(*SOURCE_COLUMNS)
