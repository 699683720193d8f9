"""A user's own architecture: a function in a module of theirs."""

import importlib
from typing import Any

import keras

from cnnlib.errors import ConfigError


def own_logits(name: str, pixels: keras.KerasTensor, classes: int, options: dict[str, Any]) -> keras.KerasTensor:
    """Have a user's function build a model, and give its logits (batch, classes) of standardised pixels.

    `name` is package.module:function. The function is called as `function(image_shape, classes, **options)` and gives
    a keras.Model, functional or sequential, from (batch, height, width, channels) float32, of about mean 0 and
    deviation 1, to logits. Its layers become those of the whole model. Raises ConfigError where there is no such
    function, or what it gives is no such model.
    """
    shape = tuple(pixels.shape[1:])
    try:
        model = _function(name)(shape, classes, **options)
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"model.name={name} did not build for images of {shape} and {classes} classes: {error}"
        ) from error
    if not isinstance(model, keras.Model):
        raise ConfigError(f"model.name={name} must give a keras.Model, received {type(model).__name__}")
    try:
        # Not the model as a layer: then nobody could look into it.
        logits = model.call(pixels)
    except (TypeError, ValueError, NotImplementedError) as error:
        raise ConfigError(f"model.name={name} gives a model that takes no images of {shape}: {error}") from error
    if getattr(logits, "shape", None) != (None, classes):
        raise ConfigError(f"model.name={name} must give logits of shape (batch, {classes}), received {logits}")
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
