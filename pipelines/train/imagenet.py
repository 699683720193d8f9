"""A network of keras.applications with ImageNet's weights and classes -> a registered model, as training leaves one."""

from dataclasses import dataclass

import numpy as np

from cnnlib.config import ImagenetSettings, flatten
from cnnlib.errors import ConfigError
from cnnlib.models.catalogue import ARCHITECTURES
from cnnlib.models.pretrained import build_imagenet, imagenet_classes
from cnnlib.sealed.frozen.images import ImageSpec
from pipelines.tracking.aliases import find_version, move_alias
from pipelines.tracking.registry import TrainedOn, log_sealed_model
from pipelines.tracking.runs import model_run
from pipelines.tracking.store import connect

# In the place of an image set's fingerprint.
FINGERPRINT = "imagenet"


@dataclass(frozen=True)
class ImagenetModel:
    """The registered version, and the page of the run that has it."""

    name: str
    version: str
    classes: int
    run_url: str


def register_imagenet(settings: ImagenetSettings) -> ImagenetModel:
    """Seal and register a network as it is.

    Raises ConfigError where its weights or the names of its classes are not there or do not fit one another, and
    TrackingError.
    """
    name, image = settings.register.name, settings.image
    height, width, channels = ARCHITECTURES[settings.model.name].default_shape
    spec = ImageSpec(image.height or height, image.width or width, channels, image.resize)
    classes = imagenet_classes()
    network = build_imagenet(settings.model.name, spec.shape, settings.model.weights)
    if network.output_shape[1] != len(classes):
        raise ConfigError(
            f"{settings.model.name} has {network.output_shape[1]} classes, their file {len(classes)} names"
        )
    uri = connect(settings.tracking)
    title = f"{settings.model.name} of ImageNet"
    described = flatten(settings) | {"tracking.uri": uri}
    with model_run(uri, settings.tracking.experiment, title, described, {"name": name}, None, "scoring") as tracker:
        _, version = log_sealed_model(
            network,
            TrainedOn(spec, classes, FINGERPRINT),
            np.zeros(spec.shape, np.uint8),
            register_as=name,
        )
        assert version is not None  # a name was given
        if settings.register.alias:
            why = "imagenet; register.alias asks for no gate"
            move_alias(find_version(name, version), settings.register.alias, tracker.run_id, why)
        return ImagenetModel(name, version, len(classes), tracker.run_url)
