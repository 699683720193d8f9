"""The README's commands, as they stand there, on a few dozen photographs."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import duckdb
import pytest
from pyspark.sql import SparkSession

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
    """As after `. .venv/bin/activate`, and no MLflow server set."""
    bin_folder = Path(sys.executable).parent
    unset = {name: value for name, value in os.environ.items() if name != "MLFLOW_TRACKING_URI"}
    return unset | {"PATH": f"{bin_folder}{os.pathsep}{os.environ['PATH']}"}


@pytest.mark.slow
def test_commands_work_one_after_the_other(folder: Path, environment: dict[str, str]) -> None:
    commands = [line for block in blocks("bash") for line in block.splitlines() if line]
    assert [command.split()[1] for command in commands] == [
        *("ingest", "train", "score", "score"),
        *("ingest", "train"),
        *("evaluate", "promote"),
    ]
    for command in commands:
        done = subprocess.run(
            command, shell=True, cwd=folder, env=environment, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    assert json.loads((folder / "sets/photos/dataset.json").read_text())["counts"]["kept"] == 120
    assert json.loads((folder / "all_predictions/summary.json").read_text())["counts"]["scored"] == 120
    assert "│ now    │ version 2 " in done.stdout
    assert (folder / "mlflow.db").exists()
    for query in blocks("sql")[0].splitlines():
        rows = duckdb.sql(query.replace("'", f"'{folder}/", 1)).fetchall()
        assert len(rows) == 2


def test_python_works(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    write_photos(tmp_path / "photos", per_class=10)
    monkeypatch.chdir(tmp_path)
    (python,) = blocks("python")
    exec(python, {})
    assert capsys.readouterr().out == "Counts(found=20, kept=20, duplicate=0, rejected=0)\n"


def test_every_make_target_named_exists() -> None:
    makefile = (Path(__file__).parents[2] / "Makefile").read_text()
    named = set(re.findall(r"make ([a-z]+)\b", README))
    assert {"demo", "test"} <= named
    assert named <= set(re.findall(r"^([a-z]+):", makefile, re.MULTILINE))
