"""The settings of show."""

from pydantic import Field

from cnnlib.config.augmentation import AugmentSettings
from cnnlib.config.settings import Settings


class ShownDataSettings(Settings):
    """Which images are shown."""

    path: str = Field(description="an image set that ingest published")
    images: int = Field(16, gt=0, le=100, description="how many train images are shown")
    seed: int = Field(0, ge=0, lt=2**32, description="of which images those are, and of what becomes of them")


class ShowOutputSettings(Settings):
    """Where the picture is written."""

    path: str = Field("augmented.png", pattern=r"\.png$", description="the file, a PNG on this machine; it is replaced")


class ShowSettings(Settings):
    """Image set and augmentation -> a picture of a batch before and after; without any augmentation, of an example."""

    data: ShownDataSettings
    augment: AugmentSettings = AugmentSettings()
    output: ShowOutputSettings = ShowOutputSettings()
