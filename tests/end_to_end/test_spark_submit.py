"""Run the jobs by spark-submit with a wheel of the project, on this machine and on a cluster of two executors.

The Python of the tasks has the pinned packages, but not this project. So tasks can import it only from the wheel.
"""

import json
import os
import re
import shlex
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import write_photos

ROOT = Path(__file__).parents[2]
CLUSTER = "local-cluster[2,1,2048]"

Submit = Callable[..., subprocess.CompletedProcess]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    # Copy the files that git lists, so that the build writes nothing here and packs no ignored file.
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, check=True)
    for name in listed.stdout.decode().splitlines():
        if (ROOT / name).is_file():
            (folder / "source" / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / "source" / name).write_bytes((ROOT / name).read_bytes())
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*build, "--wheel-dir", str(folder), str(folder / "source")], check=True)
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def python_without_project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with the packages of this one, but without the editable install of the project."""
    folder = tmp_path_factory.mktemp("python") / "venv"
    venv.create(folder, with_pip=False)
    python = folder / "bin" / "python"
    # Python adds the folder that a .pth file names, but ignores .pth files in it. An editable install is such a file.
    own = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], capture_output=True, text=True
    )
    Path(own.stdout.strip(), "packages.pth").write_text(sysconfig.get_path("purelib"))
    without = subprocess.run([python, "-c", "import pyspark, cnnlib"], cwd=folder, capture_output=True, text=True)
    assert "No module named 'cnnlib'" in without.stderr
    return python


@pytest.fixture(scope="module")
def submit(wheel: Path, python_without_project: Path, tmp_path_factory: pytest.TempPathFactory) -> Submit:
    folder = tmp_path_factory.mktemp("submit")

    def run(master: str, job: str, *arguments: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            [
                Path(sysconfig.get_path("scripts"), "spark-submit"),
                *("--master", master, "--py-files", str(wheel)),
                str(ROOT / "jobs" / f"{job}.py"),
                *arguments,
            ],
            cwd=folder,
            env=os.environ | {"PYSPARK_PYTHON": str(python_without_project), "SPARK_LOCAL_IP": "127.0.0.1"},
            capture_output=True,
            text=True,
            timeout=400,
        )

    run.folder = folder
    return run


def test_command_of_the_readme(submit: Submit) -> None:
    (command,) = re.findall(
        r"^```sh\n(spark-submit .*?)^```", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL
    )
    words = shlex.split(command.replace("\\\n", "").replace("/shared", str(submit.folder)))
    assert words[:5:2] == ["spark-submit", "spark://HOST:7077", "dist/sparkcnn-0.1.0-py3-none-any.whl"]
    write_photos(submit.folder / "photos", per_class=10)
    done = submit(CLUSTER, Path(words[5]).stem, *words[6:])
    assert done.returncode == 0, done.stderr
    assert "20 found = 20 kept + 0 duplicate + 0 rejected" in done.stdout
    assert json.loads((submit.folder / "sets/photos/dataset.json").read_text())["image"]["height"] == 96


def test_three_jobs_here_and_on_two_executors(submit: Submit, digits_idx: Path) -> None:
    ingest = ("ingest", "--source.format", "idx", "--source.path", str(digits_idx), "--output.path", "set")
    done = submit("local[*]", *ingest)
    assert done.returncode == 0, done.stderr
    assert json.loads((submit.folder / "set" / "dataset.json").read_text())["counts"]["kept"] == 800

    refused = submit("local[*]", *ingest, "--split.val_fraction", "0.3")
    assert refused.returncode == 2
    # spark-submit moves the standard error of a Python driver to its standard output.
    assert "made with split.val_fraction=0.1, not 0.3" in refused.stdout

    train = ("train", "--data.path", "set", "--train.epochs", "1", "--register.name", "digits")
    done = submit("local[*]", *train)
    assert done.returncode == 0, done.stderr
    assert "digits version 1, alias champion" in done.stdout

    workers = ("--train.workers", "2", "--train.worker_batch_size", "64", "--tracking.experiment", "workers")
    done = submit(CLUSTER, *train, *workers)
    assert done.returncode == 0, done.stderr
    assert "digits version 2, alias champion" in done.stdout

    score = ("score", "--model", "models:/digits@champion", "--input.path", "set", "--output.path", "predictions")
    done = submit(CLUSTER, *score)
    assert done.returncode == 0, done.stderr
    summary = json.loads((submit.folder / "predictions" / "summary.json").read_text())
    assert summary["counts"] == {"rows": 200, "scored": 200, "failed": 0}
