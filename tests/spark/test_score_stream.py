"""Score a folder that grows: each file exactly once, even if a job dies."""

import os
import shutil
from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from cnnlib.config import PredictionSettings, ScoreInputSettings, ScoreSettings
from cnnlib.errors import ConfigError, OutputExistsError
from pipelines.score import flow as module
from pipelines.score.flow import score
from tests.conftest import write_photos
from tests.spark.conftest import Trained
from tests.spark.test_score import rows_of, settings


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder with four photos and a text file. One of the photos is in a subfolder."""
    folder = tmp_path / "photos [new]"
    shutil.copytree(write_photos(tmp_path / "classes", per_class=8) / "dark", folder)
    for number in range(4, 8):
        next(folder.glob(f"00{number}.*")).unlink()
    (folder / "later").mkdir()
    (folder / "001.jpg").rename(folder / "later" / "001.JPG")
    (folder / "notes.txt").write_text("no image")
    return folder


def asked(trained: Trained, photos: Path, output: Path, **more: object) -> ScoreSettings:
    source = ScoreInputSettings(path=str(photos), format="image_folder")
    return settings(trained, output, input=source, score=PredictionSettings(mode="stream", **more))


@pytest.mark.main_path
def test_each_file_is_scored_once(spark: SparkSession, trained: Trained, photos: Path, tmp_path: Path) -> None:
    every_night = asked(trained, photos, tmp_path / "out", max_failed_fraction=0.5)
    first = score(spark, every_night)
    assert first.counts == {"rows": 4, "scored": 4, "failed": 0}
    assert sorted(rows_of(first).path) == ["000.png", "002.png", "003.jpg", "later/001.JPG"]

    nothing = score(spark, every_night)
    assert nothing.counts == {"rows": 0, "scored": 0, "failed": 0}
    assert sorted(rows_of(nothing).path) == sorted(rows_of(first).path)

    # Files are told apart by name: the same content under another name is a new file.
    shutil.copy(photos / "000.png", photos / "later" / "004.png")
    (photos / "005.jpg").write_bytes(b"no image")
    third = score(spark, every_night)
    assert third.counts == {"rows": 2, "scored": 1, "failed": 1}
    rows = rows_of(third).sort_values("path", ignore_index=True)
    assert rows.path.tolist() == ["000.png", "002.png", "003.jpg", "005.jpg", "later/001.JPG", "later/004.png"]
    assert rows.error.notna().tolist() == [False, False, False, True, False, False]
    assert rows.scored_at.nunique() == 2


@pytest.mark.parametrize("published", [False, True])
def test_job_killed_at_its_commit_scores_each_file_once(
    spark: SparkSession,
    trained: Trained,
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    published: bool,
) -> None:
    every_night = asked(trained, photos, tmp_path / "out")
    whole = module.publish_predictions

    def die(*arguments: object) -> None:
        if published:
            whole(*arguments)
        raise MemoryError("of all times now")

    with monkeypatch.context() as patch:
        patch.setattr(module, "publish_predictions", die)
        with pytest.raises(MemoryError, match="of all times now"):
            score(spark, every_night)
    again = score(spark, every_night)
    assert again.counts["rows"] == (0 if published else 4)
    assert sorted(rows_of(again).path) == ["000.png", "002.png", "003.jpg", "later/001.JPG"]
    # A later file is not mistaken for the repeated batch.
    shutil.copy(photos / "000.png", photos / "004.png")
    assert score(spark, every_night).counts["rows"] == 1


def test_rescore_reads_each_file_again_once(
    spark: SparkSession, trained: Trained, photos: Path, tmp_path: Path
) -> None:
    score(spark, asked(trained, photos, tmp_path / "out"))
    again = asked(trained, photos, tmp_path / "out", rescore=True)
    assert score(spark, again).counts == {"rows": 4, "scored": 0, "failed": 0, "skipped": 4}
    shutil.copy(tmp_path / "classes/light/001.jpg", photos)
    assert score(spark, again).counts == {"rows": 1, "scored": 1, "failed": 0, "skipped": 0}


def test_stream_refuses_missing_predictions(
    spark: SparkSession, trained: Trained, photos: Path, tmp_path: Path
) -> None:
    every_night = asked(trained, photos, tmp_path / "out")
    score(spark, every_night)
    shutil.rmtree(tmp_path / "out")
    with pytest.raises(OutputExistsError, match="has files whose predictions are not at output.path"):
        score(spark, every_night)
    elsewhere = asked(trained, photos, tmp_path / "out", checkpoint=str(tmp_path / "anew"))
    assert score(spark, elsewhere).counts["rows"] == 4


def test_stream_scores_a_file_with_an_older_date(
    spark: SparkSession, trained: Trained, photos: Path, tmp_path: Path
) -> None:
    every_night = asked(trained, photos, tmp_path / "out")
    score(spark, every_night)
    # mv, cp -p and rsync keep old modification times like this.
    shutil.copy(photos / "000.png", photos / "old.png")
    os.utime(photos / "old.png", (1e9, 1e9))
    assert score(spark, every_night).counts["rows"] == 1


def test_image_scored_by_another_stream_gets_one_row(
    spark: SparkSession, trained: Trained, photos: Path, tmp_path: Path
) -> None:
    every_night = asked(trained, photos, tmp_path / "out")
    score(spark, every_night)
    shutil.copy(tmp_path / "classes/light/001.jpg", photos / "new.jpg")
    score(spark, asked(trained, photos, tmp_path / "out", rescore=True))
    assert score(spark, every_night).counts == {"rows": 1, "scored": 0, "failed": 0, "skipped": 1}
    assert len(rows_of(score(spark, every_night))) == 5


def test_stream_refuses_overwritten_predictions(
    spark: SparkSession, trained: Trained, photos: Path, tmp_path: Path
) -> None:
    every_night = asked(trained, photos, tmp_path / "out")
    score(spark, every_night)
    (photos / "000.png").unlink()
    whole = settings(trained, tmp_path / "out", input=every_night.input)
    score(spark, whole.model_copy(update={"output": whole.output.model_copy(update={"overwrite": True})}))
    with pytest.raises(OutputExistsError, match="has files whose predictions are not at output.path"):
        score(spark, every_night)


def test_stream_needs_a_folder(spark: SparkSession, trained: Trained, tmp_path: Path) -> None:
    of_a_set = settings(trained, tmp_path / "out", score=PredictionSettings(mode="stream"))
    with pytest.raises(
        ConfigError, match="received input.format=image_set and .*; use input.format=image_folder and a path"
    ):
        score(spark, of_a_set)
