"""How a network begins: with the stem for ImageNet's images, or with that of the networks for CIFAR's."""

from typing import Literal

import keras

# Below this side the stem for ImageNet would leave the last stage a pixel: such images get that of the CIFAR nets.
SMALL_SIDE = 64

Stem = Literal["auto", "imagenet", "cifar"]


def is_small(pixels: keras.KerasTensor, stem: Stem) -> bool:
    """Whether images (batch, height, width, channels) get the stem for CIFAR.

    auto has it so for images with a side of less than 64 pixels. Raises ValueError for a stem that there is not.
    """
    if stem not in ("auto", "imagenet", "cifar"):
        raise ValueError(f"stem={stem!r}: choose one of auto, imagenet, cifar")
    _, height, width, _ = pixels.shape
    return stem == "cifar" or (stem == "auto" and min(height, width) < SMALL_SIDE)
