"""Register a model of keras.applications with ImageNet's weights and classes, as training registers its models."""

from dataclasses import dataclass

import numpy as np

from cnnlib.config import ImagenetSettings, flatten
from cnnlib.errors import ConfigError
from cnnlib.models.catalogue import ARCHITECTURES
from cnnlib.models.pretrained import build_imagenet, imagenet_classes
from cnnlib.sealed.frozen.images import ImageSpec
from pipelines.tracking.aliases import move_alias
from pipelines.tracking.registry import TrainedOn, find_version, log_sealed_model
from pipelines.tracking.runs import model_run
from pipelines.tracking.store import connect

# This stands for the fingerprint of an image set, because no image set was trained on.
FINGERPRINT = "imagenet"


@dataclass(frozen=True)
class ImagenetModel:
    """The registered version, and the page of its run."""

    name: str
    version: str
    classes: int
    run_url: str


def register_imagenet(settings: ImagenetSettings) -> ImagenetModel:
    """Seal and register a model with its own head.

    Raises ConfigError if its weights or class names are missing or do not fit each other, and TrackingError if the
    MLflow store does not answer.
    """
    name, image = settings.register.name, settings.image
    height, width, channels = ARCHITECTURES[settings.model.name].default_shape
    spec = ImageSpec(image.height or height, image.width or width, channels, image.resize)
    classes = imagenet_classes()
    model = build_imagenet(settings.model.name, spec.shape, settings.model.weights)
    if model.output_shape[1] != len(classes):
        raise ConfigError(
            f"{settings.model.name} has {model.output_shape[1]} classes, but Keras' file imagenet_class_index.json has "
            f"{len(classes)} names; delete the file, so that Keras downloads it again"
        )
    uri = connect(settings.tracking)
    title = f"{settings.model.name} of ImageNet"
    described = flatten(settings) | {"tracking.uri": uri}
    with model_run(uri, settings.tracking.experiment, title, described, {"name": name}, None, "scoring") as tracker:
        _, version = log_sealed_model(
            model,
            TrainedOn(spec, classes, FINGERPRINT),
            np.zeros(spec.shape, np.uint8),
            register_as=name,
        )
        assert version is not None  # a name was given
        if settings.register.alias:
            why = "imagenet; register.alias asks for no gate"
            move_alias(find_version(name, version), settings.register.alias, tracker.run_id, why)
        return ImagenetModel(name, version, len(classes), tracker.run_url)
