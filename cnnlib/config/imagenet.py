"""The settings of imagenet."""

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from cnnlib.config.model import PRETRAINED_NAMES
from cnnlib.config.registered_names import MODEL_NAME
from cnnlib.config.settings import Settings
from cnnlib.config.tracking import TrackingSettings
from cnnlib.config.train import RegisterSettings

if TYPE_CHECKING:
    # A type checker cannot read names that are computed.
    ImagenetName = str
else:
    ImagenetName = Literal[PRETRAINED_NAMES]


class ImagenetModelSettings(Settings):
    """The model, with ImageNet's weights and its own head."""

    name: ImagenetName = Field("mobilenet_v2", description="architecture of keras.applications")
    weights: str = Field("imagenet", description="imagenet, or a .h5 file with the weights of the whole model")


class ImagenetImageSettings(Settings):
    """The size of the images that the model gets, and how other images are resized to it."""

    height: int | None = Field(
        None,
        gt=0,
        description="pixels; null for the size that the model was trained on: 299 for inception_v3, 224 for the others",
    )
    width: int | None = Field(None, gt=0, description="pixels; null as for height")
    resize: Literal["stretch", "fit_and_pad", "shorter_side_and_crop"] = Field(
        "shorter_side_and_crop", description="how an image of another size is resized; as in ingest"
    )


class ImagenetRegisterSettings(RegisterSettings):
    """The registered model that gets the new version."""

    name: str = Field("imagenet", pattern=MODEL_NAME, description="name of the registered model")


class ImagenetSettings(Settings):
    """Register a model of keras.applications with ImageNet's weights and its 1,000 classes, for score."""

    model: ImagenetModelSettings = ImagenetModelSettings()
    image: ImagenetImageSettings = ImagenetImageSettings()
    tracking: TrackingSettings = TrackingSettings()
    register: ImagenetRegisterSettings = ImagenetRegisterSettings()
