"""ResNet and ResNeXt: convolutions with a shortcut past them."""

from collections.abc import Callable, Sequence
from functools import partial

import keras

from cnnlib.models.applications import CAFFE, keras_application
from cnnlib.models.architecture import Architecture
from cnnlib.models.layers import Stem, activate, is_small, normalised_convolution

SOURCE = "He et al. 2015"
FILTERS = (64, 128, 256, 512)

# ResNeXt-50 32x4d: number of paths in a block, and the width of each path in the first stage.
CARDINALITY, PATH_WIDTH = 32, 4

# Builds the convolutions of a block, beside its shortcut, from (features, stride, name).
_Residual = Callable[[keras.KerasTensor, int, str], keras.KerasTensor]


def resnet(
    pixels: keras.KerasTensor,
    *,
    classes: int,
    blocks: tuple[int, int, int, int],
    activation: str = "relu",
    stem: Stem = "auto",
    filters: Sequence[int] = FILTERS,
) -> keras.KerasTensor:
    """Build ResNet-18 or ResNet-34: (batch, height, width, channels) -> logits (batch, classes).

    Source: He, Zhang, Ren and Sun, "Deep Residual Learning for Image Recognition" (2015), table 1. A shortcut that
    changes its shape is a projection (option B of section 4.1). `blocks` has the number of blocks per stage, and
    `filters` the filters per stage, which set the width of the model. The stem for ImageNet is a 7 x 7 convolution and
    a pooling, each of stride 2. The stem for CIFAR (section 4.2) is a 3 x 3 convolution. With "auto", images with a
    side of less than 64 pixels get the latter. Raises ValueError for an unknown stem or another number of stages.
    """

    def basic(width: int) -> _Residual:
        def residual(features: keras.KerasTensor, stride: int, name: str) -> keras.KerasTensor:
            inner = normalised_convolution(features, width, 3, stride=stride, activation=activation, name=f"{name}_1")
            return normalised_convolution(inner, width, 3, activation=None, name=f"{name}_2")

        return residual

    stages = [(basic(width), width, count) for width, count in zip(filters, blocks, strict=True)]
    return _residual_logits(pixels, stages, classes=classes, activation=activation, stem=stem)


def resnext50(
    pixels: keras.KerasTensor, *, classes: int, activation: str = "relu", stem: Stem = "auto"
) -> keras.KerasTensor:
    """Build ResNeXt-50 32x4d: (batch, height, width, channels) -> logits (batch, classes).

    Source: Xie, Girshick, Dollár, Tu and He, "Aggregated Residual Transformations for Deep Neural Networks" (2016),
    table 1. Its paths are a grouped convolution (figure 3c). `stem` is as in `resnet`.
    """

    def bottleneck(filters: int) -> _Residual:
        width = CARDINALITY * PATH_WIDTH * filters // FILTERS[0]

        def residual(features: keras.KerasTensor, stride: int, name: str) -> keras.KerasTensor:
            inner = normalised_convolution(features, width, 1, activation=activation, name=f"{name}_1")
            inner = normalised_convolution(
                inner, width, 3, stride=stride, groups=CARDINALITY, activation=activation, name=f"{name}_2"
            )
            return normalised_convolution(inner, 4 * filters, 1, activation=None, name=f"{name}_3")

        return residual

    stages = [(bottleneck(filters), 4 * filters, count) for filters, count in zip(FILTERS, (3, 4, 6, 3), strict=True)]
    return _residual_logits(pixels, stages, classes=classes, activation=activation, stem=stem)


def _residual_logits(
    pixels: keras.KerasTensor,
    stages: list[tuple[_Residual, int, int]],
    *,
    classes: int,
    activation: str,
    stem: Stem,
) -> keras.KerasTensor:
    """Build a stem, the stages and a head. A stage is (convolutions of a block, filters of a block, blocks)."""
    first = min(FILTERS[0], stages[0][1])
    if is_small(pixels, stem):
        features = normalised_convolution(pixels, first, 3, activation=activation, name="stem")
    else:
        features = normalised_convolution(pixels, first, 7, stride=2, activation=activation, name="stem")
        features = keras.layers.MaxPooling2D(3, 2, padding="same", name="stem_pool")(features)
    for stage, (residual, filters, count) in enumerate(stages, start=1):
        for block in range(1, count + 1):
            stride = 2 if stage > 1 and block == 1 else 1
            name = f"stage_{stage}_block_{block}"
            shortcut = features
            if stride != 1 or features.shape[-1] != filters:
                shortcut = normalised_convolution(
                    features, filters, 1, stride=stride, activation=None, name=f"{name}_shortcut"
                )
            total = keras.layers.Add(name=f"{name}_add")([residual(features, stride, name), shortcut])
            features = activate(total, activation, name)
    pooled = keras.layers.GlobalAveragePooling2D(name="pool")(features)
    return keras.layers.Dense(classes, name="logits")(pooled)


ARCHITECTURES = (
    Architecture("resnet18", partial(resnet, blocks=(2, 2, 2, 2)), SOURCE, smallest_side=4),
    Architecture("resnet34", partial(resnet, blocks=(3, 4, 6, 3)), SOURCE, smallest_side=4),
    keras_application("resnet50", keras.applications.ResNet50, SOURCE, CAFFE),
    keras_application("resnet101", keras.applications.ResNet101, SOURCE, CAFFE),
    keras_application("resnet152", keras.applications.ResNet152, SOURCE, CAFFE),
    Architecture("resnext50_32x4d", resnext50, "Xie et al. 2016", smallest_side=4),
)
