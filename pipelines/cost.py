"""An architecture and images -> what it costs; every architecture -> what it costs, and how fast it is here."""

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
from cnnlib.models.catalogue import IMAGENET

IMAGENET_IMAGES, IMAGENET_CLASSES = 1_281_167, 1000
# Batches, behind one to warm up; the median counts.
MEASUREMENTS = 5


@dataclass(frozen=True)
class TrainingCost:
    """Of a batch size: the memory of a step in bytes, and the least time of an epoch on the device in seconds."""

    batch_size: int
    memory_bytes: int
    epoch_seconds: float


@dataclass(frozen=True)
class ModelCost:
    """What a model costs. `image_shape` is (height, width, channels), `images` how many an epoch has."""

    name: str
    image_shape: tuple[int, int, int]
    classes: int
    images: int
    layers: tuple[LayerCost, ...]
    trainings: tuple[TrainingCost, ...]

    @property
    def parameters(self) -> int:
        """Of all layers."""
        return sum(layer.parameters for layer in self.layers)

    @property
    def trainable(self) -> int:
        """Parameters that gradients change."""
        return sum(layer.trainable for layer in self.layers)

    @property
    def multiply_adds(self) -> int:
        """For one image."""
        return sum(layer.multiply_adds for layer in self.layers)

    @property
    def activation_bytes(self) -> int:
        """For one image, in float32."""
        return sum(layer.activation_bytes for layer in self.layers)


@dataclass(frozen=True)
class ArchitectureCost:
    """What an architecture costs at its default input; `images_per_second` of inference, where measured."""

    name: str
    source: str
    image_shape: tuple[int, int, int]
    classes: int
    parameters: int
    multiply_adds: int
    images_per_second: float | None

    @property
    def size_bytes(self) -> int:
        """Of the weights in float32."""
        return self.parameters * BYTES


def cost_of(settings: CostSettings) -> ModelCost:
    """Work out what a model costs, without making its weights.

    Raises ConfigError or ImageSetError for a model or an image set that cannot be used.
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
    """(height, width, channels) of the images, the number of their classes, and how many an epoch has."""
    if settings.data.path is not None:
        image_set = open_image_set(settings.data.path)
        return image_set.image.shape, len(image_set.classes), image_set.split(TRAIN).rows
    image = settings.image
    known = ARCHITECTURES.get(settings.model.name)
    height, width, channels = known.default_shape if known else IMAGENET
    shape = (image.height or height, image.width or width, image.channels or channels)
    return shape, image.classes or _classes(shape), image.count or IMAGENET_IMAGES


def _classes(shape: tuple[int, int, int]) -> int:
    """ImageNet's, or those of digits and of CIFAR, by the size of the images."""
    return IMAGENET_CLASSES if min(shape[:2]) > 64 else 10


def architecture_costs(settings: ModelListSettings) -> Iterator[ArchitectureCost]:
    """What every architecture costs, one after the other as they are known."""
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
    """Of inference on this machine, from images in memory: the median of a few batches, after one to warm up."""
    model = build_model(name, image_shape=shape, classes=classes)
    images = np.random.default_rng(0).integers(0, 256, (batch_size, *shape), np.uint8)
    seconds = [_seconds(lambda: model.predict_on_batch(images)) for _ in range(1 + MEASUREMENTS)]
    keras.backend.clear_session()
    return batch_size / statistics.median(seconds[1:])


def _seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start
