"""Python workers and executors that are killed in an ingest: a set is never a mixture, and Spark tries again."""

from pathlib import Path

import pytest

from tests.spark.killed_workers import KILLS
from tests.spark.own_process import run


@pytest.mark.slow
def test_killed_workers_and_executors_leave_a_whole_set_each_time(tmp_path: Path) -> None:
    told = run("killed_workers", tmp_path)
    assert told["whole"] == [True] * KILLS
    # Early in a job there may be no worker yet.
    assert told["hits"] >= KILLS / 2
    assert told["last is right"]
    assert told["left behind"] == []
    # What Spark tries again comes to its end.
    assert told["ends"].count("well") >= KILLS / 2
