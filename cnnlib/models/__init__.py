"""The one way to build a model: an architecture by name, or a user's own."""

from typing import Any

import keras

from cnnlib.errors import ConfigError
from cnnlib.models.catalogue import ARCHITECTURES
from cnnlib.models.own import own_logits
from cnnlib.models.pixels import standardise


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

    `name` is one of `ARCHITECTURES`, or package.module:function (see `cnnlib.models.own`). `image_shape` is (height,
    width, channels). `mean` and `std` are per channel, in 0 to 1, and become part of the graph, so that whoever loads
    the model feeds plain pixels. `options` are the architecture's own.

    Raises ConfigError for an unknown name or option, or an image too small for the architecture.
    """
    images = keras.Input(image_shape, dtype="uint8", name="image")
    pixels = standardise(images, mean, std)
    if ":" in name:
        return _model(images, own_logits(name, pixels, classes, options), name.rpartition(":")[2])
    if name not in ARCHITECTURES:
        raise ConfigError(f"model.name={name} is unknown; take one of {', '.join(ARCHITECTURES)}")
    architecture = ARCHITECTURES[name]
    height, width, _ = image_shape
    least = architecture.smallest_side
    if min(height, width) < least:
        raise ConfigError(
            f"model.name={name} needs images of at least {least} x {least} pixels, received {height} x {width}; "
            "ingest with a larger image.height and image.width"
        )
    try:
        logits = architecture.build(pixels, classes=classes, **options)
    except (TypeError, ValueError) as error:
        given = "model.weights or model.options" if options.get("weights") else "model.options"
        raise ConfigError(f"{given} do not fit {name}: {error}") from error
    return _model(images, logits, name)


def _model(images: keras.KerasTensor, logits: keras.KerasTensor, name: str) -> keras.Model:
    if logits.dtype != "float32":
        # Mixed precision: cross-entropy and probabilities need the digits that 16 bits lack.
        logits = keras.layers.Activation("linear", dtype="float32", name="logits_float32")(logits)
    return keras.Model(images, logits, name=name)
