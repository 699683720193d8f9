"""Models that begin with the weights of others: of ImageNet's networks, or of a model trained here."""

import json
import os
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import keras
import numpy as np

from cnnlib.errors import ConfigError, first_line
from cnnlib.models import build_model
from cnnlib.models.applications import network_of, with_fast_groups
from cnnlib.models.catalogue import ARCHITECTURES
from cnnlib.models.nested import flat_layers
from cnnlib.models.pixels import STANDARDISE, standardise
from cnnlib.sealed.starting_weights import IMAGENET_WEIGHTS, WEIGHTS_SUFFIX, weights_file

# What Keras says: the address, a number that may be None, and a reason.
_FAILED_URL = re.compile(r"URL fetch failure on (\S+): (?:None -- )?(.*)", re.DOTALL)
_CLASS_INDEX = "imagenet_class_index.json"
_CLASS_INDEX_URL = f"https://storage.googleapis.com/download.tensorflow.org/data/{_CLASS_INDEX}"


@dataclass(frozen=True)
class Preprocessing:
    """What a network's pixels were when its weights were trained: (RGB in 0 to 1 - mean) / std, and in which order."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    is_bgr: bool = False


# As `preprocess_input` of each network's module in keras.applications.
_CAFFE = Preprocessing((123.68 / 255, 116.779 / 255, 103.939 / 255), (1 / 255, 1 / 255, 1 / 255), is_bgr=True)
_TORCH = Preprocessing((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_SYMMETRIC = Preprocessing((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
PREPROCESSING = {
    "vgg16": _CAFFE,
    "vgg19": _CAFFE,
    "inception_v3": _SYMMETRIC,
    "resnet50": _CAFFE,
    "resnet101": _CAFFE,
    "resnet152": _CAFFE,
    "densenet121": _TORCH,
    "densenet169": _TORCH,
    "mobilenet": _SYMMETRIC,
    "mobilenet_v2": _SYMMETRIC,
    "efficientnet_v2_b0": _TORCH,
    "convnext_tiny": _TORCH,
}


def build_pretrained(
    name: str, weights: str, *, image_shape: tuple[int, int, int], classes: int, **options: Any
) -> keras.Model:
    """Build an architecture whose layers have weights from elsewhere, all but those of a new head for `classes`.

    As `cnnlib.models.build_model`, but pixels are standardised as they were when the weights were trained. `weights` is
    imagenet, a .h5 file of such weights, or a model of the same architecture: a .keras file, or a folder with one (a
    checkpoint, a sealed model). Raises ConfigError where these weights are not there or do not fit.
    """
    if weights == IMAGENET_WEIGHTS or weights.endswith(WEIGHTS_SUFFIX):
        _check_imagenet(name, weights, image_shape)
        pixels = PREPROCESSING[name]
        with _download_explained(name, weights):
            model = build_model(
                name,
                image_shape=image_shape,
                classes=classes,
                mean=pixels.mean,
                std=pixels.std,
                weights=weights,
                **options,
            )
        if pixels.is_bgr:
            _take_rgb(model)
        return model
    source = _read_model(weights)
    mean, std = _standardised_by(source)
    model = build_model(name, image_shape=image_shape, classes=classes, mean=mean, std=std, **options)
    _copy_weights(source, model, weights)
    return model


def build_imagenet(name: str, image_shape: tuple[int, int, int], weights: str = IMAGENET_WEIGHTS) -> keras.Model:
    """Build a network with ImageNet's weights and its own head: uint8 RGB -> logits (batch, 1000) float32.

    `weights` is imagenet, or a .h5 file of the whole network. Raises ConfigError as `build_pretrained`.
    """
    _check_imagenet(name, weights, image_shape)
    images = keras.Input(image_shape, dtype="uint8", name="image")
    preprocessing = PREPROCESSING[name]
    pixels = standardise(images, preprocessing.mean, preprocessing.std)
    network = network_of(ARCHITECTURES[name].build)
    with _download_explained(name, weights):
        built = network(weights=weights, input_tensor=pixels, input_shape=image_shape, classifier_activation=None)
    model = keras.Model(images, with_fast_groups(built, keep_weights=True).output, name=name)
    if preprocessing.is_bgr:
        _take_rgb(model)
    return model


def imagenet_classes() -> tuple[str, ...]:
    """The names of ImageNet's 1,000 classes in the order of the networks' heads. Raises ConfigError without them."""
    path = _weights_folder() / _CLASS_INDEX
    if not path.exists():
        with _download_explained("ImageNet's classes", IMAGENET_WEIGHTS):
            keras.utils.get_file(_CLASS_INDEX, _CLASS_INDEX_URL, cache_subdir="models")
    index = json.loads(path.read_text())
    entries = [index[str(number)] for number in range(len(index))]
    counts = Counter(name for _, name in entries)
    # A crane is a bird and a machine: those that share a name have their WordNet id behind it.
    return tuple(f"{name} {wordnet_id}" if counts[name] > 1 else name for wordnet_id, name in entries)


def head_of(model: keras.Model) -> keras.layers.Layer:
    """The last layer that has weights, which gives the logits."""
    return _with_weights(model)[-1]


def _check_imagenet(name: str, weights: str, image_shape: tuple[int, int, int]) -> None:
    if name not in PREPROCESSING:
        raise ConfigError(
            f"model.name={name} has no weights from ImageNet; take one of {', '.join(PREPROCESSING)}, or the weights "
            "of a model of your own"
        )
    if image_shape[2] != 3:
        raise ConfigError(
            f"model.weights from ImageNet are for RGB images, received {image_shape[2]} channel; ingest with "
            "image.channels 3"
        )
    if weights != IMAGENET_WEIGHTS:
        weights_file(weights)


@contextmanager
def _download_explained(what: str, weights: str) -> Iterator[None]:
    """Say in one line what Keras could not download, or not read, and where a file of it can be put."""
    try:
        yield
    except ConfigError:
        raise
    except Exception as error:  # Keras raises no other class where a download fails
        url = _FAILED_URL.search(str(error))
        if url:
            path = _weights_folder() / url[1].rpartition("/")[2]
            raise ConfigError(
                f"{what}: {url[1]} could not be downloaded ({url[2]}); have a machine that can download it, and put "
                f"the file at {path}"
            ) from error
        if isinstance(error, ValueError) and "input_shape" in str(error):
            raise ConfigError(
                f"{what} with its own head takes images of one size alone: {first_line(error)}; set image.height and "
                "image.width"
            ) from error
        if weights == IMAGENET_WEIGHTS:
            raise
        raise ConfigError(f"model.weights={weights} are no weights of {what}: {first_line(error)}") from error


def _weights_folder() -> Path:
    """Where Keras keeps what it has downloaded."""
    return Path(os.environ.get("KERAS_HOME", "~/.keras")).expanduser() / "models"


def _take_rgb(model: keras.Model) -> None:
    """Turn the first convolution's kernel about, whose weights were trained on BGR."""
    first = next(layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D))
    # (height, width, 3, filters)
    first.kernel.assign(keras.ops.flip(first.kernel, axis=2))


def _read_model(weights: str) -> keras.Model:
    try:
        return keras.saving.load_model(weights_file(weights), compile=False)
    except (ValueError, TypeError, OSError, KeyError, BadZipFile) as error:
        raise ConfigError(f"model.weights={weights} cannot be read as a Keras model: {first_line(error)}") from error


def _standardised_by(source: keras.Model) -> tuple[tuple[float, ...] | None, tuple[float, ...] | None]:
    """Mean and deviation by which a model's pixels are standardised, None where it only scales them."""
    layer = next((layer for layer in source.layers if layer.name == STANDARDISE), None)
    if layer is None:
        return None, None
    mean, variance = np.ravel(layer.input_mean), np.ravel(layer.input_variance)
    return tuple(map(float, mean)), tuple(map(float, np.sqrt(variance)))


def _copy_weights(source: keras.Model, model: keras.Model, weights: str) -> None:
    """Copy all but the heads', one layer after the other: names that Keras makes up differ from model to model."""
    # All but the last, which are the heads.
    theirs, ours = _with_weights(source)[:-1], _with_weights(model)[:-1]
    for layer, given in zip_longest(ours, theirs):
        if layer is None or given is None or _shapes(layer) != _shapes(given):
            raise ConfigError(
                f"model.weights={weights} have nothing that fits layer {(layer or given).name}; take the model.name, "
                "model.options and, for networks with dense layers, image size that they were trained with"
            )
        layer.set_weights(given.get_weights())


def _with_weights(model: keras.Model) -> list[keras.layers.Layer]:
    return [layer for layer in flat_layers(model) if layer.weights]


def _shapes(layer: keras.layers.Layer) -> list[tuple[int, ...]]:
    return [tuple(weight.shape) for weight in layer.weights]
