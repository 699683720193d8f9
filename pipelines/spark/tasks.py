"""Run plain Python over the partitions of a DataFrame, and get the result, or the error, of each task in the driver."""

import math
import pickle
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar, cast

import pyarrow as pa
from py4j.protocol import Py4JJavaError
from pyspark import TaskContext
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, SparkSession

from cnnlib import errors
from cnnlib.errors import SourceError, SparkcnnError
from pipelines.spark.cluster import task_slots
from pipelines.spark.interruptible_job import run_interruptibly
from pipelines.spark.session import ROWS_PER_ARROW_BATCH, is_classic, root_cause, with_settings

Result = TypeVar("Result")

# (Arrow batches of the partition, task, attempt) -> result. No two attempts of an application have the same number.
Work = Callable[[Iterable[pa.RecordBatch], int, int], Result]

# Even a small image set gets a few files, so that several workers and the shuffling have files to choose from.
FEWEST_FILES = 4
# With fewer images, the start of a task takes longer than its work.
FEWEST_IMAGES_A_TASK = 256

# Spark settings for jobs whose tasks decode images.
TASK_SETTINGS = {
    # Such a query runs once, over rows that are few beside the images. Compiling it costs more than it saves.
    "spark.sql.codegen.wholeStage": "false",
    "spark.sql.codegen.factoryMode": "NO_CODEGEN",
    # A batch ends at the first of the two limits. Spark 4 and later know the one in bytes.
    "spark.sql.execution.arrow.maxRecordsPerBatch": str(ROWS_PER_ARROW_BATCH),
    "spark.sql.execution.arrow.maxBytesPerBatch": str(64 * 2**20),
    "spark.sql.execution.arrow.useLargeVarTypes": "false",
}

INTERRUPT_ON_CANCEL = "spark.job.interruptOnCancel"


def run_on_partitions(frame: DataFrame, work: Work[Result]) -> list[Result]:
    """Call `work` once per partition, in Spark tasks, and collect its small results. Spark repeats a task that fails.

    Raises the SparkcnnError that a task ended with.

    Example::

        def count_rows(batches, task, attempt):
            return sum(batch.num_rows for batch in batches)

        run_on_partitions(spark.range(10), count_rows)  # [5, 5] with two partitions
    """

    def on_partition(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        context = TaskContext.get()
        assert context is not None  # Spark calls this only in a task
        result = work(batches, context.partitionId(), context.taskAttemptId())
        yield pa.RecordBatch.from_pydict({"result": [pickle.dumps(result)]})

    # The caller's session may have Spark's default of 10,000 rows per batch, too many images for the memory of a task.
    spark = frame.sparkSession
    with user_errors_from_tasks(spark), with_settings(spark, TASK_SETTINGS):
        rows = run_interruptibly(spark, frame.mapInArrow(on_partition, "result binary").collect)
    return [pickle.loads(row["result"]) for row in rows]


def tasks_for(spark: SparkSession, images: int, rows_per_file: int) -> int:
    """Return over how many tasks to split images, if each task writes one file of about `rows_per_file` rows.

    All task slots are busy in every round, but no task gets very few images.
    """
    slots = task_slots(spark) or 1
    rounds = math.ceil(images / rows_per_file / slots)
    return max(FEWEST_FILES, min(rounds * slots, images // FEWEST_IMAGES_A_TASK))


@contextmanager
def user_errors_from_tasks(spark: SparkSession) -> Iterator[None]:
    """Raise the SparkcnnError of a Spark task in the driver, without Spark's stack traces.

    Spark passes on a Python exception of a task only as text.
    """
    try:
        with _without_interrupts(spark):
            yield
    except (PySparkException, Py4JJavaError) as error:
        # A sealed model raises the errors of the code that it travels with.
        match = re.search(r"(?:cnnlib(?:\.sealed\.frozen)?|sparkcnn_sealed_\w+)\.errors\.(\w+): (.+)", str(error))
        kind = getattr(errors, match.group(1), None) if match else None
        if match and kind and issubclass(kind, SparkcnnError):
            raise kind(match.group(2).strip()) from error
        if isinstance(error, Py4JJavaError):
            raise SourceError(f"Spark could not read its input: {root_cause(error)}") from error
        raise


@contextmanager
def _without_interrupts(spark: SparkSession) -> Iterator[None]:
    """Let Spark cancel tasks of this thread's jobs without an interrupt; their Python processes then end within 4 s.

    If an interrupt meets a task that is starting its Python process, Spark 4 restarts the daemon of all these
    processes. Tasks of the next job that already have a process then fail with a "Broken pipe".
    """
    # Spark 4 would set the job's property for every query. With this setting it leaves the caller's value.
    with with_settings(spark, {"spark.sql.execution.interruptOnCancel": "false"}):
        if not is_classic(spark):
            yield
            return
        before = spark.sparkContext.getLocalProperty(INTERRUPT_ON_CANCEL)
        spark.sparkContext.setLocalProperty(INTERRUPT_ON_CANCEL, "false")
        try:
            yield
        finally:
            spark.sparkContext.setLocalProperty(INTERRUPT_ON_CANCEL, cast(str, before))  # None removes it
