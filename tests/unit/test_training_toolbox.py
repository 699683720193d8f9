"""The effect of the settings of optimizer, labels and precision on a training."""

import numpy as np
import pytest

from cnnlib.quiet import import_tensorflow_quietly

import_tensorflow_quietly()

import keras  # noqa: E402
from keras.ops import convert_to_numpy as to_numpy  # noqa: E402

from cnnlib.training.checkpoints import checkpoint_folder, read_checkpoint  # noqa: E402
from cnnlib.training.compiled_model import new_model  # noqa: E402
from tests.unit.image_sets import write_image_set  # noqa: E402
from tests.unit.trainings import (  # noqa: E402
    CLASSES,
    TRAIN_ROWS,
    VAL_ROWS,
    RecordedFit,
    history_of,
    settings,
    striped_images,
    striped_set,
)

AVERAGED = {"average": 0.9}


@pytest.fixture(scope="module")
def image_set(tmp_path_factory):
    return striped_set(tmp_path_factory.mktemp("set"))


def accuracy_of(model: keras.Model) -> float:
    """Return the accuracy on the val split."""
    images, labels = striped_images(TRAIN_ROWS + VAL_ROWS)
    return float((to_numpy(model(images[TRAIN_ROWS:])).argmax(axis=1) == labels[TRAIN_ROWS:]).mean())


# --- learning rate


def test_history_has_the_rate_of_each_epochs_last_step(image_set):
    schedule = {"name": "step", "factor": 0.1, "every_epochs": 1, "warmup_epochs": 0.5}
    history = history_of(image_set, settings(image_set, epochs=3, optimizer={"schedule": schedule}, patience=0))
    assert history["learning_rate"] == pytest.approx([1e-3, 1e-4, 1e-5])


def test_rate_of_a_step_is_the_one_it_is_trained_with(image_set, tmp_path):
    schedule = {"name": "step", "factor": 1e-30, "every_epochs": 1}
    given = settings(image_set, epochs=2, patience=0, optimizer={"schedule": schedule})
    model, _ = RecordedFit().fit(image_set, given, folder=tmp_path)
    before, _ = read_checkpoint(checkpoint_folder(tmp_path, 1))
    for ours, earlier in zip(model.trainable_weights, before.trainable_weights, strict=True):
        np.testing.assert_allclose(to_numpy(ours), to_numpy(earlier), atol=1e-12)
    # The first epoch did learn.
    keras.utils.set_random_seed(given.train.seed)
    untrained = new_model(image_set, given)
    assert np.abs(to_numpy(model.get_layer("logits").kernel - untrained.get_layer("logits").kernel)).max() > 1e-3


@pytest.mark.full
def test_resumed_plateau_goes_on_with_the_lowered_rate(image_set, tmp_path):
    # val_accuracy cannot rise, so epoch 4 has a tenth of the rate.
    given = settings(
        image_set,
        epochs=4,
        patience=0,
        monitor="val_accuracy",
        learning_rate=1e-30,
        optimizer={"schedule": {"name": "plateau", "patience": 2}},
    )
    _, whole = RecordedFit().fit(image_set, given, folder=tmp_path)
    assert whole["learning_rate"] == pytest.approx([1e-30, 1e-30, 1e-30, 1e-31])
    _, resumed = RecordedFit().fit(image_set, given, resume_from=checkpoint_folder(tmp_path, 3))
    assert resumed["learning_rate"] == whole["learning_rate"]


# --- moving average of the weights


def test_average_is_validated_saved_and_returned(image_set, tmp_path):
    given = settings(image_set, epochs=3, patience=0, optimizer=AVERAGED)
    model, history = RecordedFit().fit(image_set, given, folder=tmp_path)
    assert accuracy_of(model) == pytest.approx(history["val_accuracy"][-1], abs=1e-6)
    for epoch in (1, 2, 3):
        saved, _ = read_checkpoint(checkpoint_folder(tmp_path, epoch))
        assert accuracy_of(saved) == pytest.approx(history["val_accuracy"][epoch - 1], abs=1e-6)
    plain, _ = RecordedFit().fit(image_set, settings(image_set, epochs=3, patience=0))
    differences = [
        np.abs(to_numpy(ours) - to_numpy(theirs)).max()
        for ours, theirs in zip(model.trainable_weights, plain.trainable_weights, strict=True)
    ]
    assert max(differences) > 1e-3


def test_average_is_returned_if_patience_ends_training(image_set):
    given = settings(image_set, epochs=9, patience=1, learning_rate=0.05, optimizer=AVERAGED)
    model, history = RecordedFit().fit(image_set, given)
    assert len(history["loss"]) < 9
    assert accuracy_of(model) == pytest.approx(history["val_accuracy"][-1], abs=1e-6)


@pytest.mark.full
def test_average_continues_after_an_interruption(image_set, tmp_path):
    given = settings(image_set, epochs=3, patience=0, optimizer=AVERAGED)
    whole, history = RecordedFit().fit(image_set, given, folder=tmp_path)
    resumed, same = RecordedFit().fit(image_set, given, resume_from=checkpoint_folder(tmp_path, 1))
    assert same["val_loss"] == pytest.approx(history["val_loss"], rel=1e-3)
    for ours, theirs in zip(resumed.trainable_weights, whole.trainable_weights, strict=True):
        # Threads may add floats in another order.
        np.testing.assert_allclose(to_numpy(ours), to_numpy(theirs), atol=1e-4)


# --- labels


def test_smoothed_labels_raise_the_loss_and_keep_accuracy(image_set):
    history = history_of(image_set, settings(image_set, epochs=3, patience=0, label_smoothing=0.3))
    # The targets are 0.8, 0.1 and 0.1. No loss is smaller than their entropy.
    least = -(0.8 * np.log(0.8) + 0.2 * np.log(0.1))
    assert min(history["loss"]) > least
    assert min(history["val_loss"]) > least
    assert max(history["val_accuracy"]) > 0.9


def test_balanced_classes_make_a_rare_class_count(tmp_path):
    # The images differ only in one meaningless pixel, so a model can learn only how frequent a class is.
    images = np.zeros((240, 16, 16, 1), np.uint8)
    images[:, 0, 0, 0] = np.random.default_rng(0).permutation(240)
    labels = ([0] * 9 + [1]) * 24
    rare = write_image_set(tmp_path, images, labels, (["train"] * 5 + ["val"]) * 40, classes=("frequent", "rare"))

    def certainty(**train) -> float:
        """Return the mean probability of the frequent class."""
        linear = {"name": "mlp", "options": {"units": []}}
        model, _ = RecordedFit().fit(
            rare, settings(rare, epochs=20, patience=0, learning_rate=0.02, model=linear, **train)
        )
        return float(to_numpy(keras.ops.softmax(model(images)))[:, 0].mean())

    assert certainty() == pytest.approx(0.9, abs=0.09)
    assert certainty(class_weights="balanced") == pytest.approx(0.5, abs=0.2)


# --- precision


@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_keeps_weights_and_logits_in_float32(image_set, precision, tmp_path):
    given = settings(image_set, epochs=3, patience=0, precision=precision)
    model, history = RecordedFit().fit(image_set, given, folder=tmp_path)
    assert max(history["val_accuracy"]) > 0.9
    assert {weight.dtype for weight in model.trainable_weights} == {"float32"}
    assert (model.output.dtype, model.get_layer("hidden_1").compute_dtype) == (
        "float32",
        precision.removeprefix("mixed_"),
    )
    assert model.get_layer("standardise").compute_dtype == "float32"
    assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer) == (precision == "mixed_float16")
    # Models that are built later do not get this precision.
    assert keras.config.dtype_policy().name == "float32"
    resumed, _ = RecordedFit().fit(image_set, given, resume_from=checkpoint_folder(tmp_path, 2))
    assert resumed.get_layer("hidden_1").compute_dtype == precision.removeprefix("mixed_")


def test_classes_of_the_set_are_those_of_the_model(image_set):
    for name in ("mlp", "nin", "shufflenet_v2"):
        assert new_model(image_set, settings(image_set, model={"name": name})).output_shape == (None, len(CLASSES))
