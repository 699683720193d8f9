"""An image set and settings -> a trained model and its history, on one rank of however many."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import keras
import tensorflow as tf

from cnnlib.config import OptimizerSettings, TrainSettings, flatten
from cnnlib.feed import make_dataset
from cnnlib.feed.data_wait import DataWait
from cnnlib.feed.sharding import steps_per_epoch
from cnnlib.imageset import ImageSet
from cnnlib.models import build_model
from cnnlib.splits import TRAIN, VAL
from cnnlib.training.callbacks import AverageStatistics, EpochReport, EpochSeeds, ReportStep, StepReport
from cnnlib.training.checkpoints import History, TrainingState, best_epoch, read_checkpoint
from cnnlib.training.data_parallel import DataParallelModel
from cnnlib.training.preconditions import check_fit
from cnnlib.training.ranks import ALONE, Ranks

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
) -> tuple[keras.Model, History]:
    """Train from scratch, or on from a checkpoint, and give the model as the last epoch left it, with its history.

    On several ranks, all of them call this with the same arguments but `ranks`, and end with the same weights, which
    are those of a plain Keras model. `on_epoch` is called after every epoch, `on_step` after every step. The history
    has a value an epoch, resumed ones included, of `loss, accuracy, val_loss, val_accuracy` and what
    `EpochReport` adds. Stops after `train.patience` epochs without a better `train.monitor`.

    Raises ImageSetError where the set has no train or no val images, ConfigError where settings, model, images and
    checkpoint do not fit one another.
    """
    train = settings.train
    check_fit(image_set, settings)
    keras.utils.set_random_seed(train.seed)
    if train.deterministic:
        tf.config.experimental.enable_op_determinism()
    if resume_from is None:
        plain, history = compile_model(new_model(image_set, settings), settings), {}
    else:
        plain, state = read_checkpoint(resume_from)
        history = state.history
    past_epochs = len(history.get(train.monitor, ()))
    if past_epochs >= train.epochs or is_over(history, settings):
        return plain, history

    def report(epoch: int, metrics: dict[str, float]) -> bool:
        for name, value in metrics.items():
            history.setdefault(name, []).append(value)
        on_epoch(plain, state_after(epoch, history, image_set, settings))
        return not is_over(history, settings)

    rows = image_set.split(TRAIN).rows
    data_wait = DataWait(train.deterministic)
    feed = partial(
        make_dataset,
        image_set,
        worker_batch_size=train.worker_batch_size,
        timeout_s=settings.data.timeout_s,
        shard=ranks.shard,
    )
    shuffled = {"seed": train.seed, "shuffle_mb": settings.data.shuffle_mb}
    with (
        feed(TRAIN, **shuffled, first_epoch=past_epochs, repeat=True, data_wait=data_wait) as train_images,
        # Not repeated: Keras drops an endless data set's iterator after every validation.
        feed(VAL) as val_images,
    ):
        _trained_by(plain, ranks).fit(
            train_images,
            steps_per_epoch=steps_per_epoch(rows, train.worker_batch_size, ranks.count),
            validation_data=val_images,
            initial_epoch=past_epochs,
            epochs=train.epochs,
            callbacks=[
                EpochSeeds(train.seed, ranks.rank),
                StepReport(on_step),
                # Before the report, which stops the clock: this is work of the epoch.
                AverageStatistics(),
                EpochReport(rows, ranks, data_wait, report),
            ],
            shuffle=False,  # the feed has shuffled already
            verbose=0,
        )
    return plain, history


def new_model(image_set: ImageSet, settings: TrainSettings) -> keras.Model:
    """Build the model of the settings for the images of a set."""
    return build_model(
        settings.model.name,
        image_shape=image_set.image.shape,
        classes=len(image_set.classes),
        mean=image_set.mean,
        std=image_set.std,
        **settings.model.options,
    )


def compile_model(model: keras.Model, settings: TrainSettings) -> keras.Model:
    """Give a model that ends in logits its loss, metric and optimizer."""
    optimizer = settings.optimizer
    rate = scaled_learning_rate(optimizer, global_batch_size(settings))
    # With a name, or Keras would count on from the optimizers that this process has made before.
    config = {"learning_rate": rate, "name": optimizer.name}
    model.compile(
        optimizer=keras.optimizers.get({"class_name": optimizer.name, "config": config}),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return model


def global_batch_size(settings: TrainSettings) -> int:
    """Images a step on all workers together."""
    return settings.train.worker_batch_size * max(settings.train.workers, 1)


def scaled_learning_rate(settings: OptimizerSettings, global_batch_size: int) -> float:
    """The step size for a global batch, by the rule in the settings.

    The linear rule is that of Goyal et al., "Accurate, Large Minibatch SGD" (2017), section 2.1; the root that of
    Krizhevsky, "One weird trick for parallelizing convolutional neural networks" (2014), section 5.

    >>> settings = OptimizerSettings(learning_rate=0.1, scaling="linear", base_batch_size=128)
    >>> scaled_learning_rate(settings, 512)
    0.4
    """
    ratio = global_batch_size / settings.base_batch_size
    return settings.learning_rate * {"none": 1.0, "linear": ratio, "square_root": ratio**0.5}[settings.scaling]


def best_epoch_of(history: History, settings: TrainSettings) -> int:
    """The epoch (from 1) that is best by `train.monitor` and `train.direction`."""
    return best_epoch(history[settings.train.monitor], settings.train.best_direction)


def is_over(history: History, settings: TrainSettings) -> bool:
    """Whether the last `train.patience` epochs brought nothing better."""
    if not history or not settings.train.patience:
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


def _trained_by(plain: keras.Model, ranks: Ranks) -> keras.Model:
    if ranks.count == 1:
        return plain
    together = DataParallelModel(plain, ranks)
    # The same optimizer object: a checkpoint of `plain` has its state. XLA would compile the sums over the ranks too,
    # which on GPUs Keras would ask for.
    together.compile(optimizer=plain.optimizer, loss=plain.loss, metrics=["accuracy"], jit_compile=False)
    return together
