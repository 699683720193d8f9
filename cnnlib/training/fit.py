"""An image set and settings -> a trained model and its history, on one rank of however many."""

from collections.abc import Callable
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path

import keras
import tensorflow as tf

from cnnlib.config import TrainSettings
from cnnlib.feed import make_dataset
from cnnlib.feed.blocks import read_split
from cnnlib.feed.data_wait import DataWait
from cnnlib.feed.replay import image_ids_of_step
from cnnlib.feed.sharding import steps_per_epoch
from cnnlib.imageset import ImageSet
from cnnlib.splits import TRAIN, VAL
from cnnlib.training.augmentation import Augmentation
from cnnlib.training.callbacks import AverageStatistics, EpochReport, EpochSeeds, ReportStep, StepReport
from cnnlib.training.checkpoints import History, TrainingState, read_checkpoint
from cnnlib.training.compiled_model import compile_model, global_batch_size, new_model, scaled_learning_rate
from cnnlib.training.divergence import Divergence
from cnnlib.training.epochs import is_over, state_after
from cnnlib.training.layer_monitor import LayerMonitor
from cnnlib.training.optimizer_callbacks import AveragedWeights, LearningRate
from cnnlib.training.preconditions import check_fit
from cnnlib.training.ranks import ALONE, Ranks
from cnnlib.training.schedules import learning_rate_at
from cnnlib.training.targets import as_targets
from cnnlib.training.training_model import TrainingModel
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
    keras.utils.set_random_seed(settings.train.seed)
    if settings.train.deterministic:
        tf.config.experimental.enable_op_determinism()
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
        callbacks = [
            EpochSeeds(settings.train.seed, ranks.rank),
            LearningRate(_rate(settings, history)),
            StepReport(on_step),
            Divergence(len(image_set.classes), partial(_ids_of_step, image_set, settings, ranks)),
            # Before the report, which stops the clock: this is work of the epoch.
            AverageStatistics(),
            *_layer_monitor(plain, image_set, settings, ranks),
            EpochReport(image_set.split(TRAIN).rows, ranks, data_wait, report),
        ]
        if settings.model.weights is not None:
            # First of all: those behind it find every layer trainable in validation.
            callbacks.insert(0, TransferPhases(plain, settings.transfer))
        if settings.optimizer.average:
            callbacks.append(AveragedWeights(resumed=past_epochs > 0))
        _fit(
            _trained_by(plain, image_set, settings, ranks),
            image_set,
            settings,
            ranks,
            data_wait,
            past_epochs,
            callbacks,
        )
    return plain, history


def _fit(
    model: keras.Model,
    image_set: ImageSet,
    settings: TrainSettings,
    ranks: Ranks,
    data_wait: DataWait,
    past_epochs: int,
    callbacks: list[keras.callbacks.Callback],
) -> None:
    train, split, classes = settings.train, image_set.split(TRAIN), len(image_set.classes)
    feed = partial(
        make_dataset,
        image_set,
        worker_batch_size=train.worker_batch_size,
        timeout_s=settings.data.timeout_s,
        shard=ranks.shard,
    )
    shuffled = {"seed": train.seed, "shuffle_mb": settings.data.shuffle_mb}
    with ExitStack() as feeds:
        train_batches = feeds.enter_context(
            feed(TRAIN, **shuffled, first_epoch=past_epochs, repeat=True, data_wait=data_wait)
        )
        # Not repeated: Keras drops an endless data set's iterator after every validation.
        val_batches = feeds.enter_context(feed(VAL))
        model.fit(
            as_targets(train_batches, classes, settings, split.class_counts),
            steps_per_epoch=steps_per_epoch(split.rows, train.worker_batch_size, ranks.count),
            validation_data=as_targets(val_batches, classes, settings),
            initial_epoch=past_epochs,
            epochs=train.epochs,
            callbacks=callbacks,
            shuffle=False,  # the feed has shuffled already
            verbose=0,
        )


def _ids_of_step(image_set: ImageSet, settings: TrainSettings, ranks: Ranks, epoch: int, step: int) -> list[str]:
    return image_ids_of_step(
        image_set,
        TRAIN,
        epoch=epoch,
        step=step,
        worker_batch_size=settings.train.worker_batch_size,
        seed=settings.train.seed,
        timeout_s=settings.data.timeout_s,
        shuffle_mb=settings.data.shuffle_mb,
        shard=ranks.shard,
    )


def _layer_monitor(
    plain: keras.Model, image_set: ImageSet, settings: TrainSettings, ranks: Ranks
) -> list[keras.callbacks.Callback]:
    """One, with a validation batch, on the rank whose metrics are kept."""
    if ranks.rank or not settings.train.watch_layers:
        return []
    with closing(read_split(image_set, VAL, timeout_s=settings.data.timeout_s)) as blocks:
        images, labels = next(blocks)
    rows = settings.train.worker_batch_size
    return [LayerMonitor(plain, images[:rows], labels[:rows])]


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


def _trained_by(plain: keras.Model, image_set: ImageSet, settings: TrainSettings, ranks: Ranks) -> keras.Model:
    """What is trained in place of `plain`, whose layers it has: itself, where Keras' own steps will do."""
    augmentation = Augmentation(settings.augment, image_set.image.shape) if settings.augment.is_on else None
    if ranks.count == 1 and augmentation is None:
        return plain
    trained = TrainingModel(plain, ranks, augmentation)
    # The same optimizer object: a checkpoint of `plain` has its state. XLA, for which Keras would ask on GPUs, compiles
    # neither the sums over the ranks nor the moving of images.
    trained.compile(
        optimizer=plain.optimizer, loss=plain.loss, metrics=["accuracy"], jit_compile=False, auto_scale_loss=False
    )
    return trained
