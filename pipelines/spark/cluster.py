"""What a Spark cluster offers to a training on its workers, and the problems that keep a training from starting."""

import os
import re
import time
from urllib.parse import urlsplit

from pyspark.sql import SparkSession

from cnnlib.config import FitSettings
from pipelines.spark.session import is_classic

# Prefixes of the variables with which the driver reaches the MLflow store and the image set. Ranks need them too.
PASSED_ON = ("MLFLOW_", "DATABRICKS_", "AWS_", "AZURE_", "GOOGLE_", "TF_")

# Executors may still register for so many seconds after a session's start. Until then Spark may have too few slots.
EXECUTORS_COME_WITHIN_S = 30.0
SECONDS_BETWEEN_LOOKS = 0.5

# Masters without executors: local, local[2], local[*, 4].
_LOCAL = re.compile(r"local(?:\[(\d+|\*)(?:\s*,\s*\d+)?\])?")


def environment_for_ranks() -> dict[str, str]:
    """Return the environment variables of the driver that its ranks get."""
    return {name: value for name, value in os.environ.items() if name.startswith(PASSED_ON) and name != "TF_CONFIG"}


def workers_problem(spark: SparkSession, settings: FitSettings) -> str:
    """Return why Spark cannot run `train.workers`, or "" if no problem is known."""
    return gpu_problem(spark, settings) or slots_problem(spark, settings)


def slots_problem(spark: SparkSession, settings: FitSettings) -> str:
    """Return why `train.workers` tasks cannot run at once, or "".

    All tasks of a training run at once, and Spark itself would wait ten minutes for missing slots. This waits only in
    the first half minute of a session, while executors register.
    """
    if _conf(spark, "spark.dynamicAllocation.enabled", "false") == "true" and not _is_local(spark):
        return (
            f"train.workers={settings.workers} needs barrier tasks, which Spark does not run with "
            "spark.dynamicAllocation.enabled=true; set it to false"
        )
    slots = slots_within(_seconds_until_executors(spark), spark, settings.workers)
    if slots is None or slots >= settings.workers:
        return ""
    return (
        f"train.workers={settings.workers} exceeds the {slots} tasks that this Spark can run at once "
        f"({_conf(spark, 'spark.master', 'its executors')}); lower it, or give Spark more executors or cores"
    )


def task_slots(spark: SparkSession) -> int | None:
    """Return the number of tasks that can run at once, or None if it is unknown.

    Under Spark Connect it is known only for a local master.
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
    """Wait until there are as many task slots as wanted, at most these seconds. Return `task_slots`."""
    deadline = time.monotonic() + seconds
    slots = task_slots(spark)
    while slots is not None and slots < wanted and time.monotonic() < deadline:
        time.sleep(SECONDS_BETWEEN_LOOKS)
        slots = task_slots(spark)
    return slots


def _seconds_until_executors(spark: SparkSession) -> float:
    """Return how long executors of this session may still need to register."""
    if _is_local(spark) or not is_classic(spark):
        return 0.0
    started = (spark.sparkContext.startTime or 0) / 1000
    return started + EXECUTORS_COME_WITHIN_S - time.time()


def _is_local(spark: SparkSession) -> bool:
    """Return whether the tasks run inside the driver's own process."""
    return _LOCAL.fullmatch(_conf(spark, "spark.master", "")) is not None


def gpu_problem(spark: SparkSession, settings: FitSettings) -> str:
    """Return why Spark cannot give each worker `train.gpus_per_worker`, or ""."""
    if not settings.gpus_per_worker or float(_conf(spark, "spark.task.resource.gpu.amount", "0")) >= 1:
        return ""
    return (
        "train.gpus_per_worker=1, but Spark schedules no GPU to a task; start Spark with "
        "spark.executor.resource.gpu.amount, spark.task.resource.gpu.amount=1 and a discovery script"
    )


def store_problem(spark: SparkSession, tracking_uri: str) -> str:
    """Return why workers cannot reach an MLflow store, or ""."""
    elsewhere = urlsplit(tracking_uri).scheme not in ("sqlite", "file", "") or tracking_uri.startswith("databricks")
    if elsewhere or runs_here(spark):
        return ""
    return (
        f"tracking.uri={tracking_uri} lies on the driver's disk, where workers on other machines cannot write; "
        "name an MLflow server"
    )


def runs_here(spark: SparkSession) -> bool:
    """Return whether all executors are on the driver's machine."""
    return _conf(spark, "spark.master", "").startswith("local")


def _conf(spark: SparkSession, name: str, default: str) -> str:
    return spark.conf.get(name, default) or default
