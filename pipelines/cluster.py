"""What a Spark cluster offers a training on its workers, and what keeps one from starting there."""

import os
import re
import time
from urllib.parse import urlsplit

from pyspark.sql import SparkSession

from cnnlib.config import FitSettings

# Variables that a rank needs to reach the MLflow store and the image set as the driver does.
PASSED_ON = ("MLFLOW_", "DATABRICKS_", "AWS_", "AZURE_", "GOOGLE_", "TF_")

# A standalone cluster's executors come some seconds after the session.
REGISTER_SECONDS = 15.0


def environment_for_ranks() -> dict[str, str]:
    """The driver's variables that its ranks get too."""
    return {name: value for name, value in os.environ.items() if name.startswith(PASSED_ON) and name != "TF_CONFIG"}


def workers_problem(spark: SparkSession, settings: FitSettings) -> str:
    """Why `train.workers` cannot be had, or "" if nothing is known against it."""
    return gpu_problem(spark, settings) or slots_problem(spark, settings)


def slots_problem(spark: SparkSession, settings: FitSettings) -> str:
    """Why `train.workers` tasks cannot run at once, or "".

    Spark itself would wait ten minutes for slots that are not there. Executors that are on their way are waited for.
    """
    deadline = time.monotonic() + (0 if _is_one_process(spark) else REGISTER_SECONDS)
    while (slots := task_slots(spark)) is not None and slots < settings.workers and time.monotonic() < deadline:
        time.sleep(0.5)
    if slots is None or slots >= settings.workers:
        return ""
    return (
        f"train.workers={settings.workers} exceeds the {slots} tasks that this Spark can run at once "
        f"({_conf(spark, 'spark.master', 'its executors')}); lower it, or give Spark more executors or cores"
    )


def task_slots(spark: SparkSession) -> int | None:
    """How many tasks can run at once; None where Spark does not tell.

    Under Spark Connect only a local master tells, and with dynamic allocation the executors may be yet to come.
    """
    if _conf(spark, "spark.dynamicAllocation.enabled", "false") == "true":
        return None
    if hasattr(spark, "_jsparkSession"):
        context = spark.sparkContext._jsc.sc()
        return context.maxNumConcurrentTasks(context.resourceProfileManager().defaultResourceProfile())
    local = re.fullmatch(r"local(?:\[(\d+|\*)(?:,\d+)?\])?", _conf(spark, "spark.master", ""))
    if not local:
        return None
    cores = os.cpu_count() or 1 if local[1] == "*" else int(local[1] or 1)
    return cores // int(_conf(spark, "spark.task.cpus", "1"))


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
    if urlsplit(tracking_uri).scheme not in ("sqlite", "file", "") or runs_here(spark):
        return ""
    return (
        f"tracking.uri={tracking_uri} lies on the driver's disk, where workers on other machines cannot write; "
        "name an MLflow server"
    )


def _is_one_process(spark: SparkSession) -> bool:
    return re.match(r"local(\[|$)", _conf(spark, "spark.master", "")) is not None


def runs_here(spark: SparkSession) -> bool:
    """Whether all executors are on the driver's machine."""
    return _conf(spark, "spark.master", "").startswith("local")


def _conf(spark: SparkSession, name: str, default: str) -> str:
    return spark.conf.get(name, default) or default
