"""A user's own architecture: a function in a module of theirs."""

import importlib
from typing import Any

import keras

from cnnlib.errors import ConfigError


def own_logits(name: str, pixels: keras.KerasTensor, classes: int, options: dict[str, Any]) -> keras.KerasTensor:
    """Call a user's function to build a model, and return its logits (batch, classes) for standardised pixels.

    `name` is package.module:function. The function is called as `function(image_shape, classes, **options)`, with
    `image_shape` as (height, width, channels). It returns a functional or sequential keras.Model that maps (batch,
    height, width, channels) float32, with a mean of about 0 and a deviation of about 1, to logits. Its layers become
    layers of the whole model. Raises ConfigError if there is no such function, or if it returns anything else.
    """
    shape = tuple(pixels.shape[1:])
    try:
        model = _function(name)(shape, classes, **options)
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"model.name={name} did not build for images of {shape} and {classes} classes: {error}"
        ) from error
    if not isinstance(model, keras.Model):
        raise ConfigError(f"model.name={name} must return a keras.Model, received {type(model).__name__}")
    try:
        # If the model became one layer, feature maps and Grad-CAM could not look into it.
        logits = model.call(pixels)
    except (TypeError, ValueError, NotImplementedError) as error:
        raise ConfigError(f"model.name={name} returned a model that takes no images of {shape}: {error}") from error
    if getattr(logits, "shape", None) != (None, classes):
        raise ConfigError(
            f"model.name={name} must return a model with logits of shape (batch, {classes}), received {logits}"
        )
    return logits


def _function(name: str) -> Any:
    module, _, function = name.rpartition(":")
    try:
        return getattr(importlib.import_module(module), function)
    except ImportError as error:
        raise ConfigError(
            f"model.name={name} cannot be imported ({error}); put the folder that holds it on PYTHONPATH, on Spark's "
            "workers too (--py-files)"
        ) from error
    except AttributeError as error:
        raise ConfigError(f"model.name={name}: the module {module} has no {function}") from error
