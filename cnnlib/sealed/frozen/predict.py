"""Predict images with a sealed model: one row per image.

Like `images` and `errors`, this module travels inside every registered model (see `cnnlib.sealed.seal`) and imports
nothing else of this project. It imports TensorFlow when the first model is loaded.
"""

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from .errors import ImageError, ModelError, first_line
from .images import DEFAULT_LIMITS, ImageSpec, Limits, decode_image, fit_array

MODEL_FILE = "model.keras"
CARD_FILE = "model.json"

# Images that go through the model at once. More are not faster, and the activations take many times the memory of the
# pixels.
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
    """The facts that a model needs, kept in `model.json` beside its weights.

    - `image`: the images that it takes.
    - `limits`: those of the image set that it was trained on. Other files are refused here as they were there.
    - `classes`: class names in label order.
    - `fingerprint`: of the image set that it was trained on.
    - `model_sha256`: of the .keras file.
    - `code_package`: the name of the package in which this code travels with the model.
    - `class_shares`: each class's fraction of the training images, by label; empty if not known.
    - `confidence_shares`: the fraction of the validation images in each bin of confidence (`cnnlib.predictions.drift`);
      empty if not known.
    """

    image: ImageSpec
    classes: tuple[str, ...]
    fingerprint: str
    model_sha256: str
    code_package: str
    class_shares: tuple[float, ...] = ()
    confidence_shares: tuple[float, ...] = ()
    limits: Limits = DEFAULT_LIMITS

    def as_dict(self) -> dict[str, Any]:
        """Return the keys of `model.json`."""
        lists = {name: list(value) for name, value in vars(self).items() if isinstance(value, tuple)}
        return vars(self) | lists | {"image": self.image.as_dict(), "limits": asdict(self.limits)}


def read_card(folder: Path) -> ModelCard:
    """Read `model.json` from a folder. Raises ModelError if it is missing or damaged."""
    try:
        content = json.loads((folder / CARD_FILE).read_text())
    except FileNotFoundError as error:
        raise ModelError(f"{folder} is not a sealed model of sparkcnn: it has no {CARD_FILE}") from error
    except ValueError as error:
        raise ModelError(f"{folder / CARD_FILE} is damaged: {error}; register the model again") from error
    try:
        tuples = {name: tuple(value) for name, value in content.items() if isinstance(value, list)}
        # Models of earlier versions have no limits of their own.
        limits = Limits(**content.get("limits", {}))
        return ModelCard(**content | tuples | {"image": ImageSpec(**content["image"]), "limits": limits})
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{folder / CARD_FILE} is damaged: {error!r}; register the model again") from error


class Classifier:
    """A loaded model. Load it once, predict many times, and use it from one thread at a time."""

    def __init__(self, model: Any, card: ModelCard) -> None:
        import tensorflow as tf

        self.card = card
        self._model = model
        # One graph serves every batch size, so only the first batch waits for tracing.
        # Without autograph, which would leave a file in the temporary folder for each function.
        self._compiled = partial(
            tf.function, input_signature=[tf.TensorSpec((None, *card.image.shape), tf.uint8)], autograph=False
        )
        self._probabilities = self._compiled(lambda images: (tf.nn.softmax(model(images, training=False)),))

    def predict_pixels(self, images: np.ndarray) -> np.ndarray:
        """(batch, height, width, channels) uint8 -> probabilities (batch, classes) float32.

        A few megabytes at a time go through the model, so the batch may have any size. Raises ModelError for another
        shape or type.
        """
        return self._in_parts(self._probabilities, images, len(self.card.classes))[0]

    def embed_pixels(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(batch, height, width, channels) uint8 -> probabilities, and embeddings (batch, features) float32.

        The probabilities are those of `predict_pixels`. An embedding is the flattened input of the model's head, the
        last layer with weights. Raises ModelError if the model is not a graph of layers.
        """
        function, features = self._embedding
        probabilities, embeddings = self._in_parts(function, images, len(self.card.classes), features)
        return probabilities, embeddings

    @cached_property
    def _embedding(self) -> tuple[Any, int]:
        import keras
        import tensorflow as tf

        try:
            head = next(layer for layer in reversed(self._model.layers) if layer.weights)
            # A name of its own: in a fresh process, Keras would call it "flatten", as many models call a layer.
            embedding = keras.layers.Flatten(name="sparkcnn_embedding")(head.input)
            both = keras.Model(self._model.inputs, [self._model.output, embedding])
        except (AttributeError, StopIteration, TypeError, ValueError) as error:
            raise ModelError(f"the model has no layer before its head to take an embedding from: {error}") from error

        def predict(images: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            logits, embeddings = both(images, training=False)
            return tf.nn.softmax(logits), tf.cast(embeddings, tf.float32)

        return self._compiled(predict), both.output_shape[1][-1]

    def _in_parts(self, function: Any, images: np.ndarray, *widths: int) -> list[np.ndarray]:
        """Call a function on parts of a batch, and join its results: one array (batch, width) float32 per width."""
        if images.dtype != np.uint8 or images.shape[1:] != self.card.image.shape:
            raise ModelError(
                f"the model takes (batch, {', '.join(map(str, self.card.image.shape))}) uint8; "
                f"received {images.shape} {images.dtype}"
            )
        most = min(MOST_IMAGES_AT_ONCE, max(FEWEST_IMAGES_AT_ONCE, BYTES_AT_ONCE // self.card.image.size_bytes))
        results = [np.empty((len(images), width), np.float32) for width in widths]
        for start in range(0, len(images), most):
            for result, part in zip(results, function(images[start : start + most]), strict=True):
                result[start : start + most] = part
        return results

    def predict_images(self, images: Sequence[bytes | np.ndarray | None]) -> pd.DataFrame:
        """Predict images: encoded files (bytes) of any size, or arrays (height, width, channels) uint8 of the model's.

        Returns one row per image, in order: label (int), label_name, probability (of that label), probabilities (list
        with one per class), error. The error is None, or "code: message" for an image that cannot be used; the rest of
        its row is None. Raises ModelError as `to_pixels` does.
        """
        pixels, errors = self.to_pixels(images)
        return self._frame(self.predict_pixels(pixels), errors)

    def to_pixels(
        self, images: Sequence[bytes | np.ndarray | None], *, fit: bool = False
    ) -> tuple[np.ndarray, list[str | None]]:
        """Decode images and bring them to the model's spec.

        Returns pixels (usable, height, width, channels) uint8 of the images that can be used, and one error per image,
        as in `predict_images`. With `fit`, arrays of other sizes are resized too. Without it, they raise ModelError.
        An image that is neither bytes nor an array always does.
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
        # In a table, a missing image may be NaN.
        if image is None or (isinstance(image, float) and math.isnan(image)):
            raise ImageError("empty_file", "there is no image in this row")
        if isinstance(image, bytes | bytearray | memoryview):
            return decode_image(bytes(image), self.card.image, self.card.limits)
        if not isinstance(image, np.ndarray):
            raise ModelError(
                "the model takes encoded files as bytes, or arrays (height, width, channels) uint8; received "
                f"{type(image).__name__}"
            )
        if not fit and (image.shape != self.card.image.shape or image.dtype != np.uint8):
            raise ModelError(
                f"the model takes arrays {self.card.image.shape} uint8 (height, width, channels), or encoded files, "
                f"which it resizes; received {image.shape} {image.dtype}"
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
        # In columns of objects, None stays None. Otherwise pandas makes it NaN, and the labels beside it floats.
        return pd.DataFrame(records, columns=columns, dtype=object)


def load_classifier(folder: Path) -> Classifier:
    """Load a sealed model from its artifacts folder, to predict with. Raises ModelError as `load_network` does."""
    return Classifier(*load_network(folder))


def load_network(folder: Path) -> tuple[Any, ModelCard]:
    """Load a sealed model from its artifacts folder: (a keras.Model that gives logits, its card).

    Raises ModelError before it opens the .keras file if the file's SHA-256 is not the registered one. Also raises it if
    Keras' safe mode refuses the file, because of code inside the model (Lambda layers), classes that are not layers,
    or HDF5.
    """
    card = read_card(folder)
    path = folder / MODEL_FILE
    if not path.is_file():
        raise ModelError(f"{folder} is not a sealed model of sparkcnn: it has no {MODEL_FILE}")
    received = sha256_of(path)
    if received != card.model_sha256:
        raise ModelError(
            f"{path} has SHA-256 {received}, but {card.model_sha256} was registered; register the model again"
        )
    import keras

    # Importing it registers the layer with Keras, which a model may contain.
    from .grouped_convolution import GroupedConv2D  # noqa: F401

    try:
        model = keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # of many kinds, depending on the file
        raise ModelError(f"{path} is not a model that Keras loads in safe mode: {first_line(error)}") from error
    return model, card


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file as hexadecimal digits."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
