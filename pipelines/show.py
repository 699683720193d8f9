"""A picture of a batch of images before and after augmentation."""

from pathlib import Path

import keras
import tensorflow as tf

from cnnlib.config import AugmentSettings, ShowSettings
from cnnlib.errors import ConfigError
from cnnlib.feed import make_dataset
from cnnlib.image_set.contract import ImageSet, open_image_set
from cnnlib.image_set.splits import TRAIN
from cnnlib.reports.augmented import Pictures, before_and_after
from cnnlib.training.augmentation import Augmentation

# Changes after which most photographs still show their class.
EXAMPLE = AugmentSettings(rotation=10, shift=0.1, zoom=0.1)


def show_batch(settings: ShowSettings) -> Path:
    """Write a picture of some train images, before and after augmentation, and return its path.

    If the settings change nothing, an example of an augmentation is shown. Raises ConfigError if the file cannot be
    written, and ImageSetError if the image set cannot be read.
    """
    augment = settings.augment if settings.augment.is_on else EXAMPLE
    image_set = open_image_set(settings.data.path)
    keras.utils.set_random_seed(settings.data.seed)
    augmentation = Augmentation(augment, image_set.image.shape)
    images, labels = _first_batch(image_set, settings)
    # (batch, classes) float32
    targets = tf.one_hot(labels, len(image_set.classes))
    changed, changed_targets = augmentation(images, targets)
    picture = before_and_after(
        Pictures(images.numpy(), targets.numpy()),
        Pictures(changed.numpy(), changed_targets.numpy()),
        image_set.classes,
    )
    path = Path(settings.output.path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture)
    except OSError as error:
        raise ConfigError(f"output.path={path} cannot be written: {error.strerror}; name another file") from error
    return path


def _first_batch(image_set: ImageSet, settings: ShowSettings) -> tuple[tf.Tensor, tf.Tensor]:
    rows = min(settings.data.images, image_set.split(TRAIN).rows)
    with make_dataset(image_set, TRAIN, worker_batch_size=rows, seed=settings.data.seed) as batches:
        # All batches of an epoch have the same size, which can be smaller than `rows`.
        return next(iter(batches.unbatch().batch(rows)))
