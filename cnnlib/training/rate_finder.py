"""A sweep of the learning rate: a few hundred steps, each at a higher rate, and what they say of a good one.

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
from cnnlib.training.training_model import trained_by
from cnnlib.training.transfer import TransferPhases

LOWEST_RATE, HIGHEST_RATE, STEPS = 1e-7, 10.0, 200
# Of the exponential average of the losses; where it is this many times its lowest, the sweep is over.
_SMOOTHING, _RISEN = 0.9, 4.0
# Of the first loss: less is no fall, but chance.
_LEAST_FALL = 0.1


@dataclass(frozen=True)
class RateSweep:
    """The rates that were tried, rising, and the training loss of each step (the mean over all ranks)."""

    rates: tuple[float, ...]
    losses: tuple[float, ...]

    @property
    def smoothed(self) -> list[float]:
        """The exponential average of the losses, without bias towards its beginning.

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
        """The rate at which the smoothed loss falls most steeply, of those before it is lowest; None without a fall."""
        smoothed = self.smoothed
        lowest = int(np.argmin(smoothed))
        if smoothed[0] - smoothed[lowest] < _LEAST_FALL * smoothed[0]:
            return None
        slopes = np.gradient(smoothed[: lowest + 1], np.log(self.rates[: lowest + 1]))
        return self.rates[int(np.argmin(slopes))]

    def write(self, path: Path) -> None:
        """Write it as JSON."""
        path.write_text(json.dumps(asdict(self)))

    @classmethod
    def read(cls, path: Path) -> "RateSweep":
        """Read what `write` wrote."""
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
    """Train at ever higher rates, from 1e-7 up to 10, until the loss has risen to four times its lowest.

    The arguments are those of `fit_model`, and it raises the same. Every rank gets the same sweep, and the model as it
    was left, which is good for nothing else.
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
        trained_by(plain, image_set.image.shape, settings, ranks).fit(
            train_batches, steps_per_epoch=STEPS, epochs=1, callbacks=callbacks, shuffle=False, verbose=0
        )
    if not sweep.rates:
        raise ConfigError(
            f"the loss of {settings.model.name} is no number in the first step already, before the learning rate has "
            "any effect; look at the model"
        )
    return plain, RateSweep(sweep.rates, sweep.losses)


def rate_of(step: int) -> float:
    """The rate of a step, from 0.

    >>> rate_of(0), round(rate_of(STEPS - 1), 6)
    (1e-07, 10.0)
    """
    return LOWEST_RATE * (HIGHEST_RATE / LOWEST_RATE) ** (step / (STEPS - 1))


class _Sweep(keras.callbacks.Callback):
    """Sets the rate before every step, keeps its loss, and ends the sweep where that has risen far."""

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
        """Keep the loss: Keras tells the mean over the steps so far."""
        summed = float((logs or {})["loss"]) * (batch + 1)
        # The same on every rank, so that all of them end at the same step.
        loss = float(self._ranks.gather([summed - self._before]).mean())
        self._before = summed
        so_far = RateSweep((*self.rates, rate_of(batch)), (*self.losses, loss))
        smoothed = so_far.smoothed
        # No number is no number at most.
        if not smoothed[-1] <= _RISEN * min(smoothed):
            self.model.stop_training = True
            return
        self.rates, self.losses = so_far.rates, so_far.losses
