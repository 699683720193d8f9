"""Functions that run in Spark tasks."""

from collections.abc import Iterable

import pyarrow as pa
import pytest
from pyspark import TaskContext
from pyspark.sql import SparkSession

from pipelines.spark.tasks import INTERRUPT_ON_CANCEL, run_on_partitions


@pytest.mark.parametrize("set_before", [None, "true"])
def test_tasks_are_cancelled_without_an_interrupt(spark: SparkSession, set_before: str | None) -> None:
    """An interrupt during the start of a Python worker would end all Python workers, also those of the next job."""
    spark.sparkContext.setLocalProperty(INTERRUPT_ON_CANCEL, set_before)

    def work(batches: Iterable[pa.RecordBatch], task: int, attempt: int) -> str | None:
        for _ in batches:
            pass
        context = TaskContext.get()
        assert context is not None
        return context.getLocalProperty(INTERRUPT_ON_CANCEL)

    assert run_on_partitions(spark.range(0, 2, 1, 2), work) == ["false", "false"]
    assert spark.sparkContext.getLocalProperty(INTERRUPT_ON_CANCEL) == set_before
    spark.sparkContext.setLocalProperty(INTERRUPT_ON_CANCEL, None)
