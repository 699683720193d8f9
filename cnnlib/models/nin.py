"""Network in Network: convolutions with a perceptron at every pixel, and no hidden dense layers."""

from functools import partial

import keras

from cnnlib.models.architecture import CIFAR, Architecture
from cnnlib.models.layers import Stem, convolution, is_small

DROPOUT = 0.5


def nin(pixels: keras.KerasTensor, *, classes: int, activation: str = "relu", stem: Stem = "auto") -> keras.KerasTensor:
    """Build Network in Network: (batch, height, width, channels) -> logits (batch, classes).

    Source: Lin, Chen and Yan, "Network In Network" (2013), section 3. Images with a side of less than 64 pixels get
    the widths that the authors published for CIFAR. Others get those that they published for ImageNet. `stem` chooses
    one of them. The paper's last 1 x 1 convolution has one filter per class and comes before the average over all
    pixels. Without an activation, it gives the same result after the average. There it is a dense layer and costs
    less, so we put it there.
    """
    block = partial(_block, activation=activation)
    if is_small(pixels, stem):
        features = block(pixels, (192, 160, 96), kernel=5, name="block_1")
        features = keras.layers.MaxPooling2D(3, 2, padding="same", name="pool_1")(features)
        features = keras.layers.Dropout(DROPOUT, name="dropout_1")(features)
        features = block(features, (192, 192, 192), kernel=5, name="block_2")
        features = keras.layers.AveragePooling2D(3, 2, padding="same", name="pool_2")(features)
        features = keras.layers.Dropout(DROPOUT, name="dropout_2")(features)
        features = block(features, (192, 192), kernel=3, name="block_3")
    else:
        features = block(pixels, (96, 96, 96), kernel=11, stride=4, padding="valid", name="block_1")
        features = keras.layers.MaxPooling2D(3, 2, name="pool_1")(features)
        features = block(features, (256, 256, 256), kernel=5, name="block_2")
        features = keras.layers.MaxPooling2D(3, 2, name="pool_2")(features)
        features = block(features, (384, 384, 384), kernel=3, name="block_3")
        features = keras.layers.MaxPooling2D(3, 2, padding="same", name="pool_3")(features)
        features = keras.layers.Dropout(DROPOUT, name="dropout")(features)
        features = block(features, (1024, 1024), kernel=3, name="block_4")
    pooled = keras.layers.GlobalAveragePooling2D(name="pool")(features)
    return keras.layers.Dense(classes, name="logits")(pooled)


def _block(
    features: keras.KerasTensor,
    widths: tuple[int, ...],
    *,
    activation: str,
    kernel: int,
    stride: int = 1,
    padding: str = "same",
    name: str,
) -> keras.KerasTensor:
    """Build a convolution and the perceptron after it, which is a row of 1 x 1 convolutions."""
    first, *others = widths
    features = convolution(
        features, first, kernel, stride=stride, padding=padding, activation=activation, name=f"{name}_conv"
    )
    for number, width in enumerate(others, start=1):
        features = convolution(features, width, 1, activation=activation, name=f"{name}_perceptron_{number}")
    return features


ARCHITECTURES = (Architecture("nin", nin, "Lin et al. 2013", CIFAR, 4),)
