"""A registered model -> its Keras model, to look into."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from cnnlib.config import StoreSettings
from cnnlib.sealed.frozen.predict import ModelCard, load_network
from cnnlib.sealed.seal import ARTIFACTS
from pipelines.tracking.registry import fetch_model
from pipelines.tracking.store import connect

if TYPE_CHECKING:
    import keras


def open_network(uri: str, tracking: StoreSettings | None = None) -> "tuple[keras.Model, ModelCard]":
    """Load the Keras model of a registered model, which outputs logits, and its card.

    `uri` has one of `model_uris.FORMS`. `tracking` says which MLflow store has the
    model; the default is that of all jobs. Raises ModelError if there is no such model or its weights are not the
    registered ones, TrackingError if the store does not answer.

    Example::

        model, card = open_network("models:/photos@champion")
        model.summary()
        card.classes  # ("cat", "dog")
    """
    connect(tracking or StoreSettings())
    with TemporaryDirectory(prefix="sparkcnn-network-") as temporary:
        return load_network(fetch_model(uri, Path(temporary)).folder / ARTIFACTS)
