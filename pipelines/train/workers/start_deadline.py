"""A deadline for Spark to start the tasks of a job. If another job holds the task slots, Spark would wait forever."""

import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from py4j.protocol import Py4JError
from pyspark.sql import SparkSession

from pipelines.spark.session import is_classic

SECONDS_TO_START = 60.0
_SECONDS_BETWEEN_LOOKS = 1.0


class NotStartedError(Exception):
    """Spark has started none of a job's tasks before the deadline."""


@dataclass
class _JobState:
    """`started` is set when a task of the job runs. `blocked` says whether other tasks hold the slots."""

    started: threading.Event = field(default_factory=threading.Event)
    blocked: bool = False


@contextmanager
def enforce_start_deadline(spark: SparkSession, tag: str, result: Future[Any]) -> Iterator[None]:
    """Wait after the body, which starts a job with this tag, until Spark runs a task of the job or `result` is there.

    Raises NotStartedError after SECONDS_TO_START, on classic Spark only if other tasks run at that time. A Spark
    Connect session before Spark 4 cannot tell whether tasks have started, so this does not wait there.
    """
    if not is_classic(spark) and not hasattr(spark, "registerProgressHandler"):
        yield
        return
    with _watch_job(spark, tag) if is_classic(spark) else _watch_session(spark) as state:
        yield
        result.add_done_callback(lambda _: state.started.set())
        while not state.started.wait(SECONDS_TO_START):
            if state.blocked:
                raise NotStartedError


@contextmanager
def _watch_session(session: Any) -> Iterator[_JobState]:
    """Let a Spark Connect session report progress. It cannot tell whether other tasks hold the slots, so assume so."""
    state = _JobState(blocked=True)

    def look(stages: object, inflight_tasks: int, operation_id: object, done: bool) -> None:
        if inflight_tasks or done:
            state.started.set()

    session.registerProgressHandler(look)
    try:
        yield state
    finally:
        session.removeProgressHandler(look)


@contextmanager
def _watch_job(spark: SparkSession, tag: str) -> Iterator[_JobState]:
    """Ask Spark in a thread, because an interrupt must not reach the main thread during a call to the JVM."""
    state, over = _JobState(), threading.Event()

    def watch() -> None:
        try:
            while not (over.wait(_SECONDS_BETWEEN_LOOKS) or state.started.is_set()):
                _look(spark, tag, state)
        except (Py4JError, OSError, AttributeError):
            return  # Spark has ended; the thread of the job reports why

    threading.Thread(target=watch, name="sparkcnn-start-deadline", daemon=True).start()
    try:
        yield state
    finally:
        over.set()


def _look(spark: SparkSession, tag: str, state: _JobState) -> None:
    # Spark's numbers of running tasks can be as old as the last heartbeat of the executors, about 10 s. So we give up a
    # job because other tasks run, not because we do not see its own.
    tracker = spark.sparkContext.statusTracker()
    jobs = [tracker.getJobInfo(job) for job in spark.sparkContext._jsc.sc().statusTracker().getJobIdsForTag(tag)]
    own = {stage for job in jobs if job for stage in job.stageIds}
    infos = {stage: tracker.getStageInfo(stage) for stage in {*own, *tracker.getActiveStageIds()}}
    running = {stage for stage, info in infos.items() if info and info.numActiveTasks}
    if own & running:
        state.started.set()
    state.blocked = bool(running - own)
