"""Ctrl-C during an ingest: one line, and nothing is left behind."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from tests.conftest import write_photos

SPARKCNN = Path(sys.executable).parent / "sparkcnn"
# The JVM prints this at its start, and no setting of Spark can prevent that.
JVM_LINE = "WARNING: Using incubator modules"


def test_ctrl_c_ends_with_one_line(tmp_path: Path) -> None:
    write_photos(tmp_path / "photos", per_class=1500, side=400)
    size = ("--image.height", "64", "--image.width", "64")
    command = [SPARKCNN, "ingest", "--source.format", "image_folder", "--source.path", "photos", *size]
    with subprocess.Popen(
        [*command, "--output.path", "set"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as job:
        assert job.stderr is not None
        said = []
        for line in job.stderr:
            said.append(line)
            # The tasks are at work.
            if "/3,000 images" in line:
                os.killpg(job.pid, signal.SIGINT)
                break
        said += job.stderr.read().splitlines(keepends=True)
        assert job.wait(60) == 130
    lines = [line for line in said if not line.startswith(JVM_LINE)]
    assert lines[0] == "ingest 3,000 images …\n"
    assert all(line.startswith("ingest 3,000 images: ") for line in lines[1:-1]), lines
    assert lines[-1] == "sparkcnn ingest: interrupted; nothing unfinished was published\n"
    assert not (tmp_path / "set").exists()
