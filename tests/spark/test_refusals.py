"""Mistakes in paths: each gives one clear line and exit status 2, and changes nothing."""

from collections.abc import Callable
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from cnnlib.quiet import import_tensorflow_quietly
from jobs import ingest, score, train


@pytest.fixture
def refusal(
    spark: SparkSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> Callable[..., str]:
    """Run a job in an empty working folder, assert that it refuses, and return the only line that it prints."""
    monkeypatch.chdir(tmp_path)
    import_tensorflow_quietly()

    def run(job: Callable[[list[str]], int], *arguments: str) -> str:
        assert job(list(arguments)) == 2
        captured = capsys.readouterr()
        (line,) = captured.err.splitlines()
        assert captured.out == ""
        return line

    return run


def test_missing_source(refusal: Callable[..., str], tmp_path: Path) -> None:
    line = refusal(ingest.main, "--source.format", "idx", "--source.path", "nowhere", "--output.path", "set")
    assert line == "sparkcnn ingest: source.path=nowhere does not exist; check the path"
    assert list(tmp_path.iterdir()) == []


def test_output_below_a_file(refusal: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("")
    line = refusal(ingest.main, "--source.format", "mnist", "--output.path", "mine/set")
    assert line.startswith(f"sparkcnn ingest: output.path={tmp_path}/mine/set cannot be written (Not a directory)")


def test_output_with_foreign_files(refusal: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years")
    line = refusal(ingest.main, "--source.format", "mnist", "--output.path", "mine", "--output.overwrite", "true")
    assert "has files that sparkcnn did not write, such as thesis.txt" in line
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years"


def test_missing_image_set(refusal: Callable[..., str], tmp_path: Path) -> None:
    line = refusal(train.main, "--data.path", "nowhere")
    assert line.startswith(f"sparkcnn train: {tmp_path}/nowhere is not an image set: it has no dataset.json")
    assert list(tmp_path.iterdir()) == []


def test_store_in_a_missing_folder(refusal: Callable[..., str], tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path}/nowhere/mlflow.db"
    line = refusal(score.main, "--model", "models:/a@b", "--output.path", "out", "--tracking.uri", uri)
    assert line == (
        f"sparkcnn score: tracking.uri={uri} cannot be used: {tmp_path}/nowhere is not a folder that can be written; "
        "create it, or change its rights"
    )


def test_store_that_is_no_database(refusal: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "notes.db").write_text("years of notes\n" * 100)
    uri = f"sqlite:///{tmp_path}/notes.db"
    line = refusal(score.main, "--model", "models:/a@b", "--output.path", "out", "--tracking.uri", uri)
    assert line.startswith(f"sparkcnn score: tracking.uri={uri} cannot be used: ")
    assert line.endswith("file is not a database")


@pytest.mark.parametrize(
    ("uri", "says"),
    [
        ("sqlite:///", "{folder} is a folder; name a file in it"),
        ("postgresql://127.0.0.1:9/mlflow", "No module named 'psycopg"),
        ("http://[nowhere", "is not a URI: Invalid IPv6 URL"),
        ("mysterious://store", "mysterious"),
    ],
)
def test_store_that_cannot_be_opened(refusal: Callable[..., str], tmp_path: Path, uri: str, says: str) -> None:
    uri = f"{uri}{tmp_path}" if uri.endswith("///") else uri
    line = refusal(score.main, "--model", "models:/a@b", "--output.path", "out", "--tracking.uri", uri)
    assert line.startswith(f"sparkcnn score: tracking.uri={uri} ")
    assert says.format(folder=tmp_path) in line


def test_model_that_is_missing_in_a_new_store(refusal: Callable[..., str], tmp_path: Path) -> None:
    # MLflow creates the store in about fifty steps, and would print a line for each.
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    line = refusal(score.main, "--model", "models:/a@b", "--output.path", "out", "--tracking.uri", uri)
    assert line.startswith(f"sparkcnn score: model=models:/a@b cannot be read from {uri}: ")
