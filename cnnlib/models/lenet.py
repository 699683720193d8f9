"""LeNet: two convolutions, then dense layers."""

from collections.abc import Sequence

import keras

from cnnlib.models.layers import convolution, dense


def lenet(
    pixels: keras.KerasTensor,
    *,
    classes: int,
    activation: str = "relu",
    filters: Sequence[int] = (20, 50),
    units: Sequence[int] = (500,),
    padding: int = 0,
) -> keras.KerasTensor:
    """Build LeNet in the 20-50-500 form with 5 x 5 kernels: (batch, height, width, channels) -> (batch, classes).

    After LeCun, Bottou, Bengio and Haffner, "Gradient-Based Learning Applied to Document Recognition" (1998),
    section II.B; the widths and plain max pooling are those of the later Caffe and MXNet examples. Theirs, and LeCun's,
    have activation tanh. `filters` are those of the convolutions, `units` those of the hidden dense layers, `padding`
    pixels around the image: LeNet-5 itself has filters 6 and 16, units 120 and 84, and padding 2 for 28 x 28 pixels.
    """
    features = pixels
    # Names of their own: Keras' would count on from whatever this process has built before.
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
    features = keras.layers.Flatten(name="flatten")(features)
    for number, width in enumerate(units, start=1):
        features = dense(features, width, activation=activation, name=f"hidden_{number}")
    return keras.layers.Dense(classes, name="logits")(features)
