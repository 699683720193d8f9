"""Convolutions in groups, which ShuffleNet and ResNeXt have, at a speed that CPUs can train at.

Like `predict`, this module travels inside every registered model and imports nothing else of this project.
"""

from functools import cache

import keras
import tensorflow as tf


@keras.saving.register_keras_serializable("sparkcnn")
class GroupedConv2D(keras.layers.Conv2D):
    """Keras' `Conv2D`, (batch, height, width, channels), that leaves groups to TensorFlow.

    Keras 3.15 has XLA compile them, for TensorFlow's own were broken on CPUs once: a training step of ResNeXt-50 with
    12 images of 32 x 32 took 20 s on 2 cores so. In as many groups as channels, TensorFlow's are as fast as its
    depthwise convolutions.
    """

    def convolution_op(self, inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
        """What Keras asks a convolution for."""
        if not _has_groups(inputs.dtype):
            return super().convolution_op(inputs, kernel)
        return tf.nn.convolution(inputs, kernel, self.strides, self.padding.upper(), dilations=self.dilation_rate)


@cache
def _has_groups(dtype: tf.DType) -> bool:
    """Whether TensorFlow convolves in groups, and gives gradients, by itself, here and in this precision.

    On CPUs its oneDNN does, which is off on older ones and by TF_ENABLE_ONEDNN_OPTS=0; not in float16.
    """
    # (1, height, width, channels), (height, width, channels of a group, filters)
    shape, kernel_shape = (1, 2, 2, 4), (1, 1, 2, 4)
    # Out of whatever graph is being traced; no tape records there, so the gradient's operation is called by its name.
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
