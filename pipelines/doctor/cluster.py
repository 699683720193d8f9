"""Checks of a Spark cluster: its tasks, their package versions, its task slots, GPUs and network."""

import importlib.metadata
import platform
import re
import socket
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from cnnlib.config import FitSettings
from cnnlib.errors import HostError, SourceError
from pipelines.doctor.examination import AskTasks, NotChecked, Problem, on_hosts

if TYPE_CHECKING:
    import pyarrow as pa
    from pyspark.sql import SparkSession

# Number of tasks to ask if train.workers does not say it: more than one executor may answer, and it stays quick.
DEFAULT_TASKS = 2
# Tasks use these packages, so they need the driver's versions.
SHARED = ("keras", "numpy", "pandas", "petastorm", "pillow", "pyarrow", "tensorflow")
# Formats of images that not every Pillow reads.
_FORMATS = {"JPEG 2000", "AVIF", "HEIF"}


def check_session(spark: "SparkSession") -> str:
    """Return Spark's version and master."""
    return f"{spark.version} on {spark.conf.get('spark.master', '') or 'a master that it does not name'}"


def check_tasks(ask_tasks: AskTasks) -> str:
    """Check that tasks run, import this project, and have the driver's package versions."""
    here = _versions()
    answers = ask_tasks(_versions)
    for answer in answers:
        different = [
            f"{name} {answer['versions'][name] or 'missing'} (here {version})"
            for name, version in here["versions"].items()
            if answer["versions"][name] != version
        ]
        if different:
            raise Problem(
                f"{on_hosts(answers)}, Python {answer['python']}",
                f"{answer['host']} has {', '.join(different)}; install there what is installed here",
            )
    return f"{on_hosts(answers)}, Python {answers[0]['python']}, versions as here"


def check_slots(spark: "SparkSession", settings: FitSettings) -> str:
    """Check that as many tasks as `train.workers` can run at once."""
    from pipelines.spark.cluster import slots_problem, task_slots

    slots = task_slots(spark)
    if slots is None:
        raise NotChecked("this Spark does not say how many tasks it can run at once")
    problem = slots_problem(spark, settings)
    if problem:
        raise Problem(f"{slots} at once", problem)
    return f"{slots} at once; train.workers={settings.workers}"


def check_gpus(spark: "SparkSession", settings: FitSettings) -> str:
    """Check that Spark gives each task the GPU of `train.gpus_per_worker`."""
    if not settings.gpus_per_worker:
        raise NotChecked("train.gpus_per_worker=0")
    from pipelines.spark.cluster import gpu_problem

    problem = gpu_problem(spark, settings)
    if problem:
        raise Problem("none", problem)
    return f"{float(spark.conf.get('spark.task.resource.gpu.amount', '0') or 0):g} for each task"


def check_network(spark: "SparkSession", settings: FitSettings) -> str:
    """Check that the workers of a training can reach each other: launch them, but do not train."""
    if not settings.workers:
        raise NotChecked("train.workers=0 trains in the driver")
    from pipelines.spark.cluster import gpu_problem, slots_problem
    from pipelines.train.workers.launch import REFUSED, try_connections

    if slots_problem(spark, settings) or gpu_problem(spark, settings):
        raise NotChecked("Spark cannot start these workers, see above")
    ports = f"ports {settings.ports}" if settings.ports else "any free port"
    with _explain_task_failures():
        outcomes = try_connections(
            spark, workers=settings.workers, gpus_per_worker=settings.gpus_per_worker, ports=settings.port_range
        )
    refusals = [outcome.message for outcome in outcomes if outcome.outcome == REFUSED]
    if refusals:
        raise Problem(
            ports, f"{refusals[0]}; open the ports between the workers' hosts, or name others with train.ports"
        )
    return f"{on_hosts([vars(outcome) for outcome in outcomes])} reach one another by {ports}"


def ask_tasks(
    spark: "SparkSession", settings: FitSettings, ask: Callable[..., dict[str, Any]], *arguments: Any
) -> list[dict[str, Any]]:
    """Call `ask(*arguments)` in several tasks, see `AskTasks`: one per worker, if Spark can run so many at once.

    Raises the SparkcnnError that a task raised, or HostError if tasks fail in another way.
    """
    from pipelines.spark.cluster import task_slots
    from pipelines.spark.tasks import run_on_partitions

    count = max(min(settings.workers or DEFAULT_TASKS, task_slots(spark) or DEFAULT_TASKS), 1)
    with _explain_task_failures():
        return run_on_partitions(spark.range(count, numPartitions=count).toDF("task"), _Asking(ask, arguments))


@contextmanager
def _explain_task_failures() -> Iterator[None]:
    """Turn Spark's exception for a failed job into a HostError that says why."""
    from py4j.protocol import Py4JJavaError
    from pyspark.errors import PySparkException

    from pipelines.spark.session import root_cause

    try:
        yield
    except (PySparkException, Py4JJavaError, SourceError) as error:
        cause = re.sub(r"^(\w+\.)+(?=[A-Z])", "", root_cause(error)).rstrip(".")
        advice = "look into the executors' logs"
        if "No module named" in cause:
            advice = "make the executors' Python like the driver's; --py-files sends sparkcnn to them"
        elif "PYTHON_VERSION_MISMATCH" in cause:
            advice = "set spark.pyspark.python to the same version"
        raise HostError(f"tasks fail: {cause}; {advice}") from error


class _Asking:
    """The work of one task: a call. The task adds its host to the answer."""

    def __init__(self, ask: Callable[..., dict[str, Any]], arguments: tuple[Any, ...]) -> None:
        self._ask = ask
        self._arguments = arguments

    def __call__(self, batches: "Iterable[pa.RecordBatch]", task: int, attempt: int) -> dict[str, Any]:
        for _ in batches:
            pass
        return {**self._ask(*self._arguments), "host": socket.gethostname()}


def _versions() -> dict[str, Any]:
    from cnnlib.sealed.frozen.images import readable_formats

    versions: dict[str, str | None] = dict.fromkeys(SHARED)
    for name in SHARED:
        with suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    versions["formats of images"] = ", ".join(name for name in readable_formats() if name in _FORMATS) or "no more"
    return {"python": platform.python_version(), "versions": versions}
