"""What training a model costs: memory by batch size, and the time of an epoch on a device."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from cnnlib.config import OptimizerSettings
from cnnlib.cost.layers import BYTES, LayerCost

# For each weight. Adafactor keeps sums over rows and columns too, which are few.
_VALUES_KEPT = {
    "sgd": 0,
    "momentum": 1,
    "nesterov": 1,
    "adagrad": 1,
    "adadelta": 2,
    "rmsprop": 1,
    "adam": 2,
    "adamw": 2,
    "nadam": 2,
    "adamax": 2,
    "adafactor": 1,
    "lion": 1,
    "ftrl": 2,
}


@dataclass(frozen=True)
class Device:
    """What a device can do at most: floating point operations and bytes to or from its memory a second."""

    flops: float
    bytes_per_second: float


def optimizer_bytes(trainable: int, settings: OptimizerSettings) -> int:
    """What the optimizer keeps beside so many weights and their gradients, in bytes.

    >>> optimizer_bytes(100, OptimizerSettings(name="adam")), optimizer_bytes(100, OptimizerSettings(average=0.999))
    (800, 1200)
    """
    return BYTES * trainable * (_VALUES_KEPT[settings.name] + (settings.average > 0))


def training_bytes(costs: Sequence[LayerCost], image_bytes: int, batch_size: int, kept_by_optimizer: int) -> int:
    """The memory that a training step needs at its peak, in bytes: an estimate from below.

    All weights, a gradient for each that is trained, what the optimizer keeps, a batch of images, and what is largest
    on the way back: the outputs kept of the layers up to one, with the gradients of its output and of its input. What a
    device's libraries need besides (workspaces of convolutions, fragmentation) is not in it.
    """
    weights = BYTES * sum(cost.parameters + cost.trainable for cost in costs)
    outputs = [cost.activation_bytes for cost in costs]
    kept = accumulate(cost.kept_bytes for cost in costs)
    on_the_way = map(sum, zip(kept, outputs, [image_bytes, *outputs], strict=False))
    return weights + kept_by_optimizer + batch_size * (image_bytes + max(on_the_way, default=0))


def step_seconds(costs: Sequence[LayerCost], batch_size: int, device: Device) -> float:
    """The least time of a training step on a device, in seconds.

    By the roofline model (Williams, Waterman and Patterson 2009): each layer takes the longer of its arithmetic (a
    multiply-add is two operations) and its traffic (its weights, and its outputs written and read). The backward pass
    takes twice the forward pass: gradients of the inputs, and of the weights.
    """

    def forward(cost: LayerCost) -> float:
        arithmetic = 2 * cost.multiply_adds * batch_size / device.flops
        traffic = (BYTES * cost.parameters + 2 * cost.activation_bytes * batch_size) / device.bytes_per_second
        return max(arithmetic, traffic)

    return 3 * sum(map(forward, costs))


def epoch_seconds(costs: Sequence[LayerCost], images: int, batch_size: int, device: Device) -> float:
    """The least time of an epoch over so many images, in seconds.

    >>> layer = LayerCost("dense", "Dense", (10,), 0, 0, multiply_adds=500, activation_bytes=0, kept_bytes=0)
    >>> epoch_seconds([layer], images=1000, batch_size=10, device=Device(flops=1e6, bytes_per_second=1e9))
    3.0
    """
    return images / batch_size * step_seconds(costs, batch_size, device)
