"""Decode stored images inside tf.data: PNG and JPEG with TensorFlow's decoders; raw images need no decoding."""

import tensorflow as tf

from cnnlib.sealed.frozen.images import ImageSpec


def decode_batches(dataset: tf.data.Dataset, spec: ImageSpec) -> tf.data.Dataset:
    """Map (images as stored, labels) to ((batch, height, width, channels) uint8, labels), in the same order.

    The pixels equal those of `decode_image` for the same bytes. For JPEG this needs the accurate integer transform,
    which Pillow uses too.
    """
    if spec.encoding == "raw":
        return dataset

    def decode(stored: tf.Tensor) -> tf.Tensor:
        if spec.encoding == "jpeg":
            pixels = tf.io.decode_jpeg(stored, channels=spec.channels, dct_method="INTEGER_ACCURATE")
        else:
            pixels = tf.io.decode_png(stored, channels=spec.channels)
        return tf.ensure_shape(pixels, spec.shape)

    def decode_batch(stored: tf.Tensor, labels: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        # (batch,) string -> (batch, height, width, channels) uint8
        return tf.map_fn(decode, stored, fn_output_signature=tf.TensorSpec(spec.shape, tf.uint8)), labels

    return dataset.map(decode_batch, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)


def is_decoding_error(error: tf.errors.OpError) -> bool:
    """Return whether an error comes from an image that `decode_batches` could not decode."""
    return any(operation in error.message for operation in ("DecodeJpeg", "DecodePng"))
