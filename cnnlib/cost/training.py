"""The cost of training a model: memory by batch size, and the time of an epoch on a device."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from cnnlib.config import OptimizerSettings
from cnnlib.cost.layers import BYTES, LayerCost

# Values that an optimizer keeps per weight. Adafactor also keeps sums over rows and columns, which are few.
_VALUES_PER_WEIGHT = {
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
    """The peak performance of a device: floating point operations per second, and bytes per second of its memory."""

    flops: float
    bytes_per_second: float


def optimizer_bytes(trainable: int, settings: OptimizerSettings) -> int:
    """Return the bytes that the optimizer keeps for `trainable` weights, besides the weights and their gradients.

    >>> optimizer_bytes(100, OptimizerSettings(name="adam")), optimizer_bytes(100, OptimizerSettings(average=0.999))
    (800, 1200)
    """
    return BYTES * trainable * (_VALUES_PER_WEIGHT[settings.name] + (settings.average > 0))


def training_bytes(costs: Sequence[LayerCost], image_bytes: int, batch_size: int, kept_by_optimizer: int) -> int:
    """Return the peak memory of a training step in bytes, as a lower estimate.

    It is the sum of all weights, a gradient per trained weight, the optimizer's values, a batch of images, and the
    largest sum during the backward pass. This sum, at a layer, is the kept outputs of the layers up to it, and the
    gradients of its output and its input. The estimate leaves out other memory of the device's libraries, such as the
    workspaces of convolutions, and fragmentation.
    """
    weights = BYTES * sum(cost.parameters + cost.trainable for cost in costs)
    outputs = [cost.activation_bytes for cost in costs]
    kept = accumulate(cost.kept_bytes for cost in costs)
    backward = map(sum, zip(kept, outputs, [image_bytes, *outputs], strict=False))
    return weights + kept_by_optimizer + batch_size * (image_bytes + max(backward, default=0))


def step_seconds(costs: Sequence[LayerCost], batch_size: int, device: Device) -> float:
    """Return the shortest possible time of a training step on a device, in seconds.

    Source: the roofline model (Williams, Waterman and Patterson 2009). A layer takes the time of its arithmetic or of
    its memory traffic, whichever is longer. A multiply-add is two operations. The traffic is the layer's weights, and
    its outputs, which are written and read. The backward pass takes twice as long as the forward pass, because it
    computes gradients of the inputs and of the weights.
    """

    def forward(cost: LayerCost) -> float:
        arithmetic = 2 * cost.multiply_adds * batch_size / device.flops
        traffic = (BYTES * cost.parameters + 2 * cost.activation_bytes * batch_size) / device.bytes_per_second
        return max(arithmetic, traffic)

    return 3 * sum(map(forward, costs))


def epoch_seconds(costs: Sequence[LayerCost], images: int, batch_size: int, device: Device) -> float:
    """Return the shortest possible time of an epoch over `images` images, in seconds.

    >>> layer = LayerCost("dense", "Dense", (10,), 0, 0, multiply_adds=500, activation_bytes=0, kept_bytes=0)
    >>> epoch_seconds([layer], images=1000, batch_size=10, device=Device(flops=1e6, bytes_per_second=1e9))
    3.0
    """
    return images / batch_size * step_seconds(costs, batch_size, device)
