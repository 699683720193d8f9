"""Scorings that are killed, and the predictions that they leave behind; see test_killed_scoring.py.

As a script, this kills Python workers and executors of its own session, and prints one line of JSON.
"""

import json
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb

from cnnlib.config import ScoreSettings
from pipelines.score.flow import score
from pipelines.spark.progress import Advance, Progress
from pipelines.spark.session import spark_session
from tests.spark import own_process
from tests.spark.killed_workers import ends_under_kills

KILLS_OF_WORKERS = 10

# Each scoring is forked from a server that has imported everything already, but has no JVM. So it starts at once.
_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["tests.spark.killed_scoring"])


class Announced(Progress):
    """Sets an event when the tasks of a scoring begin. A kill before that cannot harm predictions."""

    def __init__(self, begun: Any) -> None:
        super().__init__()
        self._begun = begun

    @contextmanager
    def step(self, title: str) -> Iterator[Advance]:
        self._begun.set()
        with super().step(title) as advance:
            yield advance


def _score(settings: ScoreSettings, go: Any, begun: Any) -> None:
    os.setsid()
    for name in os.environ.keys() - own_process.environment():
        del os.environ[name]
    with spark_session("killed scoring", **{"spark.ui.enabled": "false"}) as spark:
        go.wait()
        score(spark, settings, Announced(begun))


class Scoring:
    """A scoring in its own processes: a driver, its JVM and its Python workers. It starts its JVM, and then waits."""

    def __init__(self, settings: ScoreSettings) -> None:
        self._go, self._begun = _context.Event(), _context.Event()
        self._process = _context.Process(target=_score, args=(settings, self._go, self._begun), daemon=True)
        self._process.start()

    def _begin(self) -> None:
        self._go.set()
        assert self._begun.wait(120)
        self._start = time.monotonic()

    def seconds(self) -> float:
        """Let it run to its end, and return the seconds since its first task began."""
        self._begin()
        self._process.join(120)
        assert self._process.exitcode == 0
        return time.monotonic() - self._start

    def kill_after(self, seconds: float) -> None:
        """Let it run, and kill all its processes at once, this many seconds after its first task began."""
        self._begin()
        self._process.join(seconds)
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.join()


def one_ahead(settings: Iterable[ScoreSettings]) -> Iterator[Scoring]:
    """Yield one scoring per element of `settings`. While it runs, the next scoring already starts its JVM."""
    ready = None
    for one in settings:
        following = Scoring(one)
        if ready is not None:
            yield ready
        ready = following
    if ready is not None:
        yield ready


def left_by(output: Path) -> tuple[list[str], int]:
    """Return the image paths of the published predictions, and the number of scorings that wrote them.

    Fails if a file that summary.json names is missing or incomplete, or if the counts differ from the rows.
    """
    summary = json.loads((output / "summary.json").read_text())
    files = [str(output / file["path"]) for file in summary["files"]]
    (paths, scorings, rows) = duckdb.sql(
        f"SELECT list(path), count(DISTINCT scored_at), count(*) FROM read_parquet({files!r})"
    ).fetchall()[0]
    assert rows == sum(file["rows"] for file in summary["files"])
    return sorted(paths), scorings


def main(folder: Path) -> dict[str, object]:
    os.environ["SPARK_LOCAL_IP"] = "127.0.0.1"
    spark = spark_session(**{"spark.master": "local-cluster[2,1,1024]", "spark.ui.enabled": "false"})
    pair = [ScoreSettings.model_validate(one) for one in json.loads((folder / "settings.json").read_text())]
    output = Path(pair[0].output.path)
    expected = []
    for settings in pair:
        score(spark, settings)
        expected.append(left_by(output))
    begin = time.monotonic()
    score(spark, pair[0])
    seconds = time.monotonic() - begin
    ends, hits, whole = [], 0, []
    runs = ends_under_kills(lambda number: score(spark, pair[(number + 1) % 2]), KILLS_OF_WORKERS, seconds, seed=1)
    for end, hit in runs:
        ends.append(end)
        hits += hit
        whole.append(left_by(output) in expected)
    score(spark, pair[1])
    named = {file["path"] for file in json.loads((output / "summary.json").read_text())["files"]}
    left = {path.relative_to(output).as_posix() for path in output.rglob("*.parquet")}
    spark.stop()
    return {
        "ends": ends,
        "hits": hits,
        "whole": whole,
        "last is right": left_by(output) == expected[1],
        "left behind": sorted(left - named),
    }


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]))))
