"""The cost of one model, and of every architecture with its speed on this machine."""

import math
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import keras
import numpy as np

from cnnlib.config import CostSettings, ModelListSettings
from cnnlib.cost.layers import BYTES, LayerCost, layer_costs, weightless
from cnnlib.cost.training import Device, epoch_seconds, optimizer_bytes, training_bytes
from cnnlib.image_set.contract import open_image_set
from cnnlib.image_set.splits import TRAIN
from cnnlib.models import ARCHITECTURES, build_model
from cnnlib.models.architecture import IMAGENET

IMAGENET_IMAGES, IMAGENET_CLASSES = 1_281_167, 1000
# Number of measured batches, after one to warm up.
MEASUREMENTS = 5


@dataclass(frozen=True)
class TrainingCost:
    """For one batch size: the memory of a step in bytes, and the shortest time of an epoch on the device in seconds."""

    batch_size: int
    memory_bytes: int
    epoch_seconds: float


@dataclass(frozen=True)
class ModelCost:
    """The cost of a model. `image_shape` is (height, width, channels), and `images` the number of images per epoch."""

    name: str
    image_shape: tuple[int, int, int]
    classes: int
    images: int
    layers: tuple[LayerCost, ...]
    trainings: tuple[TrainingCost, ...]

    @property
    def parameters(self) -> int:
        """Parameters of all layers."""
        return sum(layer.parameters for layer in self.layers)

    @property
    def trainable(self) -> int:
        """Parameters that gradients change, of all layers."""
        return sum(layer.trainable for layer in self.layers)

    @property
    def multiply_adds(self) -> int:
        """Multiply-adds for one image, of all layers."""
        return sum(layer.multiply_adds for layer in self.layers)

    @property
    def activation_bytes(self) -> int:
        """Bytes of all layers' outputs for one image, in float32."""
        return sum(layer.activation_bytes for layer in self.layers)


@dataclass(frozen=True)
class ArchitectureCost:
    """The cost of an architecture at its default input. `images_per_second` of inference is None if not measured."""

    name: str
    source: str
    image_shape: tuple[int, int, int]
    classes: int
    parameters: int
    multiply_adds: int
    images_per_second: float | None

    @property
    def size_bytes(self) -> int:
        """Bytes of the weights in float32."""
        return self.parameters * BYTES


def cost_of(settings: CostSettings) -> ModelCost:
    """Compute the cost of a model, without memory for its weights.

    Raises ConfigError for a model that cannot be built, and ImageSetError for an image set that cannot be read.

    >>> cost = cost_of(CostSettings(model={"name": "lenet"}))
    >>> cost.image_shape, cost.classes, cost.parameters, cost.multiply_adds
    ((28, 28, 1), 10, 431080, 2293000)
    """
    shape, classes, images = _images(settings)
    with weightless():
        model = build_model(settings.model.name, image_shape=shape, classes=classes, **settings.model.options)
    layers = tuple(layer_costs(model))
    device = Device(settings.device.tflops * 1e12, settings.device.bandwidth_gb * 1e9)
    kept = optimizer_bytes(sum(layer.trainable for layer in layers), settings.optimizer)
    trainings = tuple(
        TrainingCost(
            batch,
            training_bytes(layers, math.prod(shape), batch, kept),
            epoch_seconds(layers, images, batch, device),
        )
        for batch in settings.batches
    )
    return ModelCost(settings.model.name, shape, classes, images, layers, trainings)


def _images(settings: CostSettings) -> tuple[tuple[int, int, int], int, int]:
    """Return the images' shape (height, width, channels), the number of classes, and the number of images per epoch."""
    if settings.data.path is not None:
        image_set = open_image_set(settings.data.path)
        return image_set.image.shape, len(image_set.classes), image_set.split(TRAIN).rows
    image = settings.image
    known = ARCHITECTURES.get(settings.model.name)
    height, width, channels = known.default_shape if known else IMAGENET
    shape = (image.height or height, image.width or width, image.channels or channels)
    return shape, image.classes or _classes(shape), image.count or IMAGENET_IMAGES


def _classes(shape: tuple[int, int, int]) -> int:
    """Return the number of classes by image size: 1,000 as in ImageNet, or 10 as for digits and CIFAR."""
    return IMAGENET_CLASSES if min(shape[:2]) > 64 else 10


def architecture_costs(settings: ModelListSettings) -> Iterator[ArchitectureCost]:
    """Yield the cost of every architecture, each as soon as it is known."""
    for name, architecture in ARCHITECTURES.items():
        shape, classes = architecture.default_shape, _classes(architecture.default_shape)
        with weightless():
            costs = layer_costs(build_model(name, image_shape=shape, classes=classes))
        yield ArchitectureCost(
            name,
            architecture.source,
            shape,
            classes,
            sum(cost.parameters for cost in costs),
            sum(cost.multiply_adds for cost in costs),
            _images_per_second(name, shape, classes, settings.batch_size) if settings.measure else None,
        )


def _images_per_second(name: str, shape: tuple[int, int, int], classes: int, batch_size: int) -> float:
    """Measure inference on this machine, with images in memory: the median of a few batches, after one to warm up."""
    model = build_model(name, image_shape=shape, classes=classes)
    images = np.random.default_rng(0).integers(0, 256, (batch_size, *shape), np.uint8)
    seconds = [_seconds(lambda: model.predict_on_batch(images)) for _ in range(1 + MEASUREMENTS)]
    keras.backend.clear_session()
    return batch_size / statistics.median(seconds[1:])


def _seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start
