"""Kill Python workers and executors during ingests: Spark repeats the tasks, and the set is never a mixture."""

from pathlib import Path

from tests.spark.killed_workers import KILLS
from tests.spark.own_process import run


def test_killed_workers_leave_a_whole_set(tmp_path: Path) -> None:
    result = run("killed_workers", tmp_path)
    assert result["whole"] == [True] * KILLS
    # Early in a job there may be no Python worker to kill yet.
    assert result["hits"] >= KILLS / 2
    assert result["last is right"]
    assert result["left behind"] == []
    # Spark repeats the lost tasks, so most jobs finish.
    assert result["ends"].count("well") >= KILLS / 2
