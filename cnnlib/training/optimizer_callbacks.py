"""What happens to the optimizer during `fit`: its learning rate, and its moving average of the weights."""

from collections.abc import Callable
from typing import Any

import keras

# (step, from 0 over all epochs; steps of an epoch; epochs at most) -> the learning rate
Rate = Callable[[int, int, int], float]
Logs = dict[str, Any] | None

LEARNING_RATE = "learning_rate"


class LearningRate(keras.callbacks.Callback):
    """Sets the learning rate before every step, and adds it to the epoch's metrics as `learning_rate`."""

    def __init__(self, rate: Rate) -> None:
        super().__init__()
        self._rate = rate
        self._epoch = 0
        self._set: float | None = None

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        """Remember which epoch this is."""
        self._epoch = epoch

    def on_train_batch_begin(self, batch: int, logs: Logs = None) -> None:
        """Set the rate, where it is another one than before."""
        steps = self.params["steps"]
        rate = self._rate(self._epoch * steps + batch, steps, self.params["epochs"])
        if rate != self._set:
            self.model.optimizer.learning_rate = rate
            self._set = rate

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """Tell the rate of the last step."""
        if logs is not None and self._set is not None:
            logs[LEARNING_RATE] = self._set


class AveragedWeights(keras.callbacks.Callback):
    """Has the moving average of the weights validated and saved in their place.

    After Polyak and Juditsky, "Acceleration of Stochastic Approximation by Averaging" (1992), with an exponential
    average. Keras' `SwapEMAWeights` gives a model without it where training stops before its last epoch. Put this
    behind the callback that saves. `resumed` says that the model is from a checkpoint: it has the average, and the
    optimizer the weights.
    """

    def __init__(self, *, resumed: bool) -> None:
        super().__init__()
        self._averaged = resumed

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        """Train the weights themselves."""
        self._have(averaged=False)

    def on_test_begin(self, logs: Logs = None) -> None:
        """Validate the average."""
        self._have(averaged=True)

    def on_epoch_end(self, epoch: int, logs: Logs = None) -> None:
        """Give the weights back: at the end of all epochs, Keras puts the optimizer's average in their place."""
        self._have(averaged=False)

    def _have(self, *, averaged: bool) -> None:
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
