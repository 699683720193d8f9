"""An MLflow run that is not yet ended: log its settings, metrics, checkpoints and results, and read them back."""

import errno
import json
import math
import shlex
import sys
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import urlsplit

import mlflow
import requests
import tenacity
from mlflow import MlflowClient
from mlflow.data.dataset_source_registry import resolve_dataset_source
from mlflow.data.http_dataset_source import HTTPDatasetSource
from mlflow.data.meta_dataset import MetaDataset
from mlflow.entities import Metric, Param
from mlflow.exceptions import MlflowException
from mlflow.utils.file_utils import local_file_uri_to_path
from mlflow.utils.mlflow_tags import MLFLOW_RUN_NAME

from cnnlib.errors import TrackingError, first_line
from cnnlib.image_set.contract import ImageSet
from cnnlib.predictions.contract import Predictions
from cnnlib.storage.folder import REPORT
from pipelines.tracking.store import SQLITE, is_server, sqlite_file
from pipelines.tracking.tags import read_tag, tag_key

ARTIFACTS_FOLDER = "mlartifacts"
CHECKPOINTS = "checkpoints"
IMAGE_SET = "image_set"
EVALUATION = "evaluation"
RATE_SWEEP = "learning_rate"

# MLflow keeps at most 36 characters of the digest of a data set. A tag of the run has the whole fingerprint.
DIGEST_CHARACTERS = 36
# Tags of runs, as `tags` takes them.
FINGERPRINT, IMAGES, MODEL, PREDICTIONS, WARNINGS = "fingerprint", "images", "model", "predictions", "warnings"
BEST_EPOCH, BEST_TRIAL, LATEST, PROGRESS = "best_epoch", "best_trial", "latest_checkpoint", "progress"

UI_PORT = 5000

_CANNOT_BE_WRITTEN = {
    errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EEXIST, errno.ENOTDIR,
}  # fmt: skip


def _is_cut_off(error: BaseException | None) -> bool:
    """Return whether the server's answer broke off in the middle."""
    while error is not None and not isinstance(error, requests.exceptions.ChunkedEncodingError):
        error = error.__cause__ or error.__context__
    return error is not None


# MLflow repeats a call until the head of an answer arrives, but gives up if the rest breaks off, for example because
# the server stops in the middle of it. The server may or may not have done its work. So repeat only calls that may be
# done twice.
_repeat_if_cut_off = tenacity.retry(
    retry=tenacity.retry_if_exception(_is_cut_off),
    wait=tenacity.wait_fixed(1),
    stop=tenacity.stop_after_attempt(5),
    reraise=True,
)


@dataclass(frozen=True)
class Tracker:
    """An MLflow run that is not yet ended. Any process that reaches the store can use it."""

    run_id: str
    experiment_id: str
    uri: str

    @property
    def _client(self) -> MlflowClient:
        return MlflowClient(self.uri)

    def log_settings(self, settings: Mapping[str, Any]) -> None:
        """Log every resolved setting as a parameter, under its dotted name."""
        self._log(params=[Param(name, str(value)) for name, value in settings.items()])

    def log_image_set(self, image_set: ImageSet) -> None:
        """Log the location, fingerprint and counts of the image set that the active run trains on, and its report."""
        log_input(image_set.folder.uri, image_set.fingerprint, "training")
        self.set_tag(FINGERPRINT, value=image_set.fingerprint)
        for name, count in vars(image_set.counts).items():
            self.set_tag(IMAGES, name, value=str(count))
        report = image_set.folder.path(REPORT)
        if image_set.folder.fs.exists(report):
            with TemporaryDirectory(prefix="sparkcnn-report-") as temporary:
                image_set.folder.fs.get_file(report, f"{temporary}/{REPORT}")
                self._upload(Path(temporary), IMAGE_SET)

    def log_scoring(self, predictions: Predictions) -> None:
        """Log the counts, the speed and the drift of a scoring.

        Raises TrackingError if the store fails. The predictions are already published then.
        """
        speed = {"images_per_second": predictions.images_per_second}
        by_code = {f"failed_{code}": count for code, count in predictions.failed_by_code.items()}
        drift = {} if predictions.drift is None else predictions.drift.as_dict()
        indices = {f"stability_{name}": index for name, index in drift.items() if index is not None}
        try:
            self._log_metrics(speed | predictions.counts | by_code | indices)
            self.set_tag(PREDICTIONS, value=predictions.path)
        except MlflowException as error:
            raise TrackingError(
                f"the predictions are published at {predictions.path}, but tracking.uri={self.uri} did not accept "
                f"their counts: {first_line(error)}"
            ) from error

    def log_evaluation(self, metrics: Mapping[str, float], folder: Path) -> None:
        """Log the metrics of an evaluation, and upload its files as evaluation/."""
        # MLflow rejects NaN metrics, so leave them out: a model that could read no image has no loss.
        self._log_metrics({name: value for name, value in metrics.items() if math.isfinite(value)})
        self._upload(folder, EVALUATION)

    def log_files(self, folder: Path) -> None:
        """Upload the files of a folder as artifacts of the run."""
        self._upload(folder, None)

    def location_of(self, artifact: str) -> str:
        """Return where people find an artifact of the run: a path on this machine, or a page of the MLflow UI."""
        uri = self._client.get_run(self.run_id).info.artifact_uri
        if urlsplit(uri).scheme in ("", "file"):
            return f"{local_file_uri_to_path(uri)}/{artifact}"
        return f"{self.run_url}/artifacts/{artifact}"

    def log_epoch(self, epoch: int, metrics: Mapping[str, float]) -> None:
        """Log the metrics of an epoch. `epoch` counts from 1 and is MLflow's step."""
        self._log_metrics(metrics, step=epoch)

    def _log_metrics(self, metrics: Mapping[str, float], step: int = 0) -> None:
        now = int(time.time() * 1000)
        self._log(metrics=[Metric(name, value, now, step) for name, value in metrics.items()])

    @_repeat_if_cut_off
    def _log(self, metrics: Sequence[Metric] = (), params: Sequence[Param] = ()) -> None:
        """Log both. A store keeps only one of two equal metrics or parameters, so this may be repeated."""
        self._client.log_batch(self.run_id, metrics, params)

    def log_checkpoint(self, epoch: int, folder: Path) -> None:
        """Upload a checkpoint folder as checkpoints/epoch-0001, and call it the latest only after that."""
        self._upload(folder, f"{CHECKPOINTS}/{folder.name}")
        self.set_tag(LATEST, value=str(epoch))

    @_repeat_if_cut_off
    def _upload(self, folder: Path, artifact_path: str | None) -> None:
        """Upload the files of a folder; they replace files of the same name in the run.

        Raises TrackingError if nothing can be written where the store keeps its artifacts.
        """
        try:
            self._client.log_artifacts(self.run_id, str(folder), artifact_path)
        except OSError as error:
            # Errors of a connection are OSErrors too, and are repeated.
            if error.errno not in _CANNOT_BE_WRITTEN:
                raise
            kept = self._client.get_run(self.run_id).info.artifact_uri
            raise TrackingError(
                f"the artifacts of run {self.run_id} are kept in {kept}, and something there cannot be written: "
                f"{first_line(error)}; mend that, or name another tracking.experiment or tracking.uri"
            ) from error

    def log_best(self, epoch: int, metric: str, value: float) -> None:
        """Log which epoch is the best one, and its value, so that runs can be sorted by it."""
        self.set_tag(BEST_EPOCH, value=str(epoch))
        self._log_metrics({f"best_{metric}": value})

    def log_rate_sweep(self, folder: Path) -> None:
        """Upload the files of a sweep of the learning rate as learning_rate/."""
        self._upload(folder, RATE_SWEEP)

    @_repeat_if_cut_off
    def fetch_rate_sweep(self, file: str, folder: Path) -> Path:
        """Download a file of `log_rate_sweep` into a folder, and return its path."""
        return Path(self._client.download_artifacts(self.run_id, f"{RATE_SWEEP}/{file}", str(folder)))

    def log_warnings(self, warnings: Sequence[str]) -> None:
        """Keep the warnings of a training, if there are any, as a tag."""
        if warnings:
            self.set_tag(WARNINGS, value="\n".join(warnings))

    def log_best_trial(self, number: int, metric: str, value: float) -> None:
        """Log which trial of a study is the best one, and its value, so that studies can be sorted by it."""
        self.set_tag(BEST_TRIAL, value=str(number))
        self._log_metrics({f"best_{metric}": value})

    @_repeat_if_cut_off
    def set_tag(self, *parts: str, value: str) -> None:
        """Set a tag of the run; `parts` are those of its key."""
        self._client.set_tag(self.run_id, tag_key(*parts), value)

    @_repeat_if_cut_off
    def set_name(self, name: str) -> None:
        """Give the run a name."""
        self._client.set_tag(self.run_id, MLFLOW_RUN_NAME, name)

    @_repeat_if_cut_off
    def name(self) -> str | None:
        """Return the name of the run as the store has it now, or None if it has none."""
        return self._client.get_run(self.run_id).info.run_name

    @_repeat_if_cut_off
    def tag(self, *parts: str) -> str | None:
        """Return a tag of the run as the store has it now, or None if it is not set."""
        return read_tag(self._client.get_run(self.run_id).data.tags, *parts)

    def progress(self) -> dict[str, Any] | None:
        """Return the latest progress that rank 0 sent, {} if it sent none yet, None if the store does not answer."""
        try:
            return json.loads(self.tag(PROGRESS) or "{}")
        except MlflowException:
            return None

    def latest_epoch(self) -> int:
        """Return the epoch (from 1) of the latest checkpoint in the run, or 0 if it has none."""
        return int(self.tag(LATEST) or 0)

    @_repeat_if_cut_off
    def logged_epochs(self, metric: str) -> set[int]:
        """Return the epochs for which the run has a value of a metric."""
        return {value.step for value in self._client.get_metric_history(self.run_id, metric)}

    @_repeat_if_cut_off
    def fetch_checkpoint(self, epoch: int, folder: Path) -> Path:
        """Download the checkpoint of an epoch into a folder, and return its path."""
        # Imported here because it imports Keras: doctor examines a store even if Keras does not work.
        from cnnlib.training.checkpoints import checkpoint_folder

        name = checkpoint_folder(Path(CHECKPOINTS), epoch).as_posix()
        folder.mkdir(parents=True, exist_ok=True)  # MLflow 2 does not do it
        return Path(self._client.download_artifacts(self.run_id, name, str(folder)))

    @property
    def ui_command(self) -> str | None:
        """The command that serves the MLflow UI, for the working folder; None if a server already serves it."""
        if not self.uri.startswith(SQLITE):
            return None
        mlflow_command = _relative_to_working_folder(Path(sys.executable).with_name("mlflow"))
        store = f"{SQLITE}{_relative_to_working_folder(sqlite_file(self.uri))}"
        return shlex.join([str(mlflow_command), "ui", "--backend-store-uri", store, "--port", str(UI_PORT)])

    @property
    def run_url(self) -> str:
        """The address of this run's page in the MLflow UI, or the run's id if the address is not known."""
        if self.uri.startswith(SQLITE) or is_server(self.uri):
            server = self.uri.rstrip("/") if is_server(self.uri) else f"http://127.0.0.1:{UI_PORT}"
            return f"{server}/#/experiments/{self.experiment_id}/runs/{self.run_id}"
        return self.run_id


def log_input(uri: str, digest: str, context: str) -> None:
    """Log what the active run reads: its location, and a digest that changes when the content changes."""
    with warnings.catch_warnings():
        # MLflow has two names for its class of local folders, and warns that it has to choose one.
        warnings.simplefilter("ignore", UserWarning)
        try:
            source = resolve_dataset_source(uri)
        except MlflowException:
            # MLflow has no class for s3a:, dbfs: and other schemes; this one takes any URI.
            source = HTTPDatasetSource(uri)
    name = uri.rstrip("/").rsplit("/", 1)[-1]
    dataset = MetaDataset(source, name=name, digest=digest[:DIGEST_CHARACTERS])  # type: ignore[abstract]
    mlflow.log_input(dataset, context=context)


def _relative_to_working_folder(path: Path) -> Path:
    """Shorten a path as one would type it in the working folder, if it is below that folder."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
