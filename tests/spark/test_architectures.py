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
import tensorflow as tf  # noqa: E402

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
    check_that_it_can_learn(model, images, labels)

    connect(store)
    mlflow.set_experiment(store.experiment)
    with mlflow.start_run():
        log_sealed_model(model, TrainedOn.of(image_set), images[0], register_as=name)
    check_probabilities(scored(spark, f"models:/{name}/1", image_set, store, tmp_path), image_set, model)


def check_that_it_can_learn(model: keras.Model, images: np.ndarray, labels: np.ndarray) -> None:
    """Assert that every weight has a gradient, and that a step of the last layer along it lowers the loss.

    A step of all layers would prove nothing: in new ResNets of 50 layers and more, a change of the weights by 1e-6 of
    the gradient may move the loss by 0.3, up or down. Over the weights of the last layer, the loss is always smooth.
    """
    for layer in model.layers:
        if isinstance(layer, keras.layers.Dropout):
            layer.rate = 0.0
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    with tf.GradientTape() as tape:
        before = loss(labels, model(images, training=True))
    weights = model.trainable_weights
    gradients = tape.gradient(before, weights)
    for weight, gradient in zip(weights, gradients, strict=True):
        assert np.isfinite(gradient).all(), weight.path
        assert np.any(gradient), weight.path
    last = len([layer for layer in model.layers if layer.trainable_weights][-1].trainable_weights)
    # A step of this length lowers the loss by a thousandth, if the loss is linear there.
    step = 1e-3 * before / sum(np.square(gradient).sum() for gradient in gradients[-last:])
    for weight, gradient in zip(weights[-last:], gradients[-last:], strict=True):
        weight.assign_sub(step * gradient)
    after = loss(labels, model(images, training=True))
    assert float((before - after) / before) == pytest.approx(1e-3, rel=0.5)


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
            score={"probabilities": True, "embedding": True},
            tracking=store,
        ),
    )
    assert (predictions.counts["scored"], predictions.counts["failed"]) == (VAL_ROWS, 0)
    return predictions.path


def check_probabilities(path: str, image_set: ImageSet, model: keras.Model) -> None:
    """Assert that the scored probabilities and embeddings are those of the model in memory."""
    stored = pd.concat(pd.read_parquet(file) for file in image_set.files("val"))
    pixels = np.stack([np.frombuffer(image, np.uint8).reshape(image_set.image.shape) for image in stored.image])
    # An embedding is what the last layer is given.
    both = keras.Model(model.inputs, [model.output, model.layers[-1].input])
    logits, features = map(keras.ops.convert_to_numpy, both(pixels))
    probabilities = keras.ops.convert_to_numpy(keras.ops.softmax(logits))
    expected = dict(zip(stored.image_id, zip(probabilities, features.reshape(VAL_ROWS, -1), strict=True), strict=True))
    rows = list(pd.read_parquet(f"{path}/predictions").itertuples())
    assert len(rows) == VAL_ROWS
    for row in rows:
        probabilities, embedding = expected[row.image_id]
        np.testing.assert_allclose(row.probabilities, probabilities, atol=1e-4)
        np.testing.assert_allclose(row.embedding, embedding, atol=1e-3 * max(1.0, np.abs(embedding).max()))
