"""The part of the loss's gradient that reaches each layer of a deep stack of convolutions."""

import keras
import numpy as np
import tensorflow as tf

_FILTERS, _SIDE, _CLASSES, _BATCH = 16, 16, 10, 32


def relative_gradients(depth: int, *, residual: bool, normalised: bool, seed: int = 0) -> np.ndarray:
    """Return the norm of the loss's gradient at each layer's maps, relative to the last layer: (depth,) float64.

    The stack has `depth` convolutions of 16 filters of 3 x 3 with ReLU. It is not trained, and its weights are Keras'
    default initial weights (Glorot and Bengio 2010). `residual` adds each layer's input to its output before the ReLU,
    as in He et al. (2015), figure 2. `normalised` puts batch normalisation after each convolution. The loss is the
    cross-entropy of 32 images of noise with random classes.
    """
    random = np.random.default_rng(seed)
    images = random.normal(size=(_BATCH, _SIDE, _SIDE, 3)).astype(np.float32)
    labels = random.integers(0, _CLASSES, _BATCH)
    model = _stack(depth, residual, normalised, seed)
    with tf.GradientTape() as tape:
        *maps, logits = model(images, training=True)
        loss = tf.reduce_mean(keras.losses.sparse_categorical_crossentropy(labels, logits, from_logits=True))
    norms = np.array([float(tf.norm(gradient)) for gradient in tape.gradient(loss, maps)])
    return norms / norms[-1]


def _stack(depth: int, residual: bool, normalised: bool, seed: int) -> keras.Model:
    """Build the stack: (batch, 16, 16, 3) float32 -> [maps (batch, 16, 16, 16) of each layer, logits (batch, 10)]."""
    images = keras.Input((_SIDE, _SIDE, 3))
    features, maps = images, []
    for number in range(depth):
        weights = keras.initializers.GlorotUniform(seed=seed + number)
        computed = keras.layers.Conv2D(_FILTERS, 3, padding="same", kernel_initializer=weights)(features)
        if normalised:
            computed = keras.layers.BatchNormalization()(computed)
        if residual and number:
            # The first layer has no shortcut, because 3 channels cannot be added to 16.
            computed = keras.layers.Add()([computed, features])
        features = keras.layers.ReLU()(computed)
        maps.append(features)
    weights = keras.initializers.GlorotUniform(seed=seed + depth)
    logits = keras.layers.Dense(_CLASSES, kernel_initializer=weights)(keras.layers.GlobalAveragePooling2D()(features))
    return keras.Model(images, [*maps, logits])
