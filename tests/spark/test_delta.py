"""Delta tables are read by Delta Lake itself: rows that were deleted or rewritten do not come back."""

import shutil
import subprocess
from pathlib import Path

import pyspark
import pytest

from tests.spark.own_process import run

# The Delta Lake of each Spark: (Scala, version).
DELTA = {"3.5": ("2.12", "3.3.2"), "4.0": ("2.13", "4.0.1"), "4.1": ("2.13", "4.1.0")}
SPARK = ".".join(pyspark.__version__.split(".")[:2])


@pytest.mark.skipif(shutil.which("mvn") is None, reason="without Maven there are no jars of Delta Lake")
@pytest.mark.skipif(SPARK not in DELTA, reason="no Delta Lake is known for this Spark")
def test_delta_table_has_its_rows_of_today(tmp_path: Path) -> None:
    scala, version = DELTA[SPARK]
    for name in (f"delta-spark_{scala}", "delta-storage"):
        copy = ["mvn", "-q", "-B", "dependency:copy", f"-Dartifact=io.delta:{name}:{version}"]
        subprocess.run([*copy, f"-DoutputDirectory={tmp_path / 'jars'}"], cwd=tmp_path, check=True, timeout=300)
    found = run("delta_tables", tmp_path)
    changed = {"bright": 1, "dark": 4, "light": 5}
    assert found == {"as written": {"dark": 6, "light": 6}, "after changes": changed, "by name": changed}
