"""The MLflow model registry: sealed models go in, a version comes out."""

import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from importlib import metadata, resources
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import mlflow
import numpy as np
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.types.schema import Array, ColSpec, DataType, Schema

from cnnlib.errors import ModelError, first_line
from cnnlib.image_set.contract import IMAGE, ImageSet
from cnnlib.image_set.splits import TRAIN
from cnnlib.predictions.contract import ScoredWith
from cnnlib.predictions.drift import shares_of
from cnnlib.sealed.frozen import predict
from cnnlib.sealed.frozen.images import ImageSpec, encode_png
from cnnlib.sealed.frozen.predict import ModelCard
from cnnlib.sealed.seal import ARTIFACTS, seal
from cnnlib.sealed.starting_weights import REGISTERED

if TYPE_CHECKING:
    import keras

NAME = "model"
_ALIAS = re.compile(r"models:/(?P<name>[^/@]+)@(?P<alias>.+)")
_VERSION = re.compile(r"models:/(?P<name>[^/@]+)/(?P<version>\d+)")
CODE_FILE = "sealed_model.py"

# Of a registered version: what its weights must have.
SHA256_TAG = "sparkcnn.model_sha256"

# What `log_model` calls the model's name: MLflow 3 warns of artifact_path, the only word that MLflow 2 knows.
_NAME_ARGUMENT = "name" if int(mlflow.__version__.partition(".")[0]) >= 3 else "artifact_path"

# What a sealed model imports. Its requirements are these, in the versions it was trained with.
REQUIREMENTS = ("keras", "mlflow", "numpy", "pandas", "pillow", "tensorflow")

SIGNATURE = ModelSignature(
    inputs=Schema([ColSpec(DataType.binary, IMAGE)]),
    outputs=Schema(
        [
            ColSpec(DataType.long, predict.LABEL, required=False),
            ColSpec(DataType.string, predict.LABEL_NAME, required=False),
            ColSpec(DataType.double, predict.PROBABILITY, required=False),
            ColSpec(Array(DataType.double), predict.PROBABILITIES, required=False),
            ColSpec(DataType.string, predict.ERROR, required=False),
        ]
    ),
)


@dataclass(frozen=True)
class RegisteredModel:
    """A model on this disk: its registered name and version (None for a model of a run), and its folder."""

    name: str
    version: str | None
    folder: Path

    @cached_property
    def card(self) -> ModelCard:
        """What the model knows of itself. Raises ModelError where it is no sealed model."""
        return predict.read_card(self.folder / ARTIFACTS)

    @property
    def scored_with(self) -> ScoredWith:
        """How predictions name it."""
        return ScoredWith(self.name, self.version, self.card.model_sha256)


@dataclass(frozen=True)
class TrainedOn:
    """What a model's images are, and what it was trained on; `class_shares` of the classes in it, where known."""

    image: ImageSpec
    classes: tuple[str, ...]
    fingerprint: str
    class_shares: tuple[float, ...] = ()

    @classmethod
    def of(cls, image_set: ImageSet) -> "TrainedOn":
        """An image set's train split."""
        train = image_set.splits[TRAIN]
        shares = tuple(shares_of(train.class_counts)) if train.rows else ()
        return cls(image_set.image, image_set.classes, image_set.fingerprint, shares)


def log_sealed_model(
    model: "keras.Model",
    trained_on: TrainedOn,
    example: np.ndarray,
    *,
    register_as: str | None,
    confidence_shares: Sequence[float] = (),
) -> tuple[str, str | None]:
    """Log a model that gives logits with the active run, sealed; register it where a name is given.

    `example` is (height, width, channels) uint8 and becomes the input example, as PNG. `confidence_shares` are as in
    the model's card. Gives (model URI, version).
    """
    with TemporaryDirectory(prefix="sparkcnn-seal-") as temporary:
        sealed = seal(
            model,
            Path(temporary),
            image=trained_on.image,
            classes=trained_on.classes,
            fingerprint=trained_on.fingerprint,
            class_shares=trained_on.class_shares,
            confidence_shares=confidence_shares,
        )
        # A file of its own: this package may lie in a zip, as spark-submit ships it.
        code_file = Path(temporary) / CODE_FILE
        code_file.write_text(resources.files("pipelines.tracking").joinpath(CODE_FILE).read_text())
        with _importable(sealed.code):
            logged = mlflow.pyfunc.log_model(
                **{_NAME_ARGUMENT: NAME},
                python_model=str(code_file),
                artifacts={"sealed": str(sealed.artifacts)},
                code_paths=[str(sealed.code)],
                signature=SIGNATURE,
                input_example=pd.DataFrame({IMAGE: [encode_png(example)]}),
                pip_requirements=[f"{name}=={metadata.version(name)}" for name in REQUIREMENTS],
                registered_model_name=register_as,
                metadata={"model_sha256": sealed.card.model_sha256, "fingerprint": sealed.card.fingerprint},
            )
    version = logged.registered_model_version
    if version is None or register_as is None:
        return logged.model_uri, None
    # In the registry, apart from the files: whoever can change those cannot change this with them.
    mlflow.MlflowClient().set_model_version_tag(register_as, str(version), SHA256_TAG, sealed.card.model_sha256)
    return logged.model_uri, str(version)


@contextmanager
def _importable(package: Path) -> Iterator[None]:
    """MLflow 2 loads a model before it has stored it, and then looks nowhere for its code; MLflow 3 does not."""
    sys.path.append(str(package.parent))
    try:
        yield
    finally:
        sys.path.remove(str(package.parent))


def pin_version(uri: str) -> str:
    """models:/NAME@ALIAS -> models:/NAME/VERSION, as it is now; other URIs as they are.

    Raises ModelError where there is no such model or alias.
    """
    with _as_model_error(uri):
        return _pinned(uri)


def _pinned(uri: str) -> str:
    match = _ALIAS.fullmatch(uri)
    if match is None:
        return uri
    version = mlflow.MlflowClient().get_model_version_by_alias(match["name"], match["alias"]).version
    return f"{REGISTERED}{match['name']}/{version}"


@contextmanager
def _as_model_error(uri: str) -> Iterator[None]:
    try:
        yield
    except (MlflowException, OSError) as error:
        raise ModelError(
            f"model={uri} cannot be had from {mlflow.get_tracking_uri()}: {first_line(error)}; expected "
            "models:/NAME@ALIAS, models:/NAME/VERSION or runs:/RUN_ID/model"
        ) from error


def fetch_model(uri: str, folder: Path) -> RegisteredModel:
    """Resolve a model URI once and download what it names into a folder.

    `uri` is models:/NAME@ALIAS, models:/NAME/VERSION, runs:/RUN_ID/model or any other that MLflow knows. Raises
    ModelError where there is no such model, version or alias, and where its weights are not those registered.
    """
    name, version = uri, None
    registered: str | None = None
    with _as_model_error(uri):
        uri = _pinned(uri)
        match = _VERSION.fullmatch(uri)
        if match:
            name, version = match["name"], match["version"]
            registered = mlflow.MlflowClient().get_model_version(name, version).tags.get(SHA256_TAG)
        local = mlflow.artifacts.download_artifacts(artifact_uri=uri, dst_path=str(folder))
    model = RegisteredModel(name, None if version is None else str(version), Path(local))
    if registered is not None and model.card.model_sha256 != registered:
        raise ModelError(
            f"{uri} has weights with SHA-256 {model.card.model_sha256}, registered was {registered}; register it again"
        )
    return model
