"""Settings and an image set -> a model that is ready to be trained."""

import keras
import tensorflow as tf

from cnnlib.config import FitSettings, OptimizerSettings, TrainSettings
from cnnlib.image_set.contract import ImageSet
from cnnlib.models import build_model
from cnnlib.models.pretrained import build_pretrained
from cnnlib.training.optimizers import make_optimizer
from cnnlib.training.targets import make_loss


def make_repeatable(settings: FitSettings) -> None:
    """Have weights, order and dropout follow from the seed; with `train.deterministic`, every bit."""
    keras.utils.set_random_seed(settings.seed)
    if settings.deterministic:
        tf.config.experimental.enable_op_determinism()


def new_model(image_set: ImageSet, settings: TrainSettings, weights: str | None = None) -> keras.Model:
    """Build the model of the settings for the images of a set, with their precision.

    `weights` are those to begin with, as `build_pretrained` takes them; None for new ones.
    """
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(settings.train.precision)
    try:
        return _built(image_set, settings, weights)
    finally:
        keras.config.set_dtype_policy(before)


def _built(image_set: ImageSet, settings: TrainSettings, weights: str | None) -> keras.Model:
    name, options = settings.model.name, settings.model.options
    shape, classes = image_set.image.shape, len(image_set.classes)
    if weights is not None:
        return build_pretrained(name, weights, image_shape=shape, classes=classes, **options)
    return build_model(name, image_shape=shape, classes=classes, mean=image_set.mean, std=image_set.std, **options)


def compile_model(model: keras.Model, settings: TrainSettings) -> keras.Model:
    """Give a model that ends in logits its loss, metric and optimizer."""
    rate = scaled_learning_rate(settings.optimizer, global_batch_size(settings))
    optimizer = make_optimizer(settings.optimizer, rate)
    if settings.train.precision == "mixed_float16":
        # Small gradients would be 0 in 16 bits.
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer, name="loss_scale")
    # Now, for all weights: while some are frozen, Keras would build it for the others alone.
    optimizer.build(model.trainable_variables)
    model.compile(optimizer=optimizer, loss=make_loss(settings), metrics=["accuracy"])
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
