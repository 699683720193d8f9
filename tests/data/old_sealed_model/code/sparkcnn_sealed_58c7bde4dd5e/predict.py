"""A sealed model's artifacts -> predictions, a row an image.

Like `images` and `errors`, this module travels inside every registered model (see `cnnlib.sealed`) and imports
nothing else of this project. TensorFlow is imported by the first model that is loaded.
"""

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from .errors import ImageError, ModelError, first_line
from .images import ImageSpec, decode_image, fit_array

MODEL_FILE = "model.keras"
CARD_FILE = "model.json"

# What goes through the model at once: more is not faster, and its activations take many times the pixels' memory.
BYTES_AT_ONCE = 2 * 2**20
FEWEST_IMAGES_AT_ONCE = 16
MOST_IMAGES_AT_ONCE = 2048

LABEL = "label"
LABEL_NAME = "label_name"
PROBABILITY = "probability"
PROBABILITIES = "probabilities"
ERROR = "error"


@dataclass(frozen=True)
class ModelCard:
    """What a model must know of itself, kept beside its weights.

    `classes` in label order; `fingerprint` of the image set it was trained on; `model_sha256` of the .keras file;
    `code_package` the name under which this code travels with the model. `class_shares` of the training images, by
    label; `confidence_shares` of the validation images, by the bins of `cnnlib.scoring.stability`. Empty where not
    known.
    """

    image: ImageSpec
    classes: tuple[str, ...]
    fingerprint: str
    model_sha256: str
    code_package: str
    class_shares: tuple[float, ...] = ()
    confidence_shares: tuple[float, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """The keys of `model.json`."""
        lists = {name: list(value) for name, value in vars(self).items() if isinstance(value, tuple)}
        return vars(self) | lists | {"image": self.image.as_dict()}


def read_card(folder: Path) -> ModelCard:
    """Read `model.json`. Raises ModelError where there is none."""
    try:
        content = json.loads((folder / CARD_FILE).read_text())
    except FileNotFoundError as error:
        raise ModelError(f"{folder} is not a sealed model of sparkcnn: it has no {CARD_FILE}") from error
    except ValueError as error:
        raise ModelError(f"{folder / CARD_FILE} is damaged: {error}; register the model again") from error
    try:
        tuples = {name: tuple(value) for name, value in content.items() if isinstance(value, list)}
        return ModelCard(**content | tuples | {"image": ImageSpec(**content["image"])})
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{folder / CARD_FILE} is damaged: {error!r}; register the model again") from error


class Classifier:
    """A loaded model. Load once, predict many times; use from one thread at a time."""

    def __init__(self, model: Any, card: ModelCard) -> None:
        import tensorflow as tf

        self.card = card
        self._model = model
        # One graph for every batch size: the first batch pays for tracing, no later one does.
        self._compiled = partial(tf.function, input_signature=[tf.TensorSpec((None, *card.image.shape), tf.uint8)])
        self._probabilities = self._compiled(lambda images: (tf.nn.softmax(model(images, training=False)),))

    def predict_pixels(self, images: np.ndarray) -> np.ndarray:
        """(batch, height, width, channels) uint8 -> probabilities (batch, classes) float32.

        However many there are, a few megabytes at a time go through the model. Raises ModelError for another shape or
        type.
        """
        return self._in_portions(self._probabilities, images, len(self.card.classes))[0]

    def embed_pixels(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The same probabilities, and embeddings (batch, features) float32: what the model's head is given, flat.

        The head is the last layer with weights. Raises ModelError where the model is no graph of layers.
        """
        function, features = self._embedding
        probabilities, embeddings = self._in_portions(function, images, len(self.card.classes), features)
        return probabilities, embeddings

    @cached_property
    def _embedding(self) -> tuple[Any, int]:
        import keras
        import tensorflow as tf

        try:
            head = next(layer for layer in reversed(self._model.layers) if layer.weights)
            both = keras.Model(self._model.inputs, [self._model.output, keras.layers.Flatten()(head.input)])
        except (AttributeError, StopIteration, TypeError, ValueError) as error:
            raise ModelError(f"the model has no layer before its head to take an embedding from: {error}") from error

        def predict(images: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            logits, embeddings = both(images, training=False)
            return tf.nn.softmax(logits), tf.cast(embeddings, tf.float32)

        return self._compiled(predict), both.output_shape[1][-1]

    def _in_portions(self, function: Any, images: np.ndarray, *widths: int) -> list[np.ndarray]:
        """What a function of images gives for as many as there are: arrays (batch, width) float32."""
        if images.dtype != np.uint8 or images.shape[1:] != self.card.image.shape:
            raise ModelError(
                f"the model takes (batch, {', '.join(map(str, self.card.image.shape))}) uint8, "
                f"received {images.shape} {images.dtype}"
            )
        most = min(MOST_IMAGES_AT_ONCE, max(FEWEST_IMAGES_AT_ONCE, BYTES_AT_ONCE // self.card.image.size_bytes))
        results = [np.empty((len(images), width), np.float32) for width in widths]
        for start in range(0, len(images), most):
            for result, portion in zip(results, function(images[start : start + most]), strict=True):
                result[start : start + most] = portion
        return results

    def predict_images(self, images: Sequence[bytes | np.ndarray | None]) -> pd.DataFrame:
        """Predict encoded files (bytes), each brought to the model's spec, and arrays (height, width, channels) uint8.

        Gives a row an image, in order: label (int), label_name, probability (of that label), probabilities (list of
        one a class), error. An image that cannot be used has an error "code: message" and nulls, the others no error.
        Raises ModelError as `to_pixels` does.
        """
        pixels, errors = self.to_pixels(images)
        return self._frame(self.predict_pixels(pixels), errors)

    def to_pixels(
        self, images: Sequence[bytes | np.ndarray | None], *, fit: bool = False
    ) -> tuple[np.ndarray, list[str | None]]:
        """Bring images to the model's spec: (those that can be used (usable, height, width, channels) uint8, errors).

        The errors are as in `predict_images`, one an image, None for the usable ones. Raises ModelError for what is
        neither bytes nor an array, and for an array of another shape or type than the model's; with `fit`, arrays of
        other sizes are brought to it too.
        """
        pixels: list[np.ndarray] = []
        errors: list[str | None] = []
        for image in images:
            try:
                pixels.append(self._pixels(image, fit))
                errors.append(None)
            except ImageError as error:
                errors.append(f"{error.code}: {error.message}")
        return np.stack(pixels) if pixels else np.empty((0, *self.card.image.shape), np.uint8), errors

    def _pixels(self, image: bytes | np.ndarray | None, fit: bool) -> np.ndarray:
        # A table may have NaN for what is missing.
        if image is None or (isinstance(image, float) and math.isnan(image)):
            raise ImageError("empty_file", "there is no image in this row")
        if isinstance(image, bytes | bytearray | memoryview):
            return decode_image(bytes(image), self.card.image)
        if not isinstance(image, np.ndarray):
            raise ModelError(
                "the model takes encoded files as bytes, or arrays (height, width, channels) uint8; received "
                f"{type(image).__name__}"
            )
        if not fit and (image.shape != self.card.image.shape or image.dtype != np.uint8):
            raise ModelError(
                f"the model takes arrays {self.card.image.shape} uint8 (height, width, channels), or encoded files, "
                f"which are resized; received {image.shape} {image.dtype}"
            )
        return fit_array(image, self.card.image)

    def _frame(self, probabilities: np.ndarray, errors: list[str | None]) -> pd.DataFrame:
        rows = iter(probabilities)
        records: list[tuple[Any, ...]] = []
        for error in errors:
            if error is not None:
                records.append((None, None, None, None, error))
                continue
            row = next(rows)
            label = int(row.argmax())
            records.append((label, self.card.classes[label], float(row[label]), row.tolist(), None))
        columns = [LABEL, LABEL_NAME, PROBABILITY, PROBABILITIES, ERROR]
        # Object columns: None stays None, where pandas would make NaN of it, and 3.0 of a label beside it.
        return pd.DataFrame(records, columns=columns, dtype=object)


def load_classifier(folder: Path) -> Classifier:
    """Load a sealed model from its artifacts folder, to predict with. Raises ModelError as `load_network` does."""
    return Classifier(*load_network(folder))


def load_network(folder: Path) -> tuple[Any, ModelCard]:
    """Load a sealed model's network from its artifacts folder: (a keras.Model that gives logits, its card).

    Raises ModelError when the .keras file is not the one that was registered, by SHA-256, before it is opened, and for
    what Keras' safe mode does not load: code inside the model (Lambda layers), other classes than layers, HDF5.
    """
    card = read_card(folder)
    path = folder / MODEL_FILE
    if not path.is_file():
        raise ModelError(f"{folder} is not a sealed model of sparkcnn: it has no {MODEL_FILE}")
    received = sha256_of(path)
    if received != card.model_sha256:
        raise ModelError(f"{path} has SHA-256 {received}, registered was {card.model_sha256}; register it again")
    import keras

    # Keras looks it up where a model has it.
    from .grouped_convolution import GroupedConv2D  # noqa: F401

    try:
        model = keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # of many kinds, by what is in the file
        raise ModelError(f"{path} is no model that Keras loads in safe mode: {first_line(error)}") from error
    return model, card


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, as hexadecimal digits."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
