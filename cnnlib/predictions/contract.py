"""The predictions set that scoring publishes.

It is a folder with Parquet files in `predictions/`, which any reader understands, and `summary.json`. That file is
written last and atomically, so only the files that it names belong to the set.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import pyarrow as pa

from cnnlib.config import PredictionSettings
from cnnlib.errors import LimitError, ModelError, OutputExistsError
from cnnlib.image_set.contract import IMAGE_ID, PATH
from cnnlib.predictions.drift import Drift
from cnnlib.sealed.frozen.predict import ERROR, LABEL, LABEL_NAME, PROBABILITIES, PROBABILITY
from cnnlib.storage.folder import Folder, commit
from cnnlib.storage.parts import PartFile

COMMIT = "summary.json"
ROWS = "predictions"
FORMAT_VERSION = 1

MODEL_NAME = "model_name"
MODEL_VERSION = "model_version"
MODEL_SHA256 = "model_sha256"
SCORED_AT = "scored_at"
TOP_LABELS = "top_labels"
TOP_LABEL_NAMES = "top_label_names"
TOP_PROBABILITIES = "top_probabilities"
EMBEDDING = "embedding"

SCHEMA = pa.schema(
    [
        (IMAGE_ID, pa.string()),
        (PATH, pa.string()),
        (LABEL, pa.int32()),
        (LABEL_NAME, pa.string()),
        (PROBABILITY, pa.float64()),
        (MODEL_NAME, pa.string()),
        (MODEL_VERSION, pa.string()),
        (MODEL_SHA256, pa.string()),
        (ERROR, pa.string()),
        (SCORED_AT, pa.timestamp("us", tz="UTC")),
    ]
)


def schema_of(settings: PredictionSettings) -> pa.Schema:
    """Return `SCHEMA` followed by the list columns that the settings ask for.

    A list is null in a row without a prediction.

    >>> schema_of(PredictionSettings(top_k=2)).names[-4:]
    ['scored_at', 'top_labels', 'top_label_names', 'top_probabilities']
    """
    asked = []
    if settings.top_k:
        # The most probable class comes first.
        asked += [(TOP_LABELS, pa.int32()), (TOP_LABEL_NAMES, pa.string()), (TOP_PROBABILITIES, pa.float32())]
    if settings.probabilities:
        # In label order.
        asked.append((PROBABILITIES, pa.float32()))
    if settings.embedding:
        asked.append((EMBEDDING, pa.float32()))
    return pa.schema([*SCHEMA, *(pa.field(name, pa.list_(values)) for name, values in asked)])


@dataclass(frozen=True)
class ScoredWith:
    """The model of some predictions: registered name and version, and SHA-256 of the weights.

    The version is None for a model that a run logged and nobody registered.

    >>> str(ScoredWith("digits", "3", "a" * 64))
    'digits version 3'
    """

    name: str
    version: str | None
    sha256: str

    def __str__(self) -> str:
        return self.name if self.version is None else f"{self.name} version {self.version}"

    def as_dict(self) -> dict[str, str | None]:
        """Return the keys of `summary.json`."""
        return asdict(self)


@dataclass(frozen=True)
class Predictions:
    """A published predictions set.

    - `counts`: this scoring's rows, where rows = scored + failed. An incremental scoring also counts skipped rows,
      which had predictions already: rows = scored + failed + skipped.
    - `failed_by_code`: the number of failed rows, by error code.
    - `complete`: whether no more rows failed than the settings allow.
    - `seconds`: the time that Spark's tasks took.
    - `files`: all data files of the set, also those of earlier scorings; `columns` are their columns.
    - `mlflow_run`: the id of this scoring's run.
    - `streams`: for each stream of new files, the id of its checkpoint and the number of its last batch in the set.
    - `left_out`: the number of this scoring's files that are no images, by the reason or by the ending of their names.
    - `failed_examples`: the first failed rows of this scoring, as "path: error".
    - `drift`: None if the model does not know its training images, or if nothing was scored.
    """

    folder: Folder
    counts: dict[str, int]
    failed_by_code: dict[str, int]
    model: ScoredWith
    complete: bool
    seconds: float
    files: tuple[PartFile, ...]
    mlflow_run: str = ""
    columns: tuple[str, ...] = tuple(SCHEMA.names)
    streams: Mapping[str, int] = field(default_factory=dict)
    drift: Drift | None = None
    left_out: Mapping[str, int] = field(default_factory=dict)
    failed_examples: tuple[str, ...] = ()

    @property
    def images_per_second(self) -> float:
        """Speed of this scoring, over the rows that were not skipped."""
        return (self.counts["scored"] + self.counts["failed"]) / self.seconds if self.seconds else 0.0

    @property
    def model_version(self) -> str | None:
        """Registered version of the model."""
        return self.model.version

    @property
    def path(self) -> str:
        """URI of the set's folder."""
        return self.folder.uri

    def paths(self) -> list[str]:
        """Return the paths or URIs of the set's Parquet files, for Spark."""
        return [f"{self.folder.uri}/{file.path}" for file in self.files]


class IncompleteError(LimitError):
    """More rows failed than the settings allow. `predictions` are published, and marked as incomplete."""

    def __init__(self, message: str, predictions: Predictions) -> None:
        super().__init__(message, quoted=predictions.failed_examples)
        self.predictions = predictions


@dataclass(frozen=True)
class EarlierPredictions:
    """The predictions set that an output path holds already. `summary` is the content of `summary.json`, {} if none."""

    summary: dict[str, Any]

    @property
    def files(self) -> tuple[PartFile, ...]:
        """The data files of the set."""
        return tuple(PartFile(**file) for file in self.summary.get("files", ()))

    @property
    def streams(self) -> dict[str, int]:
        """As in `Predictions`."""
        return self.summary.get("streams", {})

    @property
    def complete(self) -> bool:
        """As in `Predictions`. Without a set, nothing is missing."""
        return self.summary.get("complete", True)


def read_earlier(folder: Folder, columns: Sequence[str]) -> EarlierPredictions:
    """Read the predictions set in a folder. Raises OutputExistsError if its columns are not these."""
    summary = folder.read_json(COMMIT) or {}
    existing = summary.get("columns", list(columns))
    if existing != list(columns):
        raise OutputExistsError(
            f"output.path={folder.uri} has predictions with the columns {', '.join(existing)}, but this job would "
            f"write {', '.join(columns)}; ask for the same columns, or choose another folder"
        )
    return EarlierPredictions(summary)


def publish_predictions(
    predictions: Predictions, settings: dict[str, Any], earlier: EarlierPredictions | None = None
) -> None:
    """Commit a predictions set: write `summary.json`, then remove all data files that do not belong to the set.

    `earlier` is the set that this one adds to; its files are among `predictions.files`. Raises OutputExistsError if
    another job published since `earlier` was read, and ModelError if the counts do not add up. Then nothing is
    published.
    """
    if earlier is not None and (predictions.folder.read_json(COMMIT) or {}) != earlier.summary:
        raise OutputExistsError(
            f"another job published predictions at output.path={predictions.folder.uri} while this one was scoring; "
            "this job published nothing: run it again"
        )
    counts = predictions.counts
    if counts["rows"] != counts["scored"] + counts["failed"] + counts.get("skipped", 0):
        raise ModelError(
            f"the counts do not add up: {counts}; nothing was published. This is a bug in sparkcnn: report it"
        )
    content = {
        "format_version": FORMAT_VERSION,
        "counts": counts,
        "complete": predictions.complete,
        "failed_by_code": predictions.failed_by_code,
        "left_out": dict(predictions.left_out),
        "model": predictions.model.as_dict(),
        "stability": None if predictions.drift is None else predictions.drift.as_dict(),
        "mlflow_run": predictions.mlflow_run,
        "columns": list(predictions.columns),
        "streams": dict(predictions.streams),
        "files": [file.as_dict() for file in predictions.files],
        "settings": settings,
    }
    commit(predictions.folder, COMMIT, content, keep={file.path for file in predictions.files})
