"""LeNet: two convolutions, two dense layers."""

from collections.abc import Sequence

import keras

from cnnlib.errors import ConfigError

SMALLEST_SIDE = 16


def lenet(
    pixels: keras.KerasTensor,
    *,
    classes: int,
    activation: str = "relu",
    filters: Sequence[int] = (20, 50),
    units: int = 500,
) -> keras.KerasTensor:
    """Build LeNet in the 20-50-500 form with 5 x 5 kernels: (batch, height, width, channels) -> (batch, classes).

    After LeCun, Bottou, Bengio and Haffner, "Gradient-Based Learning Applied to Document Recognition" (1998),
    section II.B; the widths and plain max pooling are those of the later Caffe example. `activation` is any that
    Keras knows; `filters` are those of the two convolutions, `units` those of the hidden dense layer.

    Raises ConfigError for images of less than 16 x 16 pixels.
    """
    _, height, width, _ = pixels.shape
    if min(height, width) < SMALLEST_SIDE:
        raise ConfigError(
            f"model.name=lenet needs images of at least {SMALLEST_SIDE} x {SMALLEST_SIDE} pixels, received "
            f"{height} x {width}; ingest with a larger image.height and image.width"
        )
    features = pixels
    # Names of their own: Keras' would count on from whatever this process has built before.
    for number, channels in enumerate(filters, start=1):
        features = keras.layers.Conv2D(channels, 5, activation=activation, name=f"conv_{number}")(features)
        features = keras.layers.MaxPooling2D(2, name=f"pool_{number}")(features)
    flat = keras.layers.Flatten(name="flatten")(features)
    hidden = keras.layers.Dense(units, activation=activation, name="hidden")(flat)
    return keras.layers.Dense(classes, name="logits")(hidden)
