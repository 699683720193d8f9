"""The averages of batch normalisation: true in short trainings, Keras' own in long ones, and checked."""

from pathlib import Path

import numpy as np
import pytest

from cnnlib.quiet import import_tensorflow_quietly

import_tensorflow_quietly()

import keras  # noqa: E402

from cnnlib.feed.blocks import read_split  # noqa: E402
from cnnlib.image_set.contract import ImageSet  # noqa: E402
from cnnlib.models import build_model  # noqa: E402
from cnnlib.training import batch_statistics  # noqa: E402
from cnnlib.training.advice import advice_on  # noqa: E402
from cnnlib.training.batch_statistics import (  # noqa: E402
    INFERENCE_MODE,
    TRAINING_MODE,
    BatchStatistics,
    batch_normalisations,
    shorten_memory,
)
from cnnlib.training.checkpoints import checkpoint_folder, read_checkpoint  # noqa: E402
from tests.unit.trainings import TRAIN_ROWS, RecordedFit, settings, striped_set  # noqa: E402


def network(image_shape, classes, **options):
    """A network whose first batch normalisation depends on no weights, so that its true averages are known."""
    return keras.Sequential(
        [
            keras.Input(image_shape),
            keras.layers.Rescaling(2.0, offset=5.0),
            keras.layers.BatchNormalization(name="of_images", **options),
            keras.layers.Flatten(),
            keras.layers.Dropout(0.3),
            keras.layers.Dense(8, activation="relu"),
            keras.layers.BatchNormalization(name="of_units", **options),
            keras.layers.Dense(classes),
        ]
    )


# Threads may add floats in another order. `train.deterministic` would stay on in this process, for other tests too.
CHANCE = 1e-4
NETWORK = {"name": f"{__name__}:network"}


@pytest.fixture(scope="module")
def image_set(tmp_path_factory: pytest.TempPathFactory) -> ImageSet:
    return striped_set(tmp_path_factory.mktemp("set"))


def inputs_of(model: keras.Model, name: str, image_set: ImageSet) -> np.ndarray:
    """Return what a layer gets for all training images in inference mode."""
    images = np.concatenate([images for images, _ in read_split(image_set, "train")])
    return keras.Model(model.inputs, model.get_layer(name).input)(images).numpy()


def averages_of(model: keras.Model, name: str) -> tuple[np.ndarray, np.ndarray]:
    layer = model.get_layer(name)
    return layer.moving_mean.numpy(), layer.moving_variance.numpy()


@pytest.mark.parametrize("optimizer", [{}, {"average": 0.9}], ids=["last weights", "averaged weights"])
def test_averages_of_a_short_training_are_those_of_all_images(
    image_set: ImageSet, tmp_path: Path, optimizer: dict
) -> None:
    given = settings(image_set, model=NETWORK, epochs=2, optimizer=optimizer)
    RecordedFit().fit(image_set, given, folder=tmp_path)
    for epoch in (1, 2):
        model, _ = read_checkpoint(checkpoint_folder(tmp_path, epoch))
        seen = inputs_of(model, "of_images", image_set)
        mean, variance = averages_of(model, "of_images")
        assert seen.mean() == pytest.approx(5.0, abs=0.1)
        assert mean == pytest.approx(seen.mean(), abs=1e-4)
        assert variance == pytest.approx(seen.var(), rel=1e-4)
        # The inputs of the second layer depend on the weights of the checkpoint, and dropout scatters them further.
        seen = inputs_of(model, "of_units", image_set)
        mean, variance = averages_of(model, "of_units")
        assert mean == pytest.approx(seen.mean(axis=0), abs=0.3 * float(seen.std()))
        assert np.all(variance > 0.3 * seen.var(axis=0))


def test_every_epoch_of_a_short_training_has_both_accuracies(image_set: ImageSet) -> None:
    _, history = RecordedFit().fit(image_set, settings(image_set, model=NETWORK, epochs=3))
    for name in (TRAINING_MODE, INFERENCE_MODE):
        assert len(history[name]) == 3
    # All images are checked, so the accuracies are multiples of one image.
    assert np.allclose(np.array(history[INFERENCE_MODE]) * TRAIN_ROWS % 1, 0, atol=1e-6)
    assert history[INFERENCE_MODE][-1] >= history["val_accuracy"][-1] - 0.15


def test_model_without_batch_normalisation_has_no_such_metrics(image_set: ImageSet) -> None:
    _, history = RecordedFit().fit(image_set, settings(image_set, epochs=1))
    assert not {TRAINING_MODE, INFERENCE_MODE} & history.keys()


def weights_after(image_set: ImageSet, **train: object) -> list[np.ndarray]:
    model, _ = RecordedFit().fit(image_set, settings(image_set, model=NETWORK, **train))
    return model.get_weights()


@pytest.mark.full
def test_long_training_is_as_without(image_set: ImageSet, monkeypatch: pytest.MonkeyPatch) -> None:
    # An epoch has 15 steps, which is as long as a training that has just settled.
    monkeypatch.setattr(batch_statistics, "settled_steps", lambda layers: 15)
    checked = weights_after(image_set, epochs=2, worker_batch_size=16)
    monkeypatch.setattr(BatchStatistics, "on_test_begin", lambda self, logs=None: None)
    without = weights_after(image_set, epochs=2, worker_batch_size=16)
    for ours, keras_own in zip(checked, without, strict=True):
        np.testing.assert_allclose(ours, keras_own, atol=CHANCE)


@pytest.mark.full
def test_estimates_do_not_change_the_training(image_set: ImageSet, monkeypatch: pytest.MonkeyPatch) -> None:
    estimated = weights_after(image_set, epochs=3)
    monkeypatch.setattr(BatchStatistics, "on_test_begin", lambda self, logs=None: None)
    without = weights_after(image_set, epochs=3)
    names = [weight.path for weight in network((16, 16, 1), 3).weights]
    same = [np.allclose(*pair, atol=CHANCE) for pair in zip(estimated, without, strict=True)]
    assert [name for name, equal in zip(names, same, strict=True) if not equal and "moving" not in name] == []
    assert not all(same)


@pytest.mark.full
def test_resumed_short_training_ends_with_the_same_weights(image_set: ImageSet, tmp_path: Path) -> None:
    given = settings(image_set, model=NETWORK, epochs=3)
    whole, history = RecordedFit().fit(image_set, given, folder=tmp_path)
    resumed, again = RecordedFit().fit(image_set, given, resume_from=checkpoint_folder(tmp_path, 1))
    for ours, theirs in zip(resumed.get_weights(), whole.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=CHANCE)
    assert again[INFERENCE_MODE] == pytest.approx(history[INFERENCE_MODE], abs=0.02)


def odd_network(image_shape, classes):
    """A network with layers whose averages nobody may estimate: frozen ones, and one that is used twice."""
    images = keras.Input(image_shape)
    pixels = keras.layers.Rescaling(1.0, offset=100.0)(images)
    frozen = keras.layers.BatchNormalization(name="frozen", trainable=False)
    twice = keras.layers.BatchNormalization(name="twice")
    wide = keras.layers.BatchNormalization(name="wide", dtype="float64")
    features = keras.layers.Flatten()(frozen(pixels))
    features = wide(twice(twice(keras.layers.Dense(8)(features))))
    return keras.Model(images, keras.layers.Dense(classes)(features))


def test_odd_layers_keep_their_averages(image_set: ImageSet, monkeypatch: pytest.MonkeyPatch) -> None:
    given = settings(image_set, model={"name": f"{__name__}:odd_network"}, epochs=1)
    model, _ = RecordedFit().fit(image_set, given)
    monkeypatch.setattr(BatchStatistics, "on_test_begin", lambda self, logs=None: None)
    without, _ = RecordedFit().fit(image_set, given)
    for name in ("frozen", "twice"):
        np.testing.assert_allclose(averages_of(model, name), averages_of(without, name), atol=CHANCE)
    assert averages_of(model, "wide")[1] != pytest.approx(averages_of(without, "wide")[1], rel=1e-3)


@pytest.mark.parametrize(
    ("steps", "own", "momentum"),
    [(10, 0.99, 0.9), (114, 0.99, 1 - 10 / 114), (1000, 0.99, 0.99), (10**6, 0.99, 0.99), (114, 0.5, 0.5)],
)
def test_memory_is_a_tenth_of_the_training(steps: int, own: float, momentum: float) -> None:
    model = build_model(NETWORK["name"], image_shape=(16, 16, 1), classes=3, momentum=own)
    shorten_memory(model, steps)
    assert [layer.momentum for layer in batch_normalisations(model)] == [pytest.approx(momentum)] * 2


@pytest.mark.parametrize(
    ("training", "inference", "warned"), [(0.98, 0.59, True), (0.9, 0.8, False), (0.5, 0.9, False)]
)
def test_modes_far_apart_are_told(image_set: ImageSet, training: float, inference: float, warned: bool) -> None:
    history = {"loss": [0.5], "val_loss": [0.5], TRAINING_MODE: [training], INFERENCE_MODE: [inference]}
    found = advice_on(history, settings(image_set), classes=3)
    assert ("modes_apart" in found) == warned
    if warned:
        assert "98.0% are right with the statistics of each batch, but 59.0% with the averages" in found["modes_apart"]
