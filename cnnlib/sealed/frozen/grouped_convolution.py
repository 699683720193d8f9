"""Grouped convolutions, as in ShuffleNet and ResNeXt, that are fast enough to train on CPUs.

Like `predict`, this module travels inside every registered model and imports nothing else of this project.
"""

from functools import cache

import keras
import tensorflow as tf


@keras.saving.register_keras_serializable("sparkcnn")
class GroupedConv2D(keras.layers.Conv2D):
    """Keras' `Conv2D`, (batch, height, width, channels), which computes groups with TensorFlow's own operation.

    Keras 3.15 lets XLA compile grouped convolutions, because TensorFlow's own were once broken on CPUs. A training step
    of ResNeXt-50 with 12 images of 32 x 32 took 20 s on 2 cores that way. With as many groups as channels, TensorFlow's
    operation is as fast as its depthwise convolution.
    """

    def convolution_op(self, inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        """Convolve. Keras calls this."""
        if not _has_groups(inputs.dtype):
            return super().convolution_op(inputs, kernel)
        return tf.nn.convolution(inputs, kernel, self.strides, self.padding.upper(), dilations=self.dilation_rate)


@cache
def _has_groups(dtype: tf.DType) -> bool:
    """Return whether TensorFlow itself computes grouped convolutions and their gradients, here and in this precision.

    On CPUs, oneDNN does it, except in float16. It is off on older CPUs, and with TF_ENABLE_ONEDNN_OPTS=0.
    """
    # (1, height, width, channels), (height, width, channels per group, filters)
    shape, kernel_shape = (1, 2, 2, 4), (1, 1, 2, 4)
    # Run outside of any graph that is being traced. No tape records there, so call the gradient's operation by name.
    with tf.init_scope():
        images, kernel = tf.zeros(shape, dtype), tf.zeros(kernel_shape, dtype)
        try:
            tf.raw_ops.Conv2DBackpropInput(
                input_sizes=shape,
                filter=kernel,
                out_backprop=tf.nn.convolution(images, kernel, padding="SAME"),
                strides=(1, 1, 1, 1),
                padding="SAME",
            )
        except tf.errors.OpError:
            return False
    return True
