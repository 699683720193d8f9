"""A user id without a name, as containers have it: Java, Hadoop and Spark work all the same."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cnnlib.image_set.contract import open_image_set
from tests.conftest import write_photos
from tests.spark.own_process import ROOT, environment

# The Python may lie in a folder of root's, so the process may read everything.
AS_NAMELESS = ["setpriv", "--reuid", "54321", "--regid", "54321", "--clear-groups", "--inh-caps=+dac_read_search"]
AS_NAMELESS += ["--ambient-caps=+dac_read_search"]


@pytest.mark.skipif(os.getuid() != 0 or shutil.which("setpriv") is None, reason="only root can become another user")
def test_nameless_user_ingests(tmp_path: Path) -> None:
    write_photos(tmp_path / "photos", per_class=2)
    (tmp_path / "out").mkdir()
    (tmp_path / "out").chmod(0o777)
    # The folders above are those of pytest, which only root may enter.
    command = [*AS_NAMELESS, sys.executable, "-m", "jobs.sparkcnn", "ingest", "--source.format", "image_folder"]
    command += ["--source.path", str(tmp_path / "photos"), "--output.path", str(tmp_path / "out" / "set")]
    command += ["--image.height", "8", "--image.width", "8"]
    own = {name: value for name, value in environment().items() if name not in ("HOME", "USER", "LOGNAME")}
    done = subprocess.run(command, cwd=ROOT, env=own, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "Exception" not in done.stderr
    assert open_image_set(str(tmp_path / "out" / "set")).counts.kept == 4
