"""Make the archive of Spark's classes that lets local sessions start sooner: `python -m pipelines.class_archive`.

Java spends half the time of a short local job on reading and checking the classes of Spark. So it maps a file that has
them in their final form ("class data sharing", written by -XX:ArchiveClassesAtExit). The file has 180 MB and lies in
the Python environment, beside the Spark that it was made for.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from cnnlib.config import IngestSettings
from cnnlib.errors import HostError, SparkcnnError
from cnnlib.sealed.frozen.images import encode_png
from pipelines.ingest.flow import ingest
from pipelines.spark.prerequisites import java_problem
from pipelines.spark.session import CLASS_ARCHIVE, quoted, spark_session

_LOAD_CLASSES = "--load-classes"


def make_archive(archive: Path = CLASS_ARCHIVE) -> None:
    """Run a small ingest, let its Java write the classes that it loaded, and replace an earlier archive.

    Raises HostError if there is no suitable Java, if it cannot write an archive, or if the folder cannot be written.
    """
    problem = java_problem()
    if problem:
        raise HostError(problem)
    try:
        archive.parent.mkdir(parents=True, exist_ok=True)
        # On the same disk, so that the finished file is moved in one step.
        with tempfile.TemporaryDirectory(dir=archive.parent) as folder:
            temporary = Path(folder) / archive.name
            _write_archive(temporary)
            temporary.replace(archive)
    except OSError as error:
        raise HostError(f"the archive of Spark's classes cannot be written: {error}") from error


def _write_archive(archive: Path) -> None:
    """Run this module in another process. Its Java writes the archive when it exits."""
    given = os.environ.get("SPARK_SUBMIT_OPTS", "")
    # Java writes the archive after Python has ended. `run` waits for that, because Java keeps the output open.
    ended = subprocess.run(
        [sys.executable, "-m", "pipelines.class_archive", _LOAD_CLASSES],
        env={**os.environ, "SPARK_SUBMIT_OPTS": f"{given} {quoted(f'-XX:ArchiveClassesAtExit={archive}')}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if ended.returncode or not archive.is_file():
        last = (ended.stdout.strip().splitlines() or ["it wrote no message"])[-1]
        raise HostError(f"Java did not write the archive of Spark's classes: {last}")


def _load_classes() -> None:
    """Ingest two images that a CSV file lists: it loads the classes of Spark that most jobs use."""
    os.environ["SPARK_LOCAL_IP"] = "127.0.0.1"
    # A session with a master of its own maps no archive. Java could not add classes to an archive that it maps.
    spark = spark_session("sparkcnn class archive", **{"spark.master": "local[2]", "spark.ui.enabled": "false"})
    with tempfile.TemporaryDirectory(prefix="sparkcnn-") as name:
        folder = Path(name)
        for level in (0, 255):
            (folder / f"{level}.png").write_bytes(encode_png(np.full((8, 8, 3), level, np.uint8)))
        (folder / "images.csv").write_text("path,label\n0.png,black\n255.png,white\n")
        settings = IngestSettings(
            source={"format": "manifest", "path": f"{folder}/images.csv"},
            image={"height": 8, "width": 8},
            output={"path": f"{folder}/set"},
        )
        ingest(spark, settings)
    spark.stop()


def main() -> int:
    """Make the archive and return the exit status."""
    if _LOAD_CLASSES in sys.argv:
        _load_classes()
        return 0
    try:
        make_archive()
    except SparkcnnError as error:
        print(f"class_archive: {error}", file=sys.stderr)
        return error.exit_status
    print(f"{CLASS_ARCHIVE}: {CLASS_ARCHIVE.stat().st_size / 1e6:.0f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
