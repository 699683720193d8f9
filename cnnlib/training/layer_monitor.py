"""Two measurements of each layer on validation images: units that are never active, and the size of gradients."""

import math
from collections.abc import Iterator

import keras
import numpy as np
import tensorflow as tf

from cnnlib.models.nested import layer_outputs

DEAD_UNITS = "dead_units/"
GRADIENT_NORM = "gradient_norm/"

# Activations that are 0 or almost 0 for a unit that is not active.
_WITH_A_FLOOR = {"relu", "relu6", "elu", "gelu", "silu", "hard_silu"}
# Enough images to see a unit that is never active. More would take time after every epoch.
MOST_IMAGES = 64
# Limit for the activations of the images that are processed together.
_CHUNK_BYTES = 256 * 2**20
_FLOAT_BYTES = 4
_LOSS_SCALE = 2.0**10


class LayerMonitor(keras.callbacks.Callback):
    """Add two metrics per layer to the metrics of each epoch.

    - `dead_units/NAME`: fraction of the layer's units (channels of a convolution, neurons of a dense layer) that are
      above 0 for no image and at no position. Only for layers with ReLU, ELU, GELU or Swish.
    - `gradient_norm/NAME`: Euclidean norm of the gradient of the mean cross-entropy with respect to all weights of the
      layer.

    Both use the first 64 of `images` (batch, height, width, channels) uint8 with `labels` (batch,). The model runs as
    in validation: without dropout, and with moving averages.
    """

    def __init__(self, plain: keras.Model, images: np.ndarray, labels: np.ndarray) -> None:
        super().__init__()
        self._plain = plain
        self._images = images[:MOST_IMAGES]
        self._labels = labels[:MOST_IMAGES]

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Measure the layers and add the results."""
        if logs is not None:
            logs.update(dead_units(self._plain, self._images))
            logs.update(gradient_norms(self._plain, self._images, self._labels))


def dead_units(model: keras.Model, images: np.ndarray) -> dict[str, float]:
    """Return the fraction of dead units by metric name; see `LayerMonitor`."""
    layers = {layer.name: output for layer, output in layer_outputs(model) if _has_a_floor(layer)}
    if not layers:
        return {}
    outputs = keras.Model(model.input, list(layers.values()))
    highest: list[np.ndarray | float] = [-math.inf] * len(layers)
    for chunk in _chunks(model, len(images)):
        # With a single layer, the model returns no list.
        found = tf.nest.flatten(outputs(images[chunk], training=False))
        # (images, …, units) -> (units,)
        tops = [tf.reduce_max(output, axis=range(output.shape.rank - 1)).numpy() for output in found]
        highest = [np.maximum(before, top) for before, top in zip(highest, tops, strict=True)]
    return {f"{DEAD_UNITS}{name}": float(np.mean(top <= 0)) for name, top in zip(layers, highest, strict=True)}


def gradient_norms(model: keras.Model, images: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Return the norm of the gradient by metric name; see `LayerMonitor`."""
    weights = model.trainable_weights
    total = [np.zeros(weight.shape, np.float32) for weight in weights]
    for chunk in _chunks(model, len(images)):
        with tf.GradientTape() as tape:
            logits = model(images[chunk], training=False)
            loss = tf.nn.sparse_softmax_cross_entropy_with_logits(labels[chunk], logits)
            # Without a scale, small gradients become 0 in 16 bits.
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
    """Cut the images into chunks, because all activations of a large model would not fit into memory at once."""
    values = sum(math.prod(output.shape[1:]) for _, output in layer_outputs(model))
    rows = max(1, _CHUNK_BYTES // max(1, values * _FLOAT_BYTES))
    for start in range(0, images, rows):
        yield slice(start, start + rows)
