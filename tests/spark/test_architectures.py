"""Every architecture learns, can be registered, and then predicts the same as the model in memory."""

import gc
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
from pyspark.sql import SparkSession

from cnnlib.config import PredictionsOutputSettings, ScoreInputSettings, ScoreSettings, TrackingSettings, TrainSettings
from cnnlib.feed.blocks import read_split
from cnnlib.image_set.contract import ImageSet
from cnnlib.models import ARCHITECTURES
from cnnlib.quiet import import_tensorflow_quietly
from pipelines.score.flow import score
from pipelines.tracking.registry import TrainedOn, log_sealed_model
from pipelines.tracking.store import connect
from pipelines.train.flow import train
from tests.unit.image_sets import write_image_set

import_tensorflow_quietly()

import keras  # noqa: E402

from cnnlib.training.checkpoints import read_checkpoint  # noqa: E402
from cnnlib.training.compiled_model import new_model  # noqa: E402

TRAIN_ROWS, VAL_ROWS = 12, 6
OWN = f"{__name__}:own_network"


def own_network(image_shape, classes):
    """A model of the user. It has only Keras layers, so it also loads without this module."""
    return keras.Sequential([keras.Input(image_shape), keras.layers.Flatten(), keras.layers.Dense(classes)])


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    """Free the models after each test. Otherwise garbage collection would visit the layers of dozens of models."""
    yield
    keras.backend.clear_session()
    gc.collect()


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> dict[int, ImageSet]:
    """Image sets by the side of their images. The images are noise; a higher label is brighter."""
    folder = tmp_path_factory.mktemp("sets")
    found = {}
    for side in {max(known.smallest_side, 32) for known in ARCHITECTURES.values()}:
        labels = np.arange(TRAIN_ROWS + VAL_ROWS) % 3
        noise = np.random.default_rng(side).integers(0, 120, (len(labels), side, side, 3))
        images = (noise + 60 * labels[:, None, None, None]).astype(np.uint8)
        splits = ["train"] * TRAIN_ROWS + ["val"] * VAL_ROWS
        found[side] = write_image_set(folder / str(side), images, labels, splits, classes=("dark", "grey", "light"))
    return found


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> TrackingSettings:
    folder = tmp_path_factory.mktemp("store")
    tracking = TrackingSettings(uri=f"sqlite:///{folder}/mlflow.db", experiment="architectures")
    connect(tracking)
    mlflow.create_experiment(tracking.experiment, artifact_location=(folder / "artifacts").as_uri())
    return tracking


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_architecture_learns_and_scores_as_in_memory(
    spark: SparkSession, sets: dict[int, ImageSet], store: TrackingSettings, name: str, tmp_path: Path
) -> None:
    image_set = sets[max(ARCHITECTURES[name].smallest_side, 32)]
    with closing(read_split(image_set, "train")) as blocks:
        images, labels = map(np.concatenate, zip(*blocks, strict=True))
    keras.utils.set_random_seed(1)
    model = new_model(image_set, TrainSettings(data={"path": image_set.folder.uri}, model={"name": name}))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    # Use plain SGD, because the length of Adam's first steps does not depend on the gradient. Behind normalisation,
    # gradients are steep, because a deep model leaves few pixels of such images. Run eagerly: tracing would take most
    # of the time. With a rate of 1e-4, two steps of resnet152 overshoot on some CPUs.
    normalised = any(isinstance(layer, keras.layers.BatchNormalization) for layer in model.layers)
    model.compile(keras.optimizers.SGD(1e-5 if normalised else 1e-2), loss, run_eagerly=True)
    before = learnt_loss(model, loss, images, labels)
    for _ in range(2):
        model.train_on_batch(images, labels)
    assert learnt_loss(model, loss, images, labels) < before

    connect(store)
    mlflow.set_experiment(store.experiment)
    with mlflow.start_run():
        log_sealed_model(model, TrainedOn.of(image_set), images[0], register_as=name)
    check_probabilities(scored(spark, f"models:/{name}/1", image_set, store, tmp_path), image_set, model)


def learnt_loss(model: keras.Model, loss: keras.Loss, images: np.ndarray, labels: np.ndarray) -> float:
    """Return the loss with batch statistics, because two steps hardly move the averages, and without dropout."""
    keras.utils.set_random_seed(2)
    for layer in model.layers:
        if isinstance(layer, keras.layers.Dropout):
            layer.rate = 0.0
    return float(loss(labels, model(images, training=True)))


@pytest.mark.parametrize("name", ["shufflenet_v2", OWN], ids=lambda name: name.rpartition(":")[2])
def test_trained_model_scores_as_its_checkpoint(
    spark: SparkSession, sets: dict[int, ImageSet], store: TrackingSettings, name: str, tmp_path: Path
) -> None:
    registered = f"{name.rpartition(':')[2]}-trained"
    trained = train(
        spark,
        TrainSettings(
            data={"path": sets[32].folder.uri},
            model={"name": name},
            train={"epochs": 1, "worker_batch_size": TRAIN_ROWS // 2},
            tracking=store,
            register={"name": registered},
        ),
    )
    assert np.isfinite(trained.history["loss"]).all()
    path = scored(spark, f"models:/{registered}@champion", sets[32], store, tmp_path)
    kept = mlflow.artifacts.download_artifacts(
        run_id=trained.run_id, artifact_path="checkpoints/epoch-0001", tracking_uri=connect(store)
    )
    check_probabilities(path, sets[32], read_checkpoint(Path(kept))[0])


def scored(spark: SparkSession, model: str, image_set: ImageSet, store: TrackingSettings, folder: Path) -> str:
    """Score the validation images, and return the path of the predictions."""
    predictions = score(
        spark,
        ScoreSettings(
            model=model,
            input=ScoreInputSettings(path=image_set.folder.uri, split="val"),
            output=PredictionsOutputSettings(path=str(folder / "predictions")),
            score={"probabilities": True},
            tracking=store,
        ),
    )
    assert (predictions.counts["scored"], predictions.counts["failed"]) == (VAL_ROWS, 0)
    return predictions.path


def check_probabilities(path: str, image_set: ImageSet, model: keras.Model) -> None:
    """Assert that the scored probabilities are those of the model in memory."""
    stored = pd.concat(pd.read_parquet(file) for file in image_set.files("val"))
    pixels = np.stack([np.frombuffer(image, np.uint8).reshape(image_set.image.shape) for image in stored.image])
    expected = dict(zip(stored.image_id, keras.ops.convert_to_numpy(keras.ops.softmax(model(pixels))), strict=True))
    rows = list(pd.read_parquet(f"{path}/predictions").itertuples())
    assert len(rows) == VAL_ROWS
    for row in rows:
        np.testing.assert_allclose(row.probabilities, expected[row.image_id], atol=1e-4)
