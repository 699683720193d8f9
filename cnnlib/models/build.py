"""The one way to build a model: from an architecture of the catalogue, or from a user's own function."""

from typing import Any

import keras

from cnnlib.errors import ConfigError
from cnnlib.keras_setup import check_keras
from cnnlib.models.catalogue import ARCHITECTURES
from cnnlib.models.layers import standardise
from cnnlib.models.own import own_logits


def build_model(
    name: str,
    *,
    image_shape: tuple[int, int, int],
    classes: int,
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
    **options: Any,
) -> keras.Model:
    """Build a model: (batch, height, width, channels) uint8 -> logits (batch, classes) float32.

    `name` is a key of `ARCHITECTURES`, or package.module:function (see `cnnlib.models.own`). `image_shape` is (height,
    width, channels). `mean` and `std` are per channel, on a scale of 0 to 1. They become part of the graph, so whoever
    loads the model feeds it plain pixels. `options` are the architecture's own.

    Raises ConfigError for an unknown name, an option that does not fit, or an image that is too small, and HostError if
    Keras is set up otherwise in this process, see `cnnlib.keras_setup`.

    >>> model = build_model("lenet", image_shape=(28, 28, 1), classes=10, mean=(0.13,), std=(0.31,), activation="tanh")
    >>> model.input_shape, model.output_shape, model.count_params()
    ((None, 28, 28, 1), (None, 10), 431080)
    """
    check_keras()
    images = keras.Input(image_shape, dtype="uint8", name="image")
    pixels = standardise(images, mean, std)
    if ":" in name:
        return _model(images, own_logits(name, pixels, classes, options), name.rpartition(":")[2])
    if name not in ARCHITECTURES:
        raise ConfigError(f"model.name={name} is unknown; take one of {', '.join(ARCHITECTURES)}")
    architecture = ARCHITECTURES[name]
    height, width, _ = image_shape
    smallest = architecture.smallest_side
    if min(height, width) < smallest:
        raise ConfigError(
            f"model.name={name} needs images of at least {smallest} x {smallest} pixels, received {height} x {width}; "
            "ingest with a larger image.height and image.width"
        )
    try:
        logits = architecture.build(pixels, classes=classes, **options)
    except (TypeError, ValueError) as error:
        setting = "model.weights or model.options" if options.get("weights") else "model.options"
        raise ConfigError(f"{setting} do not fit {name}: {error}") from error
    return _model(images, logits, name)


def _model(images: keras.KerasTensor, logits: keras.KerasTensor, name: str) -> keras.Model:
    if logits.dtype != "float32":
        # With mixed precision, logits have 16 bits, which is not exact enough for cross-entropy and probabilities.
        logits = keras.layers.Activation("linear", dtype="float32", name="logits_float32")(logits)
    return keras.Model(images, logits, name=name)
