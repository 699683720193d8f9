"""Where plan and cost take the size and the classes of the images from."""

from pydantic import Field

from cnnlib.config.settings import Settings


class ImageShapeDataSettings(Settings):
    """The image set to take the image size and the number of classes from."""

    path: str | None = Field(None, description="an image set; null takes size and classes from the section image")
