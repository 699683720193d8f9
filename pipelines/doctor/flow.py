"""Everything that a training needs, checked before it: this machine, Spark, its network, and what is read and written.

What may be missing or broken is imported by the checks that need it.
"""

import importlib
import os
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from cnnlib.config import DoctorSettings
from pipelines.doctor import machine
from pipelines.doctor.examination import Examination, NotChecked

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

MACHINE, PACKAGES, SPARK, DATA = "machine", "packages", "Spark", "data"
JOB_GROUP = "sparkcnn-doctor"


def examine(settings: DoctorSettings, on_check: Callable[[str], Any] = lambda what: None) -> Examination:
    """Run every check, each within `timeout_s`, and give what was found. Leaves nothing behind.

    Uses the active Spark session where there is one; else starts one, and stops it. `on_check` is told of each check
    before it runs.
    """
    return _Doctor(settings, on_check).examine()


class _Doctor:
    def __init__(self, settings: DoctorSettings, on_check: Callable[[str], Any]) -> None:
        self._settings = settings
        self._on_check = on_check
        self._spark: SparkSession | None = None
        self._tasks_fail = False
        self._examination = Examination(settings.timeout_s, self._cancel_jobs)

    def examine(self) -> Examination:
        given = self._spark = _active_session()
        try:
            self._examine_machine()
            self._examine_packages()
            self._examine_spark()
            self._examine_data()
        finally:
            if self._spark is not None and self._spark is not given:
                with suppress(Exception):
                    self._examination.within_time("the end of Spark", self._spark.stop)
        return self._examination

    def _examine_machine(self) -> None:
        self._check(MACHINE, "Python", machine.check_python)
        if self._spark is None and "SPARK_REMOTE" not in os.environ:
            self._check(MACHINE, "Java", machine.check_java)

    def _examine_packages(self) -> None:
        for requirement in machine.requirements():
            name = machine.requirement_name(requirement)
            self._check(PACKAGES, name, partial(machine.check_requirement, requirement))
        self._check(PACKAGES, "TensorFlow", partial(machine.check_tensorflow, 0.9 * self._settings.timeout_s))
        self._check(PACKAGES, "petastorm feed", machine.check_petastorm)

    def _examine_spark(self) -> None:
        train = self._settings.train
        self._check(SPARK, "Spark", self._start_spark)
        self._check(SPARK, "tasks", lambda: _checks("cluster").check_tasks(self._ask_tasks))
        self._tasks_fail = "tasks" in self._examination.problems
        self._check(SPARK, "task slots", lambda: _checks("cluster").check_slots(self._session(), train))
        self._check(SPARK, "GPUs", lambda: _checks("cluster").check_gpus(self._session(), train))
        self._check(SPARK, "network", lambda: _checks("cluster").check_network(self._session_for_tasks(), train))

    def _examine_data(self) -> None:
        settings, ask = self._settings, self._ask_tasks
        self._check(DATA, "image set", lambda: _checks("data").check_image_set(settings))
        self._check(DATA, "image files", lambda: _checks("data").check_files(settings))
        self._check(DATA, "files from tasks", lambda: _checks("data").check_files_from_tasks(ask, settings))
        self._check(DATA, "MLflow store", lambda: _checks("store").check_store(settings))
        self._check(
            DATA, "store from tasks", lambda: _checks("store").check_store_from_tasks(self._session(), ask, settings)
        )
        self._check(DATA, "output path", lambda: _checks("data").check_output(ask, settings))

    def _check(self, part: str, what: str, check: Callable[[], str]) -> None:
        self._on_check(what)
        self._examination.check(part, what, check)

    def _start_spark(self) -> str:
        from pipelines.spark.session import spark_session

        if self._spark is None:
            self._spark = spark_session("sparkcnn doctor")
        return _checks("cluster").check_session(self._spark)

    def _ask_tasks(self, *call: Any) -> list[dict[str, Any]]:
        return _checks("cluster").ask_tasks(self._session_for_tasks(), self._settings.train, *call)

    def _session(self) -> "SparkSession":
        """The session, for a check whose jobs can be cancelled."""
        if self._spark is None:
            raise NotChecked("Spark did not start, see above")
        from pipelines.spark.session import is_classic

        if is_classic(self._spark):
            # Of this thread, which is the check's own.
            self._spark.sparkContext.setJobGroup(JOB_GROUP, "sparkcnn doctor", interruptOnCancel=True)
        else:
            self._spark.addTag(JOB_GROUP)
        return self._spark

    def _session_for_tasks(self) -> "SparkSession":
        if self._tasks_fail:
            raise NotChecked("Spark's tasks do not run as they should, see above")
        return self._session()

    def _cancel_jobs(self) -> None:
        if self._spark is None:
            return
        from pipelines.spark.session import is_classic

        with suppress(Exception):
            if is_classic(self._spark):
                self._spark.sparkContext.cancelJobGroup(JOB_GROUP)
            else:
                self._spark.interruptTag(JOB_GROUP)


def _active_session() -> "SparkSession | None":
    with suppress(Exception):
        from pyspark.sql import SparkSession

        return SparkSession.getActiveSession()
    return None


def _checks(of: str) -> Any:
    return importlib.import_module(f"pipelines.doctor.{of}")
