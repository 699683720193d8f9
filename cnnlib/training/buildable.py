"""Whether settings give a model that can be trained, found out before hours of other trainings."""

import keras

from cnnlib.config import TrainSettings
from cnnlib.errors import ConfigError
from cnnlib.image_set.contract import ImageSet
from cnnlib.training.augmentation import Augmentation
from cnnlib.training.compiled_model import compile_model, new_model
from cnnlib.training.preconditions import check_fit


def check_buildable(image_set: ImageSet, settings: TrainSettings, given: str, weights: str | None = None) -> None:
    """Build and compile what would be trained, with `weights` as `new_model` takes them, and drop it again.

    Raises ImageSetError, or ConfigError which tells what was `given`, e.g. "optimizer.name=adam".
    """
    check_fit(image_set, settings)
    try:
        compile_model(new_model(image_set, settings, weights), settings)
        Augmentation(settings.augment, image_set.image.shape)
    except ConfigError as error:
        raise ConfigError(f"{given} cannot be trained: {error.message}") from error
    finally:
        # Keras remembers every model otherwise.
        keras.backend.clear_session()
