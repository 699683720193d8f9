"""The MLflow model registry: register sealed models, find their versions, download them."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import resources
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
from cnnlib.sealed.frozen.images import DEFAULT_LIMITS, ImageSpec, Limits, encode_png
from cnnlib.sealed.frozen.predict import ModelCard
from cnnlib.sealed.seal import ARTIFACTS, SEALED, seal
from cnnlib.sealed.starting_weights import REGISTERED
from pipelines.tracking.model_uris import FORMS, ModelVersion, names_one_version, resolve
from pipelines.tracking.requirements import model_requirements
from pipelines.tracking.tags import read_tag, tag_key

if TYPE_CHECKING:
    import keras

# Tag of a registered version: the SHA-256 that its weights must have.
SHA256 = "model_sha256"

ARTIFACT_NAME = "model"
CODE_FILE = "sealed_model.py"

# The argument of `log_model` that names the model. MLflow 2 knows only artifact_path, and MLflow 3 warns about it.
_NAME_ARGUMENT = "name" if int(mlflow.__version__.partition(".")[0]) >= 3 else "artifact_path"

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
class FetchedModel:
    """A sealed model that was downloaded to this machine.

    `scored_with` has its registered name and version; for a model of a run, the name is its URI and the version None.
    """

    folder: Path
    card: ModelCard
    scored_with: ScoredWith


@contextmanager
def _as_model_error(uri: str) -> Iterator[None]:
    try:
        yield
    except (MlflowException, OSError) as error:
        raise ModelError(
            f"model={uri} cannot be read from {mlflow.get_tracking_uri()}: {first_line(error)}; name it as {FORMS}"
        ) from error


def find_version(name: str, wanted: str) -> ModelVersion:
    """Find a version of a registered model by its number or by an alias. Raises ModelError if there is none."""
    uri = f"{REGISTERED}{name}/{wanted}" if wanted.isdigit() else f"{REGISTERED}{name}@{wanted}"
    try:
        found = resolve(uri)
    except (MlflowException, ModelError) as error:
        raise ModelError(
            f"{name} has no version {wanted}: {first_line(error)}; name a registered version or an alias"
        ) from error
    assert isinstance(found, ModelVersion)  # both forms name one
    return found


def pin_version(uri: str) -> str:
    """Return models:/NAME/VERSION for an alias, a stage or latest, with the version that it names now.

    Any other URI is returned unchanged, without a request. Raises ModelError if there is no such model or alias.
    """
    # A version that has been deleted since must not stop a training that continues from its own checkpoint.
    if names_one_version(uri):
        return uri
    with _as_model_error(uri):
        return resolve(uri).uri


def check_model(uri: str) -> None:
    """Raise ModelError if a URI names no model of the connected store. Nothing is downloaded."""
    with _as_model_error(uri):
        resolve(uri)


def fetch_model(uri: str, folder: Path) -> FetchedModel:
    """Download the sealed model that a URI names into a folder. An alias, a stage or latest is resolved once.

    `uri` has one of `model_uris.FORMS`. Raises ModelError if there is no such model, version or alias, if it is not a
    sealed model, or if its weights are not the registered ones.
    """
    with _as_model_error(uri):
        found = resolve(uri)
        local = Path(mlflow.artifacts.download_artifacts(artifact_uri=found.uri, dst_path=str(folder)))
    card = predict.read_card(local / ARTIFACTS)
    if not isinstance(found, ModelVersion):
        return FetchedModel(local, card, ScoredWith(found.uri, None, card.model_sha256))
    registered = read_tag(found.tags, SHA256)
    if registered is not None and card.model_sha256 != registered:
        raise ModelError(
            f"the weights of {found.uri} have SHA-256 {card.model_sha256}, but {registered} was registered; "
            "register the model again"
        )
    return FetchedModel(local, card, ScoredWith(found.name, found.version, card.model_sha256))


@dataclass(frozen=True)
class TrainedOn:
    """The images that a model takes, and the image set that it was trained on.

    `class_shares` has one fraction of the train images per class, in label order; it is empty if they are not known.
    """

    image: ImageSpec
    classes: tuple[str, ...]
    fingerprint: str
    class_shares: tuple[float, ...] = ()
    limits: Limits = DEFAULT_LIMITS

    @classmethod
    def of(cls, image_set: ImageSet) -> "TrainedOn":
        """Describe a model that was trained on the train split of an image set."""
        train = image_set.splits[TRAIN]
        class_shares = tuple(shares_of(train.class_counts)) if train.rows else ()
        return cls(image_set.image, image_set.classes, image_set.fingerprint, class_shares, image_set.limits)


def log_sealed_model(
    model: "keras.Model",
    trained_on: TrainedOn,
    example: np.ndarray,
    *,
    register_as: str | None,
    confidence_shares: Sequence[float] = (),
) -> tuple[str, str | None]:
    """Seal a Keras model that outputs logits, log it with the active run, and register it as `register_as`.

    `example` is one image, (height, width, channels) uint8; it becomes the input example, as PNG. `confidence_shares`
    are described in `ModelCard`. Returns (model URI, registered version or None).
    """
    with TemporaryDirectory(prefix="sparkcnn-seal-") as temporary:
        folder = Path(temporary)
        card = seal(
            model,
            folder,
            image=trained_on.image,
            classes=trained_on.classes,
            fingerprint=trained_on.fingerprint,
            class_shares=trained_on.class_shares,
            confidence_shares=confidence_shares,
            limits=trained_on.limits,
        )
        code = folder / card.code_package
        # MLflow needs this module as a file on disk, but this package may be inside a zip, as spark-submit ships it.
        model_file = folder / CODE_FILE
        model_file.write_text(resources.files("pipelines.tracking").joinpath(CODE_FILE).read_text())
        with _importable(code):
            logged = mlflow.pyfunc.log_model(
                **{_NAME_ARGUMENT: ARTIFACT_NAME},
                python_model=str(model_file),
                artifacts={SEALED: str(folder / SEALED)},
                code_paths=[str(code)],
                signature=SIGNATURE,
                input_example=pd.DataFrame({IMAGE: [encode_png(example)]}),
                pip_requirements=model_requirements(),
                registered_model_name=register_as,
                metadata={"model_sha256": card.model_sha256, "fingerprint": card.fingerprint},
            )
    version = logged.registered_model_version
    if version is None or register_as is None:
        return logged.model_uri, None
    # The tag is in the registry, apart from the files, so whoever can change the files cannot change it with them.
    mlflow.MlflowClient().set_model_version_tag(register_as, str(version), tag_key(SHA256), card.model_sha256)
    return logged.model_uri, str(version)


@contextmanager
def _importable(package: Path) -> Iterator[None]:
    """Make a package importable for the body. MLflow 2 needs it: it loads a model before it has stored the code."""
    sys.path.append(str(package.parent))
    try:
        yield
    finally:
        sys.path.remove(str(package.parent))
