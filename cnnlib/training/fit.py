"""An image set and settings -> a trained model and its history, on one rank of however many."""

from collections.abc import Callable, Iterator
from pathlib import Path

import keras

from cnnlib.config import TrainSettings
from cnnlib.feed.data_wait import DataWait
from cnnlib.image_set.contract import ImageSet
from cnnlib.image_set.splits import TRAIN
from cnnlib.training.batches import Batches
from cnnlib.training.callbacks import AverageStatistics, EpochReport, EpochSeeds, ReportStep, StepReport
from cnnlib.training.checkpoints import History, TrainingState, read_checkpoint
from cnnlib.training.compiled_model import (
    compile_model,
    global_batch_size,
    make_repeatable,
    new_model,
    scaled_learning_rate,
)
from cnnlib.training.divergence import Divergence
from cnnlib.training.epochs import is_over, state_after
from cnnlib.training.layer_monitor import LayerMonitor
from cnnlib.training.optimizer_callbacks import AveragedWeights, LearningRate
from cnnlib.training.preconditions import check_fit
from cnnlib.training.ranks import ALONE, Ranks
from cnnlib.training.schedules import learning_rate_at
from cnnlib.training.training_model import trained_by
from cnnlib.training.transfer import TransferPhases, rate_share

# (the model as the epoch left it, where training stands)
OnEpoch = Callable[[keras.Model, TrainingState], None]


def fit_model(
    image_set: ImageSet,
    settings: TrainSettings,
    *,
    on_epoch: OnEpoch,
    on_step: ReportStep,
    ranks: Ranks = ALONE,
    resume_from: Path | None = None,
    weights: str | None = None,
) -> tuple[keras.Model, History]:
    """Train from scratch, or on from a checkpoint, and give the model as the last epoch left it, with its history.

    On several ranks, all of them call this with the same arguments but `ranks`, and end with the same weights, which
    are those of a plain Keras model. `weights` are those to begin with, where model.weights is set: it is that, or the
    path of what that names in a registry. `on_epoch` is called after every epoch, `on_step` after every step. The
    history has a value an epoch, resumed ones included, of `loss, accuracy, val_loss, val_accuracy, learning_rate` and
    what `EpochReport` and `LayerMonitor` add. Stops after `train.patience` epochs without a better `train.monitor`.

    Raises ImageSetError where the set has no train or no val images, ConfigError where settings, model, images and
    checkpoint do not fit one another.
    """
    check_fit(image_set, settings)
    make_repeatable(settings.train)
    if resume_from is None:
        plain, history = compile_model(new_model(image_set, settings, weights), settings), {}
    else:
        plain, state = read_checkpoint(resume_from)
        history = state.history

    def report(epoch: int, metrics: dict[str, float]) -> bool:
        for name, value in metrics.items():
            history.setdefault(name, []).append(value)
        on_epoch(plain, state_after(epoch, history, image_set, settings))
        return not is_over(history, settings)

    past_epochs = len(history.get(settings.train.monitor, ()))
    if past_epochs < settings.train.epochs and not is_over(history, settings):
        data_wait = DataWait(settings.train.deterministic)
        batches = Batches(image_set, settings, ranks)
        epoch_report = EpochReport(image_set.split(TRAIN).rows, ranks, data_wait, report)
        callbacks = list(_callbacks(plain, batches, history, StepReport(on_step), epoch_report))
        _fit(trained_by(plain, image_set.image.shape, settings, ranks), batches, data_wait, past_epochs, callbacks)
    return plain, history


def _callbacks(
    plain: keras.Model, batches: Batches, history: History, step_report: StepReport, epoch_report: EpochReport
) -> Iterator[keras.callbacks.Callback]:
    """What happens in training beside its steps, in this order; `history` has the epochs before."""
    settings, ranks = batches.settings, batches.ranks
    if settings.model.weights is not None:
        # First of all: those behind it find every layer trainable in validation.
        yield TransferPhases(plain, settings.transfer)
    yield EpochSeeds(settings.train.seed, ranks.rank)
    yield LearningRate(_rate(settings, history))
    yield step_report
    yield Divergence(batches.classes, batches.ids_of_step, batches.heaviest)
    # Before the report, which stops the clock: this is work of the epoch.
    yield AverageStatistics()
    if settings.train.watch_layers and ranks.rank == 0:
        # On the rank whose metrics are kept, before the report that takes them.
        yield LayerMonitor(plain, *batches.first_val_images())
    yield epoch_report
    if settings.optimizer.average:
        yield AveragedWeights(resumed=bool(history))


def _fit(
    model: keras.Model,
    batches: Batches,
    data_wait: DataWait,
    past_epochs: int,
    callbacks: list[keras.callbacks.Callback],
) -> None:
    with batches.train(past_epochs, data_wait) as train_batches, batches.val() as val_batches:
        model.fit(
            train_batches,
            steps_per_epoch=batches.steps_per_epoch,
            validation_data=val_batches,
            initial_epoch=past_epochs,
            epochs=batches.settings.train.epochs,
            callbacks=callbacks,
            shuffle=False,  # the feed has shuffled already
            verbose=0,
        )


def _rate(settings: TrainSettings, history: History) -> Callable[[int, int, int], float]:
    """The learning rate of a step, of the steps of an epoch, and of epochs; `history` grows meanwhile."""
    peak = scaled_learning_rate(settings.optimizer, global_batch_size(settings))

    def rate(step: int, steps: int, epochs: int) -> float:
        share = 1.0 if settings.model.weights is None else rate_share(settings.transfer, step // steps)
        return share * learning_rate_at(
            settings.optimizer.schedule,
            peak,
            step=step,
            steps_per_epoch=steps,
            epochs=epochs,
            monitored=history.get(settings.train.monitor, ()),
            direction=settings.train.best_direction,
        )

    return rate
