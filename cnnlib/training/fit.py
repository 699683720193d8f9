"""An image set and settings -> a trained model and its history, on one rank of any number."""

import math
from collections.abc import Callable, Iterator
from pathlib import Path

import keras
import tensorflow as tf

from cnnlib.config import TrainSettings
from cnnlib.feed.data_wait import DataWait
from cnnlib.image_set.contract import ImageSet
from cnnlib.image_set.splits import TRAIN
from cnnlib.keras_setup import check_keras
from cnnlib.training.batch_statistics import BatchStatistics, shorten_memory
from cnnlib.training.batches import Batches
from cnnlib.training.callbacks import AverageStatistics, Divergence, EpochReport, EpochSeeds, ReportStep, StepReport
from cnnlib.training.checkpoints import History, TrainingState, best_epoch_of, read_checkpoint, state_after
from cnnlib.training.compiled_model import compile_model, make_repeatable, new_model
from cnnlib.training.layer_monitor import LayerMonitor
from cnnlib.training.learning_rate import rate_of_step
from cnnlib.training.optimizers import AveragedWeights, LearningRate
from cnnlib.training.preconditions import check_fit
from cnnlib.training.ranks import ALONE, Ranks
from cnnlib.training.training_model import as_training_model
from cnnlib.training.transfer import TransferPhases

# (the model as it is after the epoch, the state of the training)
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
    """Train from scratch or from a checkpoint. Return the model as it is after the last epoch, and its history.

    All ranks of a training call this with the same arguments except `ranks`. They end with the same weights, in a plain
    Keras model.

    - `resume_from` is the folder of a checkpoint; None trains from scratch.
    - `weights` are the starting weights if model.weights is set: its value, or the path of the weights that it names in
      a registry.
    - `on_epoch` is called after every epoch, `on_step` after every step.

    The history has one value per epoch, resumed epochs included: `loss`, `accuracy`, `val_loss`, `val_accuracy`,
    `learning_rate`, and the metrics that `EpochReport`, `LayerMonitor` and `BatchStatistics` add. Training stops early
    after `train.patience` epochs without a better `train.monitor`.

    Raises ImageSetError if the set has no train or no val images. Raises ConfigError if settings, model, images and
    checkpoint do not fit together.
    """
    check_keras()
    check_fit(image_set, settings)
    make_repeatable(settings.train)
    batches = Batches(image_set, settings, ranks)
    if resume_from is None:
        plain, history = compile_model(new_model(image_set, settings, weights), settings), {}
        if settings.model.weights is None:
            shorten_memory(plain, settings.train.epochs * batches.steps_per_epoch)
    else:
        plain, state = read_checkpoint(resume_from)
        history = state.history

    def report(epoch: int, metrics: dict[str, float]) -> bool:
        for name, value in (metrics | statistics.metrics).items():
            # A run of an older version may have had fewer metrics.
            history.setdefault(name, [math.nan] * (epoch - 1)).append(value)
        on_epoch(plain, state_after(epoch, history, image_set, settings))
        return not is_over(history, settings)

    past_epochs = len(history.get(settings.train.monitor, ()))
    if past_epochs < settings.train.epochs and not is_over(history, settings):
        data_wait = DataWait(settings.train.deterministic)
        epoch_report = EpochReport(image_set.split(TRAIN).rows, ranks, data_wait, report)
        statistics = BatchStatistics(plain, batches, history)
        callbacks = list(_callbacks(plain, batches, history, StepReport(on_step), epoch_report, statistics))
        model = as_training_model(plain, image_set.image.shape, settings, ranks)
        _fit(model, batches, data_wait, past_epochs, callbacks)
    return plain, history


def is_over(history: History, settings: TrainSettings) -> bool:
    """Return whether the last `train.patience` epochs brought no better value of `train.monitor`.

    A transfer learning always gets its first phase and `train.patience` epochs after it.
    """
    if not history or not settings.train.patience:
        return False
    epochs = len(history[settings.train.monitor])
    if settings.model.weights is not None:
        first_phase = min(settings.transfer.frozen_epochs, settings.train.epochs)
        if epochs < first_phase + settings.train.patience:
            return False
    return epochs - best_epoch_of(history, settings) >= settings.train.patience


def _callbacks(
    plain: keras.Model,
    batches: Batches,
    history: History,
    step_report: StepReport,
    epoch_report: EpochReport,
    statistics: BatchStatistics,
) -> Iterator[keras.callbacks.Callback]:
    """Yield the callbacks of a training in the order in which Keras calls them. `history` has the earlier epochs."""
    settings, ranks = batches.settings, batches.ranks
    if settings.model.weights is not None:
        # First, so that the callbacks after it find every layer trainable in validation.
        yield TransferPhases(plain, settings.transfer)
    yield EpochSeeds(settings.train.seed, ranks.rank)
    yield LearningRate(rate_of_step(settings, history))
    yield step_report
    yield Divergence(batches.classes, batches.ids_of_step, batches.heaviest)
    # Before the report stops the clock, because this belongs to the epoch's work.
    yield AverageStatistics()
    if settings.train.watch_layers and ranks.rank == 0:
        # Before the report takes the metrics. Only those of rank 0 are kept.
        yield LayerMonitor(plain, *batches.first_val_images())
    yield epoch_report
    if settings.optimizer.average:
        yield AveragedWeights(resumed=bool(history))
    if settings.model.weights is None:
        # Last, so that it sees averaged weights. Pretrained statistics stay.
        yield statistics


def _fit(
    model: keras.Model,
    batches: Batches,
    data_wait: DataWait,
    past_epochs: int,
    callbacks: list[keras.callbacks.Callback],
) -> None:
    with batches.train(past_epochs, data_wait) as train_batches, batches.val() as val_batches:
        _build_metrics(model, train_batches)
        model.fit(
            train_batches,
            steps_per_epoch=batches.steps_per_epoch,
            validation_data=val_batches,
            initial_epoch=past_epochs,
            epochs=batches.settings.train.epochs,
            callbacks=callbacks,
            shuffle=False,  # the feed has already shuffled
            verbose=0,
        )


def _build_metrics(model: keras.Model, batches: tf.data.Dataset) -> None:
    """Create the variables of the metrics before training.

    Keras would create them in the first step. TensorFlow traces a step that creates variables a second time, so the
    first step of ResNet-50 took 1.5 times as long (34 s instead of 22.7 s on two cores).
    """
    images, targets, *weights = batches.element_spec
    logits = tf.TensorSpec(model.output_shape, tf.float32)
    tf.function(model.compute_metrics).get_concrete_function(images, targets, logits, *weights)
