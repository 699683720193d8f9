"""Transfer learning in two phases: the layers of each phase, their rates, and a model without traces of phases."""

import numpy as np
import pytest

from cnnlib.quiet import import_tensorflow_quietly

import_tensorflow_quietly()

import keras  # noqa: E402

from cnnlib.config import ModelSettings, TrainSettings, TransferSettings  # noqa: E402
from cnnlib.errors import ConfigError  # noqa: E402
from cnnlib.models import build_model  # noqa: E402
from cnnlib.training.checkpoints import checkpoint_folder, read_checkpoint  # noqa: E402
from cnnlib.training.fit import is_over  # noqa: E402
from cnnlib.training.rate_finder import sweep_rates  # noqa: E402
from cnnlib.training.transfer import trained_layers  # noqa: E402
from tests.unit.trainings import LENET, RecordedFit, settings, striped_set  # noqa: E402


@pytest.fixture(scope="module")
def image_set(tmp_path_factory):
    return striped_set(tmp_path_factory.mktemp("set"))


@pytest.fixture(scope="module")
def trained(image_set, tmp_path_factory) -> tuple[keras.Model, str]:
    folder = tmp_path_factory.mktemp("trained")
    model, _ = RecordedFit().fit(image_set, settings(image_set, epochs=1, model=LENET), folder=folder)
    return model, str(checkpoint_folder(folder, 1))


def transferring(image_set, weights: str, *, transfer: dict, **train):
    given = settings(image_set, patience=0, **train)
    model = ModelSettings(**LENET, weights=weights)
    return given.model_copy(update={"model": model, "transfer": TransferSettings(**transfer)})


def changed(model: keras.Model, before: keras.Model) -> list[str]:
    """Return the names of the layers with different weights."""
    return [
        layer.name
        for layer in model.layers
        if any(
            not np.array_equal(ours, theirs)
            for ours, theirs in zip(layer.get_weights(), before.get_layer(layer.name).get_weights(), strict=True)
        )
    ]


def test_head_is_trained_first_and_then_the_last_layers(image_set, trained, tmp_path):
    source, weights = trained
    given = transferring(
        image_set, weights, epochs=3, transfer={"frozen_epochs": 2, "layers": 1, "rate": 0.05}, learning_rate=1e-2
    )
    model, history = RecordedFit().fit(image_set, given, folder=tmp_path, weights=weights)
    first, second = (read_checkpoint(checkpoint_folder(tmp_path, epoch))[0] for epoch in (1, 2))
    assert changed(first, source) == ["logits"]
    assert changed(second, first) == ["logits"]
    assert changed(model, second) == ["hidden_1", "logits"]
    assert history["learning_rate"] == pytest.approx([1e-2, 1e-2, 5e-4])
    assert history["val_accuracy"][-1] > 0.9
    # Nothing of the phases is left in the model or in a checkpoint.
    assert all(layer.trainable for one in (first, model) for layer in one.layers)


def test_all_layers_are_trained_by_default(image_set, trained):
    source, weights = trained
    given = transferring(image_set, weights, epochs=1, transfer={"frozen_epochs": 0, "rate": 1.0})
    model, _ = RecordedFit().fit(image_set, given, weights=weights)
    assert changed(model, source) == ["conv_1", "conv_2", "hidden_1", "logits"]


@pytest.mark.full
def test_resumed_transfer_ends_with_the_same_weights(image_set, trained, tmp_path):
    _, weights = trained
    given = transferring(image_set, weights, epochs=3, transfer={"frozen_epochs": 1, "layers": 2})
    whole, history = RecordedFit().fit(image_set, given, folder=tmp_path, weights=weights)
    for epoch in (1, 2):
        resumed, same = RecordedFit().fit(image_set, given, resume_from=checkpoint_folder(tmp_path, epoch))
        # Threads may add up floats in another order.
        assert same["loss"] == pytest.approx(history["loss"], rel=1e-3)
        for ours, theirs in zip(resumed.get_weights(), whole.get_weights(), strict=True):
            np.testing.assert_allclose(ours, theirs, atol=1e-4)


def test_batch_normalisations_are_never_trained():
    model = build_model("resnet18", image_shape=(16, 16, 1), classes=3, filters=[4, 4, 4, 4])
    names = [layer.name for layer in trained_layers(model, TransferSettings(frozen_epochs=1, layers=2), epoch=1)]
    assert names == ["stage_4_block_2_1_conv", "stage_4_block_2_2_conv", "logits"]
    everything = trained_layers(model, TransferSettings(frozen_epochs=0), epoch=0)
    assert not any(isinstance(layer, keras.layers.BatchNormalization) for layer in everything)
    # A stem, sixteen convolutions, three shortcuts and the head.
    assert len(everything) == 1 + 16 + 3 + 1


def own_network(image_shape, classes):
    """Return a model inside a model. The first layer of the inner model is frozen."""
    body = keras.Sequential(
        [
            keras.Input(image_shape),
            keras.layers.Conv2D(4, 3, name="frozen", trainable=False),
            keras.layers.Conv2D(5, 3, strides=2, name="inner"),
            keras.layers.BatchNormalization(name="inner_bn"),
        ],
        name="body",
    )
    images = keras.Input(image_shape)
    flat = keras.layers.Flatten(name="flat")(body(images))
    return keras.Model(images, keras.layers.Dense(classes, name="logits")(flat))


@pytest.mark.full
@pytest.mark.parametrize("augment", [None, {"flip": "horizontal"}])
def test_model_inside_a_model_is_trained_by_its_layers(image_set, tmp_path, augment):
    own = {"name": f"{__name__}:own_network"}
    source, _ = RecordedFit().fit(image_set, settings(image_set, epochs=1, model=own), folder=tmp_path)
    weights = str(checkpoint_folder(tmp_path, 1))
    given = transferring(image_set, weights, epochs=2, transfer={"frozen_epochs": 1}, augment=augment)
    given = given.model_copy(update={"model": ModelSettings(**own, weights=weights)})
    model, _ = RecordedFit().fit(image_set, given, folder=tmp_path, weights=weights)
    first, _ = read_checkpoint(checkpoint_folder(tmp_path, 1))
    assert changed(first.get_layer("body"), source.get_layer("body")) == []
    assert changed(model.get_layer("body"), source.get_layer("body")) == ["inner"]
    assert {layer.name: layer.trainable for layer in model.get_layer("body").layers} == {
        "frozen": False,
        "inner": True,
        "inner_bn": True,
    }


def test_transfer_without_weights_is_refused(image_set):
    given = settings(image_set).model_copy(update={"transfer": TransferSettings(layers=2)})
    with pytest.raises(
        ConfigError, match=r"transfer says how to train on model\.weights, but model\.weights is not set"
    ):
        RecordedFit().fit(image_set, given)


def test_patience_does_not_end_the_first_phase():
    given = TrainSettings(
        data={"path": "set"},
        model={"weights": "imagenet"},
        train={"epochs": 10, "patience": 2},
        transfer={"frozen_epochs": 4},
    )
    accuracies = [0.9] + [0.8] * 9
    over = [epoch for epoch in range(1, 11) if is_over({"val_accuracy": accuracies[:epoch]}, given)]
    assert over == [6, 7, 8, 9, 10]
    plain = given.model_copy(update={"model": ModelSettings()})
    assert is_over({"val_accuracy": accuracies[:3]}, plain)


def test_rate_is_found_with_averaged_weights_and_frozen_layers(image_set, trained):
    given = transferring(image_set, trained[1], transfer={"layers": 1}, optimizer={"average": 0.9})
    model, sweep = sweep_rates(image_set, given, on_step=lambda done, total, note: None, weights=trained[1])
    assert len(sweep.rates) > 20
    for ours, theirs in zip(
        model.get_layer("hidden_1").get_weights(), trained[0].get_layer("hidden_1").get_weights(), strict=True
    ):
        # The last bits of an average of equal weights may differ.
        np.testing.assert_allclose(ours, theirs, atol=1e-6)


@pytest.mark.full
def test_normalisations_are_not_moved_by_training(image_set, tmp_path):
    slim = {"name": "resnet18", "options": {"filters": [4, 4, 4, 4]}}
    source, _ = RecordedFit().fit(image_set, settings(image_set, epochs=1, model=slim), folder=tmp_path)
    weights = str(checkpoint_folder(tmp_path, 1))
    given = transferring(image_set, weights, epochs=1, transfer={"frozen_epochs": 0})
    given = given.model_copy(update={"model": ModelSettings(**slim, weights=weights)})
    model, _ = RecordedFit().fit(image_set, given, weights=weights)
    moved = changed(model, source)
    assert "stem_conv" in moved
    assert not any(name.endswith("_bn") for name in moved)
