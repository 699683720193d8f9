"""Where a training stands after an epoch: which one is the best, whether it is over, and what a checkpoint keeps."""

from cnnlib.config import TrainSettings, flatten
from cnnlib.image_set.contract import ImageSet
from cnnlib.training.checkpoints import History, TrainingState, best_epoch


def best_epoch_of(history: History, settings: TrainSettings) -> int:
    """The epoch (from 1) that is best by `train.monitor` and `train.direction`."""
    return best_epoch(history[settings.train.monitor], settings.train.best_direction)


def is_over(history: History, settings: TrainSettings) -> bool:
    """Whether the last `train.patience` epochs brought nothing better; a transfer's first phase never is the last."""
    if not history or not settings.train.patience:
        return False
    if settings.model.weights is not None:
        first_phase = min(settings.transfer.frozen_epochs, settings.train.epochs)
        if len(history[settings.train.monitor]) < first_phase + settings.train.patience:
            return False
    return len(history[settings.train.monitor]) - best_epoch_of(history, settings) >= settings.train.patience


def state_after(epoch: int, history: History, image_set: ImageSet, settings: TrainSettings) -> TrainingState:
    """What a checkpoint of this epoch keeps beside the model."""
    best = best_epoch_of(history, settings)
    return TrainingState(
        epoch=epoch,
        history=history,
        best_epoch=best,
        best_value=history[settings.train.monitor][best - 1],
        seed=settings.train.seed,
        fingerprint=image_set.fingerprint,
        settings=flatten(settings),
    )
