"""What training on many workers is worth: the time of the exchange of gradients by formula, and what others measured.

The formula is that of a ring all-reduce: a reduce-scatter, then an allgather, of p - 1 messages of n/p bytes each:

    t = 2 (p - 1) α + 2 (p - 1)/p · n/β

with p workers, n bytes to add up, α seconds of latency a message and β bytes a second out of each worker. The cost of
the two halves is from Thakur, Rabenseifner and Gropp, "Optimization of Collective Communication Operations in MPICH"
(International Journal of High Performance Computing Applications 19(1), 2005); that 2 (p - 1)/p · n is the least that
any all-reduce can send is from Patarasu and Yuan, "Bandwidth optimal all-reduce algorithms for clusters of
workstations" (Journal of Parallel and Distributed Computing 69(2), 2009). Their term for the additions themselves is
left out: memory is an order of magnitude faster than the networks that matter here. So are stragglers and the feed:
a network of its own for each worker, and equal workers, are the best case.
"""

from dataclasses import dataclass

# A backward pass multiplies matrices twice, by the weights and by the activations, where the forward pass does once.
BACKWARD_SHARE = 2 / 3

# Images a second by number of GPUs, for a fixed batch a GPU: MXNet on 16 machines of 16 K80 GPUs (AWS P2.16xlarge, 20
# Gbit/s in a placement group), with a parameter server. From example/image-classification/README.md of apache/mxnet
# at commit 2829115, Mu Li, December 2016.
MXNET_IMAGES_PER_SECOND = {
    "Inception v3": {
        1: 30.4,
        2: 59.61,
        4: 117.9,
        8: 233.39,
        16: 447.61,
        32: 882.57,
        64: 1761.24,
        128: 3416.2,
        256: 6660.98,
    },
    "ResNet-152": {
        1: 20.08,
        2: 38.76,
        4: 77.01,
        8: 153.07,
        16: 298.03,
        32: 595.53,
        64: 1179.86,
        128: 2333.47,
        256: 4630.42,
    },
    "AlexNet": {
        1: 457.07,
        2: 870.43,
        4: 1514.8,
        8: 2852.5,
        16: 4244.18,
        32: 7945.57,
        64: 15840.52,
        128: 31334.88,
        256: 61938.36,
    },
}
# The round figures that are quoted for MXNet on those machines. They come without a model or a table; the measurements
# above lie about them for two networks, and far below for the third.
MXNET_QUOTED = {16: 0.91, 256: 0.88}


@dataclass(frozen=True)
class Network:
    """What carries the messages: seconds of latency each, and bytes a second out of (and into) each worker."""

    latency_s: float
    bytes_per_second: float


@dataclass(frozen=True)
class Scaling:
    """What a number of workers is expected to bring, each with the same batch as one alone.

    `images_per_second` and `efficiency` (1 is as many times as fast as there are workers) are without overlap of
    exchange and computation, `overlapped_efficiency` with as much as there can be.
    """

    workers: int
    all_reduce_seconds: float
    images_per_second: float
    efficiency: float
    overlapped_efficiency: float


def ring_all_reduce_seconds(workers: int, message_bytes: float, network: Network) -> float:
    """The time in which a ring adds up `message_bytes` over all workers.

    >>> round(ring_all_reduce_seconds(4, 1_000_000, Network(latency_s=1e-4, bytes_per_second=1e9)), 6)
    0.0021
    """
    messages = 2 * (workers - 1)
    return messages * network.latency_s + messages / workers * message_bytes / network.bytes_per_second


def efficiency(step_seconds: float, exposed_seconds: float) -> float:
    """The part of a step that is computation, where the exchange holds it up for `exposed_seconds`.

    >>> efficiency(0.09, 0.01)
    0.9
    """
    return step_seconds / (step_seconds + exposed_seconds)


def expected_scaling(
    workers: int, *, step_seconds: float, worker_batch_size: int, message_bytes: float, network: Network
) -> Scaling:
    """What `workers` bring, given the time of a step on one of them alone and one message of gradients a step.

    At best, the exchange goes on during all of the backward pass, which is two thirds of the step.
    """
    exchange = ring_all_reduce_seconds(workers, message_bytes, network)
    left_over = max(exchange - BACKWARD_SHARE * step_seconds, 0.0)
    return Scaling(
        workers=workers,
        all_reduce_seconds=exchange,
        images_per_second=workers * worker_batch_size / (step_seconds + exchange),
        efficiency=efficiency(step_seconds, exchange),
        overlapped_efficiency=efficiency(step_seconds, left_over),
    )


def published_efficiency(model: str, gpus: int) -> float | None:
    """MXNet's measured efficiency; None for a number of GPUs that was not measured.

    >>> [round(published_efficiency("ResNet-152", gpus), 3) for gpus in (1, 16, 256)]
    [1.0, 0.928, 0.901]
    """
    measured = MXNET_IMAGES_PER_SECOND[model]
    return measured[gpus] / (gpus * measured[1]) if gpus in measured else None
