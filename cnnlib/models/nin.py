"""Network in Network: convolutions with a perceptron at every pixel, and no dense layers behind them."""

import keras

from cnnlib.models.layers import convolution
from cnnlib.models.stem import Stem, is_small

DROPOUT = 0.5


def nin(pixels: keras.KerasTensor, *, classes: int, activation: str = "relu", stem: Stem = "auto") -> keras.KerasTensor:
    """Build Network in Network: (batch, height, width, channels) -> logits (batch, classes).

    After Lin, Chen and Yan, "Network In Network" (2013), section 3: for CIFAR with the widths that the authors
    published for it, for images of 64 x 64 pixels and more with those that they published for ImageNet; `stem` chooses
    one of them. The last 1 x 1 convolution, one filter a class, has no activation here, so it is the same before and
    behind the average over all pixels; behind it, as here, it is a dense layer and costs less.
    """
    block = _Blocks(activation)
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


class _Blocks:
    """A convolution and, behind it, 1 x 1 convolutions: the perceptron."""

    def __init__(self, activation: str) -> None:
        self._activation = activation

    def __call__(
        self,
        features: keras.KerasTensor,
        widths: tuple[int, ...],
        *,
        kernel: int,
        stride: int = 1,
        padding: str = "same",
        name: str,
    ) -> keras.KerasTensor:
        first, *others = widths
        features = convolution(
            features, first, kernel, stride=stride, padding=padding, activation=self._activation, name=f"{name}_conv"
        )
        for number, width in enumerate(others, start=1):
            features = convolution(features, width, 1, activation=self._activation, name=f"{name}_perceptron_{number}")
        return features
