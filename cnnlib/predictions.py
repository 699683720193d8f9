"""The predictions set: what scoring publishes.

A folder `predictions/` of Parquet files that any reader understands, and `summary.json`, written last and
atomically: only the files that it names belong to the set.
"""

from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa

from cnnlib.errors import ModelError
from cnnlib.imageset import IMAGE_ID, PATH
from cnnlib.parts import PartFile
from cnnlib.predict import ERROR, LABEL, LABEL_NAME, PROBABILITY
from cnnlib.storage import Folder, commit

COMMIT = "summary.json"
ROWS = "predictions"
FORMAT_VERSION = 1

MODEL_NAME = "model_name"
MODEL_VERSION = "model_version"
MODEL_SHA256 = "model_sha256"
SCORED_AT = "scored_at"

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

    `counts` has rows (in), scored and failed, where rows = scored + failed; `failed_by_code` the errors. `complete`
    says that no more rows failed than was allowed; `seconds` passed while Spark's tasks ran, and `mlflow_run` is the
    id of the run that this was.
    """

    folder: Folder
    counts: dict[str, int]
    failed_by_code: dict[str, int]
    model: ScoredWith
    complete: bool
    seconds: float
    mlflow_run: str
    files: tuple[PartFile, ...]

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


def publish_predictions(predictions: Predictions, settings: dict[str, Any]) -> None:
    """Commit: write `summary.json`, then remove the files of the set that stood there before.

    Raises ModelError, and publishes nothing, when the counts do not add up.
    """
    counts = predictions.counts
    if counts["rows"] != counts["scored"] + counts["failed"]:
        raise ModelError(
            f"the counts do not add up: {counts}; nothing was published, and this is a fault of sparkcnn: report it"
        )
    content = {
        "format_version": FORMAT_VERSION,
        "counts": counts,
        "complete": predictions.complete,
        "failed_by_code": predictions.failed_by_code,
        "model": predictions.model.as_dict(),
        "mlflow_run": predictions.mlflow_run,
        "files": [file.as_dict() for file in predictions.files],
        "settings": settings,
    }
    commit(predictions.folder, COMMIT, content, keep={file.path for file in predictions.files})
