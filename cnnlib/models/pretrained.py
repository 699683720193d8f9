"""Models with weights from elsewhere: from ImageNet, or from a model that was trained here."""

import json
import os
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import zip_longest
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import keras
import numpy as np

from cnnlib.errors import ConfigError, first_line
from cnnlib.models import ARCHITECTURES, build_model
from cnnlib.models.applications import with_fast_groups
from cnnlib.models.architecture import Application
from cnnlib.models.layers import STANDARDISE, standardise
from cnnlib.models.nested import flat_layers
from cnnlib.sealed.starting_weights import IMAGENET_WEIGHTS, WEIGHTS_SUFFIX, weights_file

# Keras' message: the address, a number that may be None, and a reason.
_FAILED_URL = re.compile(r"URL fetch failure on (\S+): (?:None -- )?(.*)", re.DOTALL)
_CLASS_INDEX = "imagenet_class_index.json"
_CLASS_INDEX_URL = f"https://storage.googleapis.com/download.tensorflow.org/data/{_CLASS_INDEX}"


def build_pretrained(
    name: str, weights: str, *, image_shape: tuple[int, int, int], classes: int, **options: Any
) -> keras.Model:
    """Build a model with weights from elsewhere in all layers but the head, which is new and has `classes` outputs.

    This is like `cnnlib.models.build_model`, but it standardises pixels as in the training of the weights. `weights` is
    "imagenet", a .h5 file of ImageNet weights, or a model of the same architecture: a .keras file, or a folder with
    one (a checkpoint or a sealed model). Raises ConfigError if the weights are missing or do not fit.
    """
    if weights == IMAGENET_WEIGHTS or weights.endswith(WEIGHTS_SUFFIX):
        preprocessing = _imagenet_application(name, weights, image_shape).preprocessing
        with _download_explained(name, weights):
            model = build_model(
                name,
                image_shape=image_shape,
                classes=classes,
                mean=preprocessing.mean,
                std=preprocessing.std,
                weights=weights,
                **options,
            )
        if preprocessing.is_bgr:
            _flip_bgr_kernel(model)
        return model
    source = _read_model(weights)
    mean, std = _standardisation_of(source)
    model = build_model(name, image_shape=image_shape, classes=classes, mean=mean, std=std, **options)
    _copy_weights(source, model, weights)
    return model


def build_imagenet(name: str, image_shape: tuple[int, int, int], weights: str = IMAGENET_WEIGHTS) -> keras.Model:
    """Build a model with ImageNet's weights and ImageNet's head: uint8 RGB -> logits (batch, 1000) float32.

    `weights` is "imagenet", or a .h5 file of the whole model. Raises ConfigError as `build_pretrained` does.
    """
    application = _imagenet_application(name, weights, image_shape)
    images = keras.Input(image_shape, dtype="uint8", name="image")
    preprocessing = application.preprocessing
    pixels = standardise(images, preprocessing.mean, preprocessing.std)
    with _download_explained(name, weights):
        built = application.build(
            weights=weights, input_tensor=pixels, input_shape=image_shape, classifier_activation=None
        )
    model = keras.Model(images, with_fast_groups(built, keep_weights=True).output, name=name)
    if preprocessing.is_bgr:
        _flip_bgr_kernel(model)
    return model


def imagenet_classes() -> tuple[str, ...]:
    """Return the names of ImageNet's 1,000 classes, in the order of the logits.

    Raises ConfigError if the file of names cannot be downloaded.
    """
    path = _weights_folder() / _CLASS_INDEX
    if not path.exists():
        with _download_explained("ImageNet's classes", IMAGENET_WEIGHTS):
            keras.utils.get_file(_CLASS_INDEX, _CLASS_INDEX_URL, cache_subdir="models")
    index = json.loads(path.read_text())
    entries = [index[str(number)] for number in range(len(index))]
    counts = Counter(name for _, name in entries)
    # A crane is a bird and a machine. Classes with the same name get their WordNet id after it.
    return tuple(f"{name} {wordnet_id}" if counts[name] > 1 else name for wordnet_id, name in entries)


def head_of(model: keras.Model) -> keras.layers.Layer:
    """Return the last layer with weights, which gives the logits."""
    return _with_weights(model)[-1]


def _imagenet_application(name: str, weights: str, image_shape: tuple[int, int, int]) -> Application:
    """Return the application behind an architecture, after checks that ImageNet's weights fit the images."""
    application = ARCHITECTURES[name].application if name in ARCHITECTURES else None
    if application is None:
        pretrained = (known.name for known in ARCHITECTURES.values() if known.application)
        raise ConfigError(
            f"model.name={name} has no weights from ImageNet; take one of {', '.join(pretrained)}, or the weights of a "
            "model of your own"
        )
    if image_shape[2] != 3:
        raise ConfigError(
            f"model.weights from ImageNet are for RGB images, received {image_shape[2]} channel; ingest with "
            "image.channels 3"
        )
    if weights != IMAGENET_WEIGHTS:
        weights_file(weights)
    return application


@contextmanager
def _download_explained(name: str, weights: str) -> Iterator[None]:
    """Raise ConfigError in one line if Keras cannot download or read weights, and say where the file can be put."""
    try:
        yield
    except ConfigError:
        raise
    except Exception as error:  # Keras raises a plain Exception if a download fails.
        url = _FAILED_URL.search(str(error))
        if url:
            path = _weights_folder() / url[1].rpartition("/")[2]
            raise ConfigError(
                f"{name}: {url[1]} could not be downloaded ({url[2]}); download it on another machine, and put the "
                f"file at {path}"
            ) from error
        if isinstance(error, ValueError) and "input_shape" in str(error):
            raise ConfigError(
                f"{name} with its own head takes only images of one size: {first_line(error)}; set image.height and "
                "image.width"
            ) from error
        if weights == IMAGENET_WEIGHTS:
            raise
        raise ConfigError(f"model.weights={weights} are not weights of {name}: {first_line(error)}") from error


def _weights_folder() -> Path:
    """Return the folder in which Keras keeps its downloads."""
    return Path(os.environ.get("KERAS_HOME", "~/.keras")).expanduser() / "models"


def _flip_bgr_kernel(model: keras.Model) -> None:
    """Flip the channels of the first convolution's kernel, so that weights trained on BGR take RGB."""
    first = next(layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D))
    # (height, width, 3, filters)
    first.kernel.assign(keras.ops.flip(first.kernel, axis=2))


def _read_model(weights: str) -> keras.Model:
    try:
        return keras.saving.load_model(weights_file(weights), compile=False)
    except (ValueError, TypeError, OSError, KeyError, BadZipFile) as error:
        raise ConfigError(f"model.weights={weights} cannot be read as a Keras model: {first_line(error)}") from error


def _standardisation_of(source: keras.Model) -> tuple[tuple[float, ...] | None, tuple[float, ...] | None]:
    """Return the mean and deviation that a model standardises pixels with, or None if it only scales them."""
    layer = next((layer for layer in source.layers if layer.name == STANDARDISE), None)
    if layer is None:
        return None, None
    mean, variance = np.ravel(layer.input_mean), np.ravel(layer.input_variance)
    return tuple(map(float, mean)), tuple(map(float, np.sqrt(variance)))


def _copy_weights(source: keras.Model, model: keras.Model, weights: str) -> None:
    """Copy all weights except the heads', layer by layer in order.

    Layers cannot be matched by name, because Keras makes up other names in each model.
    """
    source_layers, layers = _with_weights(source)[:-1], _with_weights(model)[:-1]
    for layer, source_layer in zip_longest(layers, source_layers):
        if layer is None or source_layer is None or _shapes(layer) != _shapes(source_layer):
            raise ConfigError(
                f"model.weights={weights} do not fit layer {(layer or source_layer).name}; take the model.name and "
                "model.options that they were trained with, and the same image size if the model has dense layers"
            )
        layer.set_weights(source_layer.get_weights())


def _with_weights(model: keras.Model) -> list[keras.layers.Layer]:
    return [layer for layer in flat_layers(model) if layer.weights]


def _shapes(layer: keras.layers.Layer) -> list[tuple[int, ...]]:
    return [tuple(weight.shape) for weight in layer.weights]
