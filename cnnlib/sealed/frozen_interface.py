"""The calls that newer code may make on the code that an older model was sealed with.

A registered model keeps its own copy of `cnnlib.sealed.frozen`, so `open_sealed` may return a classifier that is years
older than this file. The rules that keep it usable:

- No call below is ever removed. None changes its arguments, its result or its errors.
- A call may be added, with its version in `SINCE`. Code that uses it first calls `require`, which refuses an older
  model in one plain line.

Two more things stay as they are, because newer code reads them: `model.json`, whose new keys need a default in
`ModelCard`, and the modules `predict` (with `load_classifier(folder)`) and `errors` (with `ModelError`).
tests/unit/test_old_sealed_model.py makes every call on a model that an older version sealed.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

import numpy as np
import pandas as pd

from cnnlib.errors import ModelError


class SealedImageSpec(Protocol):
    """The images that a model takes, an `ImageSpec` of its own code."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """(height, width, channels)."""

    @property
    def size_bytes(self) -> int:
        """Bytes of one raw image."""


class SealedCard(Protocol):
    """The parts of a `ModelCard` that are read from a loaded model."""

    @property
    def image(self) -> SealedImageSpec:
        """The images that the model takes."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in label order."""


class SealedClassifier(Protocol):
    """A loaded model. `cnnlib.sealed.frozen.predict.Classifier` says what each call does."""

    @property
    def card(self) -> SealedCard:
        """Facts about the model."""

    def predict_pixels(self, images: np.ndarray) -> np.ndarray:
        """(batch, height, width, channels) uint8 -> probabilities (batch, classes) float32."""

    def embed_pixels(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(batch, height, width, channels) uint8 -> probabilities, and embeddings (batch, features) float32."""

    def to_pixels(
        self, images: Sequence[bytes | np.ndarray | None], *, fit: bool = False
    ) -> tuple[np.ndarray, list[str | None]]:
        """Images -> pixels of the usable ones (usable, height, width, channels) uint8, and one error per image.

        An error is "code: message", or None for a usable image.
        """

    def predict_images(self, images: Sequence[bytes | np.ndarray | None]) -> pd.DataFrame:
        """Images -> one row per image: label, label_name, probability, probabilities, error."""


# The first version of sparkcnn whose sealed models have a call.
SINCE = {
    "card": "0.1.0",
    "predict_pixels": "0.1.0",
    "embed_pixels": "0.1.0",
    "to_pixels": "0.1.0",
    "predict_images": "0.1.0",
}


def require(classifier: SealedClassifier, call: str) -> None:
    """Raise ModelError if the model's code is older than a call of `SealedClassifier`."""
    if not hasattr(classifier, call):
        raise ModelError(
            f"the model has no {call}, because it was sealed before sparkcnn {SINCE[call]}; train and register it again"
        )


if TYPE_CHECKING:
    from cnnlib.sealed.frozen.predict import Classifier

    # mypy reports an error here if the current classifier lacks a call or changes one.
    _current: type[SealedClassifier] = Classifier
