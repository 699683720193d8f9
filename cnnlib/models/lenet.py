"""LeNet: two convolutions, two dense layers."""

import keras

from cnnlib.errors import ConfigError

SMALLEST_SIDE = 16


def lenet(pixels: keras.KerasTensor, *, classes: int, activation: str = "relu") -> keras.KerasTensor:
    """Build LeNet in the 20-50-500 form with 5 x 5 kernels: (batch, height, width, channels) -> (batch, classes).

    After LeCun, Bottou, Bengio and Haffner, "Gradient-Based Learning Applied to Document Recognition" (1998),
    section II.B; the widths and plain max pooling are those of the later Caffe example. `activation` is any that
    Keras knows. Raises ConfigError for images of less than 16 x 16 pixels.
    """
    _, height, width, _ = pixels.shape
    if min(height, width) < SMALLEST_SIDE:
        raise ConfigError(
            f"model.name=lenet needs images of at least {SMALLEST_SIDE} x {SMALLEST_SIDE} pixels, received "
            f"{height} x {width}; ingest with a larger image.height and image.width"
        )
    features = pixels
    for filters in (20, 50):
        features = keras.layers.Conv2D(filters, 5, activation=activation)(features)
        features = keras.layers.MaxPooling2D(2)(features)
    hidden = keras.layers.Dense(500, activation=activation)(keras.layers.Flatten()(features))
    return keras.layers.Dense(classes, name="logits")(hidden)
