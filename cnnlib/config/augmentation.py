"""How training images are changed at random before the model sees them."""

from typing import Literal

from pydantic import Field, model_validator

from cnnlib.config.settings import Settings


class AugmentSettings(Settings):
    """How training images are changed at random before the model sees them; each is off where it is 0 or none."""

    flip: Literal["none", "horizontal", "vertical", "both"] = Field(
        "none", description="mirror half of the images, along one axis or along each of both"
    )
    shift: float = Field(0.0, ge=0, le=1, description="most of an image's height and width that it is moved by")
    rotation: float = Field(0.0, ge=0, le=180, description="most degrees that an image is turned by, either way")
    zoom: float = Field(0.0, ge=0, lt=1, description="most that an image is made larger or smaller by, as a share")
    crop_padding: int = Field(
        0,
        ge=0,
        description="pixels of border around an image before one of its own size is cut out at random "
        "(He et al. 2015, section 4.2)",
    )
    fill: Literal["constant", "nearest", "reflect"] = Field(
        "constant", description="what moved images leave behind: black, their border's pixels, or their mirror image"
    )
    colour: float = Field(
        0.0, ge=0, le=1, description="strength of changes to brightness and contrast, and of RGB's saturation and hue"
    )
    rand_augment: float = Field(
        0.0, ge=0, le=1, description="magnitude of two operations, drawn for each batch from eleven (Cubuk et al. 2019)"
    )
    erasing: float = Field(
        0.0, ge=0, le=1, description="share of the images in which a rectangle turns black (Zhong et al. 2017)"
    )
    mixup: float = Field(
        0.0, ge=0, le=1, description="alpha of MixUp: an image and its label become a mean of two (Zhang et al. 2017)"
    )
    cutmix: float = Field(
        0.0, ge=0, le=1, description="alpha of CutMix: an image gets a rectangle of another (Yun et al. 2019)"
    )

    @property
    def is_on(self) -> bool:
        """Whether anything is changed."""
        return self != AugmentSettings(fill=self.fill)

    @property
    def mixes(self) -> bool:
        """Whether an image gets a part of another, and with it of another's label."""
        return bool(self.mixup or self.cutmix)

    @model_validator(mode="after")
    def _mixes_once(self) -> "AugmentSettings":
        if self.mixup and self.cutmix:
            raise ValueError("mixup and cutmix would mix images twice; take one of them")
        return self
