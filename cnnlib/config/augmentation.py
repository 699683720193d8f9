"""The settings of augmentation: random changes to training images."""

from typing import Literal

from pydantic import Field, model_validator

from cnnlib.config.settings import Settings


class AugmentSettings(Settings):
    """Random changes to training images before the model sees them. 0 or none turns a change off."""

    flip: Literal["none", "horizontal", "vertical", "both"] = Field(
        "none", description="mirror half of the images along this axis; both mirrors along each axis"
    )
    shift: float = Field(
        0.0, ge=0, le=1, description="largest move of an image, as a fraction of its height and of its width"
    )
    rotation: float = Field(0.0, ge=0, le=180, description="largest turn of an image in degrees, either way")
    zoom: float = Field(0.0, ge=0, lt=1, description="largest change of an image's size, up or down, as a fraction")
    crop_padding: int = Field(
        0,
        ge=0,
        description="pixels of border to add around an image; then an image of the old size is cut out at random "
        "(He et al. 2015, section 4.2)",
    )
    fill: Literal["constant", "nearest", "reflect"] = Field(
        "constant",
        description="pixels for the area that a moved image leaves empty: constant is black, nearest repeats the "
        "border, reflect mirrors the image",
    )
    colour: float = Field(
        0.0,
        ge=0,
        le=1,
        description="strength of random changes to brightness and contrast, and for RGB to saturation and hue",
    )
    rand_augment: float = Field(
        0.0,
        ge=0,
        le=1,
        description="magnitude of two operations, drawn for each batch from eleven (Cubuk et al. 2019)",
    )
    erasing: float = Field(
        0.0, ge=0, le=1, description="fraction of the images in which a rectangle turns black (Zhong et al. 2017)"
    )
    mixup: float = Field(
        0.0,
        ge=0,
        le=1,
        description="alpha of MixUp: each image and its label become a weighted mean of two (Zhang et al. 2017)",
    )
    cutmix: float = Field(
        0.0,
        ge=0,
        le=1,
        description="alpha of CutMix: each image gets a rectangle of another image (Yun et al. 2019)",
    )

    @property
    def is_on(self) -> bool:
        """Whether any change is on."""
        return self != AugmentSettings(fill=self.fill)

    @property
    def mixes(self) -> bool:
        """Whether an image gets a part of another image, and with it a part of the other label."""
        return bool(self.mixup or self.cutmix)

    @model_validator(mode="after")
    def _mixes_once(self) -> "AugmentSettings":
        if self.mixup and self.cutmix:
            raise ValueError("mixup and cutmix would mix images twice; take one of them")
        return self
