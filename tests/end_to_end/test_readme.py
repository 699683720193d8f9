"""Run the commands of the README, word for word, on a few dozen photographs."""

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import duckdb
import pytest
from mlflow import MlflowClient
from pyspark.sql import SparkSession

from jobs import sparkcnn
from tests.conftest import write_photos

README = (Path(__file__).parents[2] / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder with `photos/`, as the README assumes."""
    folder = tmp_path_factory.mktemp("readme")
    write_photos(folder / "photos", per_class=60)
    return folder


@pytest.fixture(scope="module")
def environment() -> dict[str, str]:
    """The environment after `. .venv/bin/activate`, without the variable that names an MLflow server."""
    bin_folder = Path(sys.executable).parent
    unset = {name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"}
    return unset | {"PATH": f"{bin_folder}{os.pathsep}{os.environ['PATH']}"}


def test_first_commands_work_in_a_shell(folder: Path, environment: dict[str, str]) -> None:
    """Run ingest, train and score word for word, each in a new process. The next test runs all commands."""
    for command in commands()[:3]:
        done = subprocess.run(
            command, shell=True, cwd=folder, env=environment, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    assert json.loads((folder / "sets/photos/dataset.json").read_text())["counts"]["kept"] == 120
    (summary,) = folder.glob("*/summary.json")
    assert json.loads(summary.read_text())["counts"]["failed"] == 0


@pytest.mark.main_path
def test_commands_work_in_one_process(
    spark: SparkSession,
    tmp_path: Path,
    new_store: Callable[[Path], str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    """Run the same commands, but start Spark and import TensorFlow only once for all of them."""
    write_photos(tmp_path / "photos", per_class=60)
    new_store(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    for command in commands():
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", shlex.split(command))
        assert sparkcnn.main() == 0, f"{command}\n{capsys.readouterr()}"
    check_results(tmp_path, capsys.readouterr().out)


def commands() -> list[str]:
    """Return all commands of the README's bash blocks, in order."""
    found = [line for block in blocks("bash") for line in block.splitlines() if line]
    assert [command.split()[:2] for command in found] == [
        ["sparkcnn", job] for job in ("ingest", "train", "score", "score", "ingest", "train", "evaluate", "promote")
    ]
    return found


def check_results(folder: Path, last_output: str) -> None:
    """Check the files that the commands wrote to their working folder, and the table of the last command."""
    assert json.loads((folder / "sets/photos/dataset.json").read_text())["counts"]["kept"] == 120
    assert json.loads((folder / "all_predictions/summary.json").read_text())["counts"]["scored"] == 120
    assert "│ now    │ version 2 " in last_output
    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    of_versions = [client.get_run(client.get_model_version("photos", version).run_id).data for version in ("1", "2")]
    assert [data.params["train.workers"] for data in of_versions] == ["0", "2"]
    of_ranks = [of_versions[1].metrics[f"rank_{rank}/images_per_second"] for rank in (0, 1)]
    assert sum(of_ranks) == pytest.approx(of_versions[1].metrics["images_per_second"])
    for query in blocks("sql")[0].splitlines():
        rows = duckdb.sql(query.replace("'", f"'{folder}/", 1)).fetchall()
        assert len(rows) == 2


@pytest.mark.main_path
def test_python_example_works(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    write_photos(tmp_path / "photos", per_class=10)
    monkeypatch.chdir(tmp_path)
    (python,) = blocks("python")
    exec(python, {})
    assert capsys.readouterr().out == "Counts(found=20, kept=20, duplicate=0, rejected=0)\n"


@pytest.mark.main_path
def test_every_named_make_target_exists() -> None:
    makefile = (Path(__file__).parents[2] / "Makefile").read_text()
    named = set(re.findall(r"(?:`|^    )make ([a-z-]+)\b", README, re.MULTILINE))
    assert {"demo", "test"} <= named
    assert named <= set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
