"""The cost of each layer of a model for one image."""

import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

import keras

from cnnlib.cost.backward import IN_PLACE, kept_layers
from cnnlib.models.nested import flat_layers

BYTES = 4  # of a float32


@dataclass(frozen=True)
class LayerCost:
    """The cost of one layer for one image.

    `output_shape` has no batch dimension. `parameters` counts all of them, `trainable` those that gradients change.
    `multiply_adds` counts a multiplication and its addition as one, as publications do. It covers convolutions, dense
    layers and LSTMs, without biases, normalisations, activations and poolings. `activation_bytes` is the size of the
    outputs in float32. `kept_bytes` is the same number if training keeps the outputs for the backward pass, else 0.
    """

    name: str
    kind: str
    output_shape: tuple[int, ...]
    parameters: int
    trainable: int
    multiply_adds: int
    activation_bytes: int
    kept_bytes: int


def weightless() -> AbstractContextManager[object]:
    """Return a scope that builds models without memory for their weights, to look at their shapes only.

    >>> from cnnlib.models import build_model
    >>> with weightless():
    ...     model = build_model("vgg16", image_shape=(224, 224, 3), classes=1000)
    >>> sum(cost.parameters for cost in layer_costs(model))
    138357544
    """
    return keras.StatelessScope(initialize_variables=False)


def layer_costs(model: keras.Model) -> list[LayerCost]:
    """Return the cost of every layer, in order. Layers that cost nothing are included.

    >>> images = keras.Input((8, 8, 3))
    >>> model = keras.Model(images, keras.layers.Conv2D(4, 3, name="conv")(images))
    >>> [(cost.name, cost.output_shape, cost.parameters, cost.multiply_adds) for cost in layer_costs(model)]
    [('conv', (6, 6, 4), 112, 3888)]
    """
    layers = [layer for layer in flat_layers(model) if not isinstance(layer, keras.layers.InputLayer)]
    kept = kept_layers(layers)
    return [_cost(layer, layer in kept) for layer in layers]


def _cost(layer: keras.layers.Layer, is_kept: bool) -> LayerCost:
    outputs = layer.output if isinstance(layer.output, list | tuple) else [layer.output]
    activation_bytes = 0 if isinstance(layer, IN_PLACE) else sum(map(_count_values, outputs)) * BYTES
    count = next((_MULTIPLY_ADDS[kind] for kind in type(layer).__mro__ if kind in _MULTIPLY_ADDS), None)
    return LayerCost(
        name=layer.name,
        kind=type(layer).__name__,
        output_shape=tuple(outputs[0].shape[1:]),
        parameters=_size(layer.weights),
        trainable=_size(layer.trainable_weights),
        multiply_adds=count(layer) if count else 0,
        activation_bytes=activation_bytes,
        kept_bytes=activation_bytes if is_kept else 0,
    )


def _size(weights: list[keras.Variable]) -> int:
    return sum(math.prod(weight.shape) for weight in weights)


def _count_values(tensor: keras.KerasTensor) -> int:
    return math.prod(tensor.shape[1:])


def _of_convolution(layer: keras.layers.Conv2D) -> int:
    # Each output value is a sum over a kernel (height, width, channels of the group).
    return _count_values(layer.output) * math.prod(layer.kernel.shape[:-1])


def _of_depthwise(layer: keras.layers.DepthwiseConv2D) -> int:
    return _count_values(layer.output) * math.prod(layer.kernel_size)


def _of_separable(layer: keras.layers.SeparableConv2D) -> int:
    pixels = math.prod(layer.output.shape[1:-1])
    _, _, channels, multiplier = layer.depthwise_kernel.shape
    return pixels * channels * multiplier * (math.prod(layer.kernel_size) + layer.output.shape[-1])


def _of_dense(layer: keras.layers.Dense) -> int:
    return _count_values(layer.output) * layer.input.shape[-1]


def _of_lstm(layer: keras.layers.LSTM) -> int:
    # Four gates, each on the input and the state (Hochreiter and Schmidhuber 1997; the forget gate is by Gers et al.).
    _, steps, features = layer.input.shape
    return steps * 4 * layer.units * (features + layer.units)


_MULTIPLY_ADDS: dict[type, Callable[..., int]] = {
    keras.layers.Conv2D: _of_convolution,
    keras.layers.DepthwiseConv2D: _of_depthwise,
    keras.layers.SeparableConv2D: _of_separable,
    keras.layers.Dense: _of_dense,
    keras.layers.LSTM: _of_lstm,
}
