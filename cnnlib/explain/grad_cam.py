"""Grad-CAM: which parts of an image speak for a class."""

from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf

from cnnlib.errors import ConfigError
from cnnlib.explain.feature_maps import check_images, gives_maps, layer_named, maps_of

_CONVOLUTIONS = (keras.layers.Conv2D, keras.layers.DepthwiseConv2D, keras.layers.SeparableConv2D)


def grad_cam(
    model: keras.Model, images: np.ndarray, labels: Sequence[int] | np.ndarray, *, layer: str | None = None
) -> np.ndarray:
    """Where each image speaks for a class: (batch, height, width) float32, 0 and above, in the images' size.

    After Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization" (2017),
    section 3: a map's weight is the mean over its pixels of the gradient of the class's score, before softmax, by the
    map (equation 1); the maps' weighted sum counts where it is positive (equation 2), and is brought to the image's
    size bilinearly. The weights are means over all pixels: they tell which maps speak for a class, not where in a map.

    `model` gives logits, such as those of `cnnlib.models.build_model`; `images` are (batch, height, width, channels)
    uint8, `labels` (batch,) the classes asked about. `layer` names the maps to take, by default `last_maps`. Raises
    ConfigError for a model without convolution, a layer that gives no maps, and images or labels that do not fit.
    """
    maps_layer = layer_named(model, layer or last_maps(model))
    check_images(model, images)
    classes = model.output_shape[-1]
    labels = np.asarray(labels, np.int32)
    if labels.shape != images.shape[:1] or not ((labels >= 0) & (labels < classes)).all():
        raise ConfigError(
            f"labels={labels.tolist()}: give each of {len(images)} images one from 0 to {classes - 1}, a class of "
            f"{model.name}"
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
    """The layer with a model's last maps: its last convolution, or what is done to that one's maps in their size.

    Behind a convolution may come a normalisation, an activation, and what adds or joins the maps to others: without
    these, only the last branch of a residual or dense block would be seen. Raises ConfigError where there is none.
    """
    layers = [layer for layer in model.layers if gives_maps(layer)]
    last = max((at for at, layer in enumerate(layers) if isinstance(layer, _CONVOLUTIONS)), default=None)
    if last is None:
        raise ConfigError(f"{model.name} has no convolution, and Grad-CAM explains by its maps; take another model")
    side = layers[last].output.shape[1:3]
    return [layer.name for layer in layers[last:] if layer.output.shape[1:3] == side][-1]
