"""The learning rate of every step, by rule alone: a resumed training has the rates it would have had."""

import math
from collections.abc import Sequence

from cnnlib.config import ScheduleSettings


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
    """The learning rate of a step, which counts from 0 over all epochs.

    `peak` is where the warm-up ends; `monitored` has the value of train.monitor after each epoch so far, which is best
    by `direction` "max" or "min". The warm-up is that of Goyal et al., "Accurate, Large Minibatch SGD" (2017), section
    2.2; the cosine, of the epochs behind the warm-up, that of Loshchilov and Hutter, "SGDR" (2016), equation 5, without
    restarts.

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
        share = schedule.final_fraction + (1 - schedule.final_fraction) * (1 + math.cos(math.pi * done)) / 2
        return peak * share
    if schedule.name == "plateau":
        return peak * schedule.factor ** plateaus(monitored, schedule.patience, direction)
    return peak


def plateaus(monitored: Sequence[float], patience: int, direction: str) -> int:
    """How often so many epochs in a row brought no better value than the best before them.

    >>> plateaus([0.5, 0.6, 0.6, 0.5, 0.59, 0.4, 0.7, 0.7], patience=2, direction="max")
    2
    """
    sign = 1 if direction == "max" else -1
    best, waited, count = -math.inf, 0, 0
    for value in monitored:
        # A value that is not a number is no better one.
        if sign * value > best:
            best, waited = sign * value, 0
        else:
            waited += 1
        if waited == patience:
            count, waited = count + 1, 0
    return count
