"""Architectures are trained, registered and score: with the predictions of the model in memory."""

from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
from pyspark.sql import SparkSession

from cnnlib.config import PredictionsOutputSettings, ScoreInputSettings, ScoreSettings, TrackingSettings, TrainSettings
from cnnlib.imageset import ImageSet
from cnnlib.models import ARCHITECTURES
from pipelines.score import score
from pipelines.store import connect
from pipelines.train import train
from tests.unit.image_sets import write_image_set

# One of each kind of layer and of source: all of them would take a quarter of an hour, mostly TensorFlow's tracing.
# What does not need Spark, tests/unit/test_architectures.py has of every one.
NAMES = ("mlp", "nin", "googlenet", "shufflenet_v2", "mobilenet", "lstm_rows")

# Two steps, and images to validate.
TRAIN_ROWS, VAL_ROWS, BATCH = 12, 6, 6
OWN = f"{__name__}:own_network"


def own_network(image_shape, classes):
    """A user's own: its layers are Keras', so it loads where this module is not."""
    import keras

    return keras.Sequential([keras.Input(image_shape), keras.layers.Flatten(), keras.layers.Dense(classes)])


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> dict[int, ImageSet]:
    """Image sets by the side of their images."""
    folder = tmp_path_factory.mktemp("sets")
    found = {}
    for side in (32, 75):
        labels = np.arange(TRAIN_ROWS + VAL_ROWS) % 3
        noise = np.random.default_rng(side).integers(0, 120, (len(labels), side, side, 3))
        images = (noise + 60 * labels[:, None, None, None]).astype(np.uint8)
        splits = ["train"] * TRAIN_ROWS + ["val"] * VAL_ROWS
        found[side] = write_image_set(folder / str(side), images, labels, splits, classes=("dark", "grey", "light"))
    return found


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> TrackingSettings:
    return TrackingSettings(uri=f"sqlite:///{tmp_path_factory.mktemp('store')}/mlflow.db", experiment="architectures")


@pytest.mark.slow
@pytest.mark.parametrize("name", [*NAMES, OWN], ids=lambda name: name.rpartition(":")[2])
def test_it_trains_registers_and_scores(spark: SparkSession, sets, store: TrackingSettings, name, tmp_path) -> None:
    least = ARCHITECTURES[name].smallest_side if name in ARCHITECTURES else 1
    image_set = sets[75 if least > 32 else 32]
    registered = name.rpartition(":")[2]
    trained = train(
        spark,
        TrainSettings(
            data={"path": image_set.folder.uri},
            model={"name": name},
            train={"epochs": 1, "worker_batch_size": BATCH},
            tracking=store,
            register={"name": registered},
        ),
    )
    assert np.isfinite(trained.history["loss"]).all()
    predictions = score(
        spark,
        ScoreSettings(
            model=f"models:/{registered}@champion",
            input=ScoreInputSettings(path=image_set.folder.uri, split="val"),
            output=PredictionsOutputSettings(path=str(tmp_path / "predictions")),
            score={"probabilities": True},
            tracking=store,
        ),
    )
    assert (predictions.counts["scored"], predictions.counts["failed"]) == (VAL_ROWS, 0)
    check_probabilities(predictions.path, image_set, connect(store), trained.run_id)


def check_probabilities(path: str, image_set: ImageSet, uri: str, run_id: str) -> None:
    """What was scored is what the run's checkpoint gives in memory."""
    import keras

    from cnnlib.training.checkpoints import read_checkpoint

    kept = mlflow.artifacts.download_artifacts(run_id=run_id, artifact_path="checkpoints/epoch-0001", tracking_uri=uri)
    model, _ = read_checkpoint(Path(kept))
    stored = pd.concat(pd.read_parquet(file) for file in image_set.files("val"))
    pixels = np.stack([np.frombuffer(image, np.uint8).reshape(image_set.image.shape) for image in stored.image])
    expected = dict(zip(stored.image_id, keras.ops.convert_to_numpy(keras.ops.softmax(model(pixels))), strict=True))
    for row in pd.read_parquet(f"{path}/predictions").itertuples():
        np.testing.assert_allclose(row.probabilities, expected[row.image_id], atol=1e-5)
