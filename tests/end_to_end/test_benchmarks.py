"""Run each benchmark at its smallest size: it must succeed, and print every expected row with a figure."""

import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.spark.own_process import ROOT, environment

BENCHMARKS = ROOT / "benchmarks"
# The modules that are no benchmarks themselves, each with a benchmark that uses it.
PARTS = {
    "goals": "feed",
    "idx": "training",
    "ingest_petastorm": "ingest",
    "ingest_ray": "ingest",
    "ingest_ways": "ingest",
    "photographs": "ingest",
    "processes": "memory",
    "ray_data": "ingest",
    "scoring_subjects": "scoring",
    "scoring_ways": "scoring",
}
# A figure as the tables print it, such as 1,234 or 0.05. Words may follow it in its cell.
FIGURE = r"[\d,]*\d(\.\d+)?"


def run(*command: str) -> str:
    """Run a benchmark as its docstring says, and return its standard output."""
    done = subprocess.run(
        [sys.executable, *command], cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    return done.stdout


def check_rows(printed: str, rows: Sequence[str], figures: int = 1) -> None:
    """Assert that the table has each row, with at least `figures` figures in its cells."""
    for row in rows:
        (line,) = (line for line in printed.splitlines() if re.match(rf"[│|]\s*{re.escape(row)}", line))
        cells = [cell.strip() for cell in line.strip("│|").split("│")][1:]
        found = [cell for cell in cells if re.match(FIGURE, cell)]
        assert len(found) >= figures, line
        assert not any(re.fullmatch(r"0|0\.0+|nan|inf", cell) for cell in found), line


def test_every_module_belongs_to_a_benchmark_that_is_run_here() -> None:
    modules = {path.stem for path in BENCHMARKS.glob("*.py")} - {"__init__"}
    run_here = {"batch_statistics", "feed", "ingest", "memory", "petastorm_tests", "scoring", "training"}
    assert modules == run_here | PARTS.keys()
    assert set(PARTS.values()) <= run_here


def test_training() -> None:
    printed = run(
        *("-m", "benchmarks.training", "--rounds", "1", "--rows", "1500", "--epochs", "2", "--models", "LeNet"),
    )
    ways = ["plain Keras fit", "two such at once", "in the driver", "1 worker of one core", "2 workers of one core"]
    ratios = ["scaling efficiency", "the machine's ceiling", "1 worker over plain", "driver over plain"]
    check_rows(printed, [*ways, *ratios])


def test_feed() -> None:
    printed = run("-m", "benchmarks.feed", "--quick", "--repeats", "1")
    fits = ["LeNet, 12,000 digits", "on arrays", "CPU seconds per epoch, through Parquet", "CPU seconds per epoch, on"]
    feeds = ["28 x 28 raw", "tf.data on arrays", "96 x 96 JPEG", "tf.data on TFRecords"]
    check_rows(printed, [*fits, *feeds], figures=3)
    assert len(re.findall(rf"petastorm, plain\s*│\s*{FIGURE}", printed)) == 2
    assert re.search(r"fraction of an epoch waiting for data\s*│\s*\d", printed)


def test_batch_statistics() -> None:
    printed = run(
        *("-m", "benchmarks.batch_statistics", "--models", "mlp", "mobilenet", "--images", "600", "--epochs", "2"),
    )
    check_rows(printed, ["mobilenet"], figures=5)
    assert "mlp" not in printed


def test_memory() -> None:
    printed = run("-m", "benchmarks.memory", "--models", "lenet", "--batches", "8", "16")
    check_rows(printed, ["lenet"], figures=3)


def test_ingest() -> None:
    printed = run(
        *("-m", "benchmarks.ingest", "--images", "60", "--ceiling-images", "60", "--rounds", "1", "--memory", "2"),
    )
    check_rows(printed, ["ceiling: one process", "ingest, session started", "whole job"], figures=4)
    check_rows(printed, ["petastorm, session started", "Ray Data, server started"], figures=4)
    check_rows(printed, ["MNIST (70,000 IDX), whole job: s"])
    assert re.search(rf"2 images of \d\.\d\d MB: {FIGURE} images/s, largest Python worker {FIGURE} MB", printed)


def test_scoring() -> None:
    printed = run(
        *("-m", "benchmarks.scoring", "--digits", "600", "--photographs", "0", "--large", "10", "--rounds", "1"),
    )
    assert re.search("600 images of 28 x 28, lenet, median of 1", printed)
    assert re.search("10 JPEGs of 1 MB, to 96 x 96, resnet18", printed)
    for way in ("ceiling: one process", "predict_batch_udf", "mlflow.pyfunc.spark_udf", "Ray Data, an actor"):
        assert len(re.findall(rf"│ {re.escape(way)}[^│]*│\s*{FIGURE} │", printed)) == 1, way
    assert len(re.findall(rf"│ sparkcnn score[^│]*│\s*{FIGURE} │", printed)) == 2


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_petastorm_tests() -> None:
    test = "test_parquet_reader.py::test_simple_read"
    printed = run(str(Path("benchmarks", "petastorm_tests.py")), "--tests", test)
    counts = re.findall(r"test_parquet_reader\.py: (\d+) of (\d+) pass", printed)
    assert len(counts) == 2  # one line per profile
    assert all(int(passed) == int(of) > 0 for passed, of in counts)
    assert printed.splitlines()[-1].endswith("; 0 of lts fail on current")
