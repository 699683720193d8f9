"""The one place that builds a SparkSession, and what depends on which kind it is."""

import atexit
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import cast
from weakref import WeakKeyDictionary

from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import SparkSession

import cnnlib
from cnnlib import errors
from cnnlib.errors import HostError, SourceError, SparkcnnError
from pipelines.spark.prerequisites import java_problem

# Rows in an Arrow batch between the JVM and Python: enough to make the way there cheap, few enough for large images.
ROWS_PER_ARROW_BATCH = 256

# Names of folders that executors have, by what they belong to: an application, or a session of Spark Connect.
_SHIPPED: WeakKeyDictionary[object, set[str]] = WeakKeyDictionary()

# `pipelines.class_archive` makes it. Java refuses that of another Java or of another Spark, and starts as without one.
CLASS_ARCHIVE = Path(sys.prefix) / "share" / "sparkcnn" / "spark-classes.jsa"

INTERRUPT_ON_CANCEL = "spark.job.interruptOnCancel"

_SESSION_DEFAULTS = {"spark.sql.session.timeZone": "UTC"}


def spark_session(app_name: str = "sparkcnn", **options: str) -> SparkSession:
    """Give the active session (a notebook's, say), or build one.

    `options` are Spark settings (dots as in Spark's own names). Where SPARK_REMOTE names a Spark Connect server, the
    session is one of its, and the project must be installed there. Without a master from spark-submit or the options,
    Spark runs in this process on all cores, on the loopback interface only.

    Raises HostError where Java is missing or too old, or Spark cannot start (a port or folder not to be had).
    """
    active = SparkSession.getActiveSession()
    if active is not None:
        return active
    over_connect = "SPARK_REMOTE" in os.environ and "spark.master" not in options
    problem = "" if over_connect else java_problem()
    if problem:
        raise HostError(problem)
    # Workers must be this very Python: another one would lack the project, or differ in a version.
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    os.environ.setdefault("PYSPARK_DRIVER_PYTHON", sys.executable)
    builder = SparkSession.builder.appName(app_name)
    defaults = _SESSION_DEFAULTS if over_connect else _defaults(options)
    for name, value in (defaults | options).items():
        builder = builder.config(name, value)
    try:
        session = builder.getOrCreate()
    except Exception as error:
        raise HostError(f"Spark did not start: {root_cause(error)}") from error
    if is_classic(session):
        session.sparkContext.setLogLevel("ERROR")
        _ship_own_wheel(session)
    return session


def is_classic(spark: SparkSession) -> bool:
    """Whether a session has a JVM of its own to speak to; under Spark Connect it has none."""
    return hasattr(spark, "_jsparkSession")


@contextmanager
def job_session(app_name: str) -> Iterator[SparkSession]:
    """Give a job its session, and stop it at the end unless it was there before, as in a notebook."""
    given = SparkSession.getActiveSession()
    session = spark_session(app_name)
    try:
        yield session
    finally:
        if given is None:
            session.stop()


def _defaults(options: dict[str, str]) -> dict[str, str]:
    submitted = "PYSPARK_GATEWAY_PORT" in os.environ
    if "spark.master" in options or submitted:
        return _SESSION_DEFAULTS
    log_settings = files("pipelines.spark").joinpath("log4j2.properties")
    os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
    return _SESSION_DEFAULTS | {
        "spark.master": "local[*]",
        "spark.driver.memory": "2g",
        "spark.driver.host": "127.0.0.1",
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.driver.extraJavaOptions": f"-Dlog4j2.configurationFile={log_settings} {_java_options()}",
    }


def _java_options() -> str:
    """For jobs of seconds or minutes, in which the JVM mostly plans: its threads would take the images' cores."""
    given = " ".join(os.environ.get(name, "") for name in ("JAVA_TOOL_OPTIONS", "JDK_JAVA_OPTIONS"))
    # Two collectors, and Java does not start.
    collector = "" if re.search(r"-XX:\+Use\w+GC", given) else " -XX:+UseSerialGC"
    return f"-XX:TieredStopAtLevel=1{collector} {class_archive_options()}"


def class_archive_options(archive: Path = CLASS_ARCHIVE) -> str:
    """What Java is to be given in order to map an archive of Spark's classes; "" where there is none."""
    if not archive.is_file():
        return ""
    # One that it refuses is no reason for a warning at each start.
    return f'"-XX:SharedArchiveFile={archive}" -Xlog:cds=off -Xlog:cds+dynamic=off'


def _ship_own_wheel(session: SparkSession) -> None:
    """Give the workers this project where spark-submit was given it as a wheel.

    `--py-files` takes a wheel to the driver, but Spark's workers import from .zip, .egg and .jar alone.
    """
    wheel = Path(cnnlib.__file__).parents[1]
    if wheel.suffix != ".whl":
        return
    session.sparkContext.addPyFile(shutil.copy(wheel, f"{_folder_until_exit()}/sparkcnn.zip"))


def ship_folder(spark: SparkSession, folder: Path, name: str) -> str:
    """Send a folder to every executor, once a session. Gives the name under which `SparkFiles.get` finds it there."""
    shipped = _SHIPPED.setdefault(spark.sparkContext if is_classic(spark) else spark, set())
    if name not in shipped:
        archive = shutil.make_archive(f"{_folder_until_exit()}/{name}", "zip", folder)
        if is_classic(spark):
            spark.sparkContext.addArchive(archive)
        else:
            spark.addArtifacts(archive, archive=True)
        shipped.add(name)
    return f"{name}.zip"


@contextmanager
def with_settings(spark: SparkSession, settings: dict[str, str]) -> Iterator[None]:
    """Run the body's queries with Spark SQL settings in whatever session the caller has, and put them back."""
    before = {name: spark.conf.get(name, None) for name in settings}
    for name, value in settings.items():
        spark.conf.set(name, value)
    try:
        yield
    finally:
        for name, earlier in before.items():
            if earlier is None:
                spark.conf.unset(name)
            else:
                spark.conf.set(name, earlier)


def _folder_until_exit() -> str:
    """A folder for files that executors fetch when they start, and that may be at any time until this process ends."""
    folder = tempfile.mkdtemp(prefix="sparkcnn-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


@contextmanager
def _without_interrupts(spark: SparkSession) -> Iterator[None]:
    """Have tasks of this thread's jobs cancelled without an interrupt; their Python workers end within 4 s then.

    An interrupt that meets a task which is starting its Python worker makes Spark 4 restart the daemon of all workers,
    and tasks of the next job that have one already find a "Broken pipe".
    """
    # Spark 4 sets the job's property for a query, unless it is told not to; then what the caller has set holds.
    with with_settings(spark, {"spark.sql.execution.interruptOnCancel": "false"}):
        if not is_classic(spark):
            yield
            return
        before = spark.sparkContext.getLocalProperty(INTERRUPT_ON_CANCEL)
        spark.sparkContext.setLocalProperty(INTERRUPT_ON_CANCEL, "false")
        try:
            yield
        finally:
            spark.sparkContext.setLocalProperty(INTERRUPT_ON_CANCEL, cast(str, before))  # None removes it


@contextmanager
def user_errors_from_tasks(spark: SparkSession) -> Iterator[None]:
    """Turn a SparkcnnError that a Python worker raised back into that error, without Spark's stack traces.

    Spark hands a worker's exception on as text only.
    """
    try:
        with _without_interrupts(spark):
            yield
    except (PySparkException, Py4JJavaError) as error:
        # A sealed model raises the errors of the code that travels with it.
        match = re.search(r"(?:cnnlib(?:\.sealed\.frozen)?|sparkcnn_sealed_\w+)\.errors\.(\w+): (.+)", str(error))
        kind = getattr(errors, match.group(1), None) if match else None
        if match and kind and issubclass(kind, SparkcnnError):
            raise kind(match.group(2).strip()) from error
        if isinstance(error, Py4JJavaError):
            raise SourceError(f"Spark could not read its input: {root_cause(error)}") from error
        raise


def root_cause(error: BaseException) -> str:
    """The line of Spark's stack traces that says what went wrong in the first place."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    causes = [line for line in lines if "Exception:" in line or "Error:" in line]
    return (causes or lines or [type(error).__name__])[-1].lstrip(": ")
