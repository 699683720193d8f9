"""Running a module of the tests in a process of its own, whose session is not the one that the others share."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


def run(module: str, folder: Path) -> dict[str, Any]:
    """What `tests.spark.{module}` prints, as its last line, of JSON."""
    done = subprocess.run(
        [sys.executable, "-m", f"tests.spark.{module}", str(folder)],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-5000:]
    return json.loads(done.stdout.splitlines()[-1])


def environment() -> dict[str, str]:
    """That of this process, without what other tests have left there: the master of their session, their experiment."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(("PYSPARK_", "SPARK_", "MLFLOW_"))}
    return own | {"SPARK_SUBMIT_OPTS": os.environ["SPARK_SUBMIT_OPTS"]}
