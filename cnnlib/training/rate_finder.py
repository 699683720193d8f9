"""A sweep of the learning rate: 200 steps, each at a higher rate, and the rate that their losses suggest.

After Smith, "Cyclical Learning Rates for Training Neural Networks" (2017), section 3.3.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import keras
import numpy as np

from cnnlib.config import TrainSettings
from cnnlib.errors import ConfigError
from cnnlib.image_set.contract import ImageSet
from cnnlib.training.batches import Batches
from cnnlib.training.callbacks import EpochSeeds, Logs, ReportStep, StepReport
from cnnlib.training.compiled_model import compile_model, make_repeatable, new_model
from cnnlib.training.preconditions import check_fit
from cnnlib.training.ranks import ALONE, Ranks
from cnnlib.training.training_model import as_training_model
from cnnlib.training.transfer import TransferPhases

LOWEST_RATE, HIGHEST_RATE, STEPS = 1e-7, 10.0, 200
# The sweep ends when the exponential average of the losses, with this weight, is this many times its lowest value.
_SMOOTHING, _RISEN = 0.9, 4.0
# Fraction of the first loss. A smaller fall is chance.
_LEAST_FALL = 0.1


@dataclass(frozen=True)
class RateSweep:
    """The rates of a sweep in rising order, and the training loss of each step (mean over all ranks)."""

    rates: tuple[float, ...]
    losses: tuple[float, ...]

    @property
    def smoothed(self) -> list[float]:
        """The exponential average of the losses, corrected for its start at 0.

        >>> [round(value, 2) for value in RateSweep((0.1, 0.2, 0.3), (1.0, 2.0, 2.0)).smoothed]
        [1.0, 1.53, 1.7]
        """
        average, smoothed = 0.0, []
        for step, loss in enumerate(self.losses, start=1):
            average = _SMOOTHING * average + (1 - _SMOOTHING) * loss
            smoothed.append(average / (1 - _SMOOTHING**step))
        return smoothed

    @property
    def suggested(self) -> float | None:
        """The rate at the steepest fall of the smoothed loss before its lowest value; None without a fall."""
        smoothed = self.smoothed
        lowest = int(np.argmin(smoothed))
        if smoothed[0] - smoothed[lowest] < _LEAST_FALL * smoothed[0]:
            return None
        slopes = np.gradient(smoothed[: lowest + 1], np.log(self.rates[: lowest + 1]))
        return self.rates[int(np.argmin(slopes))]

    def write(self, path: Path) -> None:
        """Write the sweep as JSON."""
        path.write_text(json.dumps(asdict(self)))

    @classmethod
    def read(cls, path: Path) -> "RateSweep":
        """Read a sweep that `write` wrote."""
        written = json.loads(path.read_text())
        return cls(tuple(written["rates"]), tuple(written["losses"]))


def sweep_rates(
    image_set: ImageSet,
    settings: TrainSettings,
    *,
    on_step: ReportStep,
    ranks: Ranks = ALONE,
    weights: str | None = None,
) -> tuple[keras.Model, RateSweep]:
    """Train at rising rates from 1e-7 to 10, until the smoothed loss is four times its lowest value.

    The arguments and errors are those of `fit_model`. Also raises ConfigError if the first loss is already NaN. Every
    rank gets the same sweep. It also gets the model as it is after the last step, which has no further use.
    """
    check_fit(image_set, settings)
    make_repeatable(settings.train)
    plain = compile_model(new_model(image_set, settings, weights), settings)
    batches = Batches(image_set, settings, ranks)
    sweep = _Sweep(ranks)
    callbacks = [EpochSeeds(settings.train.seed, ranks.rank), sweep, StepReport(on_step)]
    if settings.model.weights is not None:
        callbacks.insert(0, TransferPhases(plain, settings.transfer))
    with batches.train(first_epoch=0) as train_batches:
        as_training_model(plain, image_set.image.shape, settings, ranks).fit(
            train_batches, steps_per_epoch=STEPS, epochs=1, callbacks=callbacks, shuffle=False, verbose=0
        )
    if not sweep.rates:
        raise ConfigError(
            f"the loss of {settings.model.name} is NaN in the first step, before the learning rate has any effect; "
            "check the model"
        )
    return plain, RateSweep(sweep.rates, sweep.losses)


def rate_of(step: int) -> float:
    """Return the rate of a step (from 0).

    >>> rate_of(0), round(rate_of(STEPS - 1), 6)
    (1e-07, 10.0)
    """
    return LOWEST_RATE * (HIGHEST_RATE / LOWEST_RATE) ** (step / (STEPS - 1))


class _Sweep(keras.callbacks.Callback):
    """Set the rate before every step, keep the loss of the step, and end the sweep when the loss has risen far."""

    def __init__(self, ranks: Ranks) -> None:
        super().__init__()
        self._ranks = ranks
        self._before = 0.0
        self.rates: tuple[float, ...] = ()
        self.losses: tuple[float, ...] = ()

    def on_train_batch_begin(self, batch: int, logs: Logs = None) -> None:
        """Raise the rate."""
        self.model.optimizer.learning_rate = rate_of(batch)

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
        """Keep the loss of the step. Keras gives the mean over the steps so far."""
        summed = float((logs or {})["loss"]) * (batch + 1)
        # The mean is the same on every rank, so all ranks end at the same step.
        loss = float(self._ranks.gather([summed - self._before]).mean())
        self._before = summed
        so_far = RateSweep((*self.rates, rate_of(batch)), (*self.losses, loss))
        smoothed = so_far.smoothed
        # Written so that NaN ends the sweep too.
        if not smoothed[-1] <= _RISEN * min(smoothed):
            self.model.stop_training = True
            return
        self.rates, self.losses = so_far.rates, so_far.losses
