"""Optimizers, targets and class weights follow the settings."""

import numpy as np
import pytest

from cnnlib.quiet import import_tensorflow_quietly

import_tensorflow_quietly()

import keras  # noqa: E402
import tensorflow as tf  # noqa: E402
from keras.ops import convert_to_numpy as to_numpy  # noqa: E402

from cnnlib.config import OptimizerSettings, TrainSettings  # noqa: E402
from cnnlib.errors import ConfigError  # noqa: E402
from cnnlib.training.optimizers import make_optimizer  # noqa: E402
from cnnlib.training.targets import as_targets, balanced_weights, make_loss  # noqa: E402


def weights_after(gradient, *, weight=(1.0, -2.0), rate: float = 0.5, steps: int = 1, **settings) -> list[float]:
    """Return the weights after steps with the same gradient."""
    variable = keras.Variable(np.array(weight, np.float32))
    optimizer = make_optimizer(OptimizerSettings(**settings), rate)
    optimizer.build([variable])
    for _ in range(steps):
        optimizer.apply([tf.constant(gradient, tf.float32)], [variable])
    return to_numpy(variable).tolist()


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"name": "sgd"}, [1 - 0.5 * 2 * 3, -2 + 0.5 * 2 * 4]),
        # v = -0.5 g, then 0.9 v - 0.5 g
        ({"name": "momentum"}, [1 - 0.5 * 3 * (1 + 1.9), -2 + 0.5 * 4 * (1 + 1.9)]),
        ({"name": "momentum", "momentum": 0.5}, [1 - 0.5 * 3 * (1 + 1.5), -2 + 0.5 * 4 * (1 + 1.5)]),
        # Nesterov looks ahead: w += 0.9 v - 0.5 g with the new v
        ({"name": "nesterov"}, [1 - 0.5 * 3 * (1.9 + 2.71), -2 + 0.5 * 4 * (1.9 + 2.71)]),
    ],
)
def test_two_steps_of_descent(settings, expected):
    assert weights_after([3.0, -4.0], steps=2, **settings) == pytest.approx(expected, rel=1e-5)


def test_gradients_are_clipped_by_the_norm_of_all():
    # (3, -4) has norm 5.
    assert weights_after([3.0, -4.0], name="sgd", clip_norm=1.0) == pytest.approx([1 - 0.5 * 0.6, -2 + 0.5 * 0.8])
    assert weights_after([0.3, -0.4], name="sgd", clip_norm=1.0) == pytest.approx([1 - 0.5 * 0.3, -2 + 0.5 * 0.4])


def test_weight_decay_is_independent_of_the_gradient():
    assert weights_after([0.0, 0.0], name="sgd", weight_decay=0.1) == pytest.approx([0.95, -1.9])
    # AdamW decays by the rate alone, whatever the gradient. Adam would normalise the decay with the gradient.
    assert weights_after([0.0, 0.0], name="adamw", weight_decay=0.1) == pytest.approx([0.95, -1.9])
    assert weights_after([0.0, 0.0], name="adamw") == pytest.approx([1 - 0.5 * 0.004, -2 * (1 - 0.5 * 0.004)])


def test_own_options_reach_keras():
    assert make_optimizer(OptimizerSettings(options={"beta_1": 0.7}), 1e-3).beta_1 == 0.7


def test_unknown_optimizer_option_is_a_config_error():
    with pytest.raises(ConfigError, match="optimizer.options do not fit sgd"):
        make_optimizer(OptimizerSettings(name="sgd", options={"beta_1": 0.9}), 1e-3)


@pytest.mark.parametrize("option", ["learning_rate", "momentum", "weight_decay", "clipnorm", "use_ema"])
def test_option_that_is_a_setting_is_refused(option):
    with pytest.raises(ValueError, match=f"options has {option}"):
        OptimizerSettings(options={option: 0.1})


def test_balanced_weights_make_all_classes_count_the_same():
    counts = np.array([60, 30, 10])
    weights = np.array(balanced_weights(counts))
    assert weights * counts == pytest.approx([100 / 3] * 3)


def training(**train) -> TrainSettings:
    return TrainSettings(data={"path": "set"}, train=train)


def batches(labels: list[int], **train) -> tuple[np.ndarray, ...]:
    data = tf.data.Dataset.from_tensors((np.zeros((len(labels), 2, 2, 1), np.uint8), np.array(labels, np.int32)))
    (batch,) = as_targets(data, 3, training(**train), [60, 30, 10]).as_numpy_iterator()
    return batch[1:]


def test_images_count_by_their_classes():
    labels, weights = batches([2, 0, 1], class_weights="balanced")
    assert labels.tolist() == [2, 0, 1]
    assert weights.tolist() == pytest.approx([10 / 3, 5 / 9, 10 / 9])


def test_without_settings_labels_stay_as_they_are():
    assert [part.tolist() for part in batches([2, 0])] == [[2, 0]]


def test_smoothed_loss_is_cross_entropy_with_every_class():
    settings = training(label_smoothing=0.3)
    (targets,) = batches([1], label_smoothing=0.3)
    logits = np.array([[0.5, 2.0, -1.0]], np.float32)
    log_probabilities = logits[0] - np.log(np.exp(logits[0]).sum())
    expected = -(log_probabilities * [0.1, 0.8, 0.1]).sum()
    assert float(make_loss(settings)(targets, logits)) == pytest.approx(expected, rel=1e-5)
