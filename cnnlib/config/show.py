"""The settings of show."""

from pydantic import Field

from cnnlib.config.augmentation import AugmentSettings
from cnnlib.config.settings import Settings


class ShownDataSettings(Settings):
    """The images to show."""

    path: str = Field(description="an image set that ingest wrote")
    images: int = Field(16, gt=0, le=100, description="number of train images to show")
    seed: int = Field(0, ge=0, lt=2**32, description="random seed that chooses the images and draws their augmentation")


class ShowOutputSettings(Settings):
    """The picture file."""

    path: str = Field(
        "augmented.png", pattern=r"\.png$", description="a PNG file on this machine; an existing one is replaced"
    )


class ShowSettings(Settings):
    """Draw training images before and after augmentation. Without settings of augment, it uses example settings."""

    data: ShownDataSettings
    augment: AugmentSettings = AugmentSettings()
    output: ShowOutputSettings = ShowOutputSettings()
