"""Spark jobs that an interrupt of the caller ends."""

import secrets
import threading
import warnings
from collections.abc import Callable
from concurrent.futures import Future, wait
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import Any, TypeVar

from pyspark import inheritable_thread_target
from pyspark.sql import SparkSession

from pipelines.spark.session import is_classic

SECONDS_TO_CANCEL = 10.0

Result = TypeVar("Result")

# (tag of the jobs, future of their result) -> a context in which they start. It may wait, and it may raise.
StartWatch = Callable[[str, Future[Any]], AbstractContextManager[object]]


def run_interruptibly(spark: SparkSession, work: Callable[[], Result], start_watch: StartWatch | None = None) -> Result:
    """Run `work`, which starts Spark jobs, in a thread of its own, and return its result.

    If this thread is interrupted, or `start_watch` raises, the jobs are cancelled.

    PySpark answers SIGINT by cancelling all jobs, and that fails if the main thread is in the middle of a call to the
    JVM. Here the main thread never calls the JVM. Spark Connect would let the jobs run on without their client.
    """
    tag = f"sparkcnn-{secrets.token_hex(8)}"
    classic = is_classic(spark)
    result: Future[Result] = Future()

    def run() -> None:
        (spark.sparkContext.addJobTag if classic else spark.addTag)(tag)
        try:
            result.set_result(work())
        except BaseException as error:
            result.set_exception(error)

    with warnings.catch_warnings():
        # The thread inherits job group and pool. Spark warns that tags are not inherited, but this thread sets its own.
        warnings.simplefilter("ignore", UserWarning)
        # Under Spark Connect a thread would inherit only tags.
        target = inheritable_thread_target(run) if classic else run
    try:
        with start_watch(tag, result) if start_watch else nullcontext():
            threading.Thread(target=target, name="sparkcnn-job", daemon=True).start()
        return result.result()
    except BaseException:
        with suppress(Exception):  # the jobs may be over, and Spark with them
            (spark.sparkContext.cancelJobsWithTag if classic else spark.interruptTag)(tag)
        wait([result], SECONDS_TO_CANCEL)
        raise
