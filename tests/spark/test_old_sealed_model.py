"""A model that an older version sealed, registered and then scored with today's code."""

from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
from pyspark.sql import SparkSession

from cnnlib.config import (
    PredictionSettings,
    PredictionsOutputSettings,
    ScoreInputSettings,
    ScoreSettings,
    TrackingSettings,
)
from cnnlib.predictions.contract import Predictions
from cnnlib.sealed.seal import open_sealed
from pipelines.score.flow import score
from pipelines.tracking.registry import fetch_model
from pipelines.tracking.store import connect
from tests.conftest import write_photos
from tests.unit.test_old_sealed_model import OLD_MODEL, PIXELS, PROBABILITIES

PHOTOS_PER_CLASS = 4


@pytest.fixture(scope="module")
def tracking(tmp_path_factory: pytest.TempPathFactory) -> TrackingSettings:
    """A store in which the old model's folder, as MLflow stored it, is version 1 of `old`."""
    store = tmp_path_factory.mktemp("store")
    settings = TrackingSettings(uri=f"sqlite:///{store}/mlflow.db", experiment="old")
    connect(settings)
    client = mlflow.MlflowClient()
    experiment = client.create_experiment("sealed", artifact_location=(store / "artifacts").as_uri())
    run = client.create_run(experiment)
    client.log_artifacts(run.info.run_id, str(OLD_MODEL), "model")
    client.create_registered_model("old")
    client.create_model_version("old", f"{run.info.artifact_uri}/model", run.info.run_id)
    client.set_registered_model_alias("old", "champion", "1")
    return settings


@pytest.fixture(scope="module")
def predictions(
    spark: SparkSession, tracking: TrackingSettings, tmp_path_factory: pytest.TempPathFactory
) -> Predictions:
    folder = tmp_path_factory.mktemp("score")
    images = write_photos(folder / "images", PHOTOS_PER_CLASS)
    (images / "light" / "broken.png").write_bytes(b"no image")
    settings = ScoreSettings(
        model="models:/old@champion",
        input=ScoreInputSettings(format="image_folder", path=str(images)),
        score=PredictionSettings(probabilities=True, max_failed_fraction=0.5),
        output=PredictionsOutputSettings(path=str(folder / "out")),
        tracking=tracking,
    )
    return score(spark, settings)


def test_old_registered_model_gives_its_probabilities(tracking: TrackingSettings, tmp_path: Path) -> None:
    connect(tracking)
    classifier = open_sealed(fetch_model("models:/old@champion", tmp_path).folder)
    np.testing.assert_allclose(classifier.predict_pixels(PIXELS), PROBABILITIES, atol=1e-5)


def test_images_are_scored_with_an_old_registered_model(predictions: Predictions) -> None:
    rows = pd.read_parquet(f"{predictions.path}/predictions")
    scored = rows[rows.error.isna()]
    assert len(scored) == 2 * PHOTOS_PER_CLASS
    assert scored.label_name.tolist() == [Path(path).parent.name for path in scored.path]
    assert set(zip(scored.model_name, scored.model_version, strict=True)) == {("old", "1")}
    np.testing.assert_allclose(np.stack(scored.probabilities.tolist()).sum(axis=1), 1, atol=1e-5)


def test_error_of_an_old_model_is_a_row(predictions: Predictions) -> None:
    rows = pd.read_parquet(f"{predictions.path}/predictions")
    (error,) = rows[rows.label.isna()].error
    # Its decoder raised this.
    assert error.startswith("not_an_image: ")
    assert predictions.failed_by_code == {"not_an_image": 1}


def test_drift_is_known_from_an_old_card(predictions: Predictions) -> None:
    drift = predictions.drift
    assert drift is not None
    assert (drift.classes, drift.expected, drift.predicted) == (("dark", "light"), (0.5, 0.5), (0.5, 0.5))
