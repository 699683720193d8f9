"""Dense layers alone: what a convolution is measured against."""

from collections.abc import Sequence

import keras

from cnnlib.models.layers import dense


def mlp(
    pixels: keras.KerasTensor, *, classes: int, activation: str = "relu", units: Sequence[int] = (300, 100)
) -> keras.KerasTensor:
    """Build a multilayer perceptron: (batch, height, width, channels) -> logits (batch, classes).

    After LeCun, Bottou, Bengio and Haffner, "Gradient-Based Learning Applied to Document Recognition" (1998), section
    III.C.4, whose two hidden layers have 300 and 100 units.
    """
    features = keras.layers.Flatten(name="flatten")(pixels)
    for number, width in enumerate(units, start=1):
        features = dense(features, width, activation=activation, name=f"hidden_{number}")
    return keras.layers.Dense(classes, name="logits")(features)
