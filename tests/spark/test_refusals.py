"""What a user can get wrong about paths: one clear line, exit status 2, and nothing changed."""

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
    """Run a job in an empty working folder, which must refuse, and give the one line that it says."""
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
    assert line == "sparkcnn ingest: source.path=nowhere is not a folder that can be read; check the path"
    assert list(tmp_path.iterdir()) == []


def test_output_below_a_file(refusal: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("")
    line = refusal(ingest.main, "--source.format", "mnist", "--output.path", "mine/set")
    assert line.startswith(f"sparkcnn ingest: output.path={tmp_path}/mine/set cannot be written (Not a directory)")


def test_output_with_files_of_somebody_else(refusal: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years")
    line = refusal(ingest.main, "--source.format", "mnist", "--output.path", "mine", "--output.overwrite", "true")
    assert "holds files that are not ours, such as thesis.txt" in line
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years"


def test_missing_image_set(refusal: Callable[..., str], tmp_path: Path) -> None:
    line = refusal(train.main, "--data.path", "nowhere")
    assert line.startswith(f"sparkcnn train: {tmp_path}/nowhere is not an image set: it has no dataset.json")
    assert list(tmp_path.iterdir()) == []


def test_store_in_a_folder_that_is_not_there(refusal: Callable[..., str], tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path}/nowhere/mlflow.db"
    line = refusal(score.main, "--model", "models:/a@b", "--output.path", "out", "--tracking.uri", uri)
    assert (
        line
        == f"sparkcnn score: tracking.uri={uri} cannot be used: {tmp_path}/nowhere is no folder that can be written"
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
        ("http://[nowhere", "is no URI: Invalid IPv6 URL"),
        ("mysterious://store", "mysterious"),
    ],
)
def test_store_that_cannot_be_opened(refusal: Callable[..., str], tmp_path: Path, uri: str, says: str) -> None:
    uri = f"{uri}{tmp_path}" if uri.endswith("///") else uri
    line = refusal(score.main, "--model", "models:/a@b", "--output.path", "out", "--tracking.uri", uri)
    assert line.startswith(f"sparkcnn score: tracking.uri={uri} ")
    assert says.format(folder=tmp_path) in line


def test_model_that_a_new_store_does_not_have(refusal: Callable[..., str], tmp_path: Path) -> None:
    # MLflow makes the store in some fifty steps, and would tell of each.
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    line = refusal(score.main, "--model", "models:/a@b", "--output.path", "out", "--tracking.uri", uri)
    assert line.startswith(f"sparkcnn score: model=models:/a@b cannot be had from {uri}: ")
