"""A job in a thread of its own: its result, its errors, and its end when the caller gives up."""

import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager

import pytest

from pipelines.spark import interruptible_job
from pipelines.spark.interruptible_job import run_interruptibly


class FakeConnectSession:
    """A Spark Connect session that records tags. An interrupt ends the jobs that wait for `ended`."""

    def __init__(self) -> None:
        self.tags: dict[str, str] = {}
        self.interrupted: list[str] = []
        self.ended = threading.Event()

    def addTag(self, tag: str) -> None:
        self.tags[threading.current_thread().name] = tag

    def interruptTag(self, tag: str) -> None:
        self.interrupted.append(tag)
        self.ended.set()


class GaveUp(BaseException):
    """Stands for KeyboardInterrupt, which would end pytest if a test failed."""


def test_work_runs_in_a_tagged_thread_and_gives_its_result() -> None:
    spark = FakeConnectSession()
    assert run_interruptibly(spark, lambda: threading.current_thread().name) == "sparkcnn-job"
    assert list(spark.tags) == ["sparkcnn-job"]
    assert spark.interrupted == []


def test_error_of_the_work_reaches_the_caller() -> None:
    def fail() -> None:
        raise ValueError("no such column")

    with pytest.raises(ValueError, match="no such column"):
        run_interruptibly(FakeConnectSession(), fail)


def test_caller_that_gives_up_ends_the_jobs_and_waits_for_them() -> None:
    spark = FakeConnectSession()
    ended: list[bool] = []

    def work() -> None:
        ended.append(spark.ended.wait(10))

    @contextmanager
    def give_up(tag: str, result: Future) -> Iterator[None]:
        yield
        raise GaveUp

    with pytest.raises(GaveUp):
        run_interruptibly(spark, work, give_up)
    assert spark.interrupted == [spark.tags["sparkcnn-job"]]
    assert ended == [True]


def test_jobs_that_do_not_end_are_not_waited_for_forever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interruptible_job, "SECONDS_TO_CANCEL", 0.1)
    never = threading.Event()

    @contextmanager
    def give_up(tag: str, result: Future) -> Iterator[None]:
        yield
        raise GaveUp

    with pytest.raises(GaveUp):
        run_interruptibly(FakeConnectSession(), never.wait, give_up)
    never.set()
