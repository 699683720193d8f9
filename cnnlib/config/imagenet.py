"""The settings of imagenet."""

from typing import Literal

from pydantic import Field

from cnnlib.config.settings import Settings
from cnnlib.config.tracking import TrackingSettings
from cnnlib.config.train import RegisterSettings

# As in `cnnlib.models.pretrained`, which takes TensorFlow's seconds to import.
ImagenetName = Literal[
    "vgg16",
    "vgg19",
    "inception_v3",
    "resnet50",
    "resnet101",
    "resnet152",
    "densenet121",
    "densenet169",
    "mobilenet",
    "mobilenet_v2",
    "efficientnet_v2_b0",
    "convnext_tiny",
]


class ImagenetModelSettings(Settings):
    """Which network, with ImageNet's weights and its own head."""

    name: ImagenetName = Field("mobilenet_v2", description="network of keras.applications")
    weights: str = Field("imagenet", description="imagenet, or a .h5 file with the weights of the whole network")


class ImagenetImageSettings(Settings):
    """What images become before the network sees them."""

    height: int | None = Field(
        None,
        gt=0,
        description="pixels; null for what the network was trained on, 299 of inception_v3 and 224 of others",
    )
    width: int | None = Field(None, gt=0, description="pixels, likewise")
    resize: Literal["stretch", "fit_and_pad", "shorter_side_and_crop"] = Field(
        "shorter_side_and_crop", description="how an image of another size is brought to this one; as in ingest"
    )


class ImagenetRegisterSettings(RegisterSettings):
    """What becomes of the model."""

    name: str = Field("imagenet", pattern=r"^[^/:]+$", description="registered model that gets a new version")


class ImagenetSettings(Settings):
    """A network of keras.applications, with its 1,000 classes -> a registered model, for score."""

    model: ImagenetModelSettings = ImagenetModelSettings()
    image: ImagenetImageSettings = ImagenetImageSettings()
    tracking: TrackingSettings = TrackingSettings()
    register: ImagenetRegisterSettings = ImagenetRegisterSettings()
