"""The filters of a model's convolutions, and the feature maps of its layers for an image."""

from collections.abc import Sequence

import keras
import numpy as np

from cnnlib.errors import ConfigError, did_you_mean
from cnnlib.models.nested import layer_outputs

# Largest number of layers in an error message, which is one line.
_MOST_NAMED = 8


def map_layers(model: keras.Model) -> list[str]:
    """Return the names of the layers with maps, (batch, height, width, channels), in order."""
    return [layer.name for layer in model.layers if has_maps(layer)]


def has_maps(layer: keras.layers.Layer) -> bool:
    """Return whether a layer computes maps (batch, height, width, channels), as convolutions and poolings do."""
    if isinstance(layer, keras.layers.InputLayer):
        return False
    return not isinstance(layer.output, list | tuple) and len(layer.output.shape) == 4


def layer_named(model: keras.Model, name: str) -> keras.layers.Layer:
    """Return the layer of this name. Raises ConfigError if the model has no such layer with maps."""
    known = map_layers(model)
    if name not in known:
        raise ConfigError(f"layer={name} is no layer of {model.name} with maps; {_hint(name, known)}")
    return model.get_layer(name)


def maps_of(model: keras.Model, layer: keras.layers.Layer) -> keras.KerasTensor:
    """Return the output of a layer in this model. A layer of a user's function may be in another model too."""
    return next(output for operation, output in layer_outputs(model) if operation is layer)


def filters_of(model: keras.Model, layer: str) -> np.ndarray:
    """Return the filters of a convolution: (height, width, channels, filters) float32, in Keras' order.

    Raises ConfigError if there is no such layer, or if it is no convolution.

    >>> from cnnlib.models import build_model
    >>> filters_of(build_model("lenet", image_shape=(28, 28, 1), classes=10), "conv_1").shape
    (5, 5, 1, 20)
    """
    found = layer_named(model, layer)
    if not isinstance(found, keras.layers.Conv2D):
        known = [other.name for other in model.layers if isinstance(other, keras.layers.Conv2D)]
        raise ConfigError(
            f"layer={layer} of {model.name} has no filters, because it is a {type(found).__name__}; "
            f"{_hint(layer, known)}"
        )
    return np.asarray(found.kernel)


def feature_maps(model: keras.Model, image: np.ndarray, layers: Sequence[str]) -> dict[str, np.ndarray]:
    """Return the maps of some layers for an image, by layer name: (height, width, channels) float32.

    `model` is a functional model, like those of `cnnlib.models.build_model`. It runs as in prediction. `image` is
    (height, width, channels) uint8. Raises ConfigError for a layer without maps, or an image of another shape.

    >>> from cnnlib.models import build_model
    >>> model = build_model("lenet", image_shape=(28, 28, 1), classes=10)
    >>> maps = feature_maps(model, np.zeros((28, 28, 1), np.uint8), ["conv_1", "conv_2"])
    >>> maps["conv_1"].shape, maps["conv_2"].shape
    ((24, 24, 20), (8, 8, 50))
    """
    outputs = {name: maps_of(model, layer_named(model, name)) for name in layers}
    check_images(model, image[None])
    maps = keras.Model(model.input, outputs)(image[None], training=False)
    return {name: np.asarray(maps[name][0], np.float32) for name in layers}


def check_images(model: keras.Model, images: np.ndarray) -> None:
    """Raise ConfigError if images (batch, height, width, channels) have another shape than the model's images."""
    if images.shape[1:] != model.input_shape[1:]:
        raise ConfigError(
            f"an image has shape {images.shape[1:]}, {model.name} takes {model.input_shape[1:]} (height, width, "
            "channels); resize it first"
        )


def _hint(name: str, known: Sequence[str]) -> str:
    if not known:
        return "the model has no layer of this kind"
    rest = f" and {len(known) - _MOST_NAMED} more" if len(known) > _MOST_NAMED else ""
    return did_you_mean(name, known, f"take one of {', '.join(known[:_MOST_NAMED])}{rest}")
