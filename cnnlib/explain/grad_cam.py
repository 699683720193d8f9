"""Grad-CAM: the parts of an image that speak for a class."""

from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf

from cnnlib.errors import ConfigError
from cnnlib.explain.feature_maps import check_images, has_maps, layer_named, maps_of

_CONVOLUTIONS = (keras.layers.Conv2D, keras.layers.DepthwiseConv2D, keras.layers.SeparableConv2D)


def grad_cam(
    model: keras.Model, images: np.ndarray, labels: Sequence[int] | np.ndarray, *, layer: str | None = None
) -> np.ndarray:
    """Return a heat map per image that is high where the image speaks for a class: (batch, height, width) float32.

    Source: Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization" (2017),
    section 3. The weight of a feature map is the mean gradient of the class's logit over the pixels of the map
    (equation 1). The heat map is the weighted sum of the maps, with 0 in place of negative values (equation 2). It is
    resized to the image's size bilinearly. A weight is a mean over all pixels, so it tells which maps speak for a
    class, and not where in a map.

    `model` returns logits, like the models of `cnnlib.models.build_model`. `images` are (batch, height, width,
    channels) uint8, and `labels` (batch,) has the class to explain for each image. `layer` names the layer with the
    maps, `last_maps` by default. Raises ConfigError for a model without a convolution, a layer that has no maps, and
    images or labels that do not fit.

    >>> from cnnlib.models import build_model
    >>> model = build_model("lenet", image_shape=(28, 28, 1), classes=10)
    >>> grad_cam(model, np.zeros((2, 28, 28, 1), np.uint8), labels=[3, 7]).shape
    (2, 28, 28)
    """
    maps_layer = layer_named(model, layer or last_maps(model))
    check_images(model, images)
    classes = model.output_shape[-1]
    labels = np.asarray(labels, np.int32)
    if labels.shape != images.shape[:1] or not ((labels >= 0) & (labels < classes)).all():
        raise ConfigError(
            f"labels={labels.tolist()} do not fit; give one label from 0 to {classes - 1}, a class of {model.name}, "
            f"for each of {len(images)} images"
        )
    both = keras.Model(model.input, [maps_of(model, maps_layer), model.output])
    with tf.GradientTape() as tape:
        maps, logits = both(images, training=False)
        scores = tf.gather(logits, labels, axis=1, batch_dims=1)
    # (batch, height, width, channels) of the maps -> (batch, channels)
    weights = tf.reduce_mean(tf.cast(tape.gradient(scores, maps), tf.float32), axis=(1, 2))
    heat = tf.nn.relu(tf.einsum("bhwc,bc->bhw", tf.cast(maps, tf.float32), weights))
    return tf.image.resize(heat[..., None], images.shape[1:3], "bilinear")[..., 0].numpy()


def last_maps(model: keras.Model) -> str:
    """Return the name of the layer with a model's last maps.

    This is the last convolution, or the last layer after it with maps of the same size. Such a layer normalises or
    activates the maps, or adds or joins them to other maps. Without it, Grad-CAM would see only the last branch of a
    residual or dense block. Raises ConfigError if the model has no convolution.
    """
    layers = [layer for layer in model.layers if has_maps(layer)]
    last = max((at for at, layer in enumerate(layers) if isinstance(layer, _CONVOLUTIONS)), default=None)
    if last is None:
        raise ConfigError(f"{model.name} has no convolution, and Grad-CAM needs the maps of one; take another model")
    side = layers[last].output.shape[1:3]
    return [layer.name for layer in layers[last:] if layer.output.shape[1:3] == side][-1]
