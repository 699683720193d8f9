"""Settings -> a Keras optimizer."""

from typing import Any

import keras

from cnnlib.config import OptimizerSettings
from cnnlib.errors import ConfigError

_CLASSES: dict[str, type[keras.Optimizer]] = {
    "sgd": keras.optimizers.SGD,
    "momentum": keras.optimizers.SGD,
    "nesterov": keras.optimizers.SGD,
    "adagrad": keras.optimizers.Adagrad,
    "adadelta": keras.optimizers.Adadelta,
    "rmsprop": keras.optimizers.RMSprop,
    "adam": keras.optimizers.Adam,
    "adamw": keras.optimizers.AdamW,
    "nadam": keras.optimizers.Nadam,
    "adamax": keras.optimizers.Adamax,
    "adafactor": keras.optimizers.Adafactor,
    "lion": keras.optimizers.Lion,
    "ftrl": keras.optimizers.Ftrl,
}


def make_optimizer(settings: OptimizerSettings, learning_rate: float) -> keras.Optimizer:
    """The optimizer of the settings. Raises ConfigError for options that it does not have."""
    # With a name, or Keras would count on from the optimizers that this process has made before.
    arguments: dict[str, Any] = {"learning_rate": learning_rate, "name": settings.name}
    if settings.name in ("momentum", "nesterov"):
        arguments |= {"momentum": settings.momentum, "nesterov": settings.name == "nesterov"}
    if settings.weight_decay is not None:
        arguments["weight_decay"] = settings.weight_decay
    if settings.clip_norm is not None:
        arguments["global_clipnorm"] = settings.clip_norm
    if settings.average:
        arguments |= {"use_ema": True, "ema_momentum": settings.average}
    try:
        return _CLASSES[settings.name](**arguments, **settings.options)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"optimizer.options do not fit {settings.name}: {error}") from error
