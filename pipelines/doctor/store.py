"""Checks of the MLflow store, from the driver and from tasks: the workers of a training write to it themselves."""

from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from cnnlib.config import DoctorSettings
from cnnlib.errors import TrackingError
from pipelines.doctor.examination import AskTasks, NotChecked, Problem, on_hosts

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def check_store(settings: DoctorSettings) -> str:
    """Check that the store answers. Writes no run."""
    from pipelines.tracking.store import examine_store

    uri, found = examine_store(settings.tracking)
    return f"{uri}: {found}"


def check_store_from_tasks(spark: "SparkSession", ask_tasks: AskTasks, settings: DoctorSettings) -> str:
    """Check that workers reach the store."""
    if not settings.train.workers:
        raise NotChecked("train.workers=0, so only the driver writes to it")
    from pipelines.spark.cluster import store_problem
    from pipelines.tracking.store import CONNECT_SECONDS, reach_store

    try:
        uri = reach_store(settings.tracking)
    except TrackingError as error:
        raise NotChecked("the store does not answer here, see above") from error
    problem = store_problem(spark, uri)
    if problem:
        raise Problem("", problem)
    scheme = urlsplit(uri).scheme
    if scheme in ("sqlite", "file", ""):
        return "a file on this machine, where the workers are too"
    if scheme not in ("http", "https"):
        raise NotChecked(f"only MLflow itself can speak to a store of {scheme}:")
    answers = ask_tasks(_reach, uri, CONNECT_SECONDS)
    for answer in answers:
        if answer["problem"]:
            raise Problem(
                "", f"{answer['host']} cannot reach {uri} ({answer['problem']}); let the workers' hosts connect to it"
            )
    return f"reached by {on_hosts(answers)}"


def _reach(uri: str, timeout_s: float) -> dict[str, Any]:
    from pipelines.tracking.store import ask_server

    return {"problem": ask_server(uri, timeout_s)}
