"""The processes that train one model together, each of which is a rank, and the sums that they exchange.

On CPUs they form a ring of their own, on GPUs they use TensorFlow's collectives with NCCL. Keras' `fit` does not run
under TensorFlow's `MultiWorkerMirroredStrategy` (keras-team/keras#20585): each rank trains a plain Keras model, which
`cnnlib.training.training_model` keeps equal on all ranks.
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
# Bytes: what Eigen, below TensorFlow, asks of the address of a tensor.
_ALIGNMENT = 64


class Ranks:
    """One process alone: sums over all ranks are its own values."""

    rank = 0
    count = 1

    @property
    def shard(self) -> Shard:
        """The part of each epoch that this rank reads."""
        return Shard(self.rank, self.count)

    def sum(self, tensors: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """Add dense tensors of one type up over all ranks; each rank gets the same bits.

        All ranks must call it in the same order, with tensors of the same shapes.
        """
        return list(tensors)

    def mean(self, tensors: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """The means over all ranks; see `sum`. They hold until the next call, which may take their memory."""
        return [tensor / self.count for tensor in self.sum(tensors)]

    def gather(self, values: Sequence[float]) -> np.ndarray:
        """Every rank's `values`: (ranks, values) float64."""
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
        self._room: dict[object, _Room] = {}

    def sum(self, tensors: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """Add the tensors up in one message. In a `tf.function`, sums keep their order, as all stateful operations."""
        return self._through_ring(tensors, self._add_up)

    def mean(self, tensors: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """The means, in memory that is kept for all calls with the same shapes.

        With memory of its own for each, a step of LeNet with 128 images took 0.65 ms longer: pages to be mapped, and
        copies on the way to TensorFlow.
        """
        return self._through_ring(tensors, self._average)

    def _through_ring(self, tensors: Sequence[tf.Tensor], function: Callable[..., list[np.ndarray]]) -> list[tf.Tensor]:
        if not tensors:
            return []
        # Of one array it makes no list.
        results = tf.nest.flatten(tf.numpy_function(function, list(tensors), [tensor.dtype for tensor in tensors]))
        return [tf.ensure_shape(result, tensor.shape) for result, tensor in zip(results, tensors, strict=True)]

    def _add_up(self, *arrays: np.ndarray) -> list[np.ndarray]:
        room = _Room(arrays)
        room.fill(arrays)
        self._ring.add_up(room.all)
        return room.parts

    def _average(self, *arrays: np.ndarray) -> list[np.ndarray]:
        key = tuple((array.shape, array.dtype) for array in arrays)
        if key not in self._room:
            self._room[key] = _Room(arrays)
        room = self._room[key]
        room.fill(arrays)
        self._ring.average(room.all)
        return room.parts


class _Room:
    """Memory for arrays of one type: `all` of it, flat, and in it the `parts`, each shaped like one of them.

    Each part begins where TensorFlow can take it as a tensor without copying it.
    """

    def __init__(self, like: Sequence[np.ndarray]) -> None:
        item = like[0].dtype.itemsize
        starts = np.cumsum([0, *(math.ceil(array.nbytes / _ALIGNMENT) * _ALIGNMENT // item for array in like)])
        room = np.zeros(starts[-1] + _ALIGNMENT // item, like[0].dtype)
        first = -room.ctypes.data % _ALIGNMENT // item
        self.all = room[first : first + starts[-1]]
        self.parts = [
            self.all[start : start + array.size].reshape(array.shape)
            for start, array in zip(starts, like, strict=False)
        ]

    def fill(self, arrays: Sequence[np.ndarray]) -> None:
        """Copy the arrays to their parts."""
        for part, array in zip(self.parts, arrays, strict=True):
            part[...] = array


class CollectiveRanks(Ranks):
    """Processes on GPUs, connected by TensorFlow. Make it before anything else of TensorFlow is used, and once.

    `addresses` has "host:port" of every rank, in order; each must be free on its host. Waits for all ranks to come.
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
        """Add the tensors up in one message: it costs the more, the more messages there are.

        In a `tf.function` the sum gets its place in the order when the function is traced.
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
