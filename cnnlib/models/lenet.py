"""LeNet, and the multilayer perceptron of the same paper, which has no convolutions."""

from collections.abc import Sequence

import keras

from cnnlib.models.architecture import DIGIT, Architecture
from cnnlib.models.layers import convolution, dense

SOURCE = "LeCun et al. 1998"


def mlp(
    pixels: keras.KerasTensor, *, classes: int, activation: str = "relu", units: Sequence[int] = (300, 100)
) -> keras.KerasTensor:
    """Build a multilayer perceptron: (batch, height, width, channels) -> logits (batch, classes).

    Source: LeCun, Bottou, Bengio and Haffner, "Gradient-Based Learning Applied to Document Recognition" (1998), section
    III.C.4, with two hidden layers of 300 and 100 units.
    """
    return _dense_layers(pixels, units, classes, activation)


def lenet(
    pixels: keras.KerasTensor,
    *,
    classes: int,
    activation: str = "relu",
    filters: Sequence[int] = (20, 50),
    units: Sequence[int] = (500,),
    padding: int = 0,
) -> keras.KerasTensor:
    """Build LeNet in its 20-50-500 form with 5 x 5 kernels: (batch, height, width, channels) -> (batch, classes).

    Source: LeCun, Bottou, Bengio and Haffner, "Gradient-Based Learning Applied to Document Recognition" (1998),
    section II.B. The widths and the plain max pooling come from the later Caffe and MXNet examples. These examples and
    LeCun use the activation tanh. `filters` has one entry per convolution, `units` one per hidden dense layer, and
    `padding` is in pixels around the image. LeNet-5 itself has filters 6 and 16, units 120 and 84, and padding 2 for
    28 x 28 pixels.
    """
    features = pixels
    # Keras numbers its own names through all models of the process, so we name the layers.
    for number, channels in enumerate(filters, start=1):
        features = convolution(
            features,
            channels,
            5,
            padding=padding if number == 1 else "valid",
            activation=activation,
            name=f"conv_{number}",
        )
        features = keras.layers.MaxPooling2D(2, name=f"pool_{number}")(features)
    return _dense_layers(features, units, classes, activation)


def _dense_layers(
    features: keras.KerasTensor, units: Sequence[int], classes: int, activation: str
) -> keras.KerasTensor:
    features = keras.layers.Flatten(name="flatten")(features)
    for number, width in enumerate(units, start=1):
        features = dense(features, width, activation=activation, name=f"hidden_{number}")
    return keras.layers.Dense(classes, name="logits")(features)


ARCHITECTURES = (
    Architecture("mlp", mlp, SOURCE, DIGIT),
    Architecture("lenet", lenet, SOURCE, DIGIT, 16),
)
