"""Running plain Python over a DataFrame's partitions, and getting what each task gives back to the driver."""

import math
import pickle
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import pyarrow as pa
from pyspark import TaskContext
from pyspark.sql import DataFrame, SparkSession

from pipelines.spark.cluster import task_slots
from pipelines.spark.session import ROWS_PER_ARROW_BATCH, user_errors_from_tasks, with_settings

Result = TypeVar("Result")

# (batches of the partition, task, attempt): the attempt's number is given to no other attempt of the application.
Work = Callable[[Iterable[pa.RecordBatch], int, int], Result]

# Even a small set gets a few files, so that several workers and shuffling have something to choose from.
FEWEST_FILES = 4
# A task of fewer images is mostly overhead.
FEWEST_IMAGES_A_TASK = 256
# With which tasks run that work on images.
TASK_SETTINGS = {
    # A query runs once, over rows that are few beside the images: compiling it costs more than it saves.
    "spark.sql.codegen.wholeStage": "false",
    "spark.sql.codegen.factoryMode": "NO_CODEGEN",
    # Whichever is reached first ends a batch; the bytes count from Spark 4 on.
    "spark.sql.execution.arrow.maxRecordsPerBatch": str(ROWS_PER_ARROW_BATCH),
    "spark.sql.execution.arrow.maxBytesPerBatch": str(64 * 2**20),
    "spark.sql.execution.arrow.useLargeVarTypes": "false",
}


def run_on_partitions(frame: DataFrame, work: Work[Result]) -> list[Result]:
    """Run `work` once a partition, and collect its small results. A task that fails is tried again by Spark.

    Raises the SparkcnnError that a task ended with.
    """

    def on_partition(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        context = TaskContext.get()
        assert context is not None  # Spark calls this in a task only
        result = work(batches, context.partitionId(), context.taskAttemptId())
        yield pa.RecordBatch.from_pydict({"result": [pickle.dumps(result)]})

    # In whatever session the caller has: Spark's 10,000 rows would fill a worker with images.
    spark = frame.sparkSession
    with user_errors_from_tasks(spark), with_settings(spark, TASK_SETTINGS):
        rows = frame.mapInArrow(on_partition, "result binary").collect()
    return [pickle.loads(row["result"]) for row in rows]


def tasks_for(spark: SparkSession, images: int, rows_per_file: int) -> int:
    """Over how many tasks to spread images: whole rounds of the tasks that run at once, none of them tiny."""
    slots = task_slots(spark) or 1
    rounds = math.ceil(images / rows_per_file / slots)
    return max(FEWEST_FILES, min(rounds * slots, images // FEWEST_IMAGES_A_TASK))
