"""Whether Spark begins the tasks of a job in time: for slots that another job holds, it would wait without end."""

import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from py4j.protocol import Py4JError
from pyspark.sql import Row, SparkSession

from pipelines.spark.session import is_classic

SECONDS_TO_BEGIN = 60.0
_SECONDS_BETWEEN_LOOKS = 1.0


class NotBegunError(Exception):
    """Spark has begun none of a job's tasks in the time it has for that."""


@dataclass
class _Seen:
    """What is known of a job: whether it has begun, and whether something is in its way."""

    begun: threading.Event = field(default_factory=threading.Event)
    hindered: bool = False


@contextmanager
def begun_soon(spark: SparkSession, tag: str, rows: Future[list[Row]]) -> Iterator[None]:
    """Wait, at the body's end, until Spark has begun tasks of the job that has the tag and gives the rows.

    Raises NotBegunError after SECONDS_TO_BEGIN, on classic Spark where other tasks run instead. A Spark Connect
    session does not tell before Spark 4, and nothing is waited for.
    """
    if not is_classic(spark) and not hasattr(spark, "registerProgressHandler"):
        yield
        return
    with _jobs_watched(spark, tag) if is_classic(spark) else _session_watched(spark) as seen:
        yield
        rows.add_done_callback(lambda _: seen.begun.set())
        while not seen.begun.wait(SECONDS_TO_BEGIN):
            if seen.hindered:
                raise NotBegunError


@contextmanager
def _session_watched(session: Any) -> Iterator[_Seen]:
    """Have a session of Spark Connect tell; what is in the way nobody can ask there."""
    seen = _Seen(hindered=True)

    def look(stages: object, inflight_tasks: int, operation_id: object, done: bool) -> None:
        if inflight_tasks or done:
            seen.begun.set()

    session.registerProgressHandler(look)
    try:
        yield seen
    finally:
        session.removeProgressHandler(look)


@contextmanager
def _jobs_watched(spark: SparkSession, tag: str) -> Iterator[_Seen]:
    """Ask Spark in a thread: an interrupt must not meet the main thread in a call to the JVM."""
    seen, over = _Seen(), threading.Event()

    def look() -> None:
        try:
            while not (over.wait(_SECONDS_BETWEEN_LOOKS) or seen.begun.is_set()):
                _look(spark, tag, seen)
        except (Py4JError, OSError, AttributeError):
            return  # Spark has ended, and the job's own thread tells how

    threading.Thread(target=look, name="sparkcnn-start-deadline", daemon=True).start()
    try:
        yield seen
    finally:
        over.set()


def _look(spark: SparkSession, tag: str, seen: _Seen) -> None:
    # What Spark tells of running tasks may be as old as its executors' last heartbeats, some 10 s. So a job is given
    # up for the tasks that do run, not because its own are not seen.
    tracker = spark.sparkContext.statusTracker()
    jobs = [tracker.getJobInfo(job) for job in spark.sparkContext._jsc.sc().statusTracker().getJobIdsForTag(tag)]
    own = {stage for job in jobs if job for stage in job.stageIds}
    infos = {stage: tracker.getStageInfo(stage) for stage in {*own, *tracker.getActiveStageIds()}}
    running = {stage for stage, info in infos.items() if info and info.numActiveTasks}
    if own & running:
        seen.begun.set()
    seen.hindered = bool(running - own)
