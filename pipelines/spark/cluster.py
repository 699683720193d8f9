"""What a Spark cluster offers a training on its workers, and what keeps one from starting there."""

import os
import re
import time
from urllib.parse import urlsplit

from pyspark.sql import SparkSession

from cnnlib.config import FitSettings
from pipelines.spark.session import is_classic

# Variables that a rank needs to reach the MLflow store and the image set as the driver does.
PASSED_ON = ("MLFLOW_", "DATABRICKS_", "AWS_", "AZURE_", "GOOGLE_", "TF_")

# After a session's start; until then Spark may offer fewer tasks than it will.
EXECUTORS_COME_WITHIN_S = 30.0
SECONDS_BETWEEN_LOOKS = 0.5

# Spark's names of itself without executors: local, local[2], local[*, 4].
_LOCAL = re.compile(r"local(?:\[(\d+|\*)(?:\s*,\s*\d+)?\])?")


def environment_for_ranks() -> dict[str, str]:
    """The driver's variables that its ranks get too."""
    return {name: value for name, value in os.environ.items() if name.startswith(PASSED_ON) and name != "TF_CONFIG"}


def workers_problem(spark: SparkSession, settings: FitSettings) -> str:
    """Why `train.workers` cannot be had, or "" if nothing is known against it."""
    return gpu_problem(spark, settings) or slots_problem(spark, settings)


def slots_problem(spark: SparkSession, settings: FitSettings) -> str:
    """Why `train.workers` tasks cannot run at once, or "".

    All tasks of a training run at once, and Spark itself would wait ten minutes for slots that are not there. Waits
    only in the first half minute of a session, while executors come.
    """
    if _conf(spark, "spark.dynamicAllocation.enabled", "false") == "true" and not _is_local(spark):
        return (
            f"train.workers={settings.workers} needs barrier tasks, which Spark does not run with "
            "spark.dynamicAllocation.enabled=true; start it with false"
        )
    slots = slots_within(_seconds_until_executors(spark), spark, settings.workers)
    if slots is None or slots >= settings.workers:
        return ""
    return (
        f"train.workers={settings.workers} exceeds the {slots} tasks that this Spark can run at once "
        f"({_conf(spark, 'spark.master', 'its executors')}); lower it, or give Spark more executors or cores"
    )


def task_slots(spark: SparkSession) -> int | None:
    """How many tasks can run at once; None where Spark does not tell.

    Under Spark Connect only a local master tells.
    """
    if is_classic(spark):
        context = spark.sparkContext._jsc.sc()
        return context.maxNumConcurrentTasks(context.resourceProfileManager().defaultResourceProfile())
    local = _LOCAL.fullmatch(_conf(spark, "spark.master", ""))
    if not local:
        return None
    cores = os.cpu_count() or 1 if local[1] == "*" else int(local[1] or 1)
    return cores // int(_conf(spark, "spark.task.cpus", "1"))


def slots_within(seconds: float, spark: SparkSession, wanted: int) -> int | None:
    """`task_slots`, as soon as they are as many as wanted, or after these seconds."""
    deadline = time.monotonic() + seconds
    slots = task_slots(spark)
    while slots is not None and slots < wanted and time.monotonic() < deadline:
        time.sleep(SECONDS_BETWEEN_LOOKS)
        slots = task_slots(spark)
    return slots


def _seconds_until_executors(spark: SparkSession) -> float:
    if _is_local(spark) or not is_classic(spark):
        return 0.0
    started = (spark.sparkContext.startTime or 0) / 1000
    return started + EXECUTORS_COME_WITHIN_S - time.time()


def _is_local(spark: SparkSession) -> bool:
    """Whether the tasks run inside the driver's own process."""
    return _LOCAL.fullmatch(_conf(spark, "spark.master", "")) is not None


def gpu_problem(spark: SparkSession, settings: FitSettings) -> str:
    """Why `train.gpus_per_worker` cannot be had, or ""."""
    if not settings.gpus_per_worker or float(_conf(spark, "spark.task.resource.gpu.amount", "0")) >= 1:
        return ""
    return (
        "train.gpus_per_worker=1, but Spark schedules no GPU to a task; start it with "
        "spark.executor.resource.gpu.amount, spark.task.resource.gpu.amount=1 and a discovery script"
    )


def store_problem(spark: SparkSession, tracking_uri: str) -> str:
    """Why workers cannot reach an MLflow store, or ""."""
    elsewhere = urlsplit(tracking_uri).scheme not in ("sqlite", "file", "") or tracking_uri.startswith("databricks")
    if elsewhere or runs_here(spark):
        return ""
    return (
        f"tracking.uri={tracking_uri} lies on the driver's disk, where workers on other machines cannot write; "
        "name an MLflow server"
    )


def runs_here(spark: SparkSession) -> bool:
    """Whether all executors are on the driver's machine."""
    return _conf(spark, "spark.master", "").startswith("local")


def _conf(spark: SparkSession, name: str, default: str) -> str:
    return spark.conf.get(name, default) or default
