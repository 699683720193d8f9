"""The learning rate of every step.

It follows from rules alone, so a resumed training gets the rates that it would have had without the interruption.
"""

import math
from collections.abc import Callable, Mapping, Sequence

from cnnlib.config import OptimizerSettings, ScheduleSettings, TrainSettings, TransferSettings

# (step, from 0 over all epochs; steps per epoch; most epochs) -> the learning rate
RateOfStep = Callable[[int, int, int], float]


def rate_of_step(settings: TrainSettings, history: Mapping[str, Sequence[float]]) -> RateOfStep:
    """Return the function that gives the learning rate of each step of a training.

    `history` has the metrics of the epochs so far. It may grow while the function is in use.
    """
    peak = scaled_learning_rate(settings.optimizer, global_batch_size(settings))

    def rate(step: int, steps_per_epoch: int, epochs: int) -> float:
        scheduled = learning_rate_at(
            settings.optimizer.schedule,
            peak,
            step=step,
            steps_per_epoch=steps_per_epoch,
            epochs=epochs,
            monitored=history.get(settings.train.monitor, ()),
            direction=settings.train.best_direction,
        )
        if settings.model.weights is None:
            return scheduled
        return transfer_rate_factor(settings.transfer, step // steps_per_epoch) * scheduled

    return rate


def global_batch_size(settings: TrainSettings) -> int:
    """Return the number of images that all workers together use in one step."""
    return settings.train.worker_batch_size * max(settings.train.workers, 1)


def scaled_learning_rate(settings: OptimizerSettings, global_batch_size: int) -> float:
    """Return the learning rate for a global batch size, by the rule `optimizer.scaling`.

    The linear rule is from Goyal et al., "Accurate, Large Minibatch SGD" (2017), section 2.1. The square root rule is
    from Krizhevsky, "One weird trick for parallelizing convolutional neural networks" (2014), section 5.

    >>> settings = OptimizerSettings(learning_rate=0.1, scaling="linear", base_batch_size=128)
    >>> scaled_learning_rate(settings, 512)
    0.4
    """
    ratio = global_batch_size / settings.base_batch_size
    return settings.learning_rate * {"none": 1.0, "linear": ratio, "square_root": ratio**0.5}[settings.scaling]


def learning_rate_at(
    schedule: ScheduleSettings,
    peak: float,
    *,
    step: int,
    steps_per_epoch: int,
    epochs: int,
    monitored: Sequence[float] = (),
    direction: str = "max",
) -> float:
    """Return the learning rate of a step. Steps count from 0 over all epochs.

    `peak` is the rate at the end of the warm-up. `monitored` has the value of train.monitor after each epoch so far;
    `direction`, "max" or "min", says which value is best. The warm-up is from Goyal et al., "Accurate, Large Minibatch
    SGD" (2017), section 2.2. The cosine covers the epochs after the warm-up; it is equation 5 of Loshchilov and Hutter,
    "SGDR" (2016), without restarts.

    >>> cosine = ScheduleSettings(name="cosine", warmup_epochs=1)
    >>> [round(learning_rate_at(cosine, 0.1, step=s, steps_per_epoch=2, epochs=3), 4) for s in range(6)]
    [0.05, 0.1, 0.1, 0.0854, 0.05, 0.0146]
    """
    warmup_steps = schedule.warmup_epochs * steps_per_epoch
    if step < warmup_steps:
        return peak * min(1.0, (step + 1) / warmup_steps)
    epoch = step // steps_per_epoch
    if schedule.name == "step":
        return peak * schedule.factor ** (epoch // schedule.every_epochs)
    if schedule.name == "cosine":
        done = (step - warmup_steps) / max(epochs * steps_per_epoch - warmup_steps, 1)
        wave = (1 + math.cos(math.pi * done)) / 2
        return peak * (schedule.final_fraction + (1 - schedule.final_fraction) * wave)
    if schedule.name == "plateau":
        return peak * schedule.factor ** count_plateaus(monitored, schedule.patience, direction)
    return peak


def count_plateaus(monitored: Sequence[float], patience: int, direction: str) -> int:
    """Count how often `patience` epochs in a row brought no new best value.

    NaN is never a better value.

    >>> count_plateaus([0.5, 0.6, 0.6, 0.5, 0.59, 0.4, 0.7, 0.7], patience=2, direction="max")
    2
    """
    sign = 1 if direction == "max" else -1
    best, waited, count = -math.inf, 0, 0
    for value in monitored:
        if sign * value > best:
            best, waited = sign * value, 0
        else:
            waited += 1
        if waited == patience:
            count, waited = count + 1, 0
    return count


def transfer_rate_factor(settings: TransferSettings, epoch: int) -> float:
    """Return the factor on the learning rate in an epoch (from 0) of a transfer learning."""
    return 1.0 if epoch < settings.frozen_epochs else settings.rate
