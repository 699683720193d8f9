"""Kill the driver of an ingest: the old or the new set stays complete, and the next run removes the rest.

tests/spark/test_killed_workers.py kills Python workers.
"""

import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from cnnlib.image_set.contract import open_image_set
from tests.conftest import write_photos
from tests.spark.ingests import is_whole

KILLS = 10
# The job prints this line before it decodes the first image. A kill before that cannot harm a set.
STARTED = "ingest "


def command(source: Path, output: Path) -> list[str]:
    return [
        *(sys.executable, "-m", "jobs.sparkcnn", "ingest", "--source.format", "image_folder"),
        *("--source.path", str(source), "--output.path", str(output), "--output.overwrite", "true"),
        *("--image.height", "64", "--image.width", "64", "--split.stratify", "true", "--output.row_group_mb", "0.1"),
    ]


def start(arguments: list[str]) -> tuple[subprocess.Popen[str], threading.Event]:
    """Start an ingest in its own process group. The event is set when its tasks begin."""
    process = subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True, start_new_session=True)
    started = threading.Event()

    def read() -> None:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith(STARTED):
                started.set()
        started.set()

    threading.Thread(target=read, daemon=True).start()
    return process, started


def test_killed_driver_leaves_a_whole_set(tmp_path: Path) -> None:
    first = write_photos(tmp_path / "first", per_class=60)
    second = shutil.copytree(first, tmp_path / "second")
    for number in range(30):
        (second / "dark" / f"{number:03d}.{'jpg' if number % 2 else 'png'}").unlink()
    output = tmp_path / "set"
    fingerprints = []
    for source in (second, first):
        begin = time.monotonic()
        process, started = start(command(source, output))
        started.wait()
        until_tasks = time.monotonic() - begin
        assert process.wait() == 0
        seconds = time.monotonic() - begin - until_tasks
        fingerprints.append(open_image_set(str(output)).fingerprint)
    chance = random.Random(4)
    found = []
    for number in range(KILLS):
        process, started = start(command((first, second)[number % 2], output))
        started.wait()
        # The kill comes before the end of the job: mostly before its commit, and sometimes after.
        time.sleep(chance.uniform(0, 0.8 * seconds))
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        image_set = open_image_set(str(output))
        found.append(image_set.fingerprint)
        assert image_set.fingerprint in fingerprints
        assert is_whole(image_set)
    process, _ = start(command(first, output))
    assert process.wait() == 0
    image_set = open_image_set(str(output))
    files = [file.path for split in image_set.splits.values() for file in split.files]
    files += [file.path for file in (*image_set.rejects, *image_set.ledger, *image_set.source_files)]
    left = {path.relative_to(output).as_posix() for path in output.rglob("*") if path.is_file()}
    assert left == {*files, "dataset.json", "report.html"}
    # The kills prove something only if enough of them came before the commit.
    assert sum(before == after for before, after in zip([fingerprints[-1], *found], found, strict=False)) >= KILLS / 3
