"""Checks of the MLflow store: from here, and by a training's workers, which write to it themselves."""

from typing import Any
from urllib.parse import urlsplit

import requests
from pyspark.sql import SparkSession

from cnnlib.config import DoctorSettings
from cnnlib.errors import TrackingError
from pipelines.doctor.examination import AskTasks, NotChecked, Problem, on_hosts
from pipelines.spark.cluster import store_problem
from pipelines.tracking.store import CONNECT_SECONDS, examine_store, reach_store


def check_store(settings: DoctorSettings) -> str:
    """Whether the store answers. No run is written."""
    uri, found = examine_store(settings.tracking)
    return f"{uri}: {found}"


def check_store_from_tasks(spark: SparkSession, ask_tasks: AskTasks, settings: DoctorSettings) -> str:
    """Whether workers reach the store."""
    if not settings.train.workers:
        raise NotChecked("train.workers=0, and the driver alone writes to it")
    try:
        uri = reach_store(settings.tracking)
    except TrackingError as error:
        raise NotChecked("it does not answer here, see above") from error
    problem = store_problem(spark, uri)
    if problem:
        raise Problem("", problem)
    scheme = urlsplit(uri).scheme
    if scheme in ("sqlite", "file", ""):
        return "a file on this machine, where the workers are too"
    if scheme not in ("http", "https"):
        raise NotChecked(f"{scheme} is spoken by MLflow alone")
    answers = ask_tasks(_reach, uri)
    for answer in answers:
        if answer["problem"]:
            raise Problem("", f"{answer['host']} cannot reach {uri} ({answer['problem']}); open the way to it")
    return f"reached by {on_hosts(answers)}"


def _reach(uri: str) -> dict[str, Any]:
    try:
        requests.get(f"{uri.rstrip('/')}/health", timeout=CONNECT_SECONDS)
    except requests.RequestException as error:
        return {"problem": type(error).__name__}
    return {"problem": ""}
