"""Check everything that a training needs before it starts: this machine, Spark, its network, and the data.

`_Doctor._checks` is the table of all checks. A new check is one function in the module of its kind (`machine`,
`cluster`, `data` or `store`) and one row in the table. The function returns what it found, in words. It raises
`Problem` if that is wrong, and `NotChecked` if it has nothing to look at.

What a check looks at may be missing or broken. So each check imports that in its own body, and the other checks still
run.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from cnnlib.config import DoctorSettings
from pipelines.doctor import cluster, data, machine, store
from pipelines.doctor.examination import Check, Examination, NotChecked

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

MACHINE, PACKAGES, SPARK, DATA = "machine", "packages", "Spark", "data"
TASKS = "tasks"
JOB_GROUP = "sparkcnn-doctor"


def examine(settings: DoctorSettings, on_check: Callable[[str], Any] = lambda name: None) -> Examination:
    """Run every check, each within `timeout_s`, and return the findings. Leave nothing behind.

    Uses the active Spark session if there is one. Otherwise starts a session, and stops it at the end. Calls `on_check`
    with the name of each check before it runs.

    Example:

        examination = examine(DoctorSettings(data={"path": "sets/digits"}, train={"workers": 8}))
        for finding in examination.findings:
            print(finding.name, finding.verdict, finding.found, finding.note)
    """
    return _Doctor(settings, on_check).examine()


class _Doctor:
    """Runs the checks, and holds the Spark session that they use."""

    def __init__(self, settings: DoctorSettings, on_check: Callable[[str], Any]) -> None:
        self._settings = settings
        self._on_check = on_check
        self._spark: SparkSession | None = None
        self._examination = Examination(settings.timeout_s, self._cancel_jobs)

    def _checks(self) -> Iterator[tuple[str, str, Check]]:
        """Yield every check in the order in which they run: (part, name, function)."""
        settings, train = self._settings, self._settings.train
        session, session_for_tasks, ask = self._session, self._session_for_tasks, self._ask_tasks

        yield MACHINE, "Python", machine.check_python
        if self._spark is None and "SPARK_REMOTE" not in os.environ:  # else Spark has its Java already
            yield MACHINE, "Java", machine.check_java

        for requirement in machine.requirements():
            yield PACKAGES, machine.requirement_name(requirement), partial(machine.check_requirement, requirement)
        yield PACKAGES, "TensorFlow", partial(machine.check_tensorflow, 0.9 * settings.timeout_s)
        yield PACKAGES, "petastorm feed", machine.check_petastorm

        yield SPARK, "Spark", lambda: cluster.check_session(self._start_spark())
        yield SPARK, TASKS, lambda: cluster.check_tasks(ask)
        yield SPARK, "task slots", lambda: cluster.check_slots(session(), train)
        yield SPARK, "GPUs", lambda: cluster.check_gpus(session(), train)
        yield SPARK, "network", lambda: cluster.check_network(session_for_tasks(), train)

        yield DATA, "image set", lambda: data.check_image_set(settings)
        yield DATA, "image files", lambda: data.check_files(settings)
        yield DATA, "files from tasks", lambda: data.check_files_from_tasks(ask, settings)
        yield DATA, "MLflow store", lambda: store.check_store(settings)
        yield DATA, "store from tasks", lambda: store.check_store_from_tasks(session(), ask, settings)
        yield DATA, "output path", lambda: data.check_output(ask, settings)

    def examine(self) -> Examination:
        given = self._spark = _active_session()
        try:
            for part, name, check in self._checks():
                self._check(part, name, check)
        finally:
            if self._spark is not None and self._spark is not given:
                with suppress(Exception):
                    self._examination.within_time("the end of Spark", self._spark.stop)
        return self._examination

    def _check(self, part: str, name: str, check: Check) -> None:
        self._on_check(name)
        self._examination.check(part, name, check)

    def _start_spark(self) -> "SparkSession":
        from pipelines.spark.session import spark_session

        if self._spark is None:
            self._spark = spark_session("sparkcnn doctor")
        return self._spark

    def _session(self) -> "SparkSession":
        """Return the session for one check, whose jobs `_cancel_jobs` can cancel from now on."""
        if self._spark is None:
            raise NotChecked("Spark did not start, see above")
        from pipelines.spark.session import is_classic

        if is_classic(self._spark):
            # A job group belongs to a thread, and each check runs in a thread of its own.
            self._spark.sparkContext.setJobGroup(JOB_GROUP, "sparkcnn doctor", interruptOnCancel=True)
        else:
            self._spark.addTag(JOB_GROUP)
        return self._spark

    def _session_for_tasks(self) -> "SparkSession":
        """Return the session for a check that runs tasks. One check says that tasks fail; the later ones skip."""
        if TASKS in self._examination.problems:
            raise NotChecked("Spark's tasks do not run as they should, see above")
        return self._session()

    def _ask_tasks(self, *call: Any) -> list[dict[str, Any]]:
        return cluster.ask_tasks(self._session_for_tasks(), self._settings.train, *call)

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
