"""What the curves of a training, and its layers, say in words."""

import math
from collections.abc import Sequence

from cnnlib.config import TrainSettings
from cnnlib.training.checkpoints import History
from cnnlib.training.layer_monitor import DEAD_UNITS, GRADIENT_NORM

# Epochs after the lowest val_loss, and how far above it, from which on it is no accident.
_OVERFIT_EPOCHS, _OVERFIT_RISE = 2, 1.05
# Of the loss of guessing: an untrained model may be a little above, no training stays far above, and below 0.9 of it
# something was learnt.
_FAR_ABOVE_GUESSING, _LIKE_GUESSING = 2.0, 0.9
_MANY_DEAD = 0.5
_VANISHING = 1e-6
_EXPLODING = 1e3


def advice_on(history: History, settings: TrainSettings, classes: int) -> dict[str, str]:
    """What is wrong with a training so far, by kind; empty where nothing is.

    Kinds are overfitting, rate_too_high, rate_too_low, dead_units, vanishing_gradients and exploding_gradients.
    Guessing among `classes` has a loss of ln(classes).

    >>> history = {"loss": [0.5, 0.3, 0.2, 0.1], "val_loss": [0.5, 0.4, 0.5, 0.6]}
    >>> list(advice_on(history, TrainSettings(data={"path": "set"}), classes=10))
    ['overfitting']
    """
    found = {
        "overfitting": _overfitting(history["loss"], history["val_loss"]),
        "rate_too_high": _rate_too_high(history["loss"], math.log(classes)),
        "rate_too_low": _rate_too_low(history["loss"], math.log(classes), settings.optimizer.schedule.warmup_epochs),
        "dead_units": _dead_units(_last(history, DEAD_UNITS)),
    } | _gradients(_last(history, GRADIENT_NORM))
    return {kind: words for kind, words in found.items() if words}


def _overfitting(loss: Sequence[float], val_loss: Sequence[float]) -> str:
    best = min(range(len(val_loss)), key=lambda epoch: val_loss[epoch])
    since = len(val_loss) - 1 - best
    if since < _OVERFIT_EPOCHS or val_loss[-1] < _OVERFIT_RISE * val_loss[best] or loss[-1] >= loss[best]:
        return ""
    return (
        f"overfitting: since epoch {best + 1} val_loss went up from {val_loss[best]:.4f} to {val_loss[-1]:.4f} while "
        f"loss went down from {loss[best]:.4f} to {loss[-1]:.4f}; augment the images, set optimizer.weight_decay or "
        "train.label_smoothing, or take a smaller model"
    )


def _rate_too_high(loss: Sequence[float], guessing: float) -> str:
    if loss[-1] > _FAR_ABOVE_GUESSING * guessing:
        what = f"loss is {loss[-1]:.4f}, above the {guessing:.4f} of guessing"
    elif len(loss) > 2 and loss[-1] > loss[-2] > loss[-3]:
        what = f"loss rose twice, from {loss[-3]:.4f} to {loss[-1]:.4f}"
    else:
        return ""
    return f"the learning rate may be too high: {what}; lower optimizer.learning_rate, or warm up longer"


def _rate_too_low(loss: Sequence[float], guessing: float, warmup_epochs: float) -> str:
    falling = all(later < earlier for earlier, later in zip(loss, loss[1:], strict=False))
    if len(loss) < 2 + math.ceil(warmup_epochs) or not falling or loss[-1] < _LIKE_GUESSING * guessing:
        return ""
    return (
        f"the learning rate may be too low: after {len(loss)} epochs loss is {loss[-1]:.4f}, guessing has "
        f"{guessing:.4f}, and it falls slowly; raise optimizer.learning_rate"
    )


def _dead_units(shares: dict[str, float]) -> str:
    dead = {name: share for name, share in shares.items() if share > _MANY_DEAD}
    if not dead:
        return ""
    listed = ", ".join(f"{share:.0%} of {name}" for name, share in dead.items())
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
    """The last values of the metrics whose names begin so, by the rest of their names."""
    return {name.removeprefix(prefix): values[-1] for name, values in history.items() if name.startswith(prefix)}
