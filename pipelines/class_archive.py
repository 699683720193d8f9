"""Spark's classes in a file that Java maps, for a local session to start sooner: `python -m pipelines.class_archive`.

Half of what a short local job takes is Java reading and checking the classes of Spark. An archive of them ("class data
sharing", written by -XX:ArchiveClassesAtExit) lies in the Python environment, beside the Spark that it is of: 180 MB.
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
from pipelines.spark.session import CLASS_ARCHIVE, spark_session

_LOAD_CLASSES = "--load-classes"


def make_archive(archive: Path = CLASS_ARCHIVE) -> None:
    """Run a small ingest, and have its Java write the classes that it has loaded. An earlier archive is replaced.

    Raises HostError where there is no fitting Java, or the folder or that Java does not allow it.
    """
    problem = java_problem()
    if problem:
        raise HostError(problem)
    try:
        archive.parent.mkdir(parents=True, exist_ok=True)
        # In the same folder, from which it can be moved as a whole.
        with tempfile.TemporaryDirectory(dir=archive.parent) as folder:
            _written_at_exit(Path(folder) / archive.name).replace(archive)
    except OSError as error:
        raise HostError(f"the archive of Spark's classes cannot be written: {error}") from error


def _written_at_exit(archive: Path) -> Path:
    given = os.environ.get("SPARK_SUBMIT_OPTS", "")
    # Java writes it after Python has ended, and only then lets go of what it was given for its output.
    ended = subprocess.run(
        [sys.executable, "-m", "pipelines.class_archive", _LOAD_CLASSES],
        env={**os.environ, "SPARK_SUBMIT_OPTS": f'{given} "-XX:ArchiveClassesAtExit={archive}"'},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if ended.returncode or not archive.is_file():
        last = (ended.stdout.strip().splitlines() or ["without a word"])[-1]
        raise HostError(f"Java has not written the archive of Spark's classes: {last}")
    return archive


def _load_classes() -> None:
    """An ingest of two images that a CSV names: what it uses of Spark, most jobs do."""
    os.environ["SPARK_LOCAL_IP"] = "127.0.0.1"
    # With a master of its own it takes no archive: to one that is in use, Java cannot add.
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
    """Make the archive, and give the exit status."""
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
