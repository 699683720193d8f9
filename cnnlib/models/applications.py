"""The networks that keras.applications has."""

from collections.abc import Callable
from typing import Any

import keras

from cnnlib.models.vgg import dense_head


def application(
    pixels: keras.KerasTensor,
    *,
    classes: int,
    network: Callable[..., keras.Model],
    dropout: float = 0.0,
    **options: Any,
) -> keras.KerasTensor:
    """Build a network of keras.applications up to its pooling, and a dense layer that gives logits.

    (batch, height, width, channels) -> (batch, classes). `options` are the network's own, such as a
    MobileNet's alpha.
    """
    features = _body(pixels, network, pooling="avg", **options)
    if dropout:
        features = keras.layers.Dropout(dropout, name="dropout")(features)
    return keras.layers.Dense(classes, name="logits")(features)


def vgg_application(
    pixels: keras.KerasTensor,
    *,
    classes: int,
    network: Callable[..., keras.Model],
    dropout: float = 0.5,
) -> keras.KerasTensor:
    """Build a VGG of keras.applications with the dense layers of its paper: `keras.applications` has no dropout."""
    return dense_head(_body(pixels, network), classes=classes, activation="relu", dropout=dropout)


def _body(pixels: keras.KerasTensor, network: Callable[..., keras.Model], **arguments: Any) -> keras.KerasTensor:
    built = network(
        include_top=False, weights=None, input_tensor=pixels, input_shape=tuple(pixels.shape[1:]), **arguments
    )
    return built.output
