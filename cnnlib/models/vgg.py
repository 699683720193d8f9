"""VGG: blocks of 3 x 3 convolutions, then three dense layers."""

from collections.abc import Callable

import keras

from cnnlib.models.applications import CAFFE, application_features, keras_application
from cnnlib.models.architecture import Architecture
from cnnlib.models.layers import convolution, dense

SOURCE = "Simonyan and Zisserman 2014"

# (filters, convolutions) of each block: configuration A of table 1.
VGG11_BLOCKS = ((64, 1), (128, 1), (256, 2), (512, 2), (512, 2))
UNITS = 4096


def vgg11(
    pixels: keras.KerasTensor, *, classes: int, activation: str = "relu", dropout: float = 0.5
) -> keras.KerasTensor:
    """Build VGG-11: (batch, height, width, channels) -> logits (batch, classes).

    Source: Simonyan and Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition" (2014), table
    1, configuration A.
    """
    features = pixels
    for block, (filters, count) in enumerate(VGG11_BLOCKS, start=1):
        for number in range(1, count + 1):
            features = convolution(features, filters, 3, activation=activation, name=f"block_{block}_conv_{number}")
        features = keras.layers.MaxPooling2D(2, name=f"block_{block}_pool")(features)
    return _dense_head(features, classes=classes, activation=activation, dropout=dropout)


def vgg_application(
    pixels: keras.KerasTensor,
    *,
    classes: int,
    application: Callable[..., keras.Model],
    dropout: float = 0.5,
    weights: str | None = None,
) -> keras.KerasTensor:
    """Build the convolutions of keras.applications and the paper's dense layers: (batch, classes) logits.

    The dense layers of keras.applications have no dropout. `weights` is None for new weights, "imagenet", or a .h5
    file.
    """
    features = application_features(pixels, application, weights)
    return _dense_head(features, classes=classes, activation="relu", dropout=dropout)


def _dense_head(features: keras.KerasTensor, *, classes: int, activation: str, dropout: float) -> keras.KerasTensor:
    """Build the three dense layers of every configuration, with dropout after the first two (section 3.1)."""
    features = keras.layers.Flatten(name="flatten")(features)
    for number in (1, 2):
        features = dense(features, UNITS, activation=activation, name=f"hidden_{number}")
        features = keras.layers.Dropout(dropout, name=f"dropout_{number}")(features)
    return keras.layers.Dense(classes, name="logits")(features)


ARCHITECTURES = (
    Architecture("vgg11", vgg11, SOURCE, smallest_side=32),
    keras_application("vgg16", keras.applications.VGG16, SOURCE, CAFFE, build=vgg_application),
    keras_application("vgg19", keras.applications.VGG19, SOURCE, CAFFE, build=vgg_application),
)
