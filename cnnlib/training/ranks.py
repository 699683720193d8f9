"""The processes that train one model together, each of which is a rank, and the sums that they exchange.

On CPUs they form a ring of their own, on GPUs they use TensorFlow's collectives with NCCL. Keras' `fit` does not run
under TensorFlow's `MultiWorkerMirroredStrategy` (keras-team/keras#20585): each rank trains a plain Keras model, which
`cnnlib.training.data_parallel` keeps equal on all ranks.
"""

import itertools
import json
import os
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from cnnlib.feed.sharding import Shard
from cnnlib.training.ring import TIMEOUT_S, Ring

# No other group of collectives in these processes has this key.
_GROUP_KEY = 7301


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
        """The means over all ranks; see `sum`."""
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

    def sum(self, tensors: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """Add the tensors up in one message. In a `tf.function`, sums keep their order, as all stateful operations."""
        return self._through_ring(tensors, self._add_up)

    def mean(self, tensors: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """The means, divided while the sums are in the cache still."""
        return self._through_ring(tensors, self._average)

    def _through_ring(self, tensors: Sequence[tf.Tensor], function: Callable[..., list[np.ndarray]]) -> list[tf.Tensor]:
        if not tensors:
            return []
        # Of one array it makes no list.
        results = tf.nest.flatten(tf.numpy_function(function, list(tensors), [tensor.dtype for tensor in tensors]))
        return [tf.ensure_shape(result, tensor.shape) for result, tensor in zip(results, tensors, strict=True)]

    def _add_up(self, *arrays: np.ndarray) -> list[np.ndarray]:
        return _cut(self._flat_sum(arrays), arrays)

    def _average(self, *arrays: np.ndarray) -> list[np.ndarray]:
        flat = self._flat_sum(arrays)
        flat /= self.count
        return _cut(flat, arrays)

    def _flat_sum(self, arrays: Sequence[np.ndarray]) -> np.ndarray:
        flat = np.concatenate([array.ravel() for array in arrays])
        self._ring.add_up(flat)
        return flat


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


def _cut(flat: np.ndarray, like: Sequence[np.ndarray]) -> list[np.ndarray]:
    ends = np.cumsum([array.size for array in like])
    return [part.reshape(array.shape) for part, array in zip(np.split(flat, ends[:-1]), like, strict=True)]


ALONE = Ranks()
