"""The targets of training: labels, plain or smoothed, the weight of each image, and the loss."""

from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf

from cnnlib.config import TrainSettings


def make_loss(settings: TrainSettings) -> keras.Loss:
    """Return the cross-entropy of logits (batch, classes) and the targets that `as_targets` gives.

    The smoothing is from Szegedy et al., "Rethinking the Inception Architecture for Computer Vision" (2015), section 7.
    """
    if settings.has_soft_labels:
        smoothing = settings.train.label_smoothing
        return keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=smoothing)
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def as_targets(
    batches: tf.data.Dataset, classes: int, settings: TrainSettings, class_counts: Sequence[int] | None = None
) -> tf.data.Dataset:
    """(images, labels (batch,) int32) -> (images, targets), or (images, targets, weights (batch,) float32).

    Targets are the labels themselves, or (batch, classes) float32 if they are smoothed or mixed. There are weights if
    classes are balanced and `class_counts`, the number of images per class, are given; see `balanced_weights`.
    """
    weights = None
    if settings.train.class_weights == "balanced" and class_counts is not None:
        weights = tf.constant(balanced_weights(class_counts), tf.float32)
    if weights is None and not settings.has_soft_labels:
        return batches

    def targets(images: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, ...]:
        target = tf.one_hot(labels, classes) if settings.has_soft_labels else labels
        return (images, target) if weights is None else (images, target, tf.gather(weights, labels))

    return batches.map(targets)


def balanced_weights(class_counts: Sequence[int]) -> list[float]:
    """Return a weight per class, so that all classes that have images count the same, and an image counts 1 on average.

    After King and Zeng, "Logistic Regression in Rare Events Data" (2001), section 4.

    >>> balanced_weights([30, 10, 0])
    [0.6666666666666666, 2.0, 0.0]
    """
    counts = np.asarray(class_counts, np.float64)
    there = counts > 0
    weights = np.divide(counts.sum() / max(there.sum(), 1), counts, out=np.zeros_like(counts), where=there)
    return weights.tolist()
