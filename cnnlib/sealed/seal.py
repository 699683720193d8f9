"""The sealed model: a .keras file, a card that says what it needs, and the very code that decodes for it.

The code travels as a package of its own, named after a hash of its content. So a model registered today decodes
next year as it did in training, whatever this project has become by then, and two models of different age can be
loaded side by side.
"""

import hashlib
import importlib
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from cnnlib.sealed.frozen import predict
from cnnlib.sealed.frozen.images import ImageSpec
from cnnlib.sealed.frozen.predict import CARD_FILE, MODEL_FILE, Classifier, ModelCard, sha256_of

if TYPE_CHECKING:
    import keras

_FROZEN = "cnnlib.sealed.frozen"

# Where MLflow puts a model's artifacts and its code, below the model's folder.
ARTIFACTS = "artifacts/sealed"
CODE = "code"


@dataclass(frozen=True)
class SealedFolder:
    """A sealed model on disk, before it is logged: `artifacts` (card and .keras file) and `code` (one package)."""

    artifacts: Path
    code: Path
    card: ModelCard


def seal(
    model: "keras.Model",
    folder: Path,
    *,
    image: ImageSpec,
    classes: tuple[str, ...],
    fingerprint: str,
    class_shares: Sequence[float] = (),
    confidence_shares: Sequence[float] = (),
) -> SealedFolder:
    """Write a model that gives logits, with all it needs to predict, below an empty folder. See `ModelCard`."""
    artifacts = folder / "sealed"
    artifacts.mkdir(parents=True)
    model.save(artifacts / MODEL_FILE)
    code = _write_code(folder)
    card = ModelCard(
        image,
        classes,
        fingerprint,
        sha256_of(artifacts / MODEL_FILE),
        code.name,
        tuple(class_shares),
        tuple(confidence_shares),
    )
    (artifacts / CARD_FILE).write_text(json.dumps(card.as_dict(), indent=2) + "\n")
    return SealedFolder(artifacts, code, card)


def open_sealed(model_folder: Path) -> Classifier:
    """Load the classifier of a model's folder as MLflow stores it, with the code that came with it.

    Raises ModelError where the folder is not a sealed model, or its weights are not those registered.
    """
    artifacts = model_folder / ARTIFACTS
    package = predict.read_card(artifacts).code_package
    if package not in sys.modules:
        sys.path.append(str(model_folder / CODE))
    return importlib.import_module(f"{package}.predict").load_classifier(artifacts)


def _write_code(folder: Path) -> Path:
    # The folder may lie in a zip.
    sources = {file.name: file.read_text("utf-8") for file in files(_FROZEN).iterdir() if file.name.endswith(".py")}
    digest = hashlib.sha256("\0".join(f"{name}\0{text}" for name, text in sorted(sources.items())).encode())
    package = folder / f"sparkcnn_sealed_{digest.hexdigest()[:12]}"
    package.mkdir()
    for name, text in sources.items():
        (package / name).write_text(text, "utf-8")
    return package
