"""Training images -> the same, changed at random: Keras' layers, behind the feed and before the model.

They are no part of the model, so that nothing of them is validated, saved or registered. They draw what they draw in
the training step, from states that `EpochSeeds` sets: a resumed training sees the images that it would have seen.
"""

from typing import Any

import keras
import tensorflow as tf

from cnnlib.config import AugmentSettings
from cnnlib.errors import ConfigError

# Of 8 bits, how many posterization leaves at magnitude 1 (Cubuk et al. 2018, table 6).
_FEWEST_BITS = 4


class Augmentation(keras.layers.Layer):
    """(images (batch, height, width, channels) uint8, labels) -> the same, changed as the settings say.

    `image_shape` is (height, width, channels). Labels are (batch,) int32, or (batch, classes) float32, which mixing
    needs. Images stay uint8: what a model is trained on is what an image set could hold. Raises ConfigError for images
    that the settings do not fit.
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
    """The layers that are on, in the order in which a camera, a lens and a sensor would change a picture."""
    height, width, channels = image_shape
    if settings.crop_padding >= min(height, width):
        raise ConfigError(
            f"augment.crop_padding={settings.crop_padding} could leave nothing of images of {height} x {width} pixels; "
            "take fewer"
        )
    layers, moved = keras.layers, {"fill_mode": settings.fill, "dtype": "float32"}
    changes: list[keras.layers.Layer] = []
    for axis in ("horizontal", "vertical"):
        # One by one: Keras' horizontal_and_vertical mirrors an image along both axes or along none.
        if settings.flip in (axis, "both"):
            changes.append(layers.RandomFlip(axis, dtype="float32"))
    if settings.rotation:
        changes.append(layers.RandomRotation(settings.rotation / 360, **moved))
    if settings.zoom:
        changes.append(layers.RandomZoom((-settings.zoom, settings.zoom), **moved))
    if settings.shift:
        changes.append(layers.RandomTranslation(settings.shift, settings.shift, **moved))
    if settings.crop_padding:
        # Keras' RandomCrop cuts all images of a batch at one place. To move an image by whole pixels is the same.
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
    """Changes to both sides of what an image has: Keras takes one number as none to so much more, or less."""
    half = strength / 2
    factors: dict[str, object] = {"brightness_factor": (-half, half), "contrast_factor": (half, half)}
    if channels == 3:
        # 0 is grey and 0.5 no change: saturation becomes a third to three times what it was. Hue moves by a twentieth
        # of the circle, either way.
        factors |= {"saturation_factor": (0.5 - half / 2, 0.5 + half / 2), "hue_factor": strength / 10}
    return keras.layers.RandomColorJitter(**factors, dtype="float32")


class _Solarization(keras.layers.Solarization):
    """Inverts what is brighter than the threshold; Keras' layer draws one from almost 0 up to it, and adds before."""

    def get_random_transformation(self, data: tf.Tensor, training: bool = True, seed: Any = None) -> dict[str, Any]:
        """What Keras asks for: (batch, 1, 1, 1) each, of 255."""
        drawn = super().get_random_transformation(data, training, seed)
        threshold = 255 * self.threshold_factor[1]
        return drawn | {"thresholds": tf.fill(tf.shape(drawn["thresholds"]), threshold)}


def _rand_augment(magnitude: float) -> keras.layers.Layer:
    """Keras' layer, whose solarization and posterization change the more, the smaller the magnitude is, put right."""
    layer = keras.layers.RandAugment(factor=magnitude, dtype="float32")
    layer.solarization = _Solarization(threshold_factor=1 - magnitude, dtype="float32")
    bits = round(8 - (8 - _FEWEST_BITS) * magnitude)
    layer.random_posterization.factor = (bits, bits)
    return layer
