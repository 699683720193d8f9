"""The declaration of an architecture: its name, its function, its source, and the images that it takes."""

from collections.abc import Callable
from dataclasses import dataclass

import keras

# Image shapes (height, width, channels) that papers describe their architectures for.
DIGIT = (28, 28, 1)
CIFAR = (32, 32, 3)
IMAGENET = (224, 224, 3)


@dataclass(frozen=True)
class Preprocessing:
    """How pixels were standardised when weights were trained: (RGB in 0 to 1 - mean) / std, in RGB or BGR order."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    is_bgr: bool = False


@dataclass(frozen=True)
class Application:
    """A function of keras.applications, and the preprocessing that belongs to its ImageNet weights."""

    build: Callable[..., keras.Model]
    preprocessing: Preprocessing


@dataclass(frozen=True)
class Architecture:
    """An architecture. Each module of this folder lists its own in the tuple `ARCHITECTURES`.

    A new architecture needs no other place: the catalogue, the settings, their help and the tests read these tuples.
    `build(pixels, classes=…, **options)` returns the logits. `pixels` (batch, height, width, channels) float32 are
    already standardised, and the options are the architecture's own. `source` names the paper and ends with its year.
    `default_shape` (height, width, channels) is the image shape in the paper, and `smallest_side` the smallest side in
    pixels that the layers can take. `application` is None for an architecture that is written here.
    """

    name: str
    build: Callable[..., keras.KerasTensor]
    source: str
    default_shape: tuple[int, int, int] = IMAGENET
    smallest_side: int = 1
    application: Application | None = None
