"""Random changes to training images, with Keras' layers, between the feed and the model.

These layers are not part of the model, so they are not validated, saved or registered. They draw random numbers in the
training step, from states that `EpochSeeds` sets. So a resumed training sees the same images as an uninterrupted one.
"""

from typing import Any

import keras
import tensorflow as tf

from cnnlib.config import AugmentSettings
from cnnlib.errors import ConfigError

# Bits, of 8, that posterization leaves at magnitude 1 (Cubuk et al. 2018, table 6).
_FEWEST_BITS = 4


class Augmentation(keras.layers.Layer):
    """Change a batch at random, as the settings say: images (batch, height, width, channels) uint8, and labels.

    `image_shape` is (height, width, channels). Labels are (batch,) int32, or (batch, classes) float32, which mixing
    needs. Images stay uint8, so a model is trained only on images that an image set can hold. Raises ConfigError if
    the settings do not fit images of this shape.
    """

    def __init__(self, settings: AugmentSettings, image_shape: tuple[int, int, int]) -> None:
        super().__init__(name="augmentation", dtype="float32")
        self._mixes = settings.mixes
        self._changes = _changes(settings, image_shape)

    def call(self, images: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Change a batch."""
        batch = {"images": images}
        if self._mixes:
            batch["labels"] = labels
        for change in self._changes:
            batch = change(batch, training=True)
        return tf.saturate_cast(tf.round(batch["images"]), tf.uint8), batch.get("labels", labels)


def _changes(settings: AugmentSettings, image_shape: tuple[int, int, int]) -> list[keras.layers.Layer]:
    """Return the layers that are on, in the order in which a camera, a lens and a sensor would change a picture."""
    height, width, channels = image_shape
    if settings.crop_padding >= min(height, width):
        raise ConfigError(
            f"augment.crop_padding={settings.crop_padding} could leave nothing of images of {height} x {width} pixels; "
            "take a smaller value"
        )
    layers, moved = keras.layers, {"fill_mode": settings.fill, "dtype": "float32"}
    changes: list[keras.layers.Layer] = []
    for axis in ("horizontal", "vertical"):
        # Two layers, because Keras' horizontal_and_vertical mirrors an image along both axes or along none.
        if settings.flip in (axis, "both"):
            changes.append(layers.RandomFlip(axis, dtype="float32"))
    if settings.rotation:
        changes.append(layers.RandomRotation(settings.rotation / 360, **moved))
    if settings.zoom:
        changes.append(layers.RandomZoom((-settings.zoom, settings.zoom), **moved))
    if settings.shift:
        changes.append(layers.RandomTranslation(settings.shift, settings.shift, **moved))
    if settings.crop_padding:
        # Keras' RandomCrop cuts all images of a batch at the same position. Moving an image by whole pixels has the
        # effect of a crop, with a position for each image.
        by = (settings.crop_padding / height, settings.crop_padding / width)
        changes.append(layers.RandomTranslation(*by, interpolation="nearest", **moved))
    if settings.colour:
        changes.append(_colour_jitter(settings.colour, channels))
    if settings.rand_augment:
        changes.append(_rand_augment(settings.rand_augment))
    if settings.erasing:
        changes.append(layers.RandomErasing((settings.erasing, settings.erasing), fill_value=0.0, dtype="float32"))
    if settings.mixup:
        changes.append(layers.MixUp(settings.mixup, dtype="float32"))
    if settings.cutmix:
        changes.append(layers.CutMix((settings.cutmix, settings.cutmix), dtype="float32"))
    return changes


def _colour_jitter(strength: float, channels: int) -> keras.layers.Layer:
    """Return a layer that changes colours in both directions.

    Keras would read a single number as a change in one direction, from none up to that number.
    """
    half = strength / 2
    factors: dict[str, object] = {"brightness_factor": (-half, half), "contrast_factor": (half, half)}
    if channels == 3:
        # A saturation factor of 0 is grey, and 0.5 is no change. At strength 1, saturation becomes between a third and
        # three times as large. Hue moves by at most a twentieth of the circle in either direction.
        factors |= {"saturation_factor": (0.5 - half / 2, 0.5 + half / 2), "hue_factor": strength / 10}
    return keras.layers.RandomColorJitter(**factors, dtype="float32")


class _Solarization(keras.layers.Solarization):
    """Invert pixels that are brighter than a fixed threshold.

    Keras' layer draws a threshold between almost 0 and the given one. The one in RandAugment also adds to the pixels
    first.
    """

    def get_random_transformation(self, data: tf.Tensor, training: bool = True, seed: Any = None) -> dict[str, Any]:
        """Return Keras' random parameters with the threshold fixed: (batch, 1, 1, 1) each, on a scale of 255."""
        drawn = super().get_random_transformation(data, training, seed)
        threshold = 255 * self.threshold_factor[1]
        return drawn | {"thresholds": tf.fill(tf.shape(drawn["thresholds"]), threshold)}


def _rand_augment(magnitude: float) -> keras.layers.Layer:
    """Return Keras' RandAugment with two corrections.

    Keras' solarization and posterization change an image more when the magnitude is smaller.
    """
    layer = keras.layers.RandAugment(factor=magnitude, dtype="float32")
    layer.solarization = _Solarization(threshold_factor=1 - magnitude, dtype="float32")
    bits = round(8 - (8 - _FEWEST_BITS) * magnitude)
    layer.random_posterization.factor = (bits, bits)
    return layer
