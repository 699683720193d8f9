"""What a validation batch shows of each layer: how many units never become active, and how large gradients are."""

import math
from collections.abc import Iterator

import keras
import numpy as np
import tensorflow as tf

from cnnlib.models.nested import layer_outputs

DEAD_UNITS = "dead_units/"
GRADIENT_NORM = "gradient_norm/"

# Activations that are 0, or next to it, wherever a unit is not active.
_WITH_A_FLOOR = {"relu", "relu6", "elu", "gelu", "silu", "hard_silu"}
# Enough to see a unit that never becomes active: more would take their time after every epoch.
MOST_IMAGES = 64
# Of all activations of the images that are gone through together.
_CHUNK_BYTES = 256 * 2**20
_FLOAT_BYTES = 4
_LOSS_SCALE = 2.0**10


class LayerMonitor(keras.callbacks.Callback):
    """Adds two metrics a layer to each epoch's.

    `dead_units/NAME` is the share of a layer's units (a convolution's channels, a dense layer's neurons) that are above
    0 for no image and at no position, for layers with ReLU, ELU, GELU or Swish. `gradient_norm/NAME` is the Euclidean
    norm of the gradient of the mean cross-entropy by all weights of a layer. Both are of the first 64 of `images`
    (batch, height, width, channels) uint8 with `labels` (batch,), as in validation: without dropout, and with moving
    averages.
    """

    def __init__(self, plain: keras.Model, images: np.ndarray, labels: np.ndarray) -> None:
        super().__init__()
        self._plain = plain
        self._images = images[:MOST_IMAGES]
        self._labels = labels[:MOST_IMAGES]

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Measure, and add what was found."""
        if logs is not None:
            logs.update(dead_units(self._plain, self._images))
            logs.update(gradient_norms(self._plain, self._images, self._labels))


def dead_units(model: keras.Model, images: np.ndarray) -> dict[str, float]:
    """The share of dead units by `dead_units/` and the layer's name; see `LayerMonitor`."""
    layers = {layer.name: output for layer, output in layer_outputs(model) if _has_a_floor(layer)}
    if not layers:
        return {}
    outputs = keras.Model(model.input, list(layers.values()))
    highest: list[np.ndarray | float] = [-math.inf] * len(layers)
    for chunk in _chunks(model, len(images)):
        # Of one layer, it makes no list.
        found = tf.nest.flatten(outputs(images[chunk], training=False))
        # (images, …, units) -> (units,)
        tops = [tf.reduce_max(output, axis=range(output.shape.rank - 1)).numpy() for output in found]
        highest = [np.maximum(before, top) for before, top in zip(highest, tops, strict=True)]
    return {f"{DEAD_UNITS}{name}": float(np.mean(top <= 0)) for name, top in zip(layers, highest, strict=True)}


def gradient_norms(model: keras.Model, images: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """The norm of the gradient by `gradient_norm/` and the layer's name; see `LayerMonitor`."""
    weights = model.trainable_weights
    total = [np.zeros(weight.shape, np.float32) for weight in weights]
    for chunk in _chunks(model, len(images)):
        with tf.GradientTape() as tape:
            logits = model(images[chunk], training=False)
            loss = tf.nn.sparse_softmax_cross_entropy_with_logits(labels[chunk], logits)
            # Small gradients would be 0 in 16 bits.
            scaled = tf.reduce_sum(loss) * (_LOSS_SCALE / len(images))
        gradients = tape.gradient(
            scaled, [weight.value for weight in weights], unconnected_gradients=tf.UnconnectedGradients.ZERO
        )
        total = [before + tf.convert_to_tensor(now).numpy() for before, now in zip(total, gradients, strict=True)]
    squares = {
        id(weight): float(np.square(gradient / _LOSS_SCALE).sum())
        for weight, gradient in zip(weights, total, strict=True)
    }
    return {
        f"{GRADIENT_NORM}{layer.name}": math.sqrt(sum(squares[id(weight)] for weight in layer.trainable_weights))
        for layer in model.layers
        if layer.trainable_weights
    }


def _has_a_floor(layer: keras.layers.Layer) -> bool:
    if isinstance(layer, keras.layers.ReLU):
        return not layer.negative_slope
    activation = getattr(layer, "activation", None)
    return getattr(activation, "__name__", "") in _WITH_A_FLOOR


def _chunks(model: keras.Model, images: int) -> Iterator[slice]:
    """As many images at a time as have activations of some size: those of large networks would not fit into memory."""
    values = sum(math.prod(output.shape[1:]) for _, output in layer_outputs(model))
    rows = max(1, _CHUNK_BYTES // max(1, values * _FLOAT_BYTES))
    for start in range(0, images, rows):
        yield slice(start, start + rows)
