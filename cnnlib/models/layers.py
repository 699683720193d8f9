"""Layers of all architectures: standardised pixels, convolutions, dense layers, and the choice of a stem."""

from collections.abc import Callable
from typing import Literal

import keras

from cnnlib.sealed.frozen.grouped_convolution import GroupedConv2D

# Name of the layer that holds the mean and the standard deviation.
STANDARDISE = "standardise"
MAXOUT = "maxout"
# The activations that the documentation names. Every other activation of Keras works too.
ACTIVATIONS = ("relu", "leaky_relu", "elu", "gelu", "swish", "tanh", "sigmoid", MAXOUT)

# A stem is the first layers of a model. The stem for ImageNet makes images 4 or 8 times smaller.
Stem = Literal["auto", "imagenet", "cifar"]
# With the stem for ImageNet, the last maps of a smaller image would be a single pixel.
SMALL_SIDE = 64

# Makes a layer with this name and this activation, and applies it to features.
_MakeLayer = Callable[[str, str | None], keras.KerasTensor]


def standardise(
    images: keras.KerasTensor, mean: tuple[float, ...] | None, std: tuple[float, ...] | None
) -> keras.KerasTensor:
    """Standardise pixels: (batch, height, width, channels) uint8 -> float32 of mean 0 and deviation 1.

    `mean` and `std` of the training images are per channel, on a scale of 0 to 1. Without them, pixels are only scaled
    to 0 to 1. A channel that never varies keeps its scale. The layers compute in float32, also in a model of mixed
    precision.
    """
    values = keras.layers.Rescaling(1 / 255, dtype="float32", name="to_unit_range")(images)
    if mean is None or std is None:
        return values
    variance = [deviation**2 or 1.0 for deviation in std]
    return keras.layers.Normalization(mean=list(mean), variance=variance, dtype="float32", name=STANDARDISE)(values)


def is_small(pixels: keras.KerasTensor, stem: Stem) -> bool:
    """Return whether images (batch, height, width, channels) get the stem for CIFAR.

    With "auto", they get it if a side has less than 64 pixels. Raises ValueError for an unknown stem.
    """
    if stem not in ("auto", "imagenet", "cifar"):
        raise ValueError(f"stem={stem!r}: choose one of auto, imagenet, cifar")
    _, height, width, _ = pixels.shape
    return stem == "cifar" or (stem == "auto" and min(height, width) < SMALL_SIDE)


def convolution(
    features: keras.KerasTensor,
    filters: int,
    kernel: int,
    *,
    stride: int = 1,
    padding: int | str = "same",
    activation: str | None = "relu",
    name: str,
) -> keras.KerasTensor:
    """Convolve with bias: (batch, height, width, channels) -> (batch, height / stride, width / stride, filters).

    `padding` is "same", "valid", or a number of zeros for each side. `activation` is one of ACTIVATIONS, another
    activation of Keras, or None.
    """
    padded, rest = _pad(features, padding, name)

    def layer(name: str, activation: str | None) -> keras.KerasTensor:
        return keras.layers.Conv2D(
            filters,
            kernel,
            stride,
            padding=rest,
            activation=activation,
            name=name,
        )(padded)

    return _activated(layer, activation, name)


def dense(features: keras.KerasTensor, units: int, *, activation: str | None, name: str) -> keras.KerasTensor:
    """Apply a dense layer with bias: (batch, features) -> (batch, units); `activation` as in `convolution`."""

    def layer(name: str, activation: str | None) -> keras.KerasTensor:
        return keras.layers.Dense(units, activation=activation, name=name)(features)

    return _activated(layer, activation, name)


def normalised_convolution(
    features: keras.KerasTensor,
    filters: int,
    kernel: int,
    *,
    stride: int = 1,
    groups: int = 1,
    activation: str | None = "relu",
    name: str,
) -> keras.KerasTensor:
    """Convolve without bias, then normalise over the batch, which adds a bias, then activate.

    Initial weights are those of He et al., "Delving Deep into Rectifiers" (2015). Raises ValueError for maxout,
    because each of its two pieces would need its own normalisation.
    """
    layer = GroupedConv2D if groups > 1 else keras.layers.Conv2D
    result = layer(
        filters,
        kernel,
        stride,
        padding="same",
        groups=groups,
        use_bias=False,
        kernel_initializer="he_normal",
        name=f"{name}_conv",
    )(features)
    return activate(normalise(result, name), activation, name)


def depthwise_convolution(features: keras.KerasTensor, kernel: int, stride: int, name: str) -> keras.KerasTensor:
    """Convolve each channel with its own filter, then normalise, without activation."""
    result = keras.layers.DepthwiseConv2D(
        kernel, stride, padding="same", use_bias=False, depthwise_initializer="he_normal", name=f"{name}_conv"
    )(features)
    return normalise(result, name)


def normalise(features: keras.KerasTensor, name: str) -> keras.KerasTensor:
    """Apply batch normalisation."""
    return keras.layers.BatchNormalization(epsilon=1e-5, name=f"{name}_bn")(features)


def activate(features: keras.KerasTensor, activation: str | None, name: str) -> keras.KerasTensor:
    """Apply an activation as a separate layer. Raises ValueError for maxout, as `normalised_convolution` does."""
    if activation is None:
        return features
    if activation == MAXOUT:
        raise ValueError(f"activation={MAXOUT} does not work with batch normalisation; choose another activation")
    return keras.layers.Activation(activation, name=f"{name}_{activation}")(features)


def _activated(layer: _MakeLayer, activation: str | None, name: str) -> keras.KerasTensor:
    """Make the layer with its activation.

    Maxout is the larger of two linear pieces (Goodfellow et al., "Maxout Networks", 2013, section 3).
    """
    if activation != MAXOUT:
        return layer(name, activation)
    pieces = [layer(f"{name}_piece_{number}", None) for number in (1, 2)]
    return keras.layers.Maximum(name=name)(pieces)


def _pad(features: keras.KerasTensor, padding: int | str, name: str) -> tuple[keras.KerasTensor, str]:
    if isinstance(padding, str):
        return features, padding
    return (keras.layers.ZeroPadding2D(padding, name=f"{name}_pad")(features) if padding else features), "valid"
