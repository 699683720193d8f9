"""The averages of batch normalisation that validation and scoring use: estimated well in short trainings, and checked.

Training normalises by the mean and variance of each batch. Inference normalises by averages that Keras moves by a
hundredth towards each batch. After 114 steps, a third of such an average is still its start value: a ResNet-18 got
0.59 of the validation images right where the same weights with true averages got 0.98.

So as long as a training has had few steps, its averages are computed anew before each validation, from training batches
with fixed weights: the "precise batch normalisation" of Wu and Johnson, "Rethinking 'Batch' in BatchNorm" (2021),
section 3. Later, Keras' own averages are as good, and nothing is changed.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from cnnlib.models.nested import layer_outputs
from cnnlib.training.batches import Batches
from cnnlib.training.checkpoints import History

# After so many steps, 0.99 ** steps is 4e-5: nothing is left of the start of a moving average.
SETTLED_STEPS = 1000
# Training images of all ranks. Wu and Johnson found a thousand to be enough.
ESTIMATED_FROM = 2048
# Training images of all ranks for a check alone. Fewer than a hundred would say nothing.
CHECKED_WITH, FEWEST_CHECKED = 512, 100

# Accuracy of the same training images with the statistics of each batch, and with the averages.
TRAINING_MODE, INFERENCE_MODE = "training_mode_accuracy", "inference_mode_accuracy"

Logs = Mapping[str, float] | None


def batch_normalisations(model: keras.Model) -> list[keras.layers.BatchNormalization]:
    """Return every layer of batch normalisation that the model trains, at any depth.

    A layer that the model uses twice is left out: its averages mix both uses in a way that nobody can repeat.
    """
    uses = Counter(layer for layer, _ in layer_outputs(model))
    found = (layer for layer in model._flatten_layers() if isinstance(layer, keras.layers.BatchNormalization))
    return [layer for layer in found if layer.built and layer.trainable and uses[layer] <= 1]


def settled_steps(layers: Iterable[keras.layers.BatchNormalization]) -> int:
    """Return after how many steps the averages have forgotten their start: 1,000, or more if a layer is slow.

    >>> settled_steps([keras.layers.BatchNormalization(momentum=0.999)])
    10000
    """
    slowest = max((layer.momentum for layer in layers), default=0.0)
    return max(SETTLED_STEPS, round(10 / max(1 - slowest, 1e-9)))


def shorten_memory(model: keras.Model, steps: int) -> None:
    """Let the averages of a model forget their start within the `steps` of its whole training.

    The memory of an average becomes at most a tenth of the training. Keras' momentum of 0.99 has a memory of 100 steps,
    so it stays if there are 1,000 steps or more. A memory of less than 10 steps would be noise.

    >>> from cnnlib.models import build_model
    >>> model = build_model("resnet18", image_shape=(32, 32, 3), classes=2)
    >>> shorten_memory(model, steps=200)
    >>> {layer.momentum for layer in batch_normalisations(model)}
    {0.95}
    """
    momentum = max(1 - 10 / max(steps, 1), 0.9)
    for layer in batch_normalisations(model):
        layer.momentum = min(layer.momentum, momentum)


class BatchStatistics(keras.callbacks.Callback):
    """Before a validation, estimate the averages if the training is still short, and check them.

    Make this the last callback, so that it sees the weights that are validated and saved. Keep it out of transfer
    learning, where batch normalisation stays as it was pretrained.

    `metrics` has the accuracy of the same training images in training mode and in inference mode, as it was last
    measured: at every validation until the averages have settled, then whenever the number of steps has doubled. It
    is empty for a model without batch normalisation, and for less than a hundred training images. `history` has earlier
    values.
    """

    def __init__(self, plain: keras.Model, batches: Batches, history: History) -> None:
        super().__init__()
        self.metrics = {name: history[name][-1] for name in (TRAINING_MODE, INFERENCE_MODE) if name in history}
        self._plain = plain
        self._batches = batches
        self._layers = batch_normalisations(plain)
        self._epoch = 0
        self._settled = settled_steps(self._layers)
        # Sums over images: of ones, and for each layer of the means of their batches and of the mean squares.
        zeros = [np.zeros(layer.moving_mean.shape) for layer in self._layers for _ in range(2)]
        self._sums = [tf.Variable(zero, dtype=tf.float64) for zero in (0.0, *zeros)]
        shapes = [tf.TensorSpec((None, *plain.input_shape[1:]), tf.uint8), tf.TensorSpec((None,), tf.int32)]
        self._add = tf.function(self._add_batch, input_signature=shapes)
        self._infer = tf.function(self._right_in_inference, input_signature=shapes)

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        """Remember the epoch."""
        self._epoch = epoch

    def on_test_begin(self, logs: Logs = None) -> None:
        """Estimate and check, because the epoch's training is over."""
        steps = self._batches.steps_per_epoch
        before, now = self._epoch * steps, (self._epoch + 1) * steps
        short, doubled = now < self._settled, now.bit_length() > before.bit_length()
        if self._layers and (short or doubled):
            self._measure(ESTIMATED_FROM if short else CHECKED_WITH, estimate=short)

    def _measure(self, images: int, *, estimate: bool) -> None:
        """Run the first images of this epoch through the model again, in training mode and in inference mode."""
        ranks = self._batches.ranks
        before = {id(variable): (variable, variable.numpy()) for variable in self._plain.non_trainable_variables}
        for total in self._sums:
            total.assign(tf.zeros_like(total))
        checked, count, right = [], 0, 0
        moved: set[keras.layers.BatchNormalization] = set()
        with self._batches.first_of_epoch(self._epoch, images) as batches:
            for batch in batches:
                of_batch = int(self._add(*batch))
                moved = moved or self._moved_from(before)
                if count * ranks.count < CHECKED_WITH:
                    checked.append(batch)
                    count += len(batch[1])
                    right += of_batch
        # This also puts the random states of dropout back.
        for variable, value in before.values():
            variable.assign(value)
        if estimate:
            sums = [total.numpy() for total in ranks.sum([tf.convert_to_tensor(total) for total in self._sums])]
            self._set_averages(sums, moved)
        in_inference = sum(int(self._infer(*batch)) for batch in checked)
        count, right, in_inference = ranks.gather([count, right, in_inference]).sum(axis=0)
        if count >= FEWEST_CHECKED:
            self.metrics = {TRAINING_MODE: float(right / count), INFERENCE_MODE: float(in_inference / count)}

    def _add_batch(self, images: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        """Add the statistics of a batch to the sums, and return how many of its images are right in training mode.

        It runs once, to trace a graph. With a momentum of 0, the averages of a layer are those of the batch.
        """
        momenta = [layer.momentum for layer in self._layers]
        for layer in self._layers:
            layer.momentum = 0.0
        try:
            logits = self._plain(images, training=True)
        finally:
            for layer, momentum in zip(self._layers, momenta, strict=True):
                layer.momentum = momentum
        count = tf.cast(tf.shape(images)[0], tf.float64)
        added = [tf.ones((), tf.float64)]
        for layer in self._layers:
            # In 64 bits, because the variance may be much smaller than the square of the mean.
            mean, variance = (tf.cast(tensor, tf.float64) for tensor in (layer.moving_mean, layer.moving_variance))
            added += [mean, variance + mean**2]
        for total, value in zip(self._sums, added, strict=True):
            total.assign_add(count * value)
        return _right(logits, labels)

    def _right_in_inference(self, images: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
        return _right(self._plain(images, training=False), labels)

    def _moved_from(self, before: Mapping[int, tuple[Any, np.ndarray]]) -> set[keras.layers.BatchNormalization]:
        """Return the layers whose averages a batch has moved. A model may call some of them in inference mode only."""
        return {
            layer
            for layer in self._layers
            for variable in (layer.moving_mean, layer.moving_variance)
            if not np.array_equal(variable.numpy(), before[id(variable)][1])
        }

    def _set_averages(self, sums: list[np.ndarray], moved: set[keras.layers.BatchNormalization]) -> None:
        """Set the averages to the mean and the variance over all images of all ranks."""
        count, *of_layers = sums
        for layer, mean, square in zip(self._layers, of_layers[::2], of_layers[1::2], strict=True):
            if layer in moved:
                layer.moving_mean.assign(mean / count)
                layer.moving_variance.assign(np.maximum(square / count - (mean / count) ** 2, 0))


def _right(logits: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
    """Count the images whose largest logit is that of their label."""
    return tf.reduce_sum(tf.cast(tf.argmax(logits, 1, tf.int32) == labels, tf.int32))
