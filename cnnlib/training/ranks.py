"""The processes that train one model together, each of which is a rank, and the sums that they exchange.

TensorFlow's own collectives do the exchange: `MultiWorkerMirroredStrategy` connects the processes, and
`CollectiveReduceV2` adds a tensor up over all of them (a ring of gRPC on CPUs, NCCL on GPUs). Keras' `fit` does not
run under the strategy, where it fails (keras-team/keras#20585): each rank trains a plain Keras model, which
`cnnlib.training.data_parallel` keeps equal on all ranks.
"""

import itertools
import json
import os
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from cnnlib.feed.sharding import Shard

# No other group of collectives in these processes has this key.
_GROUP_KEY = 7301
# A rank may wait for others while they load or trace; one that is dead is noticed long before.
COLLECTIVE_TIMEOUT_S = 600.0


class Ranks:
    """One process alone: sums over all ranks are its own values."""

    rank = 0
    count = 1

    @property
    def shard(self) -> Shard:
        """The part of each epoch that this rank reads."""
        return Shard(self.rank, self.count)

    def sum(self, tensor: tf.Tensor) -> tf.Tensor:
        """Add a dense tensor up over all ranks; each gets the same bits. All ranks must call it in the same order."""
        return tensor

    def gather(self, values: Sequence[float]) -> np.ndarray:
        """Every rank's `values`: (ranks, values) float64."""
        own = np.zeros((self.count, len(values)))
        own[self.rank] = values
        return self.sum(tf.constant(own)).numpy()


class ConnectedRanks(Ranks):
    """Several processes. Make it before anything else of TensorFlow is used; a process can be connected once.

    `addresses` has "host:port" of every rank, in order; each must be free on its host. Waits for all ranks to come.
    """

    def __init__(self, rank: int, addresses: Sequence[str], *, gpu: bool = False) -> None:
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

    def sum(self, tensor: tf.Tensor) -> tf.Tensor:
        """Add a dense tensor up over all ranks.

        In a `tf.function` the sum gets its place in the order when the function is traced.
        """
        with tf.device(self._device):
            return tf.raw_ops.CollectiveReduceV2(
                input=tensor,
                group_size=self.count,
                group_key=_GROUP_KEY,
                instance_key=next(self._instance_keys),
                ordering_token=[],
                merge_op="Add",
                final_op="Id",
                communication_hint=self._hint,
                timeout_seconds=COLLECTIVE_TIMEOUT_S,
            )


ALONE = Ranks()
