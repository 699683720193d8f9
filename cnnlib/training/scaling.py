"""Expected speed of training on many workers: the time to exchange gradients by formula, beside published measurements.

The formula is that of a ring all-reduce, a reduce-scatter followed by an allgather. Each half sends p - 1 messages of
n/p bytes:

    t = 2 (p - 1) α + 2 (p - 1)/p · n/β

with p workers, n bytes to add up, α seconds of latency per message, and β bytes per second out of each worker. The cost
of the two halves is from Thakur, Rabenseifner and Gropp, "Optimization of Collective Communication Operations in MPICH"
(International Journal of High Performance Computing Applications 19(1), 2005). Patarasu and Yuan, "Bandwidth optimal
all-reduce algorithms for clusters of workstations" (Journal of Parallel and Distributed Computing 69(2), 2009), show
that no all-reduce can send less than 2 (p - 1)/p · n.

The formula leaves out the additions, because memory is an order of magnitude faster than the networks that matter here.
It also leaves out stragglers and the feed. It assumes the best case: equal workers, each with its own network link.
"""

from dataclasses import dataclass

# Fraction of a step. The backward pass multiplies matrices twice, by weights and by activations; the forward pass once.
BACKWARD_FRACTION = 2 / 3

# Images per second by number of GPUs, with a fixed batch per GPU: MXNet on 16 machines with 16 K80 GPUs each (AWS
# P2.16xlarge, 20 Gbit/s in a placement group), with a parameter server. From example/image-classification/README.md of
# apache/mxnet at commit 2829115, Mu Li, December 2016.
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
# The round figures that are often quoted for MXNet on those machines, without a model or a table. Two of the models
# above were measured close to them, and the third far below.
MXNET_QUOTED = {16: 0.91, 256: 0.88}


@dataclass(frozen=True)
class Network:
    """The network between workers: latency of a message in seconds, bandwidth of each worker in and out."""

    latency_s: float
    bytes_per_second: float


@dataclass(frozen=True)
class Scaling:
    """The expected speed of a number of workers, each with the batch size of a single one.

    An efficiency of 1 means that n workers are n times as fast as one. `images_per_second` and `efficiency` assume that
    exchange and computation do not overlap. `overlapped_efficiency` assumes the largest possible overlap.
    """

    workers: int
    all_reduce_seconds: float
    images_per_second: float
    efficiency: float
    overlapped_efficiency: float


def ring_all_reduce_seconds(workers: int, message_bytes: float, network: Network) -> float:
    """Return the seconds in which a ring adds up `message_bytes` over all workers.

    >>> round(ring_all_reduce_seconds(4, 1_000_000, Network(latency_s=1e-4, bytes_per_second=1e9)), 6)
    0.0021
    """
    messages = 2 * (workers - 1)
    return messages * network.latency_s + messages / workers * message_bytes / network.bytes_per_second


def efficiency(step_seconds: float, exposed_seconds: float) -> float:
    """Return the fraction of a step that is computation, if the exchange delays the step by `exposed_seconds`.

    >>> efficiency(0.09, 0.01)
    0.9
    """
    return step_seconds / (step_seconds + exposed_seconds)


def expected_scaling(
    workers: int, *, step_seconds: float, worker_batch_size: int, message_bytes: float, network: Network
) -> Scaling:
    """Return the expected speed of `workers`, from the time of a step on a single worker and one message per step.

    At best, the exchange overlaps with the whole backward pass, which is two thirds of the step.
    """
    exchange = ring_all_reduce_seconds(workers, message_bytes, network)
    left_over = max(exchange - BACKWARD_FRACTION * step_seconds, 0.0)
    return Scaling(
        workers=workers,
        all_reduce_seconds=exchange,
        images_per_second=workers * worker_batch_size / (step_seconds + exchange),
        efficiency=efficiency(step_seconds, exchange),
        overlapped_efficiency=efficiency(step_seconds, left_over),
    )


def published_efficiency(model: str, gpus: int) -> float | None:
    """Return MXNet's measured efficiency, or None for a number of GPUs that was not measured.

    >>> [round(published_efficiency("ResNet-152", gpus), 3) for gpus in (1, 16, 256)]
    [1.0, 0.928, 0.901]
    """
    measured = MXNET_IMAGES_PER_SECOND[model]
    return measured[gpus] / (gpus * measured[1]) if gpus in measured else None
