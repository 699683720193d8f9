"""Settings and an image set -> a compiled model, and the cost of one of its training steps."""

import statistics
import time

import keras
import numpy as np
import tensorflow as tf

from cnnlib.config import FitSettings, TrainSettings
from cnnlib.errors import ConfigError
from cnnlib.image_set.contract import ImageSet
from cnnlib.models import build_model
from cnnlib.models.pretrained import build_pretrained
from cnnlib.training.augmentation import Augmentation
from cnnlib.training.learning_rate import global_batch_size, scaled_learning_rate
from cnnlib.training.optimizers import make_optimizer
from cnnlib.training.preconditions import check_fit
from cnnlib.training.targets import make_loss

# The first steps trace the model's graph and allocate memory.
WARM_UP_STEPS = 3


def make_repeatable(settings: FitSettings) -> None:
    """Seed the weights, the order of images and dropout. With `train.deterministic`, repeat every bit."""
    keras.utils.set_random_seed(settings.seed)
    if settings.deterministic:
        tf.config.experimental.enable_op_determinism()


def new_model(image_set: ImageSet, settings: TrainSettings, weights: str | None = None) -> keras.Model:
    """Build the model of the settings, in their precision, for the images of a set.

    `weights` are the starting weights in the form that `build_pretrained` takes. With None, the weights are random.
    """
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(settings.train.precision)
    try:
        return _build(image_set, settings, weights)
    finally:
        keras.config.set_dtype_policy(before)


def _build(image_set: ImageSet, settings: TrainSettings, weights: str | None) -> keras.Model:
    name, options = settings.model.name, settings.model.options
    shape, classes = image_set.image.shape, len(image_set.classes)
    if weights is not None:
        return build_pretrained(name, weights, image_shape=shape, classes=classes, **options)
    return build_model(name, image_shape=shape, classes=classes, mean=image_set.mean, std=image_set.std, **options)


def compile_model(model: keras.Model, settings: TrainSettings) -> keras.Model:
    """Compile a model that ends in logits with the loss, metric and optimizer of the settings."""
    rate = scaled_learning_rate(settings.optimizer, global_batch_size(settings))
    optimizer = make_optimizer(settings.optimizer, rate)
    if settings.train.precision == "mixed_float16":
        # Without a scale, small gradients become 0 in 16 bits.
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer, name="loss_scale")
    # Build it now, for all weights. Later some may be frozen, and Keras would leave those out.
    optimizer.build(model.trainable_variables)
    model.compile(optimizer=optimizer, loss=make_loss(settings), metrics=["accuracy"])
    return model


def check_buildable(image_set: ImageSet, settings: TrainSettings, given: str, weights: str | None = None) -> None:
    """Build and compile the model of the settings and drop it again, before hours of other trainings.

    `weights` are those that `new_model` takes. Raises ImageSetError, or ConfigError that names `given`, for example
    "optimizer.name=adam".
    """
    check_fit(image_set, settings)
    try:
        compile_model(new_model(image_set, settings, weights), settings)
        Augmentation(settings.augment, image_set.image.shape)
    except ConfigError as error:
        raise ConfigError(f"{given} cannot be trained: {error.message}") from error
    finally:
        # Otherwise Keras keeps every model.
        keras.backend.clear_session()


def measure_step_seconds(model: keras.Model, worker_batch_size: int, steps: int) -> float:
    """Return the median seconds of a training step of a compiled classifier, on random images in memory."""
    random = np.random.default_rng(0)
    # (batch, height, width, channels) uint8 and (batch,) int32
    images = random.integers(0, 256, (worker_batch_size, *model.input_shape[1:]), dtype=np.uint8)
    labels = random.integers(0, model.output_shape[-1], worker_batch_size, dtype=np.int32)
    seconds = []
    for _ in range(WARM_UP_STEPS + steps):
        start = time.perf_counter()
        model.train_on_batch(images, labels)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[WARM_UP_STEPS:])


def gradient_bytes(model: keras.Model) -> int:
    """Return the bytes that each rank sends per step: the gradients of all trainable weights, in float32."""
    return 4 * sum(int(np.prod(weights.shape)) for weights in model.trainable_weights)
