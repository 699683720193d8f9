"""Convolutions and dense layers as the architectures use them: with an activation by name, or normalised."""

from collections.abc import Callable

import keras

from cnnlib.sealed.frozen.grouped_convolution import GroupedConv2D

MAXOUT = "maxout"
# What the settings' help names; any other that Keras knows is taken too.
ACTIVATIONS = ("relu", "leaky_relu", "elu", "gelu", "swish", "tanh", "sigmoid", MAXOUT)

# Gives a layer of a name, with an activation, on features.
_MakeLayer = Callable[[str, str | None], keras.KerasTensor]


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
    """A convolution with bias: (batch, height, width, channels) -> (batch, height / stride, width / stride, filters).

    `padding` is "same", "valid", or how many pixels of zeros come to each side. `activation` is one of ACTIVATIONS, or
    any that Keras knows; None for none.
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
    """(batch, features) -> (batch, units), with bias; `activation` as in `convolution`."""

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
    """A convolution without bias, for the batch normalisation behind it has one, then an activation.

    Weights start as in He et al., "Delving Deep into Rectifiers" (2015). Raises ValueError for maxout, whose two pieces
    would each need a normalisation of their own.
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
    """A filter of its own for each channel, normalised, without activation."""
    result = keras.layers.DepthwiseConv2D(
        kernel, stride, padding="same", use_bias=False, depthwise_initializer="he_normal", name=f"{name}_conv"
    )(features)
    return normalise(result, name)


def normalise(features: keras.KerasTensor, name: str) -> keras.KerasTensor:
    """Batch normalisation."""
    return keras.layers.BatchNormalization(epsilon=1e-5, name=f"{name}_bn")(features)


def activate(features: keras.KerasTensor, activation: str | None, name: str) -> keras.KerasTensor:
    """An activation as a layer of its own."""
    if activation is None:
        return features
    if activation == MAXOUT:
        raise ValueError(f"activation={MAXOUT} is not for layers behind which is a normalisation")
    return keras.layers.Activation(activation, name=f"{name}_{activation}")(features)


def _activated(layer: _MakeLayer, activation: str | None, name: str) -> keras.KerasTensor:
    """The layer with its activation.

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
