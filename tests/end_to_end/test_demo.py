"""`sparkcnn demo`, as `make demo` runs it, on all of MNIST."""

import re
import sys
from pathlib import Path

import psutil

from tests.spark.own_process import environment

MOST_BYTES = 3_000_000_000


def peak_of_python_processes(parent: psutil.Process, peaks: dict[int, int]) -> None:
    """Update `peaks`, the peak resident bytes by process id, for the Python processes from `parent` downwards."""
    for process in [parent, *parent.children(recursive=True)]:
        try:
            if "python" in process.name():
                peaks[process.pid] = max(peaks.get(process.pid, 0), process.memory_info().rss)
        except psutil.NoSuchProcess:
            continue


def test_demo_reaches_its_accuracy_within_its_memory(tmp_path: Path) -> None:
    command = [Path(sys.executable).parent / "sparkcnn", "demo"]
    peaks: dict[int, int] = {}
    with (
        open(tmp_path / "out", "w+") as out,
        open(tmp_path / "err", "w+") as err,
        psutil.Popen(command, cwd=tmp_path, env=environment(), stdout=out, stderr=err) as demo,
    ):
        while demo.poll() is None:
            peak_of_python_processes(demo, peaks)
            try:
                demo.wait(timeout=0.5)
            except psutil.TimeoutExpired:
                continue
    text, errors = (tmp_path / "out").read_text(), (tmp_path / "err").read_text()
    assert demo.returncode == 0, errors
    (accuracy,) = re.findall(r"test accuracy\s*│ ([\d.]+)", text)
    assert float(accuracy) >= 0.985
    assert "70,000 found = 70,000 kept + 0 duplicate + 0 rejected" in text
    assert "10,000 rows = 10,000 scored + 0 failed" in text
    assert "mnist-lenet version 1, alias champion" in text
    assert "mlflow ui --backend-store-uri sqlite:///mlflow.db --port 5000" in text
    # These are the driver and at least two Python workers that have imported TensorFlow.
    assert len(peaks) >= 3
    assert max(peaks.values()) < MOST_BYTES
    # Standard error has only this project's progress, two lines of MLflow, and the JVM's warning.
    expected = re.compile(
        r"^(ingest|train|score|epoch) |^Successfully registered|^Created version|^WARNING: Using incub"
    )
    assert [line for line in errors.splitlines() if not expected.match(line)] == []
