"""The predictions set: what scoring publishes.

A folder `predictions/` of Parquet files that any reader understands, and `summary.json`, written last and
atomically: only the files that it names belong to the set.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import pyarrow as pa

from cnnlib.config import PredictionSettings
from cnnlib.errors import LimitError, ModelError, OutputExistsError
from cnnlib.image_set.contract import IMAGE_ID, PATH
from cnnlib.predictions.drift import Stability
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
    """`SCHEMA`, and after it the columns that were asked for. Their lists are null for a row without a prediction."""
    asked = []
    if settings.top_k:
        # Most probable first.
        asked += [(TOP_LABELS, pa.int32()), (TOP_LABEL_NAMES, pa.string()), (TOP_PROBABILITIES, pa.float32())]
    if settings.probabilities:
        # By label.
        asked.append((PROBABILITIES, pa.float32()))
    if settings.embedding:
        asked.append((EMBEDDING, pa.float32()))
    return pa.schema([*SCHEMA, *(pa.field(name, pa.list_(values)) for name, values in asked)])


@dataclass(frozen=True)
class ScoredWith:
    """The model: its registered name and version (None for one of a run), and the SHA-256 of its weights."""

    name: str
    version: str | None
    sha256: str

    def __str__(self) -> str:
        return self.name if self.version is None else f"{self.name} version {self.version}"

    def as_dict(self) -> dict[str, str | None]:
        """The keys of `summary.json`."""
        return asdict(self)


@dataclass(frozen=True)
class Predictions:
    """A published predictions set.

    `counts` has this scoring's rows (in), scored and failed, where rows = scored + failed; where it was incremental,
    also skipped, which had predictions already: rows = scored + failed + skipped. `failed_by_code` has the errors.
    `complete` says that no more rows failed than was allowed; `seconds` passed while Spark's tasks ran, and
    `mlflow_run` is the id of the run that this was. `files` are all of the set, `columns` what they have. `stability`
    is None where the model does not know what it was trained on, or nothing was scored. `streams` says up to which
    batch each stream of new files is in the set, by the id of its checkpoint.
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
    stability: Stability | None = None

    @property
    def images_per_second(self) -> float:
        """How fast the rows that were not skipped went through."""
        return (self.counts["scored"] + self.counts["failed"]) / self.seconds if self.seconds else 0.0

    @property
    def model_version(self) -> str | None:
        """The registered version that scored."""
        return self.model.version

    @property
    def path(self) -> str:
        """Where the set lies."""
        return self.folder.uri

    def paths(self) -> list[str]:
        """Paths or URIs of the Parquet files that belong to the set, for Spark."""
        return [f"{self.folder.uri}/{file.path}" for file in self.files]


class IncompleteError(LimitError):
    """More rows failed than the settings allow; `predictions` are published, marked as incomplete."""

    def __init__(self, message: str, predictions: Predictions) -> None:
        super().__init__(message)
        self.predictions = predictions


@dataclass(frozen=True)
class EarlierPredictions:
    """What stands at an output path, to be added to: `summary.json` as it was read, {} where there is none."""

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
        """As in `Predictions`; nothing is missing where there is nothing."""
        return self.summary.get("complete", True)


def read_earlier(folder: Folder, columns: Sequence[str]) -> EarlierPredictions:
    """Read what stands in a folder. Raises OutputExistsError where its rows have other columns than these."""
    summary = folder.read_json(COMMIT) or {}
    there = summary.get("columns", list(columns))
    if there != list(columns):
        raise OutputExistsError(
            f"output.path={folder.uri} has predictions with the columns {', '.join(there)}, and these would have "
            f"{', '.join(columns)}; ask for the same, or choose another folder"
        )
    return EarlierPredictions(summary)


def publish_predictions(
    predictions: Predictions, settings: dict[str, Any], earlier: EarlierPredictions | None = None
) -> None:
    """Commit: write `summary.json`, then remove the files of the set that stood there before, but for those of it.

    With `earlier`, whose files are among those of the set, nothing else may have been published since it was read.
    Raises OutputExistsError where that is so, ModelError where the counts do not add up; then nothing is published.
    """
    if earlier is not None and (predictions.folder.read_json(COMMIT) or {}) != earlier.summary:
        raise OutputExistsError(
            f"output.path={predictions.folder.uri} got other predictions while these were made; nothing was published: "
            "run this again"
        )
    counts = predictions.counts
    if counts["rows"] != counts["scored"] + counts["failed"] + counts.get("skipped", 0):
        raise ModelError(
            f"the counts do not add up: {counts}; nothing was published, and this is a fault of sparkcnn: report it"
        )
    content = {
        "format_version": FORMAT_VERSION,
        "counts": counts,
        "complete": predictions.complete,
        "failed_by_code": predictions.failed_by_code,
        "model": predictions.model.as_dict(),
        "stability": None if predictions.stability is None else predictions.stability.as_dict(),
        "mlflow_run": predictions.mlflow_run,
        "columns": list(predictions.columns),
        "streams": dict(predictions.streams),
        "files": [file.as_dict() for file in predictions.files],
        "settings": settings,
    }
    commit(predictions.folder, COMMIT, content, keep={file.path for file in predictions.files})
