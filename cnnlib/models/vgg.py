"""VGG: blocks of 3 x 3 convolutions, and three dense layers behind them."""

import keras

from cnnlib.models.layers import convolution, dense

# Filters and convolutions of each block: configuration A of table 1.
VGG11_BLOCKS = ((64, 1), (128, 1), (256, 2), (512, 2), (512, 2))
UNITS = 4096


def vgg11(
    pixels: keras.KerasTensor, *, classes: int, activation: str = "relu", dropout: float = 0.5
) -> keras.KerasTensor:
    """Build VGG-11: (batch, height, width, channels) -> logits (batch, classes).

    After Simonyan and Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition" (2014), table 1,
    configuration A.
    """
    features = pixels
    for block, (filters, count) in enumerate(VGG11_BLOCKS, start=1):
        for number in range(1, count + 1):
            features = convolution(features, filters, 3, activation=activation, name=f"block_{block}_conv_{number}")
        features = keras.layers.MaxPooling2D(2, name=f"block_{block}_pool")(features)
    return dense_head(features, classes=classes, activation=activation, dropout=dropout)


def dense_head(features: keras.KerasTensor, *, classes: int, activation: str, dropout: float) -> keras.KerasTensor:
    """The three dense layers of every configuration, with dropout behind the first two (section 3.1)."""
    features = keras.layers.Flatten(name="flatten")(features)
    for number in (1, 2):
        features = dense(features, UNITS, activation=activation, name=f"hidden_{number}")
        features = keras.layers.Dropout(dropout, name=f"dropout_{number}")(features)
    return keras.layers.Dense(classes, name="logits")(features)
