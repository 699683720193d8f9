"""What a job tells: a live bar in a terminal, plain lines elsewhere."""

import io
import time

import pytest
from pyspark.sql import SparkSession
from rich.console import Console

from pipelines.spark import progress as module
from pipelines.spark.progress import Progress, spark_tasks


def test_plain_lines_say_what_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SECONDS_BETWEEN_LINES", 0.0)
    told = io.StringIO()
    with Progress(Console(file=told)).step("train") as advance:
        advance(1, 2000, "steps")
        advance(2000, 2000, "steps [epoch 1/3]")
    first, *steps, last = told.getvalue().splitlines()
    assert first == "train …"
    assert steps == ["train: 1/2,000 steps (0 s)", "train: 2,000/2,000 steps [epoch 1/3] (0 s)"]
    assert last.startswith("train: done in 0.")


def test_lines_come_seldom(monkeypatch: pytest.MonkeyPatch) -> None:
    told = io.StringIO()
    with Progress(Console(file=told)).step("train") as advance:
        for done in range(1000):
            advance(done, 1000, "steps")
    assert len(told.getvalue().splitlines()) == 2


def test_terminal_shows_a_bar_and_keeps_the_last_line() -> None:
    told = io.StringIO()
    with Progress(Console(file=told, force_terminal=True, width=100, highlight=False)).step("train") as advance:
        advance(433, 1293, "steps")
    assert "433/1,293 steps" in told.getvalue()
    assert "train: done in 0." in told.getvalue().splitlines()[-1]


def test_spark_tasks_are_counted_while_they_run(spark: SparkSession, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SECONDS_BETWEEN_LINES", 0.0)
    monkeypatch.setattr(module, "SECONDS_BETWEEN_LOOKS", 0.05)
    told = io.StringIO()

    def slow(batches):
        time.sleep(0.3)
        yield from batches

    with spark_tasks(Progress(Console(file=told)), spark, "ingest"):
        spark.range(0, 6, 1, 6).mapInArrow(slow, "id long").collect()
    assert "/6 tasks" in told.getvalue()


def test_line_of_a_failed_step_is_not_told_as_done() -> None:
    told = io.StringIO()
    with pytest.raises(RuntimeError), Progress(Console(file=told)).step("train"):
        raise RuntimeError
    assert "done" not in told.getvalue()
