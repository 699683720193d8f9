"""ResNet of basic blocks: two 3 x 3 convolutions and a shortcut past them."""

from typing import Literal

import keras

# Below this side the stem for ImageNet would leave the last stage a pixel: such images get that of the CIFAR nets.
SMALL_SIDE = 64
FILTERS = (64, 128, 256, 512)


def resnet(
    pixels: keras.KerasTensor,
    *,
    classes: int,
    blocks: tuple[int, int, int, int],
    stem: Literal["auto", "imagenet", "cifar"] = "auto",
) -> keras.KerasTensor:
    """Build ResNet-18 or ResNet-34: (batch, height, width, channels) -> logits (batch, classes).

    After He, Zhang, Ren and Sun, "Deep Residual Learning for Image Recognition" (2015), table 1, with projections
    where a shortcut changes its shape (option B of section 4.1). `blocks` are those of each stage. The stem for
    ImageNet is a 7 x 7 convolution and a pooling, each of stride 2; the one for CIFAR (section 4.2) a 3 x 3
    convolution; auto takes the latter for images with a side of less than 64 pixels. Raises ValueError for another
    stem.
    """
    if stem not in ("auto", "imagenet", "cifar"):
        raise ValueError(f"stem={stem!r}: choose one of auto, imagenet, cifar")
    _, height, width, _ = pixels.shape
    if stem == "imagenet" or (stem == "auto" and min(height, width) >= SMALL_SIDE):
        features = _convolution(pixels, FILTERS[0], kernel=7, stride=2, name="stem")
        features = keras.layers.ReLU(name="stem_relu")(features)
        features = keras.layers.MaxPooling2D(3, 2, padding="same", name="stem_pool")(features)
    else:
        features = _convolution(pixels, FILTERS[0], kernel=3, stride=1, name="stem")
        features = keras.layers.ReLU(name="stem_relu")(features)
    for stage, (filters, count) in enumerate(zip(FILTERS, blocks, strict=True), start=1):
        for block in range(1, count + 1):
            stride = 2 if stage > 1 and block == 1 else 1
            features = _basic_block(features, filters, stride, name=f"stage_{stage}_block_{block}")
    pooled = keras.layers.GlobalAveragePooling2D(name="pool")(features)
    return keras.layers.Dense(classes, name="logits")(pooled)


def _basic_block(features: keras.KerasTensor, filters: int, stride: int, name: str) -> keras.KerasTensor:
    """(batch, height, width, channels) -> (batch, height / stride, width / stride, filters)."""
    shortcut = features
    if stride != 1 or features.shape[-1] != filters:
        shortcut = _convolution(features, filters, kernel=1, stride=stride, name=f"{name}_shortcut")
    residual = _convolution(features, filters, kernel=3, stride=stride, name=f"{name}_1")
    residual = keras.layers.ReLU(name=f"{name}_1_relu")(residual)
    residual = _convolution(residual, filters, kernel=3, stride=1, name=f"{name}_2")
    total = keras.layers.Add(name=f"{name}_add")([residual, shortcut])
    return keras.layers.ReLU(name=f"{name}_relu")(total)


def _convolution(features: keras.KerasTensor, filters: int, kernel: int, stride: int, name: str) -> keras.KerasTensor:
    """A convolution without bias, for the normalisation behind it has one; weights as in He et al. (2015a)."""
    convolution = keras.layers.Conv2D(
        filters, kernel, stride, padding="same", use_bias=False, kernel_initializer="he_normal", name=f"{name}_conv"
    )
    return keras.layers.BatchNormalization(epsilon=1e-5, name=f"{name}_bn")(convolution(features))
