"""The optimizer of a training: made from settings, and driven during `fit` by two callbacks."""

from typing import Any

import keras

from cnnlib.config import OptimizerSettings
from cnnlib.errors import ConfigError
from cnnlib.training.learning_rate import RateOfStep

Logs = dict[str, Any] | None

LEARNING_RATE = "learning_rate"

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
    """Make the Keras optimizer of the settings. Raises ConfigError for options that it does not have."""
    # Without a name, Keras would add a number that counts all optimizers of this process.
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


class LearningRate(keras.callbacks.Callback):
    """Set the learning rate before every step, and add it to the metrics of the epoch as `learning_rate`."""

    def __init__(self, rate: RateOfStep) -> None:
        super().__init__()
        self._rate = rate
        self._epoch = 0
        self._current: float | None = None

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        """Remember the epoch."""
        self._epoch = epoch

    def on_train_batch_begin(self, batch: int, logs: Logs = None) -> None:
        """Set the rate if it has changed."""
        steps = self.params["steps"]
        rate = self._rate(self._epoch * steps + batch, steps, self.params["epochs"])
        if rate != self._current:
            self.model.optimizer.learning_rate = rate
            self._current = rate

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """Add the rate of the last step to the metrics."""
        if logs is not None and self._current is not None:
            logs[LEARNING_RATE] = self._current


class AveragedWeights(keras.callbacks.Callback):
    """Validate and save the moving average of the weights in place of the weights themselves.

    After Polyak and Juditsky, "Acceleration of Stochastic Approximation by Averaging" (1992), with an exponential
    average. Keras' `SwapEMAWeights` leaves a model without the average if training stops before its last epoch.

    Put this after the callback that saves. `resumed` says that the model comes from a checkpoint. Such a model holds
    the average, and its optimizer holds the weights.
    """

    def __init__(self, *, resumed: bool) -> None:
        super().__init__()
        self._averaged = resumed

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        """Train the weights themselves."""
        self._swap(averaged=False)

    def on_test_begin(self, logs: Logs = None) -> None:
        """Validate the average."""
        self._swap(averaged=True)

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """Put the weights back. After the last epoch, Keras itself replaces them with the optimizer's average."""
        self._swap(averaged=False)

    def _swap(self, *, averaged: bool) -> None:
        if averaged == self._averaged:
            return
        optimizer = self.model.optimizer
        optimizer = getattr(optimizer, "inner_optimizer", optimizer)
        averages = optimizer._model_variables_moving_average
        for variable, average in zip(optimizer._trainable_variables, averages, strict=True):
            value = keras.ops.convert_to_numpy(variable)
            variable.assign(average)
            average.assign(value)
        self._averaged = averaged
