"""Checks of a Spark cluster: its tasks, their versions, slots, GPUs and network."""

import importlib.metadata
import platform
import re
import socket
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pyarrow as pa
from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import SparkSession

from cnnlib.config import FitSettings
from cnnlib.errors import HostError, SourceError
from pipelines.doctor.examination import AskTasks, NotChecked, Problem, on_hosts
from pipelines.spark.cluster import gpu_problem, slots_problem, task_slots
from pipelines.spark.session import root_cause
from pipelines.spark.tasks import run_on_partitions
from pipelines.train.workers.launch import REFUSED, meet

# Enough to meet more than one executor, few enough to be quick.
TASKS = 2
# Tasks use these, and must have what the driver has.
SHARED = ("keras", "numpy", "pandas", "petastorm", "pyarrow", "tensorflow")


def check_session(spark: SparkSession) -> str:
    """The Spark that is there."""
    return f"{spark.version} on {spark.conf.get('spark.master', '') or 'a master that it does not tell'}"


def check_tasks(ask_tasks: AskTasks) -> str:
    """Whether tasks run, import this project, and have the driver's versions."""
    here = _versions()
    answers = ask_tasks(_versions)
    for answer in answers:
        differing = [
            f"{name} {answer['versions'][name] or 'missing'} (here {version})"
            for name, version in here["versions"].items()
            if answer["versions"][name] != version
        ]
        if differing:
            raise Problem(
                f"{on_hosts(answers)}, Python {answer['python']}",
                f"{answer['host']} has {', '.join(differing)}; install there what is installed here",
            )
    return f"{on_hosts(answers)}, Python {answers[0]['python']}, versions as here"


def check_slots(spark: SparkSession, settings: FitSettings) -> str:
    """How many tasks can run at once, against `train.workers`."""
    slots = task_slots(spark)
    if slots is None:
        raise NotChecked("this Spark does not tell how many tasks it can run at once")
    problem = slots_problem(spark, settings)
    if problem:
        raise Problem(f"{slots} at once", problem)
    return f"{slots} at once; train.workers={settings.workers}"


def check_gpus(spark: SparkSession, settings: FitSettings) -> str:
    """Whether Spark gives each task the GPU that is asked for."""
    if not settings.gpus_per_worker:
        raise NotChecked("train.gpus_per_worker=0")
    problem = gpu_problem(spark, settings)
    if problem:
        raise Problem("none", problem)
    return f"{float(spark.conf.get('spark.task.resource.gpu.amount', '0') or 0):g} for each task"


def check_network(spark: SparkSession, settings: FitSettings) -> str:
    """Whether the tasks of a training would reach one another: its launch, without the training."""
    if not settings.workers:
        raise NotChecked("train.workers=0 trains in the driver")
    if slots_problem(spark, settings) or gpu_problem(spark, settings):
        raise NotChecked("Spark cannot start these workers, see above")
    ports = f"ports {settings.ports}" if settings.ports else "any free port"
    with _task_failures():
        met = meet(spark, workers=settings.workers, gpus_per_worker=settings.gpus_per_worker, ports=settings.port_range)
    refused = [outcome.message for outcome in met if outcome.outcome == REFUSED]
    if refused:
        raise Problem(
            ports, f"{refused[0]}; open the ports between the workers' hosts, or name others with train.ports"
        )
    return f"{on_hosts([vars(outcome) for outcome in met])} reach one another by {ports}"


def ask_tasks(
    spark: SparkSession, settings: FitSettings, ask: Callable[..., dict[str, Any]], *arguments: Any
) -> list[dict[str, Any]]:
    """See `AskTasks`: as many tasks as train, where Spark can run so many at once.

    Raises the SparkcnnError that a task ended with, HostError where tasks fail otherwise.
    """
    count = max(min(settings.workers or TASKS, task_slots(spark) or TASKS), 1)
    with _task_failures():
        return run_on_partitions(spark.range(count, numPartitions=count).toDF("task"), _Asking(ask, arguments))


@contextmanager
def _task_failures() -> Iterator[None]:
    """Turn what Spark raises for a job that failed into a HostError that says why."""
    try:
        yield
    except (PySparkException, Py4JJavaError, SourceError) as error:
        cause = re.sub(r"^(\w+\.)+(?=[A-Z])", "", root_cause(error)).rstrip(".")
        advice = "look into the executors' logs"
        if "No module named" in cause:
            advice = "make the executors' Python like the driver's; --py-files takes sparkcnn along"
        elif "PYTHON_VERSION_MISMATCH" in cause:
            advice = "set spark.pyspark.python to the same version"
        raise HostError(f"tasks fail: {cause}; {advice}") from error


class _Asking:
    """Work of a task: one call, whose answer gets the name of the host."""

    def __init__(self, ask: Callable[..., dict[str, Any]], arguments: tuple[Any, ...]) -> None:
        self._ask = ask
        self._arguments = arguments

    def __call__(self, batches: Iterable[pa.RecordBatch], task: int, attempt: int) -> dict[str, Any]:
        for _ in batches:
            pass
        return {**self._ask(*self._arguments), "host": socket.gethostname()}


def _versions() -> dict[str, Any]:
    versions: dict[str, str | None] = dict.fromkeys(SHARED)
    for name in SHARED:
        with suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return {"python": platform.python_version(), "versions": versions}
