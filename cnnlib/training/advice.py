"""Warnings in words, from the curves of a training and from measurements of its layers."""

import math
from collections.abc import Sequence

from cnnlib.config import TrainSettings
from cnnlib.training.batch_statistics import INFERENCE_MODE, TRAINING_MODE
from cnnlib.training.checkpoints import History
from cnnlib.training.layer_monitor import DEAD_UNITS, GRADIENT_NORM

# So many epochs after the lowest val_loss, and so far above it, a rise is not chance.
_OVERFIT_EPOCHS, _OVERFIT_RISE = 2, 1.05
# A validation loss above guessing, and this many times the training loss, has another reason than overfitting.
_FAR_FROM_TRAINING = 5.0
# In multiples of the loss of guessing. An untrained model may be a little above 1, but no training stays above 2. Below
# 0.9 the model has learned something.
_FAR_ABOVE_GUESSING, _LIKE_GUESSING = 2.0, 0.9
# Accuracy of the same images in training mode and in inference mode. Chance alone makes a smaller difference on 100.
_MODES_APART = 0.15
_MANY_DEAD = 0.5
_VANISHING = 1e-6
_EXPLODING = 1e3


def advice_on(history: History, settings: TrainSettings, classes: int) -> dict[str, str]:
    """Return the warnings about a training so far, by kind. The result is empty if nothing is wrong.

    Kinds are overfitting, validation_far_off, modes_apart, rate_too_high, rate_too_low, dead_units,
    vanishing_gradients and exploding_gradients. Guessing among `classes` has a loss of ln(classes).

    >>> history = {"loss": [0.5, 0.3, 0.2, 0.1], "val_loss": [0.5, 0.4, 0.5, 0.6]}
    >>> list(advice_on(history, TrainSettings(data={"path": "set"}), classes=10))
    ['overfitting']
    """
    found = {
        "overfitting": _overfitting(history, settings),
        "validation_far_off": _validation_far_off(history["loss"][-1], history["val_loss"][-1], math.log(classes)),
        "modes_apart": _modes_apart(history),
        "rate_too_high": _rate_too_high(history["loss"], math.log(classes)),
        "rate_too_low": _rate_too_low(history["loss"], math.log(classes), settings.optimizer.schedule.warmup_epochs),
        "dead_units": _dead_units(_last(history, DEAD_UNITS)),
    } | _gradients(_last(history, GRADIENT_NORM))
    return {kind: warning for kind, warning in found.items() if warning}


def _overfitting(history: History, settings: TrainSettings) -> str:
    loss, val_loss, accuracy = history["loss"], history["val_loss"], history.get("val_accuracy", ())
    best = min(range(len(val_loss)), key=lambda epoch: val_loss[epoch])
    since = len(val_loss) - 1 - best
    if since < _OVERFIT_EPOCHS or val_loss[-1] < _OVERFIT_RISE * val_loss[best] or loss[-1] >= loss[best]:
        return ""
    # The loss also rises if the model is wrong no more often, but surer where it is.
    if accuracy and accuracy[-1] > accuracy[best]:
        return ""
    untried = {
        "augment the images": settings.augment == type(settings.augment)(),
        "set optimizer.weight_decay": not settings.optimizer.weight_decay,
        "set train.label_smoothing": not settings.train.label_smoothing,
        "take a smaller model, or more images": True,
    }
    return (
        f"overfitting: since epoch {best + 1} val_loss went up from {val_loss[best]:.4f} to {val_loss[-1]:.4f} while "
        f"loss went down from {loss[best]:.4f} to {loss[-1]:.4f}; the registered epoch is the best one. To go further, "
        f"{', '.join(advice for advice, applies in untried.items() if applies)}"
    )


def _validation_far_off(loss: float, val_loss: float, guessing: float) -> str:
    if val_loss <= max(_FAR_ABOVE_GUESSING * guessing, _FAR_FROM_TRAINING * loss):
        return ""
    return (
        f"validation is far off: val_loss is {val_loss:.4g} while loss is {loss:.4g} and guessing has {guessing:.4g}; "
        "the validation images may differ from the training images, or the learning rate may be too high"
    )


def _modes_apart(history: History) -> str:
    training, inference = (history.get(name, [math.nan])[-1] for name in (TRAINING_MODE, INFERENCE_MODE))
    if not training - inference > _MODES_APART:
        return ""
    return (
        f"batch normalisation: of the same training images, {training:.1%} are right with the statistics of each "
        f"batch, but {inference:.1%} with the averages that validation and scoring use; raise train.worker_batch_size, "
        "lower optimizer.learning_rate, or train for more epochs"
    )


def _rate_too_high(loss: Sequence[float], guessing: float) -> str:
    if loss[-1] > _FAR_ABOVE_GUESSING * guessing:
        sign = f"loss is {loss[-1]:.4f}, above the {guessing:.4f} of guessing"
    elif len(loss) > 2 and loss[-1] > loss[-2] > loss[-3]:
        sign = f"loss rose twice, from {loss[-3]:.4f} to {loss[-1]:.4f}"
    else:
        return ""
    return f"the learning rate may be too high: {sign}; lower optimizer.learning_rate, or warm up longer"


def _rate_too_low(loss: Sequence[float], guessing: float, warmup_epochs: float) -> str:
    falling = all(later < earlier for earlier, later in zip(loss, loss[1:], strict=False))
    if len(loss) < 2 + math.ceil(warmup_epochs) or not falling or loss[-1] < _LIKE_GUESSING * guessing:
        return ""
    return (
        f"the learning rate may be too low: after {len(loss)} epochs loss is {loss[-1]:.4f} and falls slowly, while "
        f"guessing has {guessing:.4f}; raise optimizer.learning_rate"
    )


def _dead_units(fractions: dict[str, float]) -> str:
    dead = {name: fraction for name, fraction in fractions.items() if fraction > _MANY_DEAD}
    if not dead:
        return ""
    listed = ", ".join(f"{fraction:.0%} of {name}" for name, fraction in dead.items())
    return (
        f"dead units: {listed} were never active on a validation batch; lower optimizer.learning_rate, or take "
        "another activation"
    )


def _gradients(norms: dict[str, float]) -> dict[str, str]:
    if not norms:
        return {}
    least, most = min(norms, key=norms.__getitem__), max(norms, key=norms.__getitem__)
    found = {}
    if norms[least] < _VANISHING * norms[most]:
        found["vanishing_gradients"] = (
            f"vanishing gradients: their norm is {norms[least]:.2g} in {least} and {norms[most]:.2g} in {most}; take "
            "another activation, normalisation or shortcuts"
        )
    if norms[most] > _EXPLODING:
        found["exploding_gradients"] = (
            f"exploding gradients: their norm is {norms[most]:.2g} in {most}; set optimizer.clip_norm"
        )
    return found


def _last(history: History, prefix: str) -> dict[str, float]:
    """Return the last value of each metric with this prefix, by the rest of its name."""
    return {name.removeprefix(prefix): values[-1] for name, values in history.items() if name.startswith(prefix)}
