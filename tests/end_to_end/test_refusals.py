"""Mistakes at the real command line: each gives one clear line and exit status 2, and changes nothing."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

SPARKCNN = Path(sys.executable).parent / "sparkcnn"
# The JVM itself prints this line, and no setting of Spark can prevent that.
JVM_LINE = "WARNING: Using incubator modules"


def refusal(folder: Path, *arguments: str, **environment: str) -> str:
    """Run sparkcnn, assert that it refuses, and return the only line that it prints."""
    done = subprocess.run(
        [SPARKCNN, *arguments],
        cwd=folder,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    (line,) = [line for line in done.stderr.splitlines() if not line.startswith(JVM_LINE)]
    return line


def test_taken_port_is_named(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        (tmp_path / "spark-defaults.conf").write_text(f"spark.driver.port {port}\nspark.port.maxRetries 0\n")
        arguments = ("ingest", "--source.format", "mnist", "--output.path", "set")
        line = refusal(tmp_path, *arguments, SPARK_CONF_DIR=str(tmp_path))
    assert line.startswith("sparkcnn ingest: Spark did not start: java.net.BindException")
    assert str(port) in line
    assert not (tmp_path / "set").exists()


def test_missing_java_is_named(tmp_path: Path) -> None:
    arguments = ("ingest", "--source.format", "mnist", "--output.path", "set")
    line = refusal(tmp_path, *arguments, JAVA_HOME=str(tmp_path / "nowhere"))
    assert line.startswith("sparkcnn ingest: Java 17 or newer is needed, but JAVA_HOME=")


@pytest.mark.main_path
def test_unknown_setting_gives_the_nearest(tmp_path: Path) -> None:
    line = refusal(tmp_path, "train", "--data.path", "set", "--train.epoch", "3")
    assert line == "sparkcnn train: unrecognized arguments: --train.epoch 3; did you mean train.epochs?"
