"""ShuffleNet, both versions: cheap convolutions on groups of channels, which are shuffled between the convolutions."""

import keras

from cnnlib.models.architecture import Architecture
from cnnlib.models.layers import Stem, activate, depthwise_convolution, is_small, normalised_convolution

STEM_FILTERS = 24
BLOCKS = (4, 8, 4)
# Version 1, table 1: filters per stage, by the number of groups.
FILTERS_BY_GROUPS = {
    1: (144, 288, 576),
    2: (200, 400, 800),
    3: (240, 480, 960),
    4: (272, 544, 1088),
    8: (384, 768, 1536),
}
# Version 2, table 5, at 1x: filters per stage, and of the convolution after the stages.
V2_FILTERS, V2_LAST_FILTERS = (116, 232, 464), 1024


def shufflenet(pixels: keras.KerasTensor, *, classes: int, groups: int = 3, stem: Stem = "auto") -> keras.KerasTensor:
    """Build ShuffleNet 1x: (batch, height, width, channels) -> logits (batch, classes).

    Source: Zhang, Zhou, Lin and Sun, "ShuffleNet: An Extremely Efficient Convolutional Neural Network for Mobile
    Devices" (2017), table 1. The first convolution of a block has a quarter of the block's filters (section 3.2).
    `groups` is the number of groups of the 1 x 1 convolutions. For images with a side of less than 64 pixels, the stem
    keeps their size. Raises ValueError for a number of groups that is not in the table.
    """
    if groups not in FILTERS_BY_GROUPS:
        raise ValueError(f"groups={groups}: choose one of {', '.join(map(str, FILTERS_BY_GROUPS))}")
    features = _stem(pixels, stem)
    for stage, (filters, count) in enumerate(zip(FILTERS_BY_GROUPS[groups], BLOCKS, strict=True), start=2):
        for block in range(1, count + 1):
            features = _unit(features, filters, groups, halve=block == 1, name=f"stage_{stage}_block_{block}")
    pooled = keras.layers.GlobalAveragePooling2D(name="pool")(features)
    return keras.layers.Dense(classes, name="logits")(pooled)


def shufflenet_v2(pixels: keras.KerasTensor, *, classes: int, stem: Stem = "auto") -> keras.KerasTensor:
    """Build ShuffleNet V2 1x: (batch, height, width, channels) -> logits (batch, classes).

    Source: Ma, Zhang, Zheng and Sun, "ShuffleNet V2: Practical Guidelines for Efficient CNN Architecture Design"
    (2018), table 5 and figures 3c and 3d. For images with a side of less than 64 pixels, the stem keeps their size.
    """
    features = _stem(pixels, stem)
    for stage, (filters, count) in enumerate(zip(V2_FILTERS, BLOCKS, strict=True), start=2):
        for block in range(1, count + 1):
            features = _v2_unit(features, filters, halve=block == 1, name=f"stage_{stage}_block_{block}")
    features = normalised_convolution(features, V2_LAST_FILTERS, 1, name="last")
    pooled = keras.layers.GlobalAveragePooling2D(name="pool")(features)
    return keras.layers.Dense(classes, name="logits")(pooled)


def shuffle(features: keras.KerasTensor, groups: int, name: str) -> keras.KerasTensor:
    """Reorder the channels, so that each group gets channels of all groups (version 1, figure 1c)."""
    _, height, width, channels = features.shape
    grouped = keras.layers.Reshape((height, width, groups, channels // groups), name=f"{name}_deal")(features)
    shuffled = keras.layers.Permute((1, 2, 4, 3), name=f"{name}_permute")(grouped)
    return keras.layers.Reshape((height, width, channels), name=f"{name}_shuffle")(shuffled)


def _stem(pixels: keras.KerasTensor, stem: Stem) -> keras.KerasTensor:
    if is_small(pixels, stem):
        return normalised_convolution(pixels, STEM_FILTERS, 3, name="stem")
    features = normalised_convolution(pixels, STEM_FILTERS, 3, stride=2, name="stem")
    return keras.layers.MaxPooling2D(3, 2, padding="same", name="stem_pool")(features)


def _unit(features: keras.KerasTensor, filters: int, groups: int, *, halve: bool, name: str) -> keras.KerasTensor:
    """Build a unit of version 1: figure 2b, or figure 2c if it halves height and width."""
    incoming = features.shape[-1]
    # The first unit has too few channels for groups (table 1).
    grouped = 1 if incoming == STEM_FILTERS else groups
    own = filters - incoming if halve else filters
    inner = normalised_convolution(features, filters // 4, 1, groups=grouped, name=f"{name}_1")
    inner = shuffle(inner, groups, name) if groups > 1 else inner
    inner = depthwise_convolution(inner, 3, 2 if halve else 1, name=f"{name}_2")
    inner = normalised_convolution(inner, own, 1, groups=groups, activation=None, name=f"{name}_3")
    if halve:
        shortcut = keras.layers.AveragePooling2D(3, 2, padding="same", name=f"{name}_pool")(features)
        total = keras.layers.Concatenate(name=f"{name}_join")([shortcut, inner])
    else:
        total = keras.layers.Add(name=f"{name}_add")([features, inner])
    return activate(total, "relu", name)


def _v2_unit(features: keras.KerasTensor, filters: int, *, halve: bool, name: str) -> keras.KerasTensor:
    """Build a unit of version 2: figure 3c, or figure 3d if it halves height and width."""
    half = filters // 2
    if halve:
        kept = depthwise_convolution(features, 3, 2, name=f"{name}_kept_1")
        kept = normalised_convolution(kept, half, 1, name=f"{name}_kept_2")
        taken = features
    else:
        kept, taken = keras.ops.split(features, 2, axis=-1)
    inner = normalised_convolution(taken, half, 1, name=f"{name}_1")
    inner = depthwise_convolution(inner, 3, 2 if halve else 1, name=f"{name}_2")
    inner = normalised_convolution(inner, half, 1, name=f"{name}_3")
    joined = keras.layers.Concatenate(name=f"{name}_join")([kept, inner])
    return shuffle(joined, 2, name)


ARCHITECTURES = (
    Architecture("shufflenet", shufflenet, "Zhang et al. 2017", smallest_side=4),
    Architecture("shufflenet_v2", shufflenet_v2, "Ma et al. 2018", smallest_side=4),
)
