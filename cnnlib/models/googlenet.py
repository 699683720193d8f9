"""GoogLeNet and Inception v3: blocks that look at the same maps with kernels of several sizes."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import keras

from cnnlib.models.applications import SYMMETRIC, keras_application
from cnnlib.models.architecture import Architecture
from cnnlib.models.layers import Stem, convolution, is_small, normalised_convolution


@dataclass(frozen=True)
class InceptionWidths:
    """Filters of a block's branches, by the columns of table 1."""

    one: int
    three_reduce: int
    three: int
    five_reduce: int
    five: int
    pool: int


# Table 1: the stages between the poolings.
STAGES = (
    {"3a": InceptionWidths(64, 96, 128, 16, 32, 32), "3b": InceptionWidths(128, 128, 192, 32, 96, 64)},
    {
        "4a": InceptionWidths(192, 96, 208, 16, 48, 64),
        "4b": InceptionWidths(160, 112, 224, 24, 64, 64),
        "4c": InceptionWidths(128, 128, 256, 24, 64, 64),
        "4d": InceptionWidths(112, 144, 288, 32, 64, 64),
        "4e": InceptionWidths(256, 160, 320, 32, 128, 128),
    },
    {"5a": InceptionWidths(256, 160, 320, 32, 128, 128), "5b": InceptionWidths(384, 192, 384, 48, 128, 128)},
)


def googlenet(
    pixels: keras.KerasTensor,
    *,
    classes: int,
    batch_normalization: bool = False,
    activation: str = "relu",
    dropout: float = 0.4,
    stem: Stem = "auto",
) -> keras.KerasTensor:
    """Build GoogLeNet: (batch, height, width, channels) -> logits (batch, classes).

    Source: Szegedy et al., "Going Deeper with Convolutions" (2014), table 1, without the auxiliary classifiers and the
    local response normalisation. With `batch_normalization`, every convolution has one after it (Ioffe and Szegedy,
    "Batch Normalization", 2015). For images with a side of less than 64 pixels, the stem is a single 3 x 3 convolution
    that keeps their size.
    """
    layer = partial(normalised_convolution if batch_normalization else convolution, activation=activation)
    if is_small(pixels, stem):
        features = layer(pixels, 192, 3, name="stem")
    else:
        features = layer(pixels, 64, 7, stride=2, name="stem_1")  # 224 -> 112
        features = _halve(features, name="stem_pool_1")
        features = layer(features, 64, 1, name="stem_2")
        features = layer(features, 192, 3, name="stem_3")
        features = _halve(features, name="stem_pool_2")  # 28
    for number, stage in enumerate(STAGES, start=3):
        if number > 3:
            features = _halve(features, name=f"pool_{number}")
        for name, widths in stage.items():
            features = inception(features, widths, layer, name=f"inception_{name}")
    pooled = keras.layers.GlobalAveragePooling2D(name="pool")(features)
    kept = keras.layers.Dropout(dropout, name="dropout")(pooled)
    return keras.layers.Dense(classes, name="logits")(kept)


def inception(
    features: keras.KerasTensor, widths: InceptionWidths, layer: Any = convolution, *, name: str
) -> keras.KerasTensor:
    """Build a block with dimension reductions (figure 2b), and join the maps of its branches.

    The result is as high and wide as `features`. `layer` makes a convolution, like
    `cnnlib.models.layers.convolution`.
    """
    one = layer(features, widths.one, 1, name=f"{name}_1x1")
    three = layer(features, widths.three_reduce, 1, name=f"{name}_3x3_reduce")
    three = layer(three, widths.three, 3, name=f"{name}_3x3")
    five = layer(features, widths.five_reduce, 1, name=f"{name}_5x5_reduce")
    five = layer(five, widths.five, 5, name=f"{name}_5x5")
    pooled = keras.layers.MaxPooling2D(3, 1, padding="same", name=f"{name}_pool")(features)
    pooled = layer(pooled, widths.pool, 1, name=f"{name}_pool_1x1")
    return keras.layers.Concatenate(name=name)([one, three, five, pooled])


def _halve(features: keras.KerasTensor, name: str) -> keras.KerasTensor:
    return keras.layers.MaxPooling2D(3, 2, padding="same", name=name)(features)


ARCHITECTURES = (
    Architecture("googlenet", googlenet, "Szegedy et al. 2014", smallest_side=4),
    keras_application(
        "inception_v3",
        keras.applications.InceptionV3,
        "Szegedy et al. 2015",
        SYMMETRIC,
        default_shape=(299, 299, 3),
        smallest_side=75,
    ),
)
