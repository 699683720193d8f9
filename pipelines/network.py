"""A registered model -> its network, to be looked into."""

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
    """Load the network of a registered model, such as models:/NAME@ALIAS: (it gives logits, what it knows of itself).

    `tracking` is where the registry is, by default as in all jobs. Raises ModelError where there is no such model, or
    its weights are not those registered, TrackingError where the store does not answer.
    """
    connect(tracking or StoreSettings())
    with TemporaryDirectory(prefix="sparkcnn-network-") as temporary:
        return load_network(fetch_model(uri, Path(temporary)).folder / ARTIFACTS)
