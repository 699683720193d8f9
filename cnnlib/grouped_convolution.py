"""Convolutions in groups, which ShuffleNet and ResNeXt have, at a speed that CPUs can train at.

Like `predict`, this module travels inside every registered model and imports nothing else of this project.
"""

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
        return tf.nn.convolution(inputs, kernel, self.strides, self.padding.upper(), dilations=self.dilation_rate)
