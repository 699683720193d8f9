"""End `sparkcnn train` on workers by Ctrl-C and by SIGKILL: none of its processes stays behind."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import mlflow
import numpy as np
import psutil
import pytest

from tests.spark.own_process import environment
from tests.unit.image_sets import write_image_set

ROOT = Path(__file__).parents[2]
TIMEOUT_S = 120.0


@pytest.fixture
def training(tmp_path: Path) -> Iterator[subprocess.Popen]:
    """A training on two workers that would take hours. It starts, and its first epoch is already in the store."""
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (600, 16, 16, 1), dtype=np.uint8)
    splits = ["train"] * 400 + ["val"] * 200
    write_image_set(tmp_path / "set", images, [0, 1] * 300, splits, classes=("a", "b"))
    (tmp_path / "temporary").mkdir()
    arguments = ["--data.path", "set", "--train.workers", "2", "--train.epochs", "100000", "--train.patience", "0"]
    with open(tmp_path / "log", "w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "jobs.sparkcnn", "train", *arguments, "--train.worker_batch_size", "16"],
            cwd=tmp_path,
            env=environment() | {"TMPDIR": str(tmp_path / "temporary")},
            stdout=log,
            stderr=log,
            # The process leads a process group, as a command in a terminal does.
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + TIMEOUT_S
        while not list(tmp_path.glob("mlartifacts/*/artifacts/checkpoints/epoch-0001/state.json")):
            assert process.poll() is None, (tmp_path / "log").read_text()
            assert time.monotonic() < deadline, (tmp_path / "log").read_text()
            time.sleep(0.1)
        yield process
    finally:
        process.kill()
        process.wait()


def command_of(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return ""


def family(process: subprocess.Popen) -> list[psutil.Process]:
    """Return all processes that a training has started, among them a JVM and two ranks."""
    children = psutil.Process(process.pid).children(recursive=True)
    commands = [command_of(child) for child in children]
    assert sum("-m pipelines.train.workers.rank" in command for command in commands) == 2, commands
    assert any("java" in command for command in commands), commands
    return children


def status_of_run(folder: Path) -> str:
    client = mlflow.MlflowClient(f"sqlite:///{folder}/mlflow.db")
    (run,) = client.search_runs([client.get_experiment_by_name("sparkcnn").experiment_id])
    return run.info.status


def test_ctrl_c_ends_every_process(training: subprocess.Popen, tmp_path: Path) -> None:
    children = family(training)
    # A terminal sends the signal to the whole group.
    os.killpg(training.pid, signal.SIGINT)
    assert training.wait(TIMEOUT_S) == 130, (tmp_path / "log").read_text()
    assert psutil.wait_procs(children, TIMEOUT_S)[1] == []
    assert status_of_run(tmp_path) == "KILLED"
    log = (tmp_path / "log").read_text()
    assert log.splitlines()[-1] == "sparkcnn train: interrupted; nothing unfinished was published"
    assert "Traceback" not in log
    assert [path.name for path in (tmp_path / "temporary").glob("*sparkcnn*")] == []


def test_killed_driver_leaves_no_process(training: subprocess.Popen, tmp_path: Path) -> None:
    children = family(training)
    training.kill()
    assert psutil.wait_procs(children, TIMEOUT_S)[1] == []
    # The killed driver could not end the run. --train.resume auto finds it.
    assert status_of_run(tmp_path) == "RUNNING"
