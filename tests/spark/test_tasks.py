"""Work that runs in Spark's tasks."""

from collections.abc import Iterable

import pyarrow as pa
from pyspark import TaskContext
from pyspark.sql import SparkSession

from pipelines.tasks import run_on_partitions


def test_tasks_are_cancelled_without_an_interrupt(spark: SparkSession) -> None:
    """An interrupt amid the start of a Python worker ends all workers, those of the next job among them."""

    def work(batches: Iterable[pa.RecordBatch], task: int, attempt: int) -> str | None:
        for _ in batches:
            pass
        context = TaskContext.get()
        assert context is not None
        return context.getLocalProperty("spark.job.interruptOnCancel")

    assert set(run_on_partitions(spark.range(2), work)) <= {None, "false"}
