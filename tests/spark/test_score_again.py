"""Score only new images, run after run, into the same predictions."""

import hashlib
import json
import shutil
from pathlib import Path

import mlflow
import pandas as pd
import pytest
from pyspark.sql import SparkSession

from cnnlib.config import PredictionSettings, PredictionsOutputSettings, ScoreInputSettings
from cnnlib.errors import ConfigError, OutputExistsError
from pipelines.score.flow import score
from pipelines.tracking.registry import fetch_model
from pipelines.tracking.store import connect
from tests.conftest import TEST_DIGITS, write_photos
from tests.spark.conftest import Trained
from tests.spark.test_score import rows_of, settings


@pytest.mark.main_path
def test_incremental_score_takes_only_new_files(spark: SparkSession, trained: Trained, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    shutil.copytree(write_photos(tmp_path / "classes", per_class=4) / "dark", photos)
    asked = PredictionSettings(mode="incremental", top_k=3)
    every_night = settings(
        trained, tmp_path / "out", input=ScoreInputSettings(path=str(photos), format="image_folder"), score=asked
    )
    first = score(spark, every_night)
    assert first.counts == {"rows": 4, "scored": 4, "failed": 0, "skipped": 0}
    before = rows_of(first).sort_values("path", ignore_index=True)
    assert before.path.tolist() == ["000.png", "001.jpg", "002.png", "003.jpg"]
    assert [len(labels) for labels in before.top_labels] == [3] * 4

    (photos / "002.png").rename(photos / "renamed.png")
    shutil.copy(tmp_path / "classes/light/001.jpg", photos / "004.jpg")
    (photos / "005.jpg").write_bytes(b"no image")
    failing = every_night.model_copy(update={"score": asked.model_copy(update={"max_failed_fraction": 0.5})})
    second = score(spark, failing)
    assert second.counts == {"rows": 6, "scored": 1, "failed": 1, "skipped": 4}
    after = rows_of(second).sort_values("path", ignore_index=True)
    assert after.path.tolist() == [*before.path, "004.jpg", "005.jpg"]
    # pandas reads labels as floats if one of them is null.
    pd.testing.assert_frame_equal(after[:4], before, check_dtype=False)
    assert json.loads(Path(second.path, "summary.json").read_text())["counts"] == second.counts

    third = score(spark, failing)
    assert third.counts == {"rows": 6, "scored": 0, "failed": 0, "skipped": 6}
    pd.testing.assert_frame_equal(rows_of(third).sort_values("path", ignore_index=True), after)


def test_new_version_scores_again_when_asked(spark: SparkSession, trained: Trained, tmp_path: Path) -> None:
    connect(trained.tracking)
    client = mlflow.MlflowClient()
    champion = client.get_model_version_by_alias("digits", "champion")
    folder = fetch_model("models:/digits@champion", tmp_path / "model").folder
    with mlflow.start_run(run_id=champion.run_id):
        other = retrained(folder, tmp_path / "other")
        mlflow.log_artifacts(str(other), "other")
    uri = f"runs:/{champion.run_id}/other"

    incremental = PredictionSettings(mode="incremental")
    first = score(spark, settings(trained, tmp_path / "out", score=incremental))
    skipped = score(spark, settings(trained, tmp_path / "out", uri, score=incremental))
    assert skipped.counts["skipped"] == TEST_DIGITS
    again = incremental.model_copy(update={"rescore": True})
    rescored = score(spark, settings(trained, tmp_path / "out", uri, score=again))
    assert rescored.counts == {"rows": TEST_DIGITS, "scored": TEST_DIGITS, "failed": 0, "skipped": 0}
    assert rows_of(rescored).groupby("model_sha256").size().to_dict() == {
        first.model.sha256: TEST_DIGITS,
        rescored.model.sha256: TEST_DIGITS,
    }


def retrained(folder: Path, to: Path) -> Path:
    """Copy a sealed model to another folder with slightly larger weights."""
    import keras

    shutil.copytree(folder, to)
    file = to / "artifacts/sealed/model.keras"
    model = keras.saving.load_model(file)
    model.set_weights([weights * 1.01 for weights in model.get_weights()])
    model.save(file)
    card = to / "artifacts/sealed/model.json"
    content = json.loads(card.read_text()) | {"model_sha256": hashlib.sha256(file.read_bytes()).hexdigest()}
    card.write_text(json.dumps(content))
    return to


def test_predictions_with_other_columns_are_not_mixed(spark: SparkSession, trained: Trained, tmp_path: Path) -> None:
    first = score(spark, settings(trained, tmp_path / "out"))
    asked = PredictionSettings(mode="incremental", probabilities=True)
    with pytest.raises(
        OutputExistsError, match="columns image_id, .*, but this job would write .*, probabilities; ask"
    ):
        score(spark, settings(trained, tmp_path / "out", score=asked))
    assert len(rows_of(first)) == TEST_DIGITS


def test_incremental_with_overwrite_is_refused(spark: SparkSession, trained: Trained, tmp_path: Path) -> None:
    asked = settings(trained, tmp_path / "out", score=PredictionSettings(mode="incremental"))
    both = PredictionsOutputSettings(path=str(tmp_path / "out"), overwrite=True)
    with pytest.raises(ConfigError, match="choose one of them"):
        score(spark, asked.model_copy(update={"output": both}))
