"""Run a test module as a script in another process, which does not use the Spark session of the other tests."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


def run(module: str, folder: Path) -> dict[str, Any]:
    """Run `tests.spark.{module}`, and return the JSON of the last line that it prints."""
    done = subprocess.run(
        [sys.executable, "-m", f"tests.spark.{module}", str(folder)],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr[-5000:]
    return json.loads(done.stdout.splitlines()[-1])


def environment() -> dict[str, str]:
    """Return the environment of this process without what other tests left in it: their Spark master and experiment."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(("PYSPARK_", "SPARK_", "MLFLOW_"))}
    return own | {"SPARK_SUBMIT_OPTS": os.environ["SPARK_SUBMIT_OPTS"]}
