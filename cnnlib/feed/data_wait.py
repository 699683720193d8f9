"""Measure how long training waits for data, inside tf.data, at the point where a step takes its batch."""

import time

import tensorflow as tf
from tensorflow.python.framework.config import is_op_determinism_enabled


class DataWait:
    """The sum of the seconds that the consumer of a data set has waited for its elements.

    With `deterministic`, Python reads the clock, because TensorFlow refuses to read its own under op determinism.
    """

    def __init__(self, deterministic: bool = False) -> None:
        # Nobody can switch determinism off again, so an earlier training of this process counts too.
        deterministic = deterministic or is_op_determinism_enabled()
        self._now = _python_clock if deterministic else tf.timestamp
        with tf.device("CPU:0"):
            self._seconds = tf.Variable(0.0, dtype=tf.float64, trainable=False, name="data_wait")
        self._reported = 0.0

    def measured(self, dataset: tf.data.Dataset) -> tf.data.Dataset:
        """Return a data set with the same elements that reads the clock before and after each one.

        The training step itself must consume it. If a buffer stands between them, as `tf.distribute` may insert one,
        this measures the wait of the thread that fills the buffer.
        """
        clock = tf.data.Dataset.counter().map(lambda _: self._now())

        # zip first takes the time from `clock`, then the element. `add` runs when it has both.
        def add(before: tf.Tensor, element: tuple[tf.Tensor, ...]) -> tuple[tf.Tensor, ...]:
            self._seconds.assign_add(self._now() - before)
            return element

        timed = tf.data.Dataset.zip(clock, dataset).map(add)
        options = tf.data.Options()
        # A buffer after the clocks would fill itself between two steps and hide the wait.
        options.experimental_optimization.inject_prefetch = False
        options.experimental_optimization.map_and_batch_fusion = False
        return timed.with_options(options)

    def take(self) -> float:
        """Return the seconds waited since the last call."""
        total = float(self._seconds.numpy())
        seconds, self._reported = total - self._reported, total
        return seconds


def _python_clock() -> tf.Tensor:
    now = tf.numpy_function(time.time, [], tf.float64)
    return tf.ensure_shape(now, ())
