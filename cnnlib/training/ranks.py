"""The ranks: the processes that train one model together, and the sums that they exchange.

On CPUs they form a ring of our own; `cnnlib.training.ring` says why. On GPUs they use TensorFlow's collectives with
NCCL. Keras' `fit` does not run under TensorFlow's `MultiWorkerMirroredStrategy` (keras-team/keras#20585). So each rank
trains a plain Keras model, and `cnnlib.training.training_model` keeps it equal on all ranks.
"""

import itertools
import json
import math
import os
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from cnnlib.feed.sharding import Shard
from cnnlib.training.ring import TIMEOUT_S, Ring

# No other group of collectives in these processes has this key.
_GROUP_KEY = 7301
# Bytes. Eigen, which TensorFlow uses, requires tensors at multiples of this address.
_ALIGNMENT = 64


class Ranks:
    """A single process. Its sums over all ranks are its own values."""

    rank = 0
    count = 1

    @property
    def shard(self) -> Shard:
        """The shard of each epoch that this rank reads."""
        return Shard(self.rank, self.count)

    def sum(self, tensors: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """Sum dense tensors of one type over all ranks. Every rank gets the same bits.

        All ranks call this in the same order, with tensors of the same shapes.
        """
        return list(tensors)

    def mean(self, tensors: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """Average over all ranks; see `sum`. The results are valid until the next call, which may use their memory."""
        return [tensor / self.count for tensor in self.sum(tensors)]

    def gather(self, values: Sequence[float]) -> np.ndarray:
        """Return the `values` of every rank: (ranks, values) float64."""
        own = np.zeros((self.count, len(values)))
        own[self.rank] = values
        (total,) = self.sum([tf.constant(own)])
        return total.numpy()


class RingRanks(Ranks):
    """Processes on CPUs, in a ring of TCP connections."""

    def __init__(self, rank: int, count: int, ring: Ring) -> None:
        self.rank = rank
        self.count = count
        self._ring = ring
        self._buffers: dict[object, _Buffer] = {}

    def sum(self, tensors: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """Sum the tensors in one message. In a `tf.function`, sums keep their order, because they are stateful."""
        return self._through_ring(tensors, self._add_up)

    def mean(self, tensors: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """Average the tensors in a buffer that all calls with the same shapes use.

        With new memory for each call, a step of LeNet with 128 images took 0.65 ms longer, for mapping pages and for
        copies on the way to TensorFlow.
        """
        return self._through_ring(tensors, self._average)

    def _through_ring(self, tensors: Sequence[tf.Tensor], function: Callable[..., list[np.ndarray]]) -> list[tf.Tensor]:
        if not tensors:
            return []
        # For a single array, numpy_function returns no list.
        results = tf.nest.flatten(tf.numpy_function(function, list(tensors), [tensor.dtype for tensor in tensors]))
        return [tf.ensure_shape(result, tensor.shape) for result, tensor in zip(results, tensors, strict=True)]

    def _add_up(self, *arrays: np.ndarray) -> list[np.ndarray]:
        buffer = _Buffer(arrays)
        buffer.fill(arrays)
        self._ring.add_up(buffer.all)
        return buffer.parts

    def _average(self, *arrays: np.ndarray) -> list[np.ndarray]:
        key = tuple((array.shape, array.dtype) for array in arrays)
        if key not in self._buffers:
            self._buffers[key] = _Buffer(arrays)
        buffer = self._buffers[key]
        buffer.fill(arrays)
        self._ring.average(buffer.all)
        return buffer.parts


class _Buffer:
    """Memory for arrays of one type. `all` is the flat whole, and `parts` are views of it with the arrays' shapes.

    Each part begins at an address from which TensorFlow can use it as a tensor without a copy.
    """

    def __init__(self, like: Sequence[np.ndarray]) -> None:
        item = like[0].dtype.itemsize
        starts = np.cumsum([0, *(math.ceil(array.nbytes / _ALIGNMENT) * _ALIGNMENT // item for array in like)])
        memory = np.zeros(starts[-1] + _ALIGNMENT // item, like[0].dtype)
        first = -memory.ctypes.data % _ALIGNMENT // item
        self.all = memory[first : first + starts[-1]]
        self.parts = [
            self.all[start : start + array.size].reshape(array.shape)
            for start, array in zip(starts, like, strict=False)
        ]

    def fill(self, arrays: Sequence[np.ndarray]) -> None:
        """Copy the arrays into their parts."""
        for part, array in zip(self.parts, arrays, strict=True):
            part[...] = array


class CollectiveRanks(Ranks):
    """Processes on GPUs, connected by TensorFlow. Make one per process, before anything else uses TensorFlow.

    `addresses` has the "host:port" of every rank, in order. Each port must be free on its host. The constructor waits
    until all ranks are connected.
    """

    def __init__(self, rank: int, addresses: Sequence[str], *, gpu: bool = True) -> None:
        self.rank = rank
        self.count = len(addresses)
        self._device = "GPU:0" if gpu else "CPU:0"
        self._hint = "nccl" if gpu else "ring"
        self._instance_keys = itertools.count(1)
        os.environ["TF_CONFIG"] = json.dumps(
            {"cluster": {"worker": list(addresses)}, "task": {"type": "worker", "index": rank}}
        )
        # It must live as long as the connection.
        self._strategy = tf.distribute.MultiWorkerMirroredStrategy()

    def sum(self, tensors: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """Sum the tensors in one message, because each message costs time.

        In a `tf.function`, the order of sums is fixed when the function is traced.
        """
        if not tensors:
            return []
        with tf.device(self._device):
            total = tf.raw_ops.CollectiveReduceV2(
                input=tf.concat([tf.reshape(tensor, [-1]) for tensor in tensors], 0),
                group_size=self.count,
                group_key=_GROUP_KEY,
                instance_key=next(self._instance_keys),
                ordering_token=[],
                merge_op="Add",
                final_op="Id",
                communication_hint=self._hint,
                timeout_seconds=TIMEOUT_S,
            )
            parts = tf.split(total, [tensor.shape.num_elements() for tensor in tensors])
        return [tf.reshape(part, tensor.shape) for part, tensor in zip(parts, tensors, strict=True)]


ALONE = Ranks()
