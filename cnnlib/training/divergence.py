"""A training whose loss runs away is stopped at the step in which it did."""

import math
from collections.abc import Callable, Mapping, Sequence

import keras

from cnnlib.errors import DivergenceError

# Beyond this many times the loss of guessing, no training comes back to what it could have been.
LARGEST_LOSS = 100.0

# (epoch, step of it), both from 0 -> the ids of the images of that step on this rank
IdsOfStep = Callable[[int, int], Sequence[str]]


class Divergence(keras.callbacks.Callback):
    """Raises DivergenceError in the step after which an epoch's mean loss is no number, or far beyond guessing.

    Guessing among `classes` has a loss of ln(classes); `heaviest` is the largest weight that an image has. The error
    quotes the ids of the step's images.
    """

    def __init__(self, classes: int, ids_of_step: IdsOfStep, heaviest: float = 1.0) -> None:
        super().__init__()
        self._most = LARGEST_LOSS * math.log(classes) * max(heaviest, 1.0)
        self._ids_of_step = ids_of_step
        self._epoch = 0

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        """Remember which epoch this is."""
        self._epoch = epoch

    def on_train_batch_end(self, batch: int, logs: Mapping[str, float] | None = None) -> None:
        """Look at the loss."""
        loss = float((logs or {})["loss"])
        if loss <= self._most:
            return
        rate = float(self.model.optimizer.learning_rate)
        ids = self._ids_of_step(self._epoch, batch)
        raise DivergenceError(
            f"the loss is {loss:.4g} after step {batch + 1} of epoch {self._epoch + 1}, with a learning rate of "
            f"{rate:.3g}: too high; lower optimizer.learning_rate (--train.find_rate true finds one), or set "
            f"optimizer.clip_norm; the ids of the step's {len(ids)} images follow",
            quoted=ids,
        )
