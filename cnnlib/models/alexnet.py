"""AlexNet: five convolutions and three dense layers. It was the first CNN that won the ImageNet challenge."""

from collections.abc import Sequence

import keras

from cnnlib.models.architecture import Architecture
from cnnlib.models.layers import convolution, dense

UNITS = 4096


def alexnet(
    pixels: keras.KerasTensor,
    *,
    classes: int,
    activation: str = "relu",
    filters: Sequence[int] = (64, 192, 384, 256, 256),
    padding: int = 2,
    dropout: float = 0.5,
) -> keras.KerasTensor:
    """Build AlexNet in one tower: (batch, height, width, channels) -> logits (batch, classes).

    Source: Krizhevsky, "One weird trick for parallelizing convolutional neural networks" (2014), section 5. It puts
    the two towers of Krizhevsky, Sutskever and Hinton, "ImageNet Classification with Deep Convolutional Neural
    Networks" (2012) into one and drops local response normalisation. `filters` has one entry per convolution, and
    `padding` is in pixels around the image. Textbooks merge the two towers of 2012 instead, with filters 96, 256, 384,
    384, 256 and no padding.
    """
    first, second, *others = filters
    features = convolution(
        pixels, first, 11, stride=4, padding=padding, activation=activation, name="conv_1"
    )  # 224 -> 55
    features = keras.layers.MaxPooling2D(3, 2, name="pool_1")(features)
    features = convolution(features, second, 5, activation=activation, name="conv_2")  # 27
    features = keras.layers.MaxPooling2D(3, 2, name="pool_2")(features)
    for number, channels in enumerate(others, start=3):
        features = convolution(features, channels, 3, activation=activation, name=f"conv_{number}")  # 13
    features = keras.layers.MaxPooling2D(3, 2, name="pool_3")(features)
    features = keras.layers.Flatten(name="flatten")(features)  # 6 x 6 x 256
    for number in (1, 2):
        features = keras.layers.Dropout(dropout, name=f"dropout_{number}")(features)
        features = dense(features, UNITS, activation=activation, name=f"hidden_{number}")
    return keras.layers.Dense(classes, name="logits")(features)


ARCHITECTURES = (Architecture("alexnet", alexnet, "Krizhevsky 2014", smallest_side=63),)
