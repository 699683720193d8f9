"""Seal a model: a .keras file, a card with the facts that it needs, and a copy of the code that decodes and predicts.

The code travels as a package of its own, named after a hash of its content. So a model that is registered today decodes
next year as it did in training, however this project has changed by then. Two models of different age can be loaded
side by side.
"""

import hashlib
import importlib
import json
import sys
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from cnnlib.errors import ModelError
from cnnlib.sealed.frozen import predict
from cnnlib.sealed.frozen.images import DEFAULT_LIMITS, ImageSpec, Limits
from cnnlib.sealed.frozen.predict import CARD_FILE, MODEL_FILE, ModelCard, sha256_of
from cnnlib.sealed.frozen_interface import SealedClassifier

if TYPE_CHECKING:
    import keras

_FROZEN = "cnnlib.sealed.frozen"

# The folder with card and .keras file that `seal` writes.
SEALED = "sealed"
# Where MLflow puts that folder and the code, below a model's folder.
ARTIFACTS = f"artifacts/{SEALED}"
CODE = "code"


def seal(
    model: "keras.Model",
    folder: Path,
    *,
    image: ImageSpec,
    classes: tuple[str, ...],
    fingerprint: str,
    class_shares: Sequence[float] = (),
    confidence_shares: Sequence[float] = (),
    limits: Limits = DEFAULT_LIMITS,
) -> ModelCard:
    """Seal a model that gives logits, and return its card.

    Writes two folders into an empty one: `folder / SEALED` with the card and the .keras file, and
    `folder / card.code_package` with the code, a package. The other arguments are fields of `ModelCard`.
    """
    artifacts = folder / SEALED
    artifacts.mkdir(parents=True)
    model.save(artifacts / MODEL_FILE)
    card = ModelCard(
        image,
        classes,
        fingerprint,
        model_sha256=sha256_of(artifacts / MODEL_FILE),
        code_package=_write_code(folder),
        class_shares=tuple(class_shares),
        confidence_shares=tuple(confidence_shares),
        limits=limits,
    )
    (artifacts / CARD_FILE).write_text(json.dumps(card.as_dict(), indent=2) + "\n")
    return card


def open_sealed(model_folder: Path) -> SealedClassifier:
    """Load the classifier from a model's folder as MLflow stores it, with the code that came with it.

    Raises ModelError if the folder is not a sealed model, or if its weights are not the registered ones.
    """
    artifacts = model_folder / ARTIFACTS
    package = predict.read_card(artifacts).code_package
    if package not in sys.modules:
        sys.path.append(str(model_folder / CODE))
    errors = importlib.import_module(f"{package}.errors")
    try:
        return importlib.import_module(f"{package}.predict").load_classifier(artifacts)
    except errors.ModelError as error:
        # The model's code has an error class of its own, which nobody else catches.
        raise ModelError(error.message) from error


def _write_code(folder: Path) -> str:
    """Copy the frozen modules below a folder, and return the name of their package."""
    # importlib.resources also reads a project that lies in a zip file.
    sources = {file.name: file.read_text("utf-8") for file in files(_FROZEN).iterdir() if file.name.endswith(".py")}
    digest = hashlib.sha256("\0".join(f"{name}\0{text}" for name, text in sorted(sources.items())).encode())
    package = folder / f"sparkcnn_sealed_{digest.hexdigest()[:12]}"
    package.mkdir()
    for name, text in sources.items():
        (package / name).write_text(text, "utf-8")
    return package.name
