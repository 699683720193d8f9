"""The architectures by name, and the one way to build them."""

from collections.abc import Callable
from functools import partial
from typing import Any

import keras

from cnnlib.errors import ConfigError
from cnnlib.models.lenet import lenet
from cnnlib.models.pixels import standardise
from cnnlib.models.resnet import resnet

# A family takes (pixels, classes=…, **its own options) and gives logits; pixels are standardised already.
ARCHITECTURES: dict[str, Callable[..., keras.KerasTensor]] = {
    "lenet": lenet,
    "resnet18": partial(resnet, blocks=(2, 2, 2, 2)),
    "resnet34": partial(resnet, blocks=(3, 4, 6, 3)),
}


def build_model(
    name: str,
    *,
    image_shape: tuple[int, int, int],
    classes: int,
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
    **options: Any,
) -> keras.Model:
    """Build an architecture: (batch, height, width, channels) uint8 -> logits (batch, classes) float32.

    `image_shape` is (height, width, channels). `mean` and `std` are per channel, in 0 to 1, and become part of the
    graph, so that whoever loads the model feeds plain pixels. `options` are the architecture's own.

    Raises ConfigError for an unknown name or option, or an image too small for the architecture.
    """
    if name not in ARCHITECTURES:
        raise ConfigError(f"model.name={name} is unknown; take one of {', '.join(ARCHITECTURES)}")
    images = keras.Input(image_shape, dtype="uint8", name="image")
    try:
        logits = ARCHITECTURES[name](standardise(images, mean, std), classes=classes, **options)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"model.options do not fit {name}: {error}") from error
    return keras.Model(images, logits, name=name)
