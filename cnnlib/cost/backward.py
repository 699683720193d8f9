"""Which layers' outputs the backward pass of training needs again, so that they stay in memory until then."""

from collections import defaultdict
from collections.abc import Iterator, Sequence

import keras

# The gradient of these follows from their output: it is kept, and their input need not be.
_BY_OUTPUT = {"relu", "relu6", "elu", "selu", "sigmoid", "hard_sigmoid", "tanh", "softmax"}

# Gradients pass these by without a look at what went in: sums, and pixels that are moved, averaged or scaled.
_PASSED_BY = (
    keras.layers.Add,
    keras.layers.Average,
    keras.layers.AveragePooling2D,
    keras.layers.Concatenate,
    keras.layers.Cropping2D,
    keras.layers.Dropout,
    keras.layers.GlobalAveragePooling2D,
    keras.layers.Normalization,
    keras.layers.Permute,
    keras.layers.Rescaling,
    keras.layers.Subtract,
    keras.layers.UpSampling2D,
    keras.layers.ZeroPadding2D,
)

# Their output is the memory of their input, seen otherwise.
IN_PLACE = (keras.layers.Flatten, keras.layers.Reshape)


def kept_layers(layers: Sequence[keras.layers.Layer]) -> set[keras.layers.Layer]:
    """Those of a model's layers whose outputs are needed for the gradients of their own, or of layers behind them.

    A rectifier needs its output alone, so the normalisation before it is not kept; a sum needs nothing. What this does
    not know of a layer is taken to be so: it needs its inputs. The model's outputs are kept, for the loss.
    """
    consumers: dict[keras.layers.Layer, list[keras.layers.Layer]] = defaultdict(list)
    for layer in layers:
        for producer in _producers(layer):
            consumers[producer].append(layer)

    def input_is_needed(layer: keras.layers.Layer) -> bool:
        if isinstance(layer, IN_PLACE) or _is_linear_activation(layer):
            return is_needed(layer)
        return not isinstance(layer, _PASSED_BY) and not _is_activation_by_output(layer)

    def is_needed(layer: keras.layers.Layer) -> bool:
        behind = consumers[layer]
        return not behind or any(map(input_is_needed, behind))

    in_memory = [layer for layer in layers if not isinstance(layer, IN_PLACE)]
    return {layer for layer in in_memory if _gradient_is_by_output(layer) or is_needed(layer)}


def _producers(layer: keras.layers.Layer) -> Iterator[keras.layers.Layer]:
    for node in layer._inbound_nodes:
        for tensor in node.input_tensors:
            yield tensor._keras_history.operation


def _is_activation_by_output(layer: keras.layers.Layer) -> bool:
    return isinstance(layer, keras.layers.Activation | keras.layers.ReLU) and _gradient_is_by_output(layer)


def _is_linear_activation(layer: keras.layers.Layer) -> bool:
    return isinstance(layer, keras.layers.Activation) and layer.activation is keras.activations.linear


def _gradient_is_by_output(layer: keras.layers.Layer) -> bool:
    if isinstance(layer, keras.layers.ReLU | keras.layers.MaxPooling2D):
        return True
    return getattr(getattr(layer, "activation", None), "__name__", None) in _BY_OUTPUT
