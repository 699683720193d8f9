"""The layers with outputs that stay in memory during training, because the backward pass needs them."""

from collections import defaultdict
from collections.abc import Iterator, Sequence

import keras

# The gradients of these activations follow from their output. So the output is kept, and the input is not needed.
_BY_OUTPUT = {"relu", "relu6", "elu", "selu", "sigmoid", "hard_sigmoid", "tanh", "softmax"}

# The gradients of these layers do not need the input: they sum, move, average or scale values.
_WITHOUT_INPUT = (
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

# The output of these layers is the memory of their input, with another shape.
IN_PLACE = (keras.layers.Flatten, keras.layers.Reshape)


def kept_layers(layers: Sequence[keras.layers.Layer]) -> set[keras.layers.Layer]:
    """Return the layers with outputs that the gradients of the layers themselves, or of later layers, need.

    A ReLU needs only its output, so the output of the normalisation before it is not kept. A sum needs nothing. A layer
    of an unknown kind is assumed to need its inputs. The model's outputs are kept for the loss.
    """
    consumers: dict[keras.layers.Layer, list[keras.layers.Layer]] = defaultdict(list)
    for layer in layers:
        for producer in _producers(layer):
            consumers[producer].append(layer)

    def input_is_needed(layer: keras.layers.Layer) -> bool:
        if isinstance(layer, IN_PLACE) or _is_linear_activation(layer):
            return is_needed(layer)
        return not isinstance(layer, _WITHOUT_INPUT) and not _is_activation_by_output(layer)

    def is_needed(layer: keras.layers.Layer) -> bool:
        later = consumers[layer]
        return not later or any(map(input_is_needed, later))

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
