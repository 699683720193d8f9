"""How long training waits for data: measured inside tf.data, where a step takes its batch."""

import time

import tensorflow as tf


class DataWait:
    """Adds up the seconds for which the taker of a data set's elements had to wait for them.

    `deterministic` reads the clock through Python: TensorFlow refuses its own under op determinism.
    """

    def __init__(self, deterministic: bool = False) -> None:
        self._now = _python_clock if deterministic else tf.timestamp
        with tf.device("CPU:0"):
            self._seconds = tf.Variable(0.0, dtype=tf.float64, trainable=False, name="data_wait")
        self._taken = 0.0

    def measured(self, dataset: tf.data.Dataset) -> tf.data.Dataset:
        """The same elements, each taken between two looks at the clock.

        What takes them must be the training step itself: in front of a buffer, as `tf.distribute` may put one, the
        wait of the thread that fills it is measured.
        """
        clock = tf.data.Dataset.counter().map(lambda _: self._now())

        # zip takes from its parts one after the other, and `add` runs when it has both.
        def add(before: tf.Tensor, element: tuple[tf.Tensor, ...]) -> tuple[tf.Tensor, ...]:
            self._seconds.assign_add(self._now() - before)
            return element

        timed = tf.data.Dataset.zip(clock, dataset).map(add)
        options = tf.data.Options()
        # A buffer behind the clocks would fill itself meanwhile, and hide the wait.
        options.experimental_optimization.inject_prefetch = False
        options.experimental_optimization.map_and_batch_fusion = False
        return timed.with_options(options)

    def take(self) -> float:
        """Seconds waited since the last call."""
        total = float(self._seconds.numpy())
        taken, self._taken = total - self._taken, total
        return taken


def _python_clock() -> tf.Tensor:
    now = tf.numpy_function(time.time, [], tf.float64)
    return tf.ensure_shape(now, ())
