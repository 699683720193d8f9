"""The filters of a network's convolutions, and the maps that its layers make of an image."""

import difflib
from collections.abc import Sequence

import keras
import numpy as np

from cnnlib.errors import ConfigError
from cnnlib.models.nested import layer_outputs

# An error names as many layers at most: it is one line.
_MOST_NAMED = 8


def map_layers(model: keras.Model) -> list[str]:
    """The layers that give maps, (batch, height, width, channels), in order: those that can be named here."""
    return [layer.name for layer in model.layers if gives_maps(layer)]


def gives_maps(layer: keras.layers.Layer) -> bool:
    """Whether a layer computes maps (batch, height, width, channels): convolutions, poolings, activations on them."""
    if isinstance(layer, keras.layers.InputLayer):
        return False
    return not isinstance(layer.output, list | tuple) and len(layer.output.shape) == 4


def layer_named(model: keras.Model, name: str) -> keras.layers.Layer:
    """A layer that gives maps. Raises ConfigError for another name."""
    known = map_layers(model)
    if name not in known:
        raise ConfigError(f"layer={name} is no layer of {model.name} that gives maps; {_hint(name, known)}")
    return model.get_layer(name)


def maps_of(model: keras.Model, layer: keras.layers.Layer) -> keras.KerasTensor:
    """What a layer gives in this model, at its first call: a layer of a user's own may be in another model too."""
    return next(output for operation, output in layer_outputs(model) if operation is layer)


def filters_of(model: keras.Model, layer: str) -> np.ndarray:
    """The filters of a convolution: (height, width, channels, filters) float32, as Keras keeps them.

    Raises ConfigError for a layer that there is not, or that is no convolution.
    """
    found = layer_named(model, layer)
    if not isinstance(found, keras.layers.Conv2D):
        known = [other.name for other in model.layers if isinstance(other, keras.layers.Conv2D)]
        raise ConfigError(
            f"layer={layer} of {model.name} has no filters, it is a {type(found).__name__}; {_hint(layer, known)}"
        )
    return np.asarray(found.kernel)


def feature_maps(model: keras.Model, image: np.ndarray, layers: Sequence[str]) -> dict[str, np.ndarray]:
    """What some layers make of an image: by name, (height, width, channels) float32.

    `model` is a functional one, such as `cnnlib.models.build_model` gives, and computes as in prediction; `image` is
    (height, width, channels) uint8. Raises ConfigError for a layer that gives no maps, or an image of another shape.
    """
    outputs = {name: maps_of(model, layer_named(model, name)) for name in layers}
    check_images(model, image[None])
    maps = keras.Model(model.input, outputs)(image[None], training=False)
    return {name: np.asarray(maps[name][0], np.float32) for name in layers}


def check_images(model: keras.Model, images: np.ndarray) -> None:
    """Raise ConfigError where images (batch, height, width, channels) are not of the model's size."""
    if images.shape[1:] != model.input_shape[1:]:
        raise ConfigError(
            f"an image has shape {images.shape[1:]}, {model.name} takes {model.input_shape[1:]} (height, width, "
            "channels); bring it to that first"
        )


def _hint(name: str, known: Sequence[str]) -> str:
    nearest = difflib.get_close_matches(name, known, n=1)
    if nearest:
        return f"did you mean {nearest[0]}?"
    if not known:
        return "it has none such"
    rest = f", or one of {len(known) - _MOST_NAMED} more" if len(known) > _MOST_NAMED else ""
    return f"take one of {', '.join(known[:_MOST_NAMED])}{rest}"
